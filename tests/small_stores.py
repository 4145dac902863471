"""Small stores for tests, made by hand: in memory and as SQLite files."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from migrate.backends.memory import Memory
from migrate.batch import Row
from migrate.schema import Column, Kind, Table


def cell(value: Any) -> tuple[str, Any]:
    """Return what tells two cells apart: 1, 1.0, True, '1' and -0.0 are five."""
    bits = struct.pack(">d", value).hex() if isinstance(value, float) else value
    return type(value).__name__, bits


def typed(rows: Sequence[Row]) -> list[tuple[tuple[str, Any], ...]]:
    """Return rows as typed cells, in their order."""
    return [tuple(map(cell, row)) for row in rows]


def multiset(rows: Sequence[Row]) -> Counter[tuple[tuple[str, Any], ...]]:
    """Return rows as typed cells, without order."""
    return Counter(typed(rows))


def pairs(name: str = "t", *, key: tuple[str, ...] = ("id",)) -> Table:
    """Return a table with an integer and a text."""
    return Table(name, (Column("id", Kind.INTEGER), Column("v", Kind.TEXT)), key)


def in_memory(name: str, *tables: tuple[Table, Sequence[Row]]) -> Memory:
    """Fill a store in this process. Its address is `memory:NAME`."""
    store = Memory(name)
    for table, rows in tables:
        store.shelf.tables[table.name] = table
        store.shelf.rows[table.name] = list(rows)
    return store


def sqlite_file(path: Path, script: str, *more: tuple[str, Sequence[Any]]) -> Path:
    """Make a SQLite file; return its path."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
        for sql, parameters in more:
            db.execute(sql, parameters)
        db.commit()
    return path


def asked(path: Path, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Run one statement in a SQLite file and return its rows."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(sql, parameters).fetchall()
        db.commit()
        return rows
