"""Keyword search in a SQLite file: FTS5 and BM25.

An FTS5 table of the file that indexes a table is used where it surely covers
it: such tables are kept by hand (AgentOS writes its own after each insert), so
rows and index may have come apart. Else the words are indexed in a temporary
file of ours, which SQLite removes by itself; nothing is put into the store or
beside it. That index serves until the store changes.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from migrate import values
from migrate.backends.sqlite.names import ident, literal, rowid_alias, translating
from migrate.errors import ConfigError
from migrate.schema import Kind
from migrate.search import text
from migrate.search.base import Means, Searched
from migrate.search.sqlite import rows
from migrate.search.sqlite.reading import Place, Reading
from migrate.search.sqlite.rows import Ref
from migrate.search.sqlite.where import ALIAS, Allowed

_CONTENT = re.compile(r"""\bcontent\s*=\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)"|(\w+))""", re.I)
_CONTENT_ROWID = re.compile(r"""\bcontent_rowid\s*=\s*(?:'([^']*)'|"([^"]*)"|(\w+))""", re.I)
_PERMITTED_AT_ONCE = 1000  # rows that a filter looks at together
_WORTH_SAYING_S = 0.5
_INDEX = "words"
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384")


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows that have some of the words, best first, with -bm25: positive, higher is better."""

    found: list[tuple[Ref, float]]
    how: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Own:
    """An FTS5 table of the file."""

    name: str
    usable: bool  # it covers the table as it is


@dataclass(slots=True)
class _Made:
    """An index of ours over the words of one table, in a temporary file. `keyed`: `docs` names its rows."""

    connection: sqlite3.Connection
    rows: int
    seconds: float
    keyed: bool


@dataclass(slots=True)
class _Known:
    state: Hashable | None
    own: _Own | None = None
    made: _Made | None = None


class Words:
    """Keyword search over the tables of one file; keeps what it has indexed until the file changes."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def search(
        self, reading: Reading, searched: Searched, asked: str, k: int, allowed: Allowed | None
    ) -> Ranked:
        """Return the k best rows that have at least one of the words."""
        terms = text.terms(asked)
        if not terms:
            return Ranked([], "FTS5", ("there is no word in the text to search for",))
        match = " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
        with translating("search for words", table=searched.name):
            own, notes = self._own(reading, searched), []
            if own is not None and own.usable:
                try:
                    found = _in_own(reading, own.name, reading.at(searched), match, k, allowed)
                    return Ranked(found, f"FTS5, {own.name}")
                except sqlite3.DatabaseError as exc:
                    notes.append(f"{own.name} cannot be used: {exc}")
            elif own is not None:
                notes.append(f"{own.name} does not cover {searched.name} as it is now, so it is not used")
            with self._lock:
                made, just_now = self._made(reading, searched)
                found = _in_made(made, reading, reading.at(searched), match, k, allowed)
            if just_now and made.seconds > _WORTH_SAYING_S:
                notes.append(
                    f"indexed {made.rows:,} rows of {searched.name} in {made.seconds:.1f} s, for as long as the"
                    " store stays open here; docs/search.md shows how to give the file an index of its own"
                )
        return Ranked(found, "FTS5, words indexed for this search", tuple(notes))

    def close(self) -> None:
        """Remove the temporary indexes."""
        with self._lock:
            for known in self._known.values():
                if known.made is not None:
                    known.made.connection.close()
            self._known.clear()

    def _fresh(self, reading: Reading, searched: Searched) -> _Known:
        """Return what is known of a table, forgetting it where the file may have changed."""
        known = self._known.get(searched.name)
        if known is None or known.state is None or known.state != reading.state:
            if known is not None and known.made is not None:
                known.made.connection.close()
            known = _Known(reading.state, _own_index(reading.connection, reading.at(searched), searched))
            self._known[searched.name] = known
        return known

    def _own(self, reading: Reading, searched: Searched) -> _Own | None:
        with self._lock:
            return self._fresh(reading, searched).own

    def _made(self, reading: Reading, searched: Searched) -> tuple[_Made, bool]:
        """Return our index over a table, and whether it was made just now."""
        known = self._fresh(reading, searched)
        if known.made is not None:
            return known.made, False
        known.made = _index(reading, reading.at(searched), searched, self._means)
        return known.made, True


def _own_index(connection: sqlite3.Connection, place: Place, searched: Searched) -> _Own | None:
    """Return the file's own full-text index over a table, if it has one for its words."""
    if place.rowid is None or not searched.text:
        return None
    listed = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'create virtual table%fts5%'"
    ).fetchall()
    unusable: _Own | None = None
    for name, sql in listed:
        if not _indexes(sql, place):
            continue
        try:
            info = connection.execute(f"PRAGMA table_info({literal(name)})").fetchall()
            if searched.text[0].lower() not in {str(row[1]).lower() for row in info}:
                continue
            if _covers(connection, name, place):
                return _Own(name, True)
        except sqlite3.DatabaseError:  # damaged, or made by a module that is not here
            pass
        unusable = _Own(name, False)
    return unusable


def _indexes(sql: str, place: Place) -> bool:
    content, rowid = _CONTENT.search(sql), _CONTENT_ROWID.search(sql)
    if content is None or _option(content).lower() != place.table.name.lower():
        return False
    alias = rowid_alias(place.table)
    names = {"rowid", "_rowid_", "oid"} | ({alias.lower()} if alias else set())
    return rowid is None or _option(rowid).lower() in names


def _option(found: re.Match[str]) -> str:
    single, double, bare = found.groups()
    return (single or "").replace("''", "'") or (double or "").replace('""', '"') or bare or ""


def _covers(connection: sqlite3.Connection, name: str, place: Place) -> bool:
    """Whether an index and its table have the same rowids, told by their number and their sum."""
    shadow = f"{name}_docsize"
    indexed = connection.execute(f"SELECT count(*), total(id) FROM {ident(shadow)}").fetchone()
    there = connection.execute(
        f"SELECT count(*), total({place.rowid}) FROM {ident(place.table.name)}"
    ).fetchone()
    return bool(indexed == there)


def _in_own(
    reading: Reading, name: str, place: Place, match: str, k: int, allowed: Allowed | None
) -> list[tuple[Ref, float]]:
    index = ident(name)
    source, test, bindings = index, "", ()
    if allowed is not None:
        source += f" JOIN {ident(place.table.name)} AS {ALIAS} ON {ALIAS}.{place.rowid} = {index}.rowid"
        test, bindings = f" AND {allowed.sql}", allowed.bindings
    sql = (
        f"SELECT {index}.rowid, -bm25({index}.{index}) FROM {source}"
        f" WHERE {index}.{index} MATCH ?{test} ORDER BY 2 DESC, 1 LIMIT ?"
    )
    return [(row, score) for row, score in reading.connection.execute(sql, (match, *bindings, k))]


def _index(reading: Reading, place: Place, searched: Searched, means: Means) -> _Made:
    """Index the words of a table in a temporary file, row by row."""
    began = time.monotonic()
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()
        names = [f"c{i}" for i in range(len(searched.text))]
        try:
            connection.execute(
                f"CREATE VIRTUAL TABLE {_INDEX} USING fts5({', '.join(names)}, content='',"
                " tokenize='porter unicode61 remove_diacritics 2')"
            )
        except sqlite3.OperationalError as exc:
            raise ConfigError(
                f"this Python's SQLite cannot search for words: {exc}", hint="it was built without FTS5"
            ) from exc
        connection.execute("CREATE TABLE docs (doc INTEGER PRIMARY KEY, key BLOB)")
        connection.execute("BEGIN")
        count = _fill(connection, reading, place, searched, means)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return _Made(connection, count, time.monotonic() - began, keyed=place.rowid is None)


def _fill(
    connection: sqlite3.Connection, reading: Reading, place: Place, searched: Searched, means: Means
) -> int:
    kinds = [searched.table.column(name).kind for name in searched.text]
    sql, head = rows.every(place, searched.text)
    marks = ", ".join("?" * len(kinds))
    names = ", ".join(f"c{i}" for i in range(len(kinds)))
    insert = f"INSERT INTO {_INDEX}(rowid, {names}) VALUES (?, {marks})"
    count, said = 0, time.monotonic()
    cursor = reading.connection.execute(sql)
    while part := cursor.fetchmany(1000):
        if place.rowid is None:
            keys = [values.exact_row([Kind.BLOB] * head, row[:head]) for row in part]
            connection.executemany("INSERT INTO docs VALUES (?, ?)", enumerate(keys, count + 1))
            refs: Sequence[int] = range(count + 1, count + 1 + len(part))
        else:
            refs = [row[0] for row in part]
        connection.executemany(insert, _documents(refs, part, kinds, head))
        count += len(part)
        if time.monotonic() - said > 2:
            said = time.monotonic()
            means.say(f"indexing the words of {searched.name}: {count:,} rows so far")
    return count


def _documents(
    refs: Sequence[int], part: Sequence[tuple[Any, ...]], kinds: Sequence[Kind], head: int
) -> Iterator[tuple[Any, ...]]:
    for ref, row in zip(refs, part, strict=True):
        words = (text.words_of(kind, cell) for kind, cell in zip(kinds, row[head:], strict=True))
        yield (ref, *(w.encode("utf-8", "replace").decode() for w in words))


def _in_made(
    made: _Made, reading: Reading, place: Place, match: str, k: int, allowed: Allowed | None
) -> list[tuple[Ref, float]]:
    sql = (
        f"SELECT rowid, -bm25({_INDEX}) FROM {_INDEX} WHERE {_INDEX} MATCH ?"
        f" ORDER BY 2 DESC, 1{' LIMIT ?' if allowed is None else ''}"
    )
    ranked = _named(made, made.connection.execute(sql, (match, k) if allowed is None else (match,)))
    if allowed is None:
        return list(ranked)
    return list(islice(_permitted(reading, place, ranked, allowed), k))


def _named(made: _Made, ranked: Iterator[tuple[int, float]]) -> Iterator[tuple[Ref, float]]:
    if not made.keyed:
        yield from ranked
        return
    for doc, score in ranked:
        (key,) = made.connection.execute("SELECT key FROM docs WHERE doc = ?", (doc,)).fetchone()
        yield values.from_exact_row(key), score


def _permitted(
    reading: Reading, place: Place, ranked: Iterator[tuple[Ref, float]], allowed: Allowed
) -> Iterator[tuple[Ref, float]]:
    for part in rows.in_parts(ranked, _PERMITTED_AT_ONCE):
        kept = set(rows.permitted(reading.connection, place, [ref for ref, _ in part], allowed))
        yield from ((ref, score) for ref, score in part if ref in kept)
