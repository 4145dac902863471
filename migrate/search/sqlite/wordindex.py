"""An index of ours over the words of one table: FTS5 without content, in a temporary file.

SQLite removes the file by itself. A row that was added is indexed when it is
first asked for; a change of any other means to begin anew. Which of the two it
was is told by a digest over the rows as they were indexed: reading 100,000 rows
takes 0.2 s, indexing them 1.4 s.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import xxhash

from migrate import values
from migrate.errors import ConfigError
from migrate.schema import Kind
from migrate.search import text
from migrate.search.base import Means, Searched
from migrate.search.sqlite import rows
from migrate.search.sqlite.reading import Place, Reading
from migrate.search.sqlite.rows import Ref
from migrate.search.sqlite.where import Allowed

_READ_AT_ONCE = 1000  # rows
_PERMITTED_AT_ONCE = 1000  # rows that a filter looks at together
_SAY_EVERY_S = 2.0
_INDEX = "words"
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384")


class WordIndex:
    """The words of one table, as they were when `catch_up` was last called.

    searched: the table. rows: how many are indexed. seconds: what the last `catch_up` took.
    """

    def __init__(self, searched: Searched, means: Means) -> None:
        self.rows, self.seconds = 0, 0.0
        self.searched, self._means = searched, means
        self._kinds = [searched.table.column(name).kind for name in searched.text]
        self._connection: sqlite3.Connection | None = None
        self._digest = xxhash.xxh3_128()
        self._last: int | None = None  # rowid; None where rows go by key, and nothing can be added
        self._keyed = False

    def close(self) -> None:
        """Remove the index. Idempotent."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def catch_up(self, reading: Reading) -> None:
        """Bring the index up to a snapshot. Raises ConfigError where SQLite has no FTS5."""
        began = time.monotonic()
        place = reading.at(self.searched)
        try:
            if not self._append(reading, place):
                self._begin(place)
                self._add(self._read(reading, place), place)
        except BaseException:  # half an index finds half the rows
            self.close()
            raise
        self.seconds = time.monotonic() - began

    def search(
        self, reading: Reading, match: str, k: int, allowed: Allowed | None
    ) -> list[tuple[Ref, float]]:
        """Return the k best rows for an FTS5 query, of those that are allowed."""
        limit, cells = ("", (match,)) if allowed is not None else (" LIMIT ?", (match, k))
        sql = f"SELECT rowid, -bm25({_INDEX}) FROM {_INDEX} WHERE {_INDEX} MATCH ? ORDER BY 2 DESC, 1{limit}"
        ranked = self._named(self._db.execute(sql, cells))
        if allowed is None:
            return list(ranked)
        return list(islice(self._permitted(reading, ranked, allowed), k))

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("searched before it was filled")
        return self._connection

    # --- filling ------------------------------------------------------------------

    def _begin(self, place: Place) -> None:
        self.close()
        self.rows, self._last, self._keyed = 0, None, place.rowid is None
        self._digest = xxhash.xxh3_128()
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}").close()
        try:
            self._connection.execute(
                f"CREATE VIRTUAL TABLE {_INDEX} USING fts5({', '.join(self._names)}, content='',"
                " tokenize='porter unicode61 remove_diacritics 2')"
            )
        except sqlite3.OperationalError as exc:
            raise ConfigError(
                f"this Python's SQLite cannot search for words: {exc}", hint="it was built without FTS5"
            ) from exc
        self._connection.execute("CREATE TABLE docs (doc INTEGER PRIMARY KEY, key BLOB)")

    def _append(self, reading: Reading, place: Place) -> bool:
        """Add the rows behind those that are indexed; False where those are not what they were."""
        if self._connection is None or self._keyed or place.rowid is None:
            return False
        seen, last = xxhash.xxh3_128(), self._last
        read = self._read(reading, place)
        left: list[tuple[Any, ...]] = []
        for part in read:
            inside = [row for row in part if last is not None and row[0] <= last]
            _digest(seen, inside)
            if len(inside) < len(part):
                left = part[len(inside) :]
                break
        if seen.digest() != self._digest.digest():
            return False
        self._add(iter([left]), place)
        self._add(read, place)
        return True

    def _read(self, reading: Reading, place: Place) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in the order of their rowids: what names them, then the cells with words."""
        cursor = reading.connection.execute(rows.every(place, self.searched.text))
        while part := cursor.fetchmany(_READ_AT_ONCE):
            yield part

    def _add(self, parts: Iterator[list[tuple[Any, ...]]], place: Place) -> None:
        marks = ", ".join("?" * len(self._names))
        insert = f"INSERT INTO {_INDEX}(rowid, {', '.join(self._names)}) VALUES (?, {marks})"
        head = 1 if place.rowid is not None else len(place.key)
        said = time.monotonic()
        self._db.execute("BEGIN")
        for part in parts:
            refs = self._refs(part, head)
            self._db.executemany(insert, self._documents(refs, part, head))
            _digest(self._digest, part)
            self.rows += len(part)
            if part and not self._keyed:
                self._last = part[-1][0]
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                self._means.say(f"indexing the words of {self.searched.name}: {self.rows:,} rows so far")
        self._db.execute("COMMIT")

    @property
    def _names(self) -> list[str]:
        return [f"c{i}" for i in range(len(self._kinds))]

    def _refs(self, part: Sequence[tuple[Any, ...]], head: int) -> Sequence[int]:
        if not self._keyed:
            return [row[0] for row in part]
        keys = [values.exact_row([Kind.BLOB] * head, row[:head]) for row in part]
        self._db.executemany("INSERT INTO docs VALUES (?, ?)", enumerate(keys, self.rows + 1))
        return range(self.rows + 1, self.rows + 1 + len(part))

    def _documents(
        self, refs: Sequence[int], part: Sequence[tuple[Any, ...]], head: int
    ) -> Iterator[tuple[Any, ...]]:
        for ref, row in zip(refs, part, strict=True):
            words = (text.words_of(kind, cell) for kind, cell in zip(self._kinds, row[head:], strict=True))
            yield (ref, *(w.encode("utf-8", "replace").decode() for w in words))

    # --- asking -------------------------------------------------------------------

    def _named(self, ranked: Iterator[tuple[int, float]]) -> Iterator[tuple[Ref, float]]:
        if not self._keyed:
            yield from ranked
            return
        for doc, score in ranked:
            (key,) = self._db.execute("SELECT key FROM docs WHERE doc = ?", (doc,)).fetchone()
            yield values.from_exact_row(key), score

    def _permitted(
        self, reading: Reading, ranked: Iterator[tuple[Ref, float]], allowed: Allowed
    ) -> Iterator[tuple[Ref, float]]:
        place = reading.at(self.searched)
        for part in rows.in_parts(ranked, _PERMITTED_AT_ONCE):
            kept = set(rows.permitted(reading.connection, place, [ref for ref, _ in part], allowed))
            yield from ((ref, score) for ref, score in part if ref in kept)


def _digest(into: xxhash.xxh3_128, part: Sequence[tuple[Any, ...]]) -> None:
    for row in part:
        into.update(repr(row).encode("utf-8", "surrogatepass"))
