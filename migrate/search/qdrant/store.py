"""The collections of a Qdrant store as a `Searchable`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from migrate.backends.qdrant.engine import Engine, Info, Json, Point
from migrate.backends.qdrant.hybrid import VECTOR as BM25
from migrate.backends.qdrant.shape import Shape, VectorColumn, given_id
from migrate.backends.qdrant.source import QdrantSource
from migrate.config import QdrantSettings
from migrate.errors import ConfigError
from migrate.schema import Metric, Table
from migrate.search import cells, filters, fuse, text
from migrate.search.base import (
    RRF_K,
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
from migrate.search.qdrant import drawing, words
from migrate.search.qdrant.health import health_of
from migrate.search.qdrant.strict import allowed
from migrate.search.qdrant.where import Translated, where
from migrate.search.shape import searched_tables
from migrate.search.sqlite import scores

_NEGATED = (Metric.EUCLID, Metric.MANHATTAN)  # whose scores are distances there
Found = list[tuple[Point, float]]


@dataclass(frozen=True, slots=True)
class _Spot:
    """A table's collection. vector, sparse: the columns that are compared, as the collection has them.

    strict: the limits of its strict mode (`Info.strict`).
    """

    searched: Searched
    collection: str
    shape: Shape
    vector: VectorColumn | None
    sparse: VectorColumn | None
    strict: Json

    @property
    def most(self) -> int:
        """Return how many points a query may ask for."""
        return int(self.strict.get("max_query_limit") or sys.maxsize)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query, checked and translated. near: the query vector as Qdrant takes it; using: what it is compared with."""

    query: Query
    where: filters.Filter
    translated: Translated
    near: list[float] | Json
    using: VectorColumn | None


class QdrantSearch:
    """An open store that answers queries."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self._source = QdrantSource(settings)
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
        collection, shape = kept
        by_column = {v.column.name: v for v in shape.vectors}
        vector = by_column.get(searched.vector.name) if searched.vector is not None else None
        sparse = by_column.get(searched.sparse.name) if searched.sparse is not None else None
        if vector is None and sparse is None and not searched.text:
            return None
        info = self._engine.info(collection)
        searched = replace(
            searched,
            vector=None if vector is None else searched.vector,
            sparse=None if sparse is None else searched.sparse,
            rows=info.points if info else None,
        )
        return _Spot(searched, collection, shape, vector, sparse, info.strict if info else {})

    @property
    def _engine(self) -> Engine:
        return self._source.engine

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
            raise ConfigError(f"{self.describe()} has no collection {searched.name} to search") from None

    def _info(self, spot: _Spot) -> Info:
        info = self._engine.info(spot.collection)
        if info is None:
            raise ConfigError(f"the collection {spot.collection} is gone")
        return info

    # --- queries --------------------------------------------------------------

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`."""
        spot = self._spot(searched)
        asked = self._asked(spot, query)
        if query.mode is Mode.VECTOR:
            found, notes = self._near(spot, asked, query.k)
            how = "Qdrant, every vector" if query.exact else _how(asked)
        elif query.mode is Mode.KEYWORD:
            found, how, notes = self._told(spot, asked, query.k)
        else:
            found, how, notes = self._both(spot, asked)
        return Answer(self._hits(spot, found, query), how, notes)

    def _asked(self, spot: _Spot, query: Query) -> _Asked:
        searched = spot.searched
        wanted = filters.condition(searched.table, query.where, searched.tenant, query.tenant)
        embedded = self._settings.path is not None
        aside = self._source.aside(searched.table) if wanted != filters.All(()) else frozenset()
        translated = where(
            wanted, searched.table, foreign=spot.shape.foreign, booleans=not embedded, aside=aside
        )
        if translated.filter is not None and not embedded:
            translated = self._allowed(spot, translated)
        near: list[float] | Json = []
        using = None
        if query.mode is not Mode.KEYWORD:
            near, using = _compared(spot, query)
        if query.mode is not Mode.VECTOR and (not searched.text or query.text is None):
            raise ConfigError(f"{searched.name} has no words to search", hint="search it by vector")
        return _Asked(query, wanted, translated, near, using)

    def _allowed(self, spot: _Spot, whole: Translated) -> Translated:
        """Return the part of a filter that strict mode takes; the rest is looked at row by row."""
        info = self._info(spot)
        part = allowed(whole.filter, info)
        if part == whole.filter:
            return whole
        if part is None and info.points > words.MOST_READ:
            raise ConfigError(
                f"{spot.collection} is in strict mode and has no payload index for this filter,"
                f" and {info.points:,} points are too many to look at for a query",
                hint="make a payload index of the columns of the filter, of the type of their cells",
            )
        return Translated(part, exact=False)

    def _near(self, spot: _Spot, asked: _Asked, n: int) -> tuple[Found, tuple[str, ...]]:
        """Return the n nearest that satisfy the filter and can be compared, best first."""
        sign = -1.0 if asked.query.sparse is None and spot.searched.metric in _NEGATED else 1.0

        def near(limit: int) -> tuple[Found, int]:
            body = {**_nearest(spot, asked, limit), "with_payload": True}
            (listed,) = self._engine.query(spot.collection, [body])
            found = [(s.point, sign * s.score) for s in listed]
            return self._comparable(spot, asked, found), len(listed)

        return self._best(spot, asked, n, near), _notes(asked)

    def _best(self, spot: _Spot, asked: _Asked, n: int, listed: Callable[[int], tuple[Found, int]]) -> Found:
        """Return the n best that satisfy the filter. listed: what Qdrant finds, and how many those were.

        Raises ConfigError where strict mode lets too few be asked for.
        """
        limit = n if asked.translated.exact else max(4 * n, 64)
        while True:
            limit = min(limit, spot.most)
            found, number = listed(limit)
            kept = self._holding(spot, asked, found)
            # A list that is to be fused may be shorter than n.
            if len(kept) >= n or number < limit or (limit == spot.most and len(kept) >= asked.query.k):
                return kept[:n]
            if limit == spot.most:
                raise ConfigError(
                    f"{spot.collection} is in strict mode and tells {limit} points a query, {len(kept)} of which"
                    " are hits",
                    hint="ask for fewer (-k), or raise the collection's max_query_limit",
                )
            limit *= 4

    def _comparable(self, spot: _Spot, asked: _Asked, found: Found) -> Found:
        """Leave out all-zero vectors, whose cosine is no number; Qdrant says 0. And sparse ones that score 0."""
        if asked.query.sparse is not None:
            return [(point, score) for point, score in found if score]
        if spot.searched.metric is not Metric.COSINE or spot.vector is None:
            return found
        flat = [point.id for point, score in found if score == 0]
        if not flat:
            return found
        name = spot.vector.name
        read = self._engine.retrieve(spot.collection, flat, payload=False, vectors=[name])
        zeros = {p.id for p in read if isinstance(v := p.vectors.get(name), bytes) and not any(v)}
        return [(point, score) for point, score in found if point.id not in zeros]

    def _holding(self, spot: _Spot, asked: _Asked, found: Found) -> Found:
        """Leave out what Qdrant's filter lets through and the filter does not."""
        if asked.translated.exact or not found:
            return found
        rows = self._rows(spot, [point for point, _ in found], _plain(spot.searched.table))
        meant = (
            {c.name: cells.meaning(c.kind, row.get(c.name)) for c in spot.searched.table.columns}
            for row in rows
        )
        return [pair for pair, row in zip(found, meant, strict=True) if filters.holds(asked.where, row)]

    def _told(self, spot: _Spot, asked: _Asked, n: int) -> tuple[Found, str, tuple[str, ...]]:
        """Return the n points that say most of the words."""
        info = self._info(spot)
        if not words.has_vectors(info):
            return self._read_words(spot, asked, n, info)
        sparse = words.encoded(asked.query.text or "")
        if sparse is None:
            return [], "Qdrant BM25", ()

        def told(limit: int) -> tuple[Found, int]:
            body = {**_sparse(sparse, asked, limit), "with_payload": True}
            (listed,) = self._engine.query(spot.collection, [body])
            return [(s.point, s.score) for s in listed], len(listed)

        return self._best(spot, asked, n, told), "Qdrant BM25", ()

    def _read_words(
        self, spot: _Spot, asked: _Asked, n: int, info: Info
    ) -> tuple[Found, str, tuple[str, ...]]:
        """Rank by the words of every point, for a collection without BM25 vectors."""
        hint = f"?bm25={','.join(spot.searched.text)} on a migration makes BM25 vectors"
        if info.points > words.MOST_READ:
            raise ConfigError(
                f"{spot.collection} has no BM25 vectors, and {info.points:,} points are too many to read for a query",
                hint=hint,
            )
        table = spot.searched.table
        kinds = {name: table.column(name).kind for name in spot.searched.text}

        def said() -> Iterator[tuple[Point, str, bool]]:
            for points in drawing.pages(self._engine, spot.collection, payload=True):
                for point, row in zip(points, self._rows(spot, points, _plain(table)), strict=True):
                    told = words.joined([text.words_of(kind, row.get(name)) for name, kind in kinds.items()])
                    meant = {c.name: cells.meaning(c.kind, row.get(c.name)) for c in table.columns}
                    yield point, told, filters.holds(asked.where, meant)

        found = words.ranked(asked.query.text or "", said(), n)
        return (
            found,
            "BM25 over all texts",
            (f"no BM25 vectors: the words of every point were read ({hint})",),
        )

    def _both(self, spot: _Spot, asked: _Asked) -> tuple[Found, str, tuple[str, ...]]:
        """Answer a hybrid query: fused by the server where its lists are those that we would fuse."""
        k = asked.query.k
        depth = min(fuse.depth(k), max(k, spot.most))
        sparse = words.encoded(asked.query.text or "") if words.has_vectors(self._info(spot)) else None
        if sparse is not None and asked.translated.exact and self._engine.fuses and k <= spot.most:
            nearest = _nearest(spot, asked, depth)
            # Its ranks begin with 0, ours with 1.
            both = {"prefetch": [nearest, _sparse(sparse, asked, depth)], "query": {"rrf": {"k": RRF_K + 1}}}
            found, near = self._engine.query(
                spot.collection,
                [
                    {**both, "limit": min(k + _TIES, spot.most), "with_payload": True},
                    {**nearest, "with_payload": False},
                ],
            )
            listed = [(s.point, s.score) for s in near]
            if len(self._comparable(spot, asked, listed)) == len(listed):
                how = f"{_how(asked)} + BM25, fused by the server"
                return [(s.point, s.score) for s in found], how, _notes(asked)
        near_found, notes = self._near(spot, asked, depth)
        told, how, more = self._told(spot, asked, depth)
        points = {self._key(spot, p): p for p, _ in (*near_found, *told)}
        lists = [
            [key for key, _ in fuse.best([(self._key(spot, p), score) for p, score in ranked], depth)]
            for ranked in (near_found, told)
        ]
        fused = [(points[key], score) for key, score in fuse.fused(lists, k)]
        return fused, f"{_how(asked)} + {how}, fused by rank", (*notes, *more)

    # --- rows -----------------------------------------------------------------

    def _rows(self, spot: _Spot, points: Sequence[Point], table: Table) -> list[dict[str, Any]]:
        """Return the source's cells of points; exact ones are put back from the sidecar."""
        rows = self._source.restored(spot.shape.table, spot.shape.rows(points, table), table)
        return [dict(zip(table.column_names, row, strict=True)) for row in rows]

    def _key(self, spot: _Spot, point: Point) -> Key:
        table = spot.searched.table
        if not table.key:
            return (point.id,)
        keys = table.with_columns(tuple(map(table.column, table.key)))
        (row,) = spot.shape.rows([point], keys)
        return tuple(row)

    def _hits(self, spot: _Spot, found: Found, query: Query) -> tuple[Hit, ...]:
        rows: list[dict[str, Any]] = [{} for _ in found]
        if query.rows and found:
            rows = self._rows(spot, [point for point, _ in found], _plain(spot.searched.table))
        hits = [
            hit(spot.searched, self._key(spot, point), score, row if query.rows else None)
            for (point, score), row in zip(found, rows, strict=True)
        ]
        return tuple(sorted(hits, key=lambda h: (-h.score, fuse.key_order(h.key)))[: query.k])

    # --- what measuring needs -------------------------------------------------

    def vector_of(self, searched: Searched, key: Key) -> Vector | Sparse | None:
        """See `Searchable.vector_of`."""
        spot = self._spot(searched)
        if spot.shape.foreign and given_id(key[0]) is None:
            raise KeyError(key)
        point_id = spot.shape.key_id(key) if searched.table.key else key[0]
        compared = spot.vector or spot.sparse
        names = [compared.name] if compared is not None else []
        found = self._engine.retrieve(spot.collection, [point_id], payload=True, vectors=names)
        if not found or (spot.shape.foreign and type(self._key(spot, found[0])[0]) is not type(key[0])):
            raise KeyError(key)  # 3 and "3" are one id, and not one key
        if spot.vector is None and spot.sparse is not None:
            return cells.sparse(_cell(spot, spot.sparse, found[0]))
        return self._vector(spot, found[0])

    def _vector(self, spot: _Spot, point: Point) -> Vector | None:
        if spot.vector is None:
            return None
        return cells.vector(spot.vector.column, _cell(spot, spot.vector, point))

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`."""
        spot = self._spot(searched)
        if spot.vector is None:
            return []
        points = self._drawn(spot, n, seed, [spot.vector.name])
        found = [(self._key(spot, p), self._vector(spot, p)) for p in points]
        return [(key, v) for key, v in found if v is not None][:n]

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        spot = self._spot(searched)
        if not searched.text:
            return []
        points = self._drawn(spot, n, seed, False)
        rows = self._rows(spot, points, _plain(searched.table))
        kind = searched.table.column(searched.text[0]).kind
        told = [
            (self._key(spot, p), text.words_of(kind, r.get(searched.text[0])))
            for p, r in zip(points, rows, strict=True)
        ]
        return [(key, said) for key, said in told if said.strip()][:n]

    def _drawn(self, spot: _Spot, n: int, seed: int, vectors: bool | Sequence[str]) -> list[Point]:
        return drawing.drawn(self._engine, spot.collection, spot.searched.rows or 0, n, seed, vectors)

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        spot = self._spot(searched)
        if spot.vector is None:
            return Health(None)
        return health_of(self._info(spot), spot.vector.name, searched.metric)


def _compared(spot: _Spot, query: Query) -> tuple[list[float] | Json, VectorColumn]:
    """Return a query's vector as Qdrant takes it, and what it is compared with."""
    searched = spot.searched
    if query.sparse is not None:
        if spot.sparse is None:
            raise ConfigError(f"{searched.name} has no sparse vectors to compare", hint="ask by a dense one")
        indices, values = query.sparse
        return {"indices": indices.tolist(), "values": values.tolist()}, spot.sparse
    if spot.vector is None or searched.vector is None:
        raise ConfigError(f"{searched.name} has no vectors to compare", hint="search it by keyword")
    given = np.zeros(0) if query.vector is None else query.vector
    asked = scores.Asked.of(searched.metric, given, searched.vector.dim or 0)
    return [float(x) for x in asked.sent], spot.vector


def _nearest(spot: _Spot, asked: _Asked, n: int) -> Json:
    """Return a query for the n nearest, without what else a request needs."""
    found: Json = {"query": {"nearest": asked.near}, "limit": n, **_filtered(asked.translated)}
    if asked.query.exact:
        if spot.strict.get("search_allow_exact") is False:
            raise ConfigError(
                f"{spot.collection} is in strict mode and allows no exact search", hint="leave --exact out"
            )
        found["params"] = {"exact": True}
    elif asked.query.sparse is None:
        found["params"] = {"hnsw_ef": min(max(128, n), spot.strict.get("search_max_hnsw_ef") or sys.maxsize)}
    return {**found, "using": asked.using.name if asked.using is not None else ""}


def _how(asked: _Asked) -> str:
    return "Qdrant HNSW" if asked.query.sparse is None else "Qdrant sparse index"


def _notes(asked: _Asked) -> tuple[str, ...]:
    notes = [] if asked.translated.exact else [_LOOKED_AGAIN]
    if asked.using is not None and str(asked.using.params.get("modifier")).lower() == "idf":
        notes.append(f"{asked.using.name} has the modifier idf: Qdrant weighs rare indices more")
    return tuple(notes)


def _cell(spot: _Spot, vector: VectorColumn, point: Point) -> Any:
    ((cell,),) = spot.shape.rows([point], spot.searched.table.with_columns((vector.column,)))
    return cell


_LOOKED_AGAIN = "Qdrant's own filter is a little wider: what it found was checked row by row"
_TIES = 20  # hits of equal scores that may stand on the last place


def _filtered(translated: Translated) -> Json:
    return {} if translated.filter is None else {"filter": translated.filter}


def _sparse(vector: Json, asked: _Asked, n: int) -> Json:
    return {"query": {"nearest": vector}, "using": BM25, "limit": n, **_filtered(asked.translated)}


def _plain(table: Table) -> Table:
    """Return a table without its vectors."""
    return table.with_columns(tuple(c for c in table.columns if c not in table.vectors))
