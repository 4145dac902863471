"""Search in Pinecone: by vector, with metadata filters, in the namespaces of a table."""

from __future__ import annotations

from migrate.backends.pinecone.indexes import sidecar_of
from migrate.config import PineconeSettings
from migrate.search.base import Means
from migrate.search.beside import WithSidecar
from migrate.search.pinecone.store import PineconeSearch

__all__ = ["searchable"]


def searchable(settings: PineconeSettings, means: Means) -> WithSidecar:
    """Open an index for searching. Raises ConfigError where it cannot be reached."""
    return WithSidecar(PineconeSearch(settings), sidecar_of(settings), means)
