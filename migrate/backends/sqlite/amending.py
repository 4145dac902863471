"""Rows that are written and changed in a SQLite file: inserted, removed by key or by their cells."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate import values
from migrate.backends.sqlbooks import keys_kept_aside
from migrate.backends.sqlite import ddl
from migrate.backends.sqlite.names import bound, holds, ident, rowid_name
from migrate.batch import ExactCell, Row
from migrate.failpoints import hit
from migrate.schema import Table

if TYPE_CHECKING:
    from migrate.backends.sqlite.target import SqliteTarget


def insert(
    db: sqlite3.Connection, table: Table, rows: Sequence[Row], conflict: str = "", verb: str = "INSERT"
) -> None:
    """Insert rows inside an open transaction. conflict: what stands after the values, as ` ON CONFLICT ...`."""
    names = ", ".join(map(ident, table.column_names))
    marks = ", ".join("?" * len(table.columns))
    head = f"{verb} INTO {ident(table.name)} ({names}) VALUES"
    db.execute("SAVEPOINT batch")
    try:
        db.executemany(f"{head} ({marks}){conflict}", rows)
    except UnicodeEncodeError:
        # Text that is no UTF-8: bound as bytes and cast, which SQLite does not check.
        db.execute("ROLLBACK TO batch")
        for row in rows:
            cells = [bound(c) for c in row]
            marks = ", ".join("CAST(? AS TEXT)" if cast else "?" for _, cast in cells)
            db.execute(f"{head} ({marks}){conflict}", [c for c, _ in cells])
    db.execute("RELEASE batch")


def amend(
    target: SqliteTarget,
    table: Table,
    rows: Sequence[Row],
    exact: Sequence[ExactCell],
    *,
    replace: bool,
    removed: Sequence[Row] = (),
    removed_rows: Sequence[Row] = (),
) -> None:
    """Do what `Target.amend` says."""
    kinds = [c.kind for c in table.columns]
    with target.transaction("amend rows", table=table.name) as db:
        books = target.books
        for row in removed_rows:
            if not books.drop_exact_row(table.name, values.exact_row(kinds, row)):
                _remove_one(db, table, row)
        conflict = " ON CONFLICT DO NOTHING"
        if table.key:
            key_kinds = [kinds[i] for i in table.key_positions]
            books.drop_exact(table.name, (values.key_bytes(key_kinds, key) for key in removed))
            books.drop_exact(table.name, (values.row_key(table, row) for row in rows))
            books.drop_exact(table.name, {c.key for c in exact if c.key is not None})
            fits = ddl.fit(table, target.options)
            for key in [*removed, *(keys_kept_aside(exact) if replace else ())]:
                if fits.holds_key(key):  # else its row was kept aside whole, and is forgotten by now
                    _remove_key(db, table, key)
            if replace:
                # Removed and written anew, so that a value of a UNIQUE column may move between rows.
                conflict = ""
                for row in rows:
                    _remove_key(db, table, [row[i] for i in table.key_positions])
            elif table.full_text is not None:  # a virtual table takes no ON CONFLICT
                conflict, rows = "", _absent(db, table, rows)
        insert(db, table, rows, conflict)
        books.add_exact(exact)
        hit("amend.inside")


def _absent(db: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose key, one integer, is not there."""
    sql = f"SELECT 1 FROM {ident(table.name)} WHERE {ident(table.key[0])} = ?"
    (at,) = table.key_positions
    return [row for row in rows if db.execute(sql, (row[at],)).fetchone() is None]


def _remove_key(db: sqlite3.Connection, table: Table, key: Sequence[Any]) -> None:
    tests, cells = [], []
    for name, cell in zip(table.key, key, strict=True):
        value, cast = bound(cell)
        tests.append(f"{ident(name)} = " + ("CAST(? AS TEXT)" if cast else "?"))
        cells.append(value)
    db.execute(f"DELETE FROM {ident(table.name)} WHERE {' AND '.join(tests)}", cells)


def _remove_one(db: sqlite3.Connection, table: Table, row: Row) -> None:
    found = [holds(ident(name), cell) for name, cell in zip(table.column_names, row, strict=True)]
    cells = [value for _, values in found for value in values]
    where, rowid = " AND ".join(test for test, _ in found), rowid_name(table)
    if rowid is not None:
        where = f"{rowid} = (SELECT {rowid} FROM {ident(table.name)} WHERE {where} LIMIT 1)"
    db.execute(f"DELETE FROM {ident(table.name)} WHERE {where}", cells)
