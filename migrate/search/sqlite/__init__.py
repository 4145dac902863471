"""Search in a SQLite file: exact neighbours and an HNSW sidecar, FTS5, filters, the knowledge graph."""

from __future__ import annotations

from migrate.config import SqliteSettings
from migrate.search.base import Means
from migrate.search.sqlite.searching import SqliteSearch

__all__ = ["searchable"]


def searchable(settings: SqliteSettings, means: Means) -> SqliteSearch:
    """Return a file as a `Searchable`. Raises ConfigError where it is no readable SQLite database."""
    return SqliteSearch(settings.path, means)
