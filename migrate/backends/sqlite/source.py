"""Reading a SQLite file: one snapshot, in rowid order, nothing touched."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrate import values
from migrate.backends.sqlbooks import Books, restore
from migrate.backends.sqlite.introspect import read_schema
from migrate.backends.sqlite.names import bound, ident, rowid_alias, rowid_name, translating
from migrate.backends.sqlite.opening import Opened, open_source
from migrate.batch import Batch, Cursor, Row
from migrate.schema import Kind, NotCarried, Table

NOW = "((julianday('now') - 2440587.5) * 86400.0)"


class SqliteSource:
    """A SQLite file as a `Source` (see `migrate.backends.base`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.snapshot = 0
        self._opened: Opened = open_source(path)
        self._connection = self._opened.connection
        self._tables: list[Table] | None = None
        self._left: list[NotCarried] = []
        self._here: dict[str, Table] = {}  # a carried table, as this file declares it
        self._exact: dict[str, int] = {}
        self._loose_text: set[str] = set()  # tables with text that is no UTF-8

    def describe(self) -> str:
        """See `Store.describe`."""
        return str(self._path)

    def close(self) -> None:
        """See `Store.close`."""
        self._opened.close()

    @property
    def how(self) -> str:
        """Return in which way the file is read (`opening.Opened.how`)."""
        return self._opened.how

    @property
    def books(self) -> Books:
        """Return memlift's own tables here, for reading; they may not exist."""
        return Books(self._run, ident, NOW, row="rowid")

    def tables(self) -> list[Table]:
        """See `Source.tables`. A table that memlift wrote is described as its own source had it."""
        if self._tables is None:
            with translating("read the schema", file=str(self._path)):
                declared, self._left = read_schema(self._connection)
                self._tables = self._as_written(declared)
        return self._tables

    def _as_written(self, declared: list[Table]) -> list[Table]:
        here = {t.name: t for t in declared}
        self._here = dict(here)
        if not self._connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = 'memlift_tables' AND type = 'table'"
        ).fetchone():
            return declared
        books = Books(self._run, ident, NOW, row="rowid")
        self._exact = books.exact_count()
        tables = dict(here)
        for name, (target, table) in books.made().items():
            if target in here and set(table.column_names) <= set(here[target].column_names):
                del tables[target]
                extra = [c for c in here[target].columns if c.name not in table.column_names]
                tables[name] = table.with_columns((*table.columns, *extra))
                self._here[name] = here[target]
        return list(tables.values())

    def _run(self, sql: str, parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        self.tables()
        return list(self._left)

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        here = self._here[table.name]
        with translating("count rows", table=table.name):
            (n,) = self._connection.execute(f"SELECT count(*) FROM {ident(here.name)}").fetchone()
            if self._exact.get(table.name):
                (whole,) = self._connection.execute(
                    'SELECT count(*) FROM memlift_exact WHERE "table" = ? AND "column" IS NULL', (table.name,)
                ).fetchone()
                n += whole
        return int(n)

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        broken: dict[tuple[str, str], int] = {}
        with translating("check foreign keys", file=str(self._path)):
            for child, _, parent, _ in self._connection.execute("PRAGMA foreign_key_check"):
                broken[(child, parent)] = broken.get((child, parent), 0) + 1
        return [
            f"{n} rows of {child} name a row of {parent} that is not there"
            for (child, parent), n in broken.items()
        ]

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`. Rows come by rowid, WITHOUT ROWID tables by key."""
        here = self._here[table.name]
        position = after
        if not (isinstance(after, dict) and "exact" in after):
            for rows, position in self._rows(table, here, size, after):
                yield Batch(table, self._restored(table, rows), position)
        if self._exact.get(table.name):
            yield from self._whole_rows(table, size, position)
        self._opened.check()

    def _restored(self, table: Table, rows: list[Row]) -> list[Row]:
        booleans = [i for i, c in enumerate(table.columns) if c.kind is Kind.BOOL]
        if booleans:  # kept as 0 and 1 here
            rows = [
                tuple(bool(c) if i in booleans and c in (0, 1) else c for i, c in enumerate(row))
                for row in rows
            ]
        if self._exact.get(table.name):
            rows = restore(table, rows, lambda keys: self._exact_cells(table.name, keys))
        return rows

    def _exact_cells(self, table: str, keys: list[bytes]) -> list[tuple[bytes, str, bytes]]:
        found: list[tuple[bytes, str, bytes]] = []
        for i in range(0, len(keys), 500):  # SQLite takes at least 999 variables
            part = keys[i : i + 500]
            marks = ", ".join("?" * len(part))
            found += self._connection.execute(
                f'SELECT key, "column", value FROM memlift_exact WHERE "table" = ? AND key IN ({marks})'
                ' AND "column" IS NOT NULL',
                (table, *part),
            )
        return found

    def _whole_rows(self, table: Table, size: int, after: Cursor) -> Iterator[Batch]:
        at = after["exact"] if isinstance(after, dict) and "exact" in after else 0
        while True:
            found = self._connection.execute(
                'SELECT rowid, value FROM memlift_exact WHERE "table" = ? AND "column" IS NULL AND rowid > ?'
                " ORDER BY rowid LIMIT ?",
                (table.name, at, size),
            ).fetchall()
            if not found:
                return
            at = found[-1][0]
            yield Batch(table, [values.from_exact_row(bytes(v)) for _, v in found], {"exact": at})

    def _rows(
        self, table: Table, here: Table, size: int, after: Cursor
    ) -> Iterator[tuple[list[Row], Cursor]]:
        """Yield rows and the cursor after them; text that is no UTF-8 is met by reading again, loosely."""
        position = after
        while True:
            try:
                for rows, reached in self._strict_rows(table, here, size, position):
                    position = reached
                    yield rows, position
                return
            except sqlite3.OperationalError as exc:
                if "Could not decode to UTF-8" not in str(exc) or table.name in self._loose_text:
                    with translating("read rows", table=table.name, cursor=json.dumps(position)):
                        raise
                self._loose_text.add(table.name)

    def _by_key(self, here: Table, names: str, after: Cursor) -> tuple[str, list[Any]]:
        """Return the statement that reads a table whose rowid has no name, from a cursor on.

        WITHOUT ROWID tables come by key. A table whose columns take all three
        names of the rowid comes as it is stored, and its cursor is a count of rows.
        """
        sql = f"SELECT {names} FROM {ident(here.name)}"
        if not here.key:
            return f"{sql} LIMIT -1 OFFSET ?", [after["offset"] if after is not None else 0]
        keys = ", ".join(map(ident, here.key))
        if after is None:
            return f"{sql} ORDER BY {keys}", []
        cells = [bound(cell) for cell in values.from_exact_row(bytes.fromhex(after))]
        marks = ", ".join("CAST(? AS TEXT)" if cast else "?" for _, cast in cells)
        return f"{sql} WHERE ({keys}) > ({marks}) ORDER BY {keys}", [cell for cell, _ in cells]

    def _strict_rows(
        self, table: Table, here: Table, size: int, after: Cursor
    ) -> Iterator[tuple[list[Row], Cursor]]:
        cursor = self._connection.cursor()
        names = ", ".join(ident(n) for n in table.column_names)
        alias, hidden = rowid_alias(here), rowid_name(here)
        source = ident(here.name)
        loose = table.name in self._loose_text
        # One factory serves the whole connection, so it is set only around each fetch.
        strict, loosely = str, values.bytes_text
        cells: Any = ()
        if alias is not None and alias in table.column_names:
            where = f" WHERE {ident(alias)} > ?" if after is not None else ""
            sql = f"SELECT {names} FROM {source}{where} ORDER BY {ident(alias)}"
            key_at = table.column_names.index(alias)
            cells = (after,) if after is not None else ()
        elif hidden is not None:
            where = f" WHERE {hidden} > ?" if after is not None else ""
            sql = f"SELECT {hidden}, {names} FROM {source}{where} ORDER BY {hidden}"
            key_at = -1
            cells = (after,) if after is not None else ()
        else:
            key_at = -2
            sql, cells = self._by_key(here, names, after)
        passed = after["offset"] if isinstance(after, dict) else 0
        try:
            self._connection.text_factory = loosely if loose else strict
            cursor.execute(sql, cells)
            while True:
                self._connection.text_factory = loosely if loose else strict
                rows = cursor.fetchmany(size)
                if not rows:
                    return
                position: Cursor
                if key_at >= 0:
                    position = rows[-1][key_at]
                elif key_at == -1:
                    position = rows[-1][0]
                    rows = [row[1:] for row in rows]
                elif here.key:
                    last = dict(zip(table.column_names, rows[-1], strict=True))
                    position = values.exact_row(
                        [Kind.BLOB] * len(here.key), [last[k] for k in here.key]
                    ).hex()
                else:
                    passed += len(rows)
                    position = {"offset": passed}
                yield rows, position
        finally:
            self._connection.text_factory = strict
            cursor.close()
