"""Search in Qdrant: dense and BM25 vectors, fused by the server, with payload filters."""

from __future__ import annotations

from migrate.backends.qdrant.settings import sidecar_of
from migrate.config import QdrantSettings
from migrate.search.base import Means
from migrate.search.beside import WithSidecar
from migrate.search.qdrant.store import QdrantSearch

__all__ = ["searchable"]


def searchable(settings: QdrantSettings, means: Means) -> WithSidecar:
    """Open a store for searching. Raises ConfigError where it cannot be reached, or its sidecar is missing."""
    return WithSidecar(QdrantSearch(settings), sidecar_of(settings), means)
