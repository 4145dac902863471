"""A Postgres schema as a `Searchable`: each query one read-only transaction, so a pooler may be in front."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import psycopg

from migrate.backends.postgres.connect import Connection, Server, connect, look_at, qualified
from migrate.backends.postgres.names import ident, placed, translating
from migrate.backends.postgres.source import NOW, PostgresSource
from migrate.backends.postgres.wire import plain_text
from migrate.backends.sqlbooks import Books
from migrate.config import PostgresSettings
from migrate.errors import ConfigError
from migrate.schema import Metric
from migrate.search import filters, fuse
from migrate.search.base import (
    Answer,
    Direction,
    Edge,
    Health,
    Hit,
    Key,
    Means,
    Mode,
    Query,
    Searched,
    Vector,
)
from migrate.search.hits import hit
from migrate.search.postgres import graph, queries, rows
from migrate.search.postgres.catalog import Relation, Words, read_relation, vector_indexes
from migrate.search.postgres.health import health_of
from migrate.search.postgres.queries import Asked
from migrate.search.postgres.where import ALIAS, Held, Values, where
from migrate.search.shape import searched_tables

_LEAST_EF, _MOST_EF = 100, 1000  # candidates that an HNSW index looks at; 1,000 is pgvector's limit
_ITERATIVE = (0, 8)  # of pgvector: an index goes on looking where a filter takes candidates away
_HALF_MAX = 65504.0  # of float16
# Set in each transaction, for through a pooler anything else would reach other clients.
_LOCAL = {
    "statement_timeout": "0",
    "client_connection_check_interval": "5000",
    "max_parallel_workers_per_gather": "2",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
Found = list[tuple[rows.Place, float]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """An open transaction."""

    connection: Connection

    def __call__(self, sql: str, bound: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement with `$n` marks; vectors come in binary form."""
        with psycopg.RawCursor(self.connection) as cursor:
            cursor.execute(sql.encode(), bound, binary=True)
            return cursor.fetchall()


class PostgresSearch:
    """An open schema that answers queries."""

    def __init__(self, settings: PostgresSettings, means: Means) -> None:
        self._settings, self._means = settings, means
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._server: Server | None = None
        self._exact: frozenset[str] = frozenset()
        self._tables: list[Searched] = []
        self._relations: dict[str, Relation] = {}
        self._graph: graph.Graph | None = None
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def describe(self) -> str:
        """See `Searchable.describe`."""
        return str(self._settings)

    def close(self) -> None:
        """See `Searchable.close`."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):  # what matters is that it is gone
                connection.close()

    # --- what is there --------------------------------------------------------

    def _look(self) -> None:
        source = PostgresSource(self._settings)
        try:
            found = searched_tables(source)
            stands = {s.name: source.stands(s.table) for s in found}
            self._graph = graph.found(source)
        finally:
            source.close()
        self._connection = connect(self._settings, first=True)
        self._server = server = look_at(self._connection, self._settings.schema)
        with translating("read the schema", schema=server.schema):
            for searched in found:
                relation = read_relation(self._connection, server, searched, *stands[searched.name])
                kept = _kept(searched, relation)
                if kept is not None:
                    self._tables.append(replace(kept, rows=relation.rows))
                    self._relations[searched.name] = relation
            self._exact = self._tables_with_exact_cells(self._connection, server)

    def _tables_with_exact_cells(self, connection: Connection, server: Server) -> frozenset[str]:
        book = qualified(server.schema, "memlift_exact")
        row = connection.execute("SELECT to_regclass(%s)", (book,)).fetchone()
        if row is None or row[0] is None:
            return frozenset()
        return frozenset(self._books(connection, server).exact_count())

    def _books(self, connection: Connection, server: Server) -> Books:
        def run(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
            return connection.execute(placed(sql), tuple(parameters)).fetchall()

        return Books(run, lambda name: qualified(server.schema, name), NOW, row="ctid")

    @property
    def _here(self) -> Server:
        if self._server is None:
            raise ConfigError("the store is closed")
        return self._server

    def tables(self) -> Sequence[Searched]:
        """See `Searchable.tables`."""
        return tuple(self._tables)

    def _relation(self, searched: Searched) -> Relation:
        try:
            return self._relations[searched.name]
        except KeyError:
            raise ConfigError(f"{self.describe()} has no table {searched.name} to search") from None

    def _vector(self, searched: Searched) -> tuple[Held, Metric, int]:
        column = searched.vector
        if column is None or column.dim is None:
            raise ConfigError(f"{searched.name} has no vectors to compare", hint="search it by keyword")
        return self._relation(searched).columns[column.name], searched.metric, column.dim

    # --- transactions ---------------------------------------------------------

    @contextmanager
    def _reading(self, op: str, **more: str) -> Iterator[_Reading]:
        """Run a block in one snapshot. A connection that was lost is opened again the next time."""
        with self._lock, translating(op):
            connection = self._connection
            if connection is None or connection.closed or connection.broken:
                connection = self._connection = connect(self._settings)
            wanted = {**_LOCAL, **more}
            calls = ", ".join("set_config(%s, %s, true)" for _ in wanted)
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.execute(f"SELECT {calls}", [text for pair in wanted.items() for text in pair])
                yield _Reading(connection)
                connection.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    with contextlib.suppress(psycopg.Error):  # the error that is under way says more
                        connection.rollback()
                raise

    # --- queries --------------------------------------------------------------

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`."""
        relation = self._relation(searched)
        if query.mode is Mode.KEYWORD:
            found, how, notes = self._by_words(searched, relation, query)
        elif query.mode is Mode.VECTOR:
            found, how, notes = self._by_vector(searched, relation, query)
        else:
            found, how, notes = self._by_both(searched, relation, query)
        return Answer(tuple(found[: query.k]), how, notes)

    def _asked(self, searched: Searched, relation: Relation, query: Query) -> Asked:
        parts = [] if query.where is None else [filters.bound_to(query.where, searched.table)]
        if query.tenant is not None:
            if searched.tenant is None:
                raise ConfigError(
                    f"{searched.name} has no column that tells tenants apart", hint="leave the tenant out"
                )
            parts.append(filters.of_tenant(searched.tenant, query.tenant))
        values = Values()
        condition = where(filters.All(tuple(parts)), relation.columns, values, self._here.version)
        return Asked(relation, condition, values, ident(self._here.vector_schema or "public"))

    def _by_vector(
        self, searched: Searched, relation: Relation, query: Query
    ) -> tuple[list[Hit], str, tuple[str, ...]]:
        held, metric, dim = self._vector(searched)
        vector = _given(query, dim)
        way, how, notes = self._way(relation, held, metric, vector, query)

        def find(way: str) -> tuple[list[Hit], int]:
            asked = self._asked(searched, relation, query)
            sql = queries.nearest(asked, held, metric, _written(vector), dim, query.k, way)
            with self._reading(
                "search", **self._settings_for(relation, held, query.k, way, filtered=_is_filtered(query))
            ) as run:
                listed = run(f"SELECT r::int8, p::text, d FROM ({sql}) n", asked.values.bound)
                found = [((r, p), queries.score(metric, d)) for r, p, d in listed]
                return self._hits(run, searched, relation, found, query), len(found)

        hits, n = find(way)
        if way != "exact" and n < query.k:  # an index gives up; there may be more
            hits, how = find("exact")[0], "pgvector, every vector"
        return hits, how, notes

    def _way(
        self, relation: Relation, held: Held, metric: Metric, vector: Vector, query: Query
    ) -> tuple[str, str, tuple[str, ...]]:
        """Return which index a query takes ("exact": none), what that is called, and what a user must know."""
        if query.exact:
            return "exact", "pgvector, every vector", ()
        usable = [i for i in relation.indexes_of(held) if i.valid and not i.partial and i.metric is metric]
        for index in sorted(usable, key=lambda i: (i.half, i.method != "hnsw")):
            if (index.half or held.type == "halfvec") and bool((np.abs(vector) > _HALF_MAX).any()):
                continue
            name = "HNSW" if index.method == "hnsw" else "IVFFlat"
            return ("half" if index.half else "column"), f"pgvector {name}", ()
        note = (
            "no vector index answers this metric: every vector was compared"
            if relation.rows is None or relation.rows > 10_000
            else None
        )
        return "exact", "pgvector, every vector", (note,) if note else ()

    def _settings_for(
        self, relation: Relation, held: Held, k: int, way: str, *, filtered: bool
    ) -> dict[str, str]:
        if way == "exact":
            return {"enable_indexscan": "off"}  # an index of pgvector's is used in no other way
        wanted = 4 * k if way == "half" or held.type == "halfvec" else k
        found = {"hnsw.ef_search": str(min(_MOST_EF, max(_LEAST_EF, 2 * wanted)))}
        if not filtered:
            # The planner takes a distance for one addition, and vectors of over 2 kB lie elsewhere:
            # it would rather read 400 of 2,200 dimensions than their index.
            found["enable_seqscan"] = "off"
        lists = max((i.lists or 0 for i in relation.indexes_of(held)), default=0)
        if lists:
            found["ivfflat.probes"] = str(max(1, round(lists**0.5)))
        if self._here.vector_version >= _ITERATIVE:
            found["hnsw.iterative_scan"] = "strict_order"
        return found

    def _by_words(
        self, searched: Searched, relation: Relation, query: Query
    ) -> tuple[list[Hit], str, tuple[str, ...]]:
        words, how, notes = _words(searched, relation)
        asked = self._asked(searched, relation, query)
        with_, ranked = queries.found_words(asked, words, query.text or "", query.k)
        with self._reading("search") as run:
            listed = run(f"{with_} SELECT r::int8, p::text, s FROM ({ranked}) n", asked.values.bound)
            found = [((r, p), float(s)) for r, p, s in listed]
            return self._hits(run, searched, relation, found, query), how, notes

    def _by_both(
        self, searched: Searched, relation: Relation, query: Query
    ) -> tuple[list[Hit], str, tuple[str, ...]]:
        """Answer a hybrid query in one statement."""
        held, metric, dim = self._vector(searched)
        words, by_words, notes = _words(searched, relation)
        vector, depth = _given(query, dim), fuse.depth(query.k)
        way, by_vector, more = self._way(relation, held, metric, vector, query)

        def find(way: str) -> tuple[list[Hit], int]:
            asked = self._asked(searched, relation, query)
            dense = queries.nearest(asked, held, metric, _written(vector), dim, depth, way)
            told = queries.found_words(asked, words, query.text or "", depth)
            sql = queries.hybrid(asked, dense, told, query.k)
            with self._reading(
                "search", **self._settings_for(relation, held, depth, way, filtered=_is_filtered(query))
            ) as run:
                listed = run(sql, asked.values.bound)
                found = [((int(r), p), s) for r, p, s, _ in listed]
                return self._hits(run, searched, relation, found, query), listed[0][3] if listed else 0

        hits, near = find(way)
        if way != "exact" and near < depth:
            hits, by_vector = find("exact")[0], "pgvector, every vector"
        return hits, f"{by_vector} and {by_words}, RRF", (*notes, *more)

    def _hits(
        self, run: _Reading, searched: Searched, relation: Relation, found: Found, query: Query
    ) -> list[Hit]:
        """Return hits for places, best first, equal scores in the order of their keys."""
        table = searched.table
        shown = [c for c in table.columns if c.name in table.key or (query.rows and c not in table.vectors)]
        books = self._books(run.connection, self._here) if query.rows and table.name in self._exact else None
        cells: dict[rows.Place, dict[str, Any]] = {}
        if found and (query.rows or table.key):
            narrow = table.with_columns(tuple(shown))
            cells = rows.read_rows(run, relation, narrow, [place for place, _ in found], books)
        hits = []
        for place, score in found:
            row = cells.get(place, {})
            key: Key = tuple(row[name] for name in table.key) if table.key else (place[1],)
            hits.append(hit(searched, key, score, row if query.rows else None))
        return sorted(hits, key=lambda h: (-h.score, fuse.key_order(h.key)))

    # --- what measuring needs -------------------------------------------------

    def vector_of(self, searched: Searched, key: Key) -> Vector | None:
        """See `Searchable.vector_of`."""
        relation, values = self._relation(searched), Values()
        held = self._vector(searched)[0]
        texts = (
            [plain_text(h.codec, cell) for h, cell in zip(relation.key, key, strict=True)]
            if relation.key
            else []
        )
        condition = queries.equal_key(relation, key, texts, values)
        with self._reading("read a vector") as run:
            found = run(
                f"SELECT {held.sql} FROM {relation.at} {ALIAS} WHERE {condition} LIMIT 1", values.bound
            )
        if not found:
            raise KeyError(key)
        return rows.vector(found[0][0], held)

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`."""
        held = self._vector(searched)[0]
        found = self._sampled(searched, held, n, seed)
        read = [(key, rows.vector(cell, held)) for key, cell in found]
        return [(key, vector) for key, vector in read if vector is not None]

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        if not searched.text:
            return []
        held = self._relation(searched).columns[searched.text[0]]
        return [(key, str(cell)) for key, cell in self._sampled(searched, held, n, seed)]

    def _sampled(self, searched: Searched, held: Held, n: int, seed: int) -> list[tuple[Key, Any]]:
        relation, values = self._relation(searched), Values()
        key = list(relation.key)
        selected = (
            queries.column_list([*key, held]) if key else f"{ALIAS}.ctid::text, {queries.column_list([held])}"
        )
        sql = queries.sampled(relation, f"{held.sql} IS NOT NULL", selected, n, seed, values)
        with self._reading("sample rows") as run:
            found = run(sql, values.bound)
        narrow = searched.table.with_columns(
            tuple(searched.table.column(name) for name in searched.table.key)
        )
        if not key:
            return [((row[0],), row[1]) for row in found]
        return [(tuple(rows.decoded(narrow, key, row[:-1])), row[-1]) for row in found]

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        relation = self._relation(searched)
        held, metric, _ = self._vector(searched)
        with self._reading("look at the indexes") as run:
            # Read anew: an index may have been built, or lost, since the store was opened.
            indexes = [i for i in vector_indexes(run.connection, relation.oid) if i.column == held.name]
            vectors = int(run(f"SELECT count({held.sql}) FROM {relation.at} {ALIAS}", [])[0][0])
        return health_of(indexes, vectors, held, metric)

    # --- the knowledge graph --------------------------------------------------

    def neighbours(
        self,
        node: str,
        *,
        depth: int = 1,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[Edge]:
        """See `Graph.neighbours`."""
        return graph.neighbours(self._settings, self._graph, node, depth, tenant, direction)

    def paths(
        self,
        start: str,
        goal: str,
        *,
        depth: int = 4,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[tuple[Edge, ...]]:
        """See `Graph.paths`."""
        return graph.paths(self._settings, self._graph, start, goal, depth, tenant, direction)


def _kept(searched: Searched, relation: Relation) -> Searched | None:
    """Return a table without what cannot be searched here: vectors that are no type of pgvector's."""
    column = searched.vector
    held = relation.columns.get(column.name) if column is not None else None
    if column is not None and (held is None or held.type not in ("vector", "halfvec")):
        searched = replace(searched, vector=None)
    searched = replace(searched, text=tuple(name for name in searched.text if name in relation.columns))
    return searched if searched.vector is not None or searched.text else None


def _words(searched: Searched, relation: Relation) -> tuple[Words, str, tuple[str, ...]]:
    if relation.words is None or not searched.text:
        raise ConfigError(f"{searched.name} has no words to search", hint="search it by vector")
    words, notes = relation.words, []
    if words.index is None:
        notes.append("no full-text index: the words of every row were read")
    if words.config is None:
        notes.append("the table's tsvector does not tell its configuration: the server's default was taken")
    return words, "tsvector, GIN" if words.index else "tsvector", tuple(notes)


def _is_filtered(query: Query) -> bool:
    return query.where is not None or query.tenant is not None


def _given(query: Query, dim: int) -> Vector:
    if query.vector is None or query.vector.shape != (dim,):
        raise ConfigError(f"the query needs a vector of {dim} dimensions")
    return query.vector


def _written(vector: Vector) -> str:
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()
