"""Keyword search in a SQLite file: FTS5 and BM25.

An FTS5 table of the file that indexes a table is used where it surely covers
it: such tables are kept by hand (AgentOS writes its own after each insert), so
rows and index may have come apart. Else the words are indexed in a temporary
file of ours, which SQLite removes by itself; nothing is put into the store or
beside it (`wordindex`).
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Hashable
from dataclasses import dataclass

from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import ident, literal, rowid_alias, translating
from migrate.search import text
from migrate.search.base import Means, Searched
from migrate.search.sqlite.reading import Place, Reading
from migrate.search.sqlite.rows import Ref
from migrate.search.sqlite.where import ALIAS, Allowed
from migrate.search.sqlite.wordindex import WordIndex

_CONTENT = re.compile(r"""\bcontent\s*=\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)"|(\w+))""", re.I)
_CONTENT_ROWID = re.compile(r"""\bcontent_rowid\s*=\s*(?:'([^']*)'|"([^"]*)"|(\w+))""", re.I)
_WORTH_SAYING_S = 0.5


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
class _Known:
    """What is known of a table, and in which state of the file it was. made: ours, if it was needed."""

    state: Hashable | None
    own: _Own | None
    made: WordIndex | None = None
    made_for: Hashable | None = None


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
        match = match.encode("utf-8", "replace").decode()  # as `WordIndex` has what is no UTF-8
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
                found = made.search(reading, match, k, allowed)
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
                    known.made.close()
            self._known.clear()

    def _own(self, reading: Reading, searched: Searched) -> _Own | None:
        with self._lock:
            return self._fresh(reading, searched).own

    def _fresh(self, reading: Reading, searched: Searched) -> _Known:
        """Return what is known of a table, looked at anew where the file may have changed."""
        known = self._known.get(searched.name)
        if known is None or known.state is None or known.state != reading.state:
            own = _own_index(reading.connection, reading.at(searched), searched)
            before = known
            known = _Known(reading.state, own)
            if before is not None:
                known.made, known.made_for = before.made, before.made_for
            self._known[searched.name] = known
        return known

    def _made(self, reading: Reading, searched: Searched) -> tuple[WordIndex, bool]:
        """Return our index over a table as it is now, and whether it was made or brought up to that just now."""
        known = self._fresh(reading, searched)
        if known.made is not None and known.made_for is not None and known.made_for == reading.state:
            return known.made, False
        if known.made is None or known.made.searched != searched:
            if known.made is not None:
                known.made.close()
            known.made = WordIndex(searched, self._means)
        known.made_for = None
        known.made.catch_up(reading)
        known.made_for = reading.state
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
        f"SELECT count(*), total({place.rowid}) FROM {relation(place.table)}"
    ).fetchone()
    return bool(indexed == there)


def _in_own(
    reading: Reading, name: str, place: Place, match: str, k: int, allowed: Allowed | None
) -> list[tuple[Ref, float]]:
    index = ident(name)
    source, test, bindings = index, "", ()
    if allowed is not None:
        source += f" JOIN {relation(place.table)} AS {ALIAS} ON {ALIAS}.{place.rowid} = {index}.rowid"
        test, bindings = f" AND {allowed.sql}", allowed.bindings
    sql = (
        f"SELECT {index}.rowid, -bm25({index}.{index}) FROM {source}"
        f" WHERE {index}.{index} MATCH ?{test} ORDER BY 2 DESC, 1 LIMIT ?"
    )
    return [(row, score) for row, score in reading.connection.execute(sql, (match, *bindings, k))]
