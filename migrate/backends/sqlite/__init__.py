"""SQLite: an agent's first memory, one file; source and target."""

from __future__ import annotations

from migrate.backends.base import Options
from migrate.backends.sqlite.ddl import fit
from migrate.backends.sqlite.source import SqliteSource
from migrate.backends.sqlite.target import SqliteTarget
from migrate.config import SqliteSettings

__all__ = ["fit", "source", "target"]


def source(settings: SqliteSettings) -> SqliteSource:
    """Open a file for reading. Raises ConfigError where it is no readable SQLite database."""
    return SqliteSource(settings.path)


def target(settings: SqliteSettings, options: Options) -> SqliteTarget:
    """Return a file for writing; it is made by the first write, not before."""
    return SqliteTarget(settings.path, options)
