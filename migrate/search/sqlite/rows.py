"""Rows of a SQLite file by what a search found: their rowids, or their keys where they have none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import holds, ident
from migrate.schema import Table
from migrate.search.base import Key
from migrate.search.sqlite.reading import Place
from migrate.search.sqlite.where import ALIAS, Allowed

Ref = int | Key
"""A rowid; of a table without one, the key."""


def fetched(
    connection: sqlite3.Connection, place: Place, columns: Sequence[str], refs: Sequence[Ref]
) -> dict[Ref, tuple[Any, ...]]:
    """Return the cells of rows by what names them; rows that are not there are left out."""
    wanted = ", ".join(f"{ALIAS}.{ident(c)}" for c in columns) or "NULL"
    source = f"{relation(place.table)} AS {ALIAS}"
    if place.rowid is not None:
        sql = (
            f"SELECT {ALIAS}.{place.rowid}, {wanted} FROM {source}"
            f" WHERE {ALIAS}.{place.rowid} IN (SELECT value FROM json_each(?))"
        )
        return {row[0]: row[1:] for row in connection.execute(sql, (json.dumps(refs),))}
    found: dict[Ref, tuple[Any, ...]] = {}
    for ref in refs:
        test, cells = _by_key(place.table, ref)
        row = connection.execute(f"SELECT {wanted} FROM {source} WHERE {test}", cells).fetchone()
        if row is not None:
            found[ref] = row
    return found


def permitted(
    connection: sqlite3.Connection, place: Place, refs: Sequence[Ref], allowed: Allowed
) -> list[Ref]:
    """Return those of the rows that may be found, in the order given."""
    source = f"{relation(place.table)} AS {ALIAS}"
    if place.rowid is not None:
        sql = (
            f"SELECT {ALIAS}.{place.rowid} FROM {source}"
            f" WHERE {ALIAS}.{place.rowid} IN (SELECT value FROM json_each(?)) AND {allowed.sql}"
        )
        kept = {row[0] for row in connection.execute(sql, (json.dumps(refs), *allowed.bindings))}
        return [ref for ref in refs if ref in kept]
    found = []
    for ref in refs:
        test, cells = _by_key(place.table, ref)
        sql = f"SELECT 1 FROM {source} WHERE {test} AND {allowed.sql}"
        if connection.execute(sql, (*cells, *allowed.bindings)).fetchone() is not None:
            found.append(ref)
    return found


def ref_of(connection: sqlite3.Connection, place: Place, key: Key) -> Ref | None:
    """Return what names the row of a key, or None where there is no such row."""
    if not place.key:
        found = fetched(connection, place, (), key) if len(key) == 1 and type(key[0]) is int else {}
        return next(iter(found), None)
    if len(key) != len(place.key):
        return None
    test, cells = _by_key(place.table, key)
    wanted = f"{ALIAS}.{place.rowid}" if place.rowid is not None else "1"
    sql = f"SELECT {wanted} FROM {relation(place.table)} AS {ALIAS} WHERE {test}"
    row = connection.execute(sql, cells).fetchone()
    if row is None:
        return None
    return key if place.rowid is None else int(row[0])


def every(place: Place, columns: Sequence[str]) -> str:
    """Return the statement that reads all rows in the order of what names them, the cells at their head."""
    head = [place.rowid] if place.rowid is not None else [ident(k) for k in place.key]
    source = relation(place.table)
    return f"SELECT {', '.join([*head, *map(ident, columns)])} FROM {source} ORDER BY {', '.join(head)}"


def in_parts(refs: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of `size` items at most."""
    part: list[Any] = []
    for ref in refs:
        part.append(ref)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _by_key(table: Table, key: Any) -> tuple[str, list[Any]]:
    found = [holds(f"{ALIAS}.{ident(name)}", cell) for name, cell in zip(table.key, key, strict=True)]
    tests = " AND ".join(test for test, _ in found)
    return f"({tests})", [value for _, values in found for value in values]
