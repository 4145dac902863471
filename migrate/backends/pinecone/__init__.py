"""Pinecone, serverless: source and target.

Rows with a vector are records of a namespace for each table; a sidecar (`migrate.backends.sidecar`)
has all other tables, the rows without a vector, and exact cells.
"""

from __future__ import annotations

from dataclasses import replace

from migrate import backends
from migrate.backends.base import Options
from migrate.backends.pinecone.fit import fit as records_fit
from migrate.backends.pinecone.indexes import sidecar_of
from migrate.backends.pinecone.prices import foretell
from migrate.backends.pinecone.shape import is_records
from migrate.backends.pinecone.source import PineconeSource
from migrate.backends.pinecone.target import PineconeTarget
from migrate.config import PineconeSettings
from migrate.fit import Fit
from migrate.schema import Table

__all__ = ["VERIFY", "fit", "foretell", "sidecar_of", "source", "target"]

VERIFY = "sample"  # where nobody says otherwise: reading all records back costs read units


def source(settings: PineconeSettings) -> PineconeSource:
    """Open a store for reading. Raises ConfigError where it cannot be read whole."""
    return PineconeSource(settings)


def target(settings: PineconeSettings, options: Options) -> PineconeTarget:
    """Return a store for writing; indexes are made by the first write, not before."""
    return PineconeTarget(settings, options)


def fit(table: Table, options: Options) -> Fit:
    """Return what Pinecone can hold of a table; tables without vectors go to a SQLite file beside it."""
    if is_records(table):
        return records_fit(table, options)
    found: Fit = backends.load("sqlite").fit(table, replace(options, layout=None))
    return found
