"""In which order a table is read, and what its cursor holds.

Rows come as they are stored: by rowid, WITHOUT ROWID tables by key. A cursor
names the last row that was read; how depends on what the table offers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from migrate import values
from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import bound, ident, rowid_alias, rowid_name
from migrate.batch import Cursor, Row
from migrate.schema import Kind, Table


@dataclass(slots=True)
class Walk:
    """A statement that reads a table from a cursor on. `stripped`: its rows begin with the rowid."""

    sql: str
    cells: Sequence[Any] = ()
    stripped: bool = False

    def position(self, rows: Sequence[Row]) -> Cursor:
        """Return the cursor after rows that were just read."""
        return rows[-1][0]


@dataclass(slots=True)
class _ByAlias(Walk):
    """By the column that is the rowid."""

    at: int = 0

    def position(self, rows: Sequence[Row]) -> Cursor:
        return rows[-1][self.at]


@dataclass(slots=True)
class _ByOffset(Walk):
    """As stored, counting: for a table whose columns take all three names of the rowid."""

    passed: int = 0

    def position(self, rows: Sequence[Row]) -> Cursor:
        self.passed += len(rows)
        return {"offset": self.passed}


@dataclass(slots=True)
class _ByKey(Walk):
    """The cursor holds the key of the last row.

    For a table with a rowid this spares a column in every row (0.4 us a row). A
    row with NULL in its key is not found by it again, so its rowid is asked for.
    """

    key_at: tuple[int, ...] = ()
    connection: sqlite3.Connection | None = field(default=None, repr=False)
    rowid_sql: str = ""
    passed: int = 0

    def position(self, rows: Sequence[Row]) -> Cursor:
        self.passed += len(rows)
        key = [rows[-1][i] for i in self.key_at]
        if None in key and self.connection is not None:
            found = self.connection.execute(self.rowid_sql, (*self.cells, self.passed - 1)).fetchone()
            return int(found[0])
        return {"key": values.exact_row([Kind.BLOB] * len(key), key).hex()}


def walk(connection: sqlite3.Connection, table: Table, here: Table, after: Cursor) -> Walk:
    """Return how to read `table`, which stands in the file as `here`, from a cursor on."""
    names, source = ", ".join(map(ident, table.column_names)), relation(here)
    alias, hidden = rowid_alias(here), rowid_name(here)
    key_known = bool(here.key) and set(here.key) <= set(table.column_names)
    key_at = tuple(table.column_names.index(k) for k in here.key) if key_known else ()
    if alias is not None and alias in table.column_names:
        sql, cells = _from(f"SELECT {names} FROM {source}", ident(alias), after)
        return _ByAlias(sql, cells, at=table.column_names.index(alias))
    if hidden is not None and key_known:
        start = _rowid_of(connection, here, hidden, after)
        sql, cells = _from(f"SELECT {names} FROM {source}", hidden, start)
        rowids, _ = _from(f"SELECT {hidden} FROM {source}", hidden, start)
        return _ByKey(sql, cells, False, key_at, connection, f"{rowids} LIMIT 1 OFFSET ?")
    if hidden is not None:
        sql, cells = _from(f"SELECT {hidden}, {names} FROM {source}", hidden, after)
        return Walk(sql, cells, stripped=True)
    if not here.key:
        passed = int(after["offset"]) if after is not None else 0
        return _ByOffset(f"SELECT {names} FROM {source} LIMIT -1 OFFSET ?", (passed,), passed=passed)
    keys = ", ".join(map(ident, here.key))
    if after is None:
        return _ByKey(f"SELECT {names} FROM {source} ORDER BY {keys}", key_at=key_at)
    marks, bounds = _bound(values.from_exact_row(bytes.fromhex(after["key"])))
    where = f" WHERE ({keys}) > ({', '.join(marks)})"
    return _ByKey(f"SELECT {names} FROM {source}{where} ORDER BY {keys}", bounds, key_at=key_at)


def _from(select: str, rowid: str, after: Cursor) -> tuple[str, tuple[Any, ...]]:
    where = f" WHERE {rowid} > ?" if after is not None else ""
    return f"{select}{where} ORDER BY {rowid}", (after,) if after is not None else ()


def _bound(cells: Sequence[Any]) -> tuple[list[str], list[Any]]:
    pairs = [bound(cell) for cell in cells]
    return ["CAST(? AS TEXT)" if cast else "?" for _, cast in pairs], [cell for cell, _ in pairs]


def _rowid_of(connection: sqlite3.Connection, here: Table, rowid: str, after: Cursor) -> int | None:
    """Return the rowid that a cursor stands for; None where its row is gone, so that reading starts over."""
    if after is None or isinstance(after, int):
        return after
    marks, cells = _bound(values.from_exact_row(bytes.fromhex(after["key"])))
    tests = " AND ".join(f"{ident(k)} = {mark}" for k, mark in zip(here.key, marks, strict=True))
    found = connection.execute(f"SELECT {rowid} FROM {relation(here)} WHERE {tests}", cells).fetchone()
    return int(found[0]) if found else None
