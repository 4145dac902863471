"""A SQLite file as a `Searchable`: exact or HNSW neighbours, FTS5, and both fused."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import ident, translating
from migrate.errors import ConfigError, TransientError
from migrate.search import cells, text
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
from migrate.search.filters import All, of_tenant
from migrate.search.fuse import best, depth, fused
from migrate.search.hits import hit
from migrate.search.sqlite import graph, rows, where
from migrate.search.sqlite.nearest import Nearest
from migrate.search.sqlite.reading import Reading, SqliteFile
from migrate.search.sqlite.rows import Ref
from migrate.search.sqlite.where import Allowed
from migrate.search.sqlite.words import Words

_TRIES = 5  # a file that is read without locks may be written to meanwhile
T = TypeVar("T")


class SqliteSearch:
    """See `Searchable`. The file is open only while a query is answered."""

    def __init__(self, path: Path, means: Means) -> None:
        self._file = SqliteFile(path)
        self._nearest = Nearest(path, means)
        self._one_at_a_time = Lock()
        self._words = Words(means)
        self._tried(lambda reading: None)  # an unreadable file is found here, not by the first query

    def describe(self) -> str:
        """See `Searchable.describe`."""
        return str(self._file.path)

    def close(self) -> None:
        """See `Searchable.close`."""
        self._words.close()
        self._nearest.close()
        self._file.close()

    def tables(self) -> Sequence[Searched]:
        """See `Searchable.tables`."""
        return self._file.tables()

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`."""
        return self._tried(lambda reading: self._answer(reading, searched, query))

    def _tried(self, ask: Callable[[Reading], T]) -> T:
        for left in reversed(range(_TRIES)):
            try:
                with self._file.reading() as reading:
                    return ask(reading)
            except TransientError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _answer(self, reading: Reading, searched: Searched, query: Query) -> Answer:
        allowed = _allowed(reading, searched, query)
        if query.mode is Mode.VECTOR:
            found, how, notes = self._near(reading, searched, query, query.k, allowed)
        elif query.mode is Mode.KEYWORD:
            found, how, notes = self._worded(reading, searched, query, query.k, allowed)
        else:
            deep = depth(query.k)
            near, near_how, near_notes = self._near(reading, searched, query, deep, allowed)
            worded, words_how, words_notes = self._worded(reading, searched, query, deep, allowed)
            lists = [[_tuple(ref) for ref, _ in ranked] for ranked in (near, worded)]
            rowid = reading.at(searched).rowid is not None
            found = [(key[0] if rowid else key, score) for key, score in fused(lists, 2 * deep)]
            how, notes = f"{near_how} + {words_how}, fused by rank", (*near_notes, *words_notes)
        with translating("read what was found", table=searched.name):
            return Answer(tuple(_hits(reading, searched, found, query)), how, notes)

    def _near(
        self, reading: Reading, searched: Searched, query: Query, k: int, allowed: Allowed | None
    ) -> tuple[list[tuple[Ref, float]], str, tuple[str, ...]]:
        if searched.vector is None or query.vector is None:
            raise ConfigError(f"{searched.name} has no vectors to compare", hint="--mode keyword")
        with self._one_at_a_time:  # it keeps vectors and an index that threads must not change together
            near = self._nearest.search(
                reading, searched, query.vector, k, allowed=allowed, exact=query.exact
            )
        return near.found, near.how, near.notes

    def _worded(
        self, reading: Reading, searched: Searched, query: Query, k: int, allowed: Allowed | None
    ) -> tuple[list[tuple[Ref, float]], str, tuple[str, ...]]:
        if not searched.text or query.text is None:
            raise ConfigError(f"{searched.name} has no words to search", hint="--mode vector")
        ranked = self._words.search(reading, searched, query.text, k, allowed)
        return ranked.found, ranked.how, ranked.notes

    def vector_of(self, searched: Searched, key: Key) -> Vector | None:
        """See `Searchable.vector_of`."""
        return self._tried(lambda reading: _vector_of(reading, searched, key))

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`."""
        column = searched.vector
        if column is None:
            return []
        return self._tried(
            lambda reading: _spread(
                reading, searched, column.name, n, seed, lambda cell: cells.vector(column, cell)
            )
        )

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        if not searched.text:
            return []
        kind = searched.table.column(searched.text[0]).kind

        def words(cell: Any) -> str | None:
            found = text.words_of(kind, cell)
            return found if text.terms(found) else None

        return self._tried(lambda reading: _spread(reading, searched, searched.text[0], n, seed, words))

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        with self._one_at_a_time:
            return self._tried(lambda reading: self._nearest.health(reading, searched))

    def neighbours(
        self,
        node: str,
        *,
        depth: int = 1,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[Edge]:
        """See `Graph.neighbours`."""
        with self._file.reading() as reading:
            yield from graph.neighbours(reading, node, depth, tenant, direction)

    def paths(
        self,
        start: str,
        goal: str,
        *,
        depth: int = 4,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[tuple[Edge, ...]]:
        """See `Graph.paths`. The file stays open until the last path was taken, or the iterator is closed."""
        with self._file.reading() as reading:
            yield from graph.paths(reading, start, goal, depth, tenant, direction)


def _allowed(reading: Reading, searched: Searched, query: Query) -> Allowed | None:
    parts = [query.where] if query.where is not None else []
    if query.tenant is not None:
        if searched.tenant is None:
            raise ConfigError(
                f"{searched.name} has no column that names a tenant",
                hint="leave --tenant out, or use --where",
            )
        parts.append(of_tenant(searched.tenant, query.tenant))
    if not parts:
        return None
    return where.allowed(All(tuple(parts)), searched.table, reading.at(searched).table, utf8=reading.utf8)


def _hits(
    reading: Reading, searched: Searched, found: Sequence[tuple[Ref, float]], query: Query
) -> Iterator[Hit]:
    """Yield the k best hits, equal scores in the order of their keys."""
    if not found or query.k < 1:
        return
    place = reading.at(searched)
    cut = found[min(query.k, len(found)) - 1][1]
    found = [pair for pair in found if pair[1] >= cut]
    key = searched.table.key
    columns = [c.name for c in searched.table.columns if query.rows and cells.is_shown(c.kind)]
    wanted = list(dict.fromkeys([*key, *columns]))
    there = rows.fetched(reading.connection, place, wanted, [ref for ref, _ in found])
    by_key: dict[Key, dict[str, Any]] = {}
    scored: list[tuple[Key, float]] = []
    for ref, score in found:
        if ref not in there:  # a full-text index of the file's own may name rows that are gone
            continue
        row = dict(zip(wanted, there[ref], strict=True))
        own = tuple(row[name] for name in key) if key else _tuple(ref)
        by_key[own] = row
        scored.append((own, score))
    for own, score in best(scored, query.k):
        yield hit(searched, own, score, by_key[own] if query.rows else None)


def _tuple(ref: Ref) -> Key:
    return ref if isinstance(ref, tuple) else (ref,)


def _vector_of(reading: Reading, searched: Searched, key: Key) -> Vector | None:
    place = reading.at(searched)
    with translating("read a vector", table=searched.name):
        ref = rows.ref_of(reading.connection, place, key)
        if ref is None:
            raise KeyError(key)
        if searched.vector is None:
            return None
        ((cell,),) = rows.fetched(reading.connection, place, [searched.vector.name], [ref]).values()
    return cells.vector(searched.vector, cell)


def _spread(
    reading: Reading,
    searched: Searched,
    column: str,
    n: int,
    seed: int,
    made: Callable[[Any], T | None],
) -> list[tuple[Key, T]]:
    """Return up to n rows' keys and what is made of a cell, rows for which that is None left out."""
    place = reading.at(searched)
    with translating("sample rows", table=searched.name):
        refs = _refs(reading.connection, place.rowid, searched, relation(place.table), column)
        # Four times as many as are wanted, for a cell may turn out to be no vector.
        order = random.Random(seed).sample(refs, min(len(refs), 4 * n + 100))  # noqa: S311  # no secret
        found: list[tuple[Key, T]] = []
        key = searched.table.key
        for part in rows.in_parts(iter(order), max(n, 1)):
            there = rows.fetched(reading.connection, place, [*key, column], part)
            for ref in part:
                *own, cell = there[ref]
                value = made(cell)
                if value is not None and len(found) < n:
                    found.append((tuple(own) if key else _tuple(ref), value))
            if len(found) >= n:
                break
    return found


def _refs(
    connection: sqlite3.Connection, rowid: str | None, searched: Searched, source: str, column: str
) -> list[Ref]:
    """Return what names the rows that have a cell in a column, in the order of the file."""
    head = [rowid] if rowid is not None else [ident(k) for k in searched.table.key]
    sql = f"SELECT {', '.join(head)} FROM {source} WHERE {ident(column)} IS NOT NULL"
    found = connection.execute(sql)
    return [row[0] for row in found] if rowid is not None else list(found)
