"""Search in Postgres: pgvector, tsvector, and both fused in one statement."""

from __future__ import annotations

from migrate.config import PostgresSettings
from migrate.search.base import Means
from migrate.search.postgres.store import PostgresSearch

__all__ = ["searchable"]


def searchable(settings: PostgresSettings, means: Means) -> PostgresSearch:
    """Open a schema for searching. Raises ConfigError where it cannot be reached."""
    return PostgresSearch(settings, means)
