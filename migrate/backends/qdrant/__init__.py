"""Qdrant, embedded or as a server: the tier for 10M to 1B+ vectors; source and target.

Collections hold the tables with vectors; a sidecar (`migrate.backends.sidecar`) all others.
"""

from __future__ import annotations

from dataclasses import replace

from migrate import backends
from migrate.backends.base import Options
from migrate.backends.qdrant.engine import Limits
from migrate.backends.qdrant.fit import fit as collection_fit
from migrate.backends.qdrant.settings import sidecar_of
from migrate.backends.qdrant.shape import is_collection
from migrate.backends.qdrant.source import QdrantSource
from migrate.backends.qdrant.target import QdrantTarget
from migrate.config import QdrantSettings
from migrate.fit import Fit
from migrate.schema import Table

__all__ = ["fit", "sidecar_of", "source", "target"]


def source(settings: QdrantSettings) -> QdrantSource:
    """Open a store for reading. Raises ConfigError where it cannot be read whole."""
    return QdrantSource(settings)


def target(settings: QdrantSettings, options: Options) -> QdrantTarget:
    """Return a store for writing; it is made by the first write, not before."""
    return QdrantTarget(settings, options)


def fit(table: Table, options: Options) -> Fit:
    """Return what Qdrant can hold of a table, whatever the address; `QdrantTarget.fit` knows it exactly.

    Tables without vectors go to a sidecar, by default a SQLite file.
    """
    if is_collection(table):
        return collection_fit(table, options, Limits())
    found: Fit = backends.load("sqlite").fit(table, replace(options, layout=None))
    return found
