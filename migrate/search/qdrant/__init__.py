"""Search in Qdrant: dense and BM25 vectors, fused by the server, with payload filters."""

from __future__ import annotations

from migrate.config import QdrantSettings
from migrate.search.base import Means
from migrate.search.qdrant.store import QdrantSearch

__all__ = ["searchable"]


def searchable(settings: QdrantSettings, means: Means) -> QdrantSearch:
    """Open a store for searching. Raises ConfigError where it cannot be reached, or its sidecar is missing."""
    return QdrantSearch(settings, means)
