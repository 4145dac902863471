"""Postgres + pgvector: the tier for memory that many agents share; source and target."""

from __future__ import annotations

from migrate.backends.base import Options
from migrate.backends.postgres.ddl import fit
from migrate.backends.postgres.source import PostgresSource
from migrate.backends.postgres.target import PostgresTarget
from migrate.config import PostgresSettings

__all__ = ["fit", "source", "target"]


def source(settings: PostgresSettings) -> PostgresSource:
    """Open a schema for reading. Raises ConfigError where it cannot be reached."""
    return PostgresSource(settings)


def target(settings: PostgresSettings, options: Options) -> PostgresTarget:
    """Return a schema for writing; it is connected to by the first look at it."""
    return PostgresTarget(settings, options)
