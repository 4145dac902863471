"""Postgres + pgvector: the tier for memory that many agents share; source and target."""

from __future__ import annotations

from dataclasses import replace

from migrate.backends.base import Fit, Options
from migrate.backends.postgres.ddl import defaults_left
from migrate.backends.postgres.source import PostgresSource
from migrate.backends.postgres.target import PostgresTarget
from migrate.backends.postgres.types import fit as fit_of_types
from migrate.config import PostgresSettings
from migrate.schema import Table

__all__ = ["fit", "source", "target"]


def fit(table: Table, options: Options) -> Fit:
    """Return what Postgres with pgvector can hold of a table; defaults that it will not have are noted."""
    found = fit_of_types(table, options)
    left = (f"{text}: does not translate, and is left out" for text in defaults_left(table, options))
    return replace(found, notes=(*found.notes, *left))


def source(settings: PostgresSettings) -> PostgresSource:
    """Open a schema for reading. Raises ConfigError where it cannot be reached."""
    return PostgresSource(settings)


def target(settings: PostgresSettings, options: Options) -> PostgresTarget:
    """Return a schema for writing; it is connected to by the first look at it."""
    return PostgresTarget(settings, options)
