"""Reading a SQLite file: one snapshot, in rowid order, nothing touched."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrate import values
from migrate.backends.base import Options
from migrate.backends.sqlbooks import Books, restore
from migrate.backends.sqlite.ddl import fit
from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.introspect import read_schema
from migrate.backends.sqlite.names import ident, orphans_of, translating
from migrate.backends.sqlite.opening import Opened, open_source
from migrate.backends.sqlite.walking import walk
from migrate.batch import BATCH_BYTES, Batch, Cursor, Row
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

    def declared(self, table: Table) -> Table:
        """Return a table of `tables()` as this file declares it, with the name it has here."""
        self.tables()
        return self._here[table.name]

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
            (n,) = self._connection.execute(f"SELECT count(*) FROM {relation(here)}").fetchone()
            if self._exact.get(table.name):
                (whole,) = self._connection.execute(
                    'SELECT count(*) FROM memlift_exact WHERE "table" = ? AND "column" IS NULL', (table.name,)
                ).fetchone()
                n += whole
        return int(n)

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        broken: dict[tuple[str, str], int] = {}
        problems = []
        with translating("check foreign keys", file=str(self._path)):
            for table in self.tables():
                if self._here[table.name].full_text is not None:
                    continue
                orphans, mismatch = orphans_of(self._connection, self._here[table.name].name)
                for parent, n in orphans.items():
                    broken[(table.name, parent)] = n
                if mismatch:
                    problems.append(
                        f"a foreign key of {table.name} names columns that are no key: {mismatch}"
                    )
        return problems + [
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
                del rows
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
            own = next(t for t in self.tables() if t.name == table.name)
            stands_for = fit(own, Options()).standing_in(table)
            rows = restore(table, rows, lambda keys: self._exact_cells(table.name, keys), stands_for)
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
                    del rows
                return
            except sqlite3.OperationalError as exc:
                if "Could not decode to UTF-8" not in str(exc) or table.name in self._loose_text:
                    with translating("read rows", table=table.name, cursor=json.dumps(position)):
                        raise
                self._loose_text.add(table.name)

    def _strict_rows(
        self, table: Table, here: Table, size: int, after: Cursor
    ) -> Iterator[tuple[list[Row], Cursor]]:
        steps = walk(self._connection, table, here, after)
        # One factory serves the whole connection, so it is set only around each fetch.
        text = values.bytes_text if table.name in self._loose_text else str
        cursor = self._connection.cursor()
        pace = _Pace()
        try:
            self._connection.text_factory = text
            cursor.execute(steps.sql, steps.cells)
            while True:
                self._connection.text_factory = text
                rows = pace.fetch(cursor, size)
                if not rows:
                    return
                position = steps.position(rows)
                if steps.stripped:
                    rows = [row[1:] for row in rows]
                yield rows, position
                # Let go before the next batch is made: it then takes the same memory, still in
                # the processor's cache, instead of new pages from the kernel (a fifth of the time).
                del rows
        finally:
            self._connection.text_factory = str
            cursor.close()


class _Pace:
    """Fetches rows until there are enough of them, or enough bytes: 1,000 pictures of 20 MB are no batch.

    One row in a few is weighed: weighing each would cost more than the fetch.
    """

    def __init__(self) -> None:
        self._step = 4

    def fetch(self, cursor: sqlite3.Cursor, size: int) -> list[Row]:
        """Return up to `size` rows, some `BATCH_BYTES` at most; none at the end."""
        rows: list[Row] = []
        weight = 0
        while len(rows) < size and weight < BATCH_BYTES:
            some = cursor.fetchmany(min(self._step, size - len(rows)))
            if not some:
                break
            heavy = sum(len(c) for c in some[-1] if type(c) in (str, bytes))
            rows += some
            weight += len(some) * heavy
            self._step = max(1, min(2 * self._step, 256, BATCH_BYTES // (4 * heavy + 1)))
        return rows
