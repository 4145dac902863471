"""Nearest neighbours in a SQLite file: by the sidecar where it is up to date, else by every vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import ident
from migrate.backends.sqlite.vectorscan import can_scan
from migrate.errors import ConfigError
from migrate.hnsw import graph, settings
from migrate.hnsw.sidecar import Sidecar
from migrate.schema import Column
from migrate.search.base import Health, Means, Searched
from migrate.search.sqlite import indexed
from migrate.search.sqlite.exact import Compared, Exact
from migrate.search.sqlite.indexed import Masks, Met
from migrate.search.sqlite.reading import Reading
from migrate.search.sqlite.scores import Asked
from migrate.search.sqlite.where import Allowed

EVERY_VECTOR = "every vector"
SIDECAR = "HNSW sidecar"
_NO_EXTRA = "hnswlib is not installed, so every vector is looked at: pip install 'memlift[hnsw]'"
_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Nearby:
    """What was found near a vector.

    found: (rowid, score), best first, equal scores in the order of their keys; of tables without
           rowid (key, score).
    """

    found: list[tuple[Any, float]]
    how: str
    notes: tuple[str, ...] = ()


class Nearest:
    """Finds the nearest rows of a file; kept from one query to the next, for one at a time."""

    def __init__(self, path: Path, means: Means) -> None:
        self._path, self._means = path, means
        self._exact = Exact(means.cache_bytes)
        self._sidecars: dict[_Name, Sidecar] = {}
        self._masks: dict[_Name, Masks] = {}
        self._met: dict[_Name, Met] = {}

    def search(
        self,
        at: Reading,
        searched: Searched,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> Nearby:
        """Return the k rows nearest to a vector, of those that are allowed.

        exact: look at every vector, whatever index there is. Raises ConfigError where the
        vector cannot be compared with the column's.
        """
        column = _column(searched)
        asked = Asked.of(searched.metric, vector, column.dim or 0)
        if k < 1:
            return Nearby([], EVERY_VECTOR)
        sidecar = None
        if not exact and self._means.hnsw and _without(at, searched) is None:
            sidecar = self._sidecar(at, searched, column)
            found = self._by_index(sidecar, at, searched, column, asked, k, allowed)
            if found is not None:
                return Nearby(found, SIDECAR)
        compared = self._exact.search(at, searched, column, asked, k, allowed)
        notes = _notes(searched, compared)
        if not exact and self._means.hnsw and _is_large(at, searched, compared, filtered=allowed is not None):
            notes = (*self._prepared(sidecar, at, searched), *notes)
        return Nearby(compared.found, EVERY_VECTOR, notes)

    def _by_index(
        self,
        sidecar: Sidecar,
        at: Reading,
        searched: Searched,
        column: Column,
        asked: Asked,
        k: int,
        allowed: Allowed | None,
    ) -> list[tuple[Any, float]] | None:
        """Return what the sidecar finds, or None where every vector is to be looked at."""
        name = (searched.name, column.name)
        mask, held = None, self._exact.held(name, at.state)
        met = self._met.setdefault(name, Met())
        if allowed is None and held is None:
            near = indexed.glanced(sidecar, at, searched, column, asked, k, met)
            if near is not None:
                return near
        with sidecar.using(at.state) as index:
            if index is None:
                return None
            if allowed is not None:
                mask = self._masks.setdefault(name, Masks()).of(index, at, searched, allowed)
            return indexed.near(at, searched, column, asked, k, index, mask, held, met)

    def _prepared(self, sidecar: Sidecar | None, at: Reading, searched: Searched) -> tuple[str, ...]:
        """Have the sidecar ready for the next query, and say why this one did without."""
        if sidecar is None:
            return (_without(at, searched) or "",)
        if not sidecar.is_at(at.state):
            note = sidecar.note
            sidecar.refresh(at.state)
            return (note or f"{sidecar.name} is being brought up to date",)
        return (sidecar.note,) if sidecar.note else ()

    def _sidecar(self, at: Reading, searched: Searched, column: Column) -> Sidecar:
        name = (searched.name, column.name)
        found = self._sidecars.get(name)
        here = at.at(searched).table
        if found is None or not found.is_of(here, column, searched.metric):
            if found is not None:
                found.close(wait=False)
            found = self._sidecars[name] = Sidecar(self._path, here, column, searched.metric)
        return found

    def health(self, at: Reading, searched: Searched) -> Health:
        """Return what stands ready for a table."""
        column = _column(searched)
        if not self._means.hnsw or _without(at, searched) is not None:
            return Health(None, searched.metric)
        sidecar = self._sidecar(at, searched, column)
        with sidecar.using(at.state) as index:
            if index is not None:
                problems = (sidecar.note,) if sidecar.note else ()
                name = f"{SIDECAR} {sidecar.name}"
                return Health(name, searched.metric, index.count, index.count, problems)
        return Health(None, searched.metric, problems=(sidecar.note,) if sidecar.note else ())

    def close(self) -> None:
        """Let go of everything, once sidecars that are being made are written. Idempotent."""
        for sidecar in self._sidecars.values():
            if sidecar.working:
                self._means.say(f"bringing {sidecar.name} up to date; Ctrl-C leaves it for another time")
            sidecar.close()
        self._sidecars.clear()
        self._met.clear()
        self._exact.forget()


def _is_large(at: Reading, searched: Searched, compared: Compared, *, filtered: bool) -> bool:
    """Whether a table may have enough vectors for a sidecar; those that a filter left out count as well."""
    if compared.total >= settings.BUILD_FROM or not filtered:
        return compared.total >= settings.BUILD_FROM
    name, column = relation(at.at(searched).table), ident(_column(searched).name)
    some = (
        f"SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {column} IS NOT NULL LIMIT {settings.BUILD_FROM})"
    )
    return bool(at.connection.execute(some).fetchone()[0] >= settings.BUILD_FROM)


def _without(at: Reading, searched: Searched) -> str | None:
    """Say why a column can have no sidecar, or None where it can."""
    if searched.metric not in settings.SPACES:
        return f"an HNSW index knows no {searched.metric.value} distance, so every vector is looked at"
    if at.at(searched).rowid is None:
        return f"{searched.name} has no rowids, so every vector is looked at"
    return _NO_EXTRA if graph.installed() is None else None


def _column(searched: Searched) -> Column:
    column = searched.vector
    if column is None or not can_scan(column):
        raise ConfigError(
            f"{searched.name} has no dense vectors to compare", hint="ask another table, or by words"
        )
    return column


def _notes(searched: Searched, compared: Compared) -> tuple[str, ...]:
    parts = [compared.left.words()] if compared.left.any else []
    if compared.directionless:
        parts.append(f"{compared.directionless:,} all zeros, which have no direction")
    return (f"{searched.name}: not compared: {', '.join(parts)}",) if parts else ()
