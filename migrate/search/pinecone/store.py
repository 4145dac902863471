"""The records of a Pinecone store as a `Searchable`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from migrate.backends.pinecone.limits import SPARSE_VALUES
from migrate.backends.pinecone.names import metric_of
from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.shape import Shape
from migrate.backends.pinecone.source import PineconeSource
from migrate.backends.pinecone.wire import Record
from migrate.config import PineconeSettings
from migrate.errors import ConfigError
from migrate.schema import Column, Metric, Table
from migrate.search import cells, filters, fuse, text
from migrate.search.base import (
    Answer,
    Health,
    Hit,
    Key,
    Mode,
    Query,
    Searched,
    Sparse,
    Vector,
)
from migrate.search.hits import hit
from migrate.search.pinecone.where import Translated, where
from migrate.search.shape import searched_tables
from migrate.search.sqlite import scores

MOST_FOUND = 1000  # records of one answer with their metadata; it may have 4 MB
_MOST_LISTED = 10_000  # ids that a sample is drawn from: 100 requests
_NO_EXACT = "Pinecone has no exact search: its index answered"
Found = list[tuple[Record, float]]


@dataclass(frozen=True, slots=True)
class _Spot:
    """A table's place. column: the vectors that the index compares, dense or sparse."""

    searched: Searched
    plane: Plane
    namespaces: list[str]
    shape: Shape
    column: Column


class PineconeSearch:
    """An open store that answers queries."""

    def __init__(self, settings: PineconeSettings) -> None:
        self._settings = settings
        self._source = PineconeSource(settings)
        self._spots: dict[str, _Spot] = {}
        try:
            for searched in searched_tables(self._source, sparse=True):
                spot = self._spot_of(searched)
                if spot is not None:
                    self._spots[searched.name] = spot
        except BaseException:
            self.close()
            raise

    def names(self) -> set[str]:
        """See `Own.names`."""
        return {t.name for t in self._source.tables() if self._source.kept(t) is not None}

    def _spot_of(self, searched: Searched) -> _Spot | None:
        kept = self._source.kept(searched.table)
        if kept is None:
            return None  # a table of the sidecar
        plane, namespaces, shape = kept
        # Beside dense ones an index compares sparse vectors only together with them ("Hybrid search").
        dense = shape.dense >= 0
        column = shape.table.columns[shape.dense if dense else shape.sparse]
        searched = replace(
            searched,
            vector=column if dense else None,
            sparse=None if dense else column,
            tenants=tuple(namespaces) if shape.native and searched.tenant == "namespace" else (),
        )
        return _Spot(searched, plane, namespaces, shape, column)

    def describe(self) -> str:
        """See `Searchable.describe`."""
        return self._source.describe()

    def close(self) -> None:
        """See `Searchable.close`."""
        self._source.close()

    def tables(self) -> Sequence[Searched]:
        """See `Searchable.tables`."""
        return tuple(spot.searched for spot in self._spots.values())

    def _spot(self, searched: Searched) -> _Spot:
        try:
            return self._spots[searched.name]
        except KeyError:
            raise ConfigError(f"{self.describe()} has no records of {searched.name} to search") from None

    # --- queries --------------------------------------------------------------

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`. Words are refused: reading every record for them would cost read units."""
        spot = self._spot(searched)
        if query.mode is not Mode.VECTOR:
            raise ConfigError(
                f"the Pinecone index of {searched.name} has no words to search",
                hint="search it by vector, or by words in a store that has them",
            )
        asked = _compared(spot, query)
        wanted = filters.condition(searched.table, query.where, searched.tenant, query.tenant)
        elsewhere = self._source.aside(searched.table) if wanted != filters.All(()) else frozenset()
        translated = where(wanted, searched.table, foreign=spot.shape.native, aside=elsewhere)
        if translated is None:
            return Answer((), "Pinecone")
        found = self._near(spot, asked, wanted, translated, query.k)
        return Answer(self._hits(spot, found, query), "Pinecone", (_NO_EXACT,) if query.exact else ())

    def _near(
        self, spot: _Spot, near: dict[str, Any], wanted: filters.Filter, translated: Translated, n: int
    ) -> Found:
        """Return the n nearest records that satisfy a filter, best first.

        near: the part of a request that says to what.
        Raises ConfigError where Pinecone cannot say the filter, and too few of the nearest satisfy it.
        """
        limit = min(MOST_FOUND, n if translated.exact else max(4 * n, 64))
        while True:
            asked: dict[str, Any] = {"topK": limit, "includeMetadata": True, **near}
            if translated.filter is not None:
                asked["filter"] = translated.filter
            lists = [spot.plane.query(namespace, asked) for namespace in spot.namespaces]
            found = [(record, _score(spot, score)) for one in lists for record, score in one]
            if "sparseVector" in near:
                found = [pair for pair in found if pair[1]]  # the others have no index in common
            found.sort(key=lambda pair: -pair[1])
            kept = found if translated.exact else self._holding(spot, found, wanted)
            if len(kept) >= n or all(len(one) < limit for one in lists):
                return kept[:n]
            if limit >= MOST_FOUND:
                if translated.exact:
                    return kept
                raise ConfigError(
                    f"Pinecone cannot say this filter, and of the {MOST_FOUND:,} nearest only {len(kept)} satisfy it",
                    hint="filter by plain columns as well, or ask for fewer",
                )
            limit = min(MOST_FOUND, 4 * limit)

    def _rows(self, spot: _Spot, records: list[Record]) -> list[dict[str, Any]]:
        plain = _plain(spot.searched.table)
        rows = self._source.rows_of(plain, records)
        return [dict(zip(plain.column_names, row, strict=True)) for row in rows]

    def _holding(self, spot: _Spot, found: Found, wanted: filters.Filter) -> Found:
        kinds = {c.name: c.kind for c in spot.searched.table.columns}
        rows = self._rows(spot, [record for record, _ in found])
        meant = ({name: cells.meaning(kinds[name], cell) for name, cell in row.items()} for row in rows)
        return [pair for pair, row in zip(found, meant, strict=True) if filters.holds(wanted, row)]

    def _key(self, spot: _Spot, record: Record) -> Key:
        table = spot.searched.table
        if not table.key:
            return (record.id,)
        (row,) = spot.shape.rows([record], table.with_columns(tuple(map(table.column, table.key))))
        return tuple(row)

    def _hits(self, spot: _Spot, found: Found, query: Query) -> tuple[Hit, ...]:
        rows: list[dict[str, Any]] = [{} for _ in found]
        if query.rows and found:
            rows = self._rows(spot, [record for record, _ in found])
        hits = [
            hit(spot.searched, self._key(spot, record), score, row if query.rows else None)
            for (record, score), row in zip(found, rows, strict=True)
        ]
        return tuple(sorted(hits, key=lambda h: (-h.score, fuse.key_order(h.key)))[: query.k])

    # --- what measuring needs -------------------------------------------------

    def vector_of(self, searched: Searched, key: Key) -> Vector | Sparse | None:
        """See `Searchable.vector_of`."""
        spot, table = self._spot(searched), searched.table
        if not table.key:
            records = [
                r for namespace in spot.namespaces for r in spot.plane.fetched(namespace, [str(key[0])])
            ]
            if not records:
                raise KeyError(key)
            return _vector(spot, self._cell(spot, records[0]))
        names = {*table.key, spot.column.name}
        narrow = table.with_columns(tuple(c for c in table.columns if c.name in names))
        at = narrow.key_positions
        wanted = tuple(key)
        parts = self._source.picked(narrow, [wanted], lambda row: tuple(row[i] for i in at) == wanted)
        row = next((row for part in parts for row in part), None)
        if row is None:
            raise KeyError(key)
        return _vector(spot, row[narrow.column_names.index(spot.column.name)])

    def _cell(self, spot: _Spot, record: Record) -> Any:
        ((cell,),) = spot.shape.rows([record], spot.searched.table.with_columns((spot.column,)))
        return cell

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`: drawn from the first 10,000 ids of each namespace."""
        spot = self._spot(searched)
        if searched.vector is None:
            return []
        found = [
            (self._key(spot, r), cells.vector(spot.column, self._cell(spot, r)))
            for r in self._drawn(spot, n, seed)
        ]
        return [(key, v) for key, v in found if v is not None]

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        spot = self._spot(searched)
        if not searched.text:
            return []
        records = self._drawn(spot, n, seed)
        first = searched.text[0]
        kind = searched.table.column(first).kind
        told = [
            (self._key(spot, record), text.words_of(kind, row.get(first)))
            for record, row in zip(records, self._rows(spot, records), strict=True)
        ]
        return [(key, said) for key, said in told if said.strip()]

    def _drawn(self, spot: _Spot, n: int, seed: int) -> list[Record]:
        ids = [(namespace, i) for namespace in spot.namespaces for i in _listed(spot.plane, namespace)]
        chosen = random.Random(seed).sample(ids, min(n, len(ids)))  # noqa: S311 - no secret
        there: dict[tuple[str, str], Record] = {}
        for namespace in dict.fromkeys(space for space, _ in chosen):
            mine = [i for space, i in chosen if space == namespace]
            for part in spot.plane.parts(mine):
                there.update(((namespace, r.id), r) for r in spot.plane.fetched(namespace, part))
        return [there[one] for one in chosen if one in there]

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        spot, problems = self._spot(searched), []
        form = self._source.form(searched.table)
        metric = metric_of(form.metric) if form is not None else None
        if metric is not None and metric is not searched.metric:
            problems.append(
                f"the index is built for {metric.value}, the vectors are compared by {searched.metric.value}"
            )
        if form is not None and form.dim != (spot.column.dim or 0) and searched.vector is not None:
            problems.append(f"the index holds {form}, the vectors have {spot.column.dim} dimensions")
        return Health(self._settings.index or "the index", metric, None, None, tuple(problems))


def _compared(spot: _Spot, query: Query) -> dict[str, Any]:
    """Return the part of a request that says to what records are to be near."""
    name = spot.searched.name
    if query.sparse is not None:
        if spot.searched.sparse is None:
            raise ConfigError(
                f"Pinecone compares the sparse vectors of {name} only together with dense ones",
                hint="ask by a dense vector, or search an index of sparse vectors alone",
            )
        indices, values = query.sparse
        if len(indices) > SPARSE_VALUES:
            raise ConfigError(
                f"the sparse vector has {len(indices):,} values, Pinecone takes {SPARSE_VALUES:,}",
                hint="leave out the smallest ones",
            )
        return {"sparseVector": {"indices": indices.tolist(), "values": values.tolist()}}
    if spot.searched.vector is None:
        raise ConfigError(f"{name} has sparse vectors alone", hint="ask by a sparse vector")
    given = np.zeros(0) if query.vector is None else query.vector
    asked = scores.Asked.of(spot.searched.metric, given, spot.column.dim or 0)
    return {"vector": [float(x) for x in asked.sent]}


def _vector(spot: _Spot, cell: Any) -> Vector | Sparse | None:
    return cells.vector(spot.column, cell) if spot.searched.sparse is None else cells.sparse(cell)


def _score(spot: _Spot, score: float) -> float:
    """Return what a score of Pinecone's means; its Euclidean ones are squared distances."""
    return -math.sqrt(max(score, 0.0)) if spot.searched.metric is Metric.EUCLID else score


def _listed(plane: Plane, namespace: str) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while True:
        ids, token = plane.listed(namespace, 100, token)
        found += ids
        if token is None or len(found) >= _MOST_LISTED:
            return found


def _plain(table: Table) -> Table:
    """Return a table without its vectors."""
    return table.with_columns(tuple(c for c in table.columns if c not in table.vectors))
