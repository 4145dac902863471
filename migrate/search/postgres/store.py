"""A Postgres schema as a `Searchable`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from migrate.backends.postgres.connect import Connection, Server, look_at, qualified
from migrate.backends.postgres.names import ident, placed, translating
from migrate.backends.postgres.source import NOW, PostgresSource
from migrate.backends.postgres.wire import plain_text
from migrate.backends.sqlbooks import Books
from migrate.config import PostgresSettings
from migrate.errors import ConfigError
from migrate.schema import Column
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
from migrate.search.postgres import graph, queries, rows, scan, ways
from migrate.search.postgres.catalog import Relation, Words, read_relation, vector_indexes
from migrate.search.postgres.health import health_of
from migrate.search.postgres.queries import Asked
from migrate.search.postgres.rows import Place
from migrate.search.postgres.session import Reading, Session
from migrate.search.postgres.ways import Way
from migrate.search.postgres.where import ALIAS, PGVECTOR, Held, Values, where
from migrate.search.shape import searched_tables
from migrate.search.sqlite import scores

Found = list[tuple[Place, float]]
_SCANNED = "every vector, read from the server"


@dataclass(frozen=True, slots=True)
class _Compared:
    """The vectors of a table, and the query's. vector: (dim,) float32, as the server is asked."""

    column: Column
    held: Held
    asked: scores.Asked
    vector: Vector

    @property
    def written(self) -> str:
        """Return the query's vector as pgvector reads it."""
        return orjson.dumps(self.vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


class PostgresSearch:
    """An open schema that answers queries."""

    def __init__(self, settings: PostgresSettings, means: Means) -> None:
        self._settings, self._means = settings, means
        self._session = Session(settings)
        self._exact: frozenset[str] = frozenset()
        self._tables: list[Searched] = []
        self._relations: dict[str, Relation] = {}
        try:
            self._server = self._look()
        except BaseException:
            self.close()
            raise

    def describe(self) -> str:
        """See `Searchable.describe`."""
        return str(self._settings)

    def close(self) -> None:
        """See `Searchable.close`."""
        self._session.close()

    # --- what is there --------------------------------------------------------

    def _look(self) -> Server:
        source = PostgresSource(self._settings)
        try:
            found = searched_tables(source)
            stands = {s.name: source.stands(s.table) for s in found}
            self._graph = graph.found(source)
        finally:
            source.close()
        connection = self._session.connection(first=True)
        server = look_at(connection, self._settings.schema)
        with translating("read the schema", schema=server.schema):
            for searched in found:
                relation = read_relation(connection, server, searched, *stands[searched.name])
                kept = _kept(searched, relation)
                if kept is not None:
                    self._tables.append(replace(kept, rows=relation.rows))
                    self._relations[searched.name] = relation
            row = connection.execute(
                "SELECT to_regclass(%s)", (qualified(server.schema, "memlift_exact"),)
            ).fetchone()
            if row is not None and row[0] is not None:
                self._exact = frozenset(_books(connection, server).exact_count())
        return server

    def tables(self) -> Sequence[Searched]:
        """See `Searchable.tables`."""
        return tuple(self._tables)

    def _relation(self, searched: Searched) -> Relation:
        try:
            return self._relations[searched.name]
        except KeyError:
            raise ConfigError(f"{self.describe()} has no table {searched.name} to search") from None

    def _held(self, searched: Searched) -> tuple[Column, Held]:
        if searched.vector is None:
            raise ConfigError(f"{searched.name} has no vectors to compare", hint="search it by keyword")
        return searched.vector, self._relation(searched).columns[searched.vector.name]

    # --- queries --------------------------------------------------------------

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`."""
        if query.mode is Mode.KEYWORD:
            return self._by_words(searched, query)
        column, held = self._held(searched)
        given = np.zeros(0) if query.vector is None else query.vector
        asked = scores.Asked.of(searched.metric, given, column.dim or 0)
        compared = _Compared(column, held, asked, asked.sent)
        if held.type not in PGVECTOR:
            return self._scanned(searched, compared, query)
        relation = self._relation(searched)
        way = ways.choose(relation, held, searched.metric, compared.vector, query)
        ask = self._by_vector if query.mode is Mode.VECTOR else self._by_both
        answer, near, wanted = ask(searched, compared, query, way)
        if way.by != "exact" and near < wanted:  # an index gives up; there may be more
            answer, _, _ = ask(searched, compared, query, ways.EXACT)
        return answer

    def _asked(self, searched: Searched, query: Query) -> Asked:
        relation = self._relation(searched)
        wanted = filters.condition(searched.table, query.where, searched.tenant, query.tenant)
        values = Values()
        condition = where(wanted, relation.columns, values, self._server.version)
        return Asked(relation, condition, values, ident(self._server.vector_schema or "public"))

    def _by_vector(
        self, searched: Searched, compared: _Compared, query: Query, way: Way
    ) -> tuple[Answer, int, int]:
        """Return an answer, how many were near, and how many should be where there are as many."""
        asked, n = self._asked(searched, query), query.k
        sql = self._nearest(asked, searched, compared, n, way)
        with self._session.reading("search", **self._settings_of(asked, compared, way, n, query)) as run:
            listed = run(f"SELECT r::int8, p::text, d FROM ({sql}) n", asked.values.bound)
            found = [((r, p), queries.score(searched.metric, d)) for r, p, d in listed]
            return Answer(self._hits(run, searched, found, query), way.how, way.notes), len(found), n

    def _by_both(
        self, searched: Searched, compared: _Compared, query: Query, way: Way
    ) -> tuple[Answer, int, int]:
        """Answer a hybrid query in one statement; returns what `_by_vector` does."""
        words, by_words, notes = _words(searched, self._relation(searched))
        asked, n = self._asked(searched, query), fuse.depth(query.k)
        dense = self._nearest(asked, searched, compared, n, way)
        sql = queries.hybrid(asked, dense, queries.found_words(asked, words, query.text or "", n), query.k)
        with self._session.reading("search", **self._settings_of(asked, compared, way, n, query)) as run:
            listed = run(sql, asked.values.bound)
            hits = self._hits(run, searched, [((int(r), p), s) for r, p, s, _ in listed], query)
        near = int(listed[0][3]) if listed else 0
        return Answer(hits, f"{way.how} + {by_words}, fused by rank", (*way.notes, *notes)), near, n

    def _nearest(self, asked: Asked, searched: Searched, compared: _Compared, n: int, way: Way) -> str:
        dim = len(compared.vector)
        return queries.nearest(asked, compared.held, searched.metric, compared.written, dim, n, way.by)

    def _settings_of(
        self, asked: Asked, compared: _Compared, way: Way, n: int, query: Query
    ) -> dict[str, str]:
        return ways.settings(self._server, asked.relation, compared.held, way, n, query)

    def _by_words(self, searched: Searched, query: Query) -> Answer:
        words, how, notes = _words(searched, self._relation(searched))
        asked = self._asked(searched, query)
        with self._session.reading("search") as run:
            found = _told(run, asked, words, query, query.k)
            return Answer(self._hits(run, searched, found, query), how, notes)

    def _scanned(self, searched: Searched, compared: _Compared, query: Query) -> Answer:
        """Answer from vectors that pgvector does not know: all of them are read, and fused here."""
        asked = self._asked(searched, query)
        n = query.k if query.mode is Mode.VECTOR else fuse.depth(query.k)
        how, notes = _SCANNED, list[str]()
        with self._session.reading("search") as run:
            listed = run.each(scan.statement(asked, compared.held), asked.values.bound)
            found = scan.nearest(listed, compared.column, compared.asked, n)
            if query.mode is Mode.HYBRID:
                words, by_words, said = _words(searched, asked.relation)
                notes += said
                told = _told(run, self._asked(searched, query), words, query, n)
                lists = [[place for place, _ in ranked] for ranked in (found, told)]
                found = [((int(p[0]), str(p[1])), s) for p, s in fuse.fused(lists, 2 * n)]
                how = f"{_SCANNED} + {by_words}, fused by rank"
            return Answer(self._hits(run, searched, found, query), how, tuple(notes))

    def _hits(self, run: Reading, searched: Searched, found: Found, query: Query) -> tuple[Hit, ...]:
        """Return the k best hits of places, best first, equal scores in the order of their keys."""
        table, relation = searched.table, self._relation(searched)
        shown = [c for c in table.columns if c.name in table.key or (query.rows and c not in table.vectors)]
        exact = query.rows and table.name in self._exact
        there: dict[Place, dict[str, Any]] = {}
        if found and shown:
            books = _books(run.connection, self._server) if exact else None
            narrow = table.with_columns(tuple(shown))
            there = rows.read_rows(run, relation, narrow, [place for place, _ in found], books)
        hits = []
        for place, score in found:
            row = there.get(place, {})
            key: Key = tuple(row[name] for name in table.key) if table.key else (place[1],)
            hits.append(hit(searched, key, score, row if query.rows else None))
        return tuple(sorted(hits, key=lambda h: (-h.score, fuse.key_order(h.key)))[: query.k])

    # --- what measuring needs -------------------------------------------------

    def vector_of(self, searched: Searched, key: Key) -> Vector | None:
        """See `Searchable.vector_of`."""
        relation, values = self._relation(searched), Values()
        column, held = self._held(searched)
        texts = [plain_text(h.codec, cell) for h, cell in zip(relation.key, key, strict=False)]
        condition = queries.equal_key(relation, key, texts, values)
        sql = f"SELECT {queries.column_list([held])} FROM {relation.at} {ALIAS} WHERE {condition} LIMIT 1"
        with self._session.reading("read a vector") as run:
            found = run(sql, values.bound)
        if not found:
            raise KeyError(key)
        return rows.vector(column, held, found[0][0])

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`."""
        column, held = self._held(searched)
        read = [
            (key, rows.vector(column, held, cell)) for key, cell in self._sampled(searched, held, n, seed)
        ]
        return [(key, vector) for key, vector in read if vector is not None]

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        if not searched.text:
            return []
        held = self._relation(searched).columns[searched.text[0]]
        return [(key, str(cell)) for key, cell in self._sampled(searched, held, n, seed) if str(cell).strip()]

    def _sampled(self, searched: Searched, held: Held, n: int, seed: int) -> list[tuple[Key, Any]]:
        relation, values = self._relation(searched), Values()
        key = list(relation.key)
        selected = queries.column_list([held, *key]) + ("" if key else f", {ALIAS}.ctid::text")
        sql = queries.sampled(relation, f"{held.sql} IS NOT NULL", selected, n, seed, values)
        with self._session.reading("sample rows") as run:
            found = run(sql, values.bound)
        named = searched.table.with_columns(tuple(map(searched.table.column, searched.table.key)))
        return [(rows.decoded(named, key, row[1:]) if key else row[1:], row[0]) for row in found]

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        relation = self._relation(searched)
        _, held = self._held(searched)
        with self._session.reading("look at the indexes") as run:
            # Read anew: an index may have been built, or lost, since the store was opened.
            indexes = [i for i in vector_indexes(run.connection, relation.oid) if i.column == held.name]
            vectors = int(run(f"SELECT count({held.sql}) FROM {relation.at} {ALIAS}", [])[0][0])
        return health_of(indexes, vectors, held, searched.metric)

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


def _books(connection: Connection, server: Server) -> Books:
    def run(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return connection.execute(placed(sql), tuple(parameters)).fetchall()

    return Books(run, lambda name: qualified(server.schema, name), NOW, row="ctid")


def _kept(searched: Searched, relation: Relation) -> Searched | None:
    """Return a table without columns that Postgres does not have (its limit is 1,600)."""
    if searched.vector is not None and searched.vector.name not in relation.columns:
        searched = replace(searched, vector=None)
    searched = replace(searched, text=tuple(name for name in searched.text if name in relation.columns))
    return searched if searched.vector is not None or searched.text or searched.has_sparse else None


def _words(searched: Searched, relation: Relation) -> tuple[Words, str, tuple[str, ...]]:
    """Return where a table's words are, what that is called, and what a user must know."""
    words, notes = relation.words, []
    if words is None or not searched.text:
        raise ConfigError(f"{searched.name} has no words to search", hint="search it by vector")
    if words.index is None:
        notes.append("no full-text index: the words of every row were read")
    if len(words.configs) > 1:
        made = " and ".join(words.configs)
        notes.append(f"the table's tsvector does not tell how it was made: tried {made}")
    return words, "tsvector, GIN" if words.index else "tsvector", tuple(notes)


def _told(run: Reading, asked: Asked, words: Words, query: Query, n: int) -> Found:
    """Return the n rows that say most of a query's words."""
    with_, ranked = queries.found_words(asked, words, query.text or "", n)
    listed = run(f"{with_} SELECT r::int8, p::text, s FROM ({ranked}) n", asked.values.bound)
    return [((r, p), float(s)) for r, p, s in listed]
