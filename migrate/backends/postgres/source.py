"""Reading a Postgres schema: one snapshot, binary COPY, in physical order."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from migrate import values
from migrate.backends.base import Fit, Options
from migrate.backends.postgres import wire
from migrate.backends.postgres.connect import Connection, connect, local_settings, look_at, qualified
from migrate.backends.postgres.copyout import CopyOut
from migrate.backends.postgres.introspect import Stored, read_schema
from migrate.backends.postgres.names import fitting_column, ident, placed, translating
from migrate.backends.postgres.types import column_here, fit
from migrate.backends.sqlbooks import Books, restore
from migrate.batch import BATCH_BYTES, Batch, Cursor, Row
from migrate.config import PostgresSettings
from migrate.errors import ConfigError
from migrate.fit import whole
from migrate.schema import Kind, NotCarried, Table, affinity

NOW = "extract(epoch from clock_timestamp())"
_ROW_SECURITY = "42501"


class PostgresSource:
    """A schema of a Postgres database as a `Source` (see `migrate.backends.base`).

    Everything is read in one REPEATABLE READ transaction, so all reads see one
    snapshot. Rows come in physical order, partition by partition; a cursor is
    [partition, ctid of the last row].
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self.snapshot = 0
        self._connection = self._open(first=True)
        self._tables: list[Table] | None = None
        self._left: list[NotCarried] = []
        self._stored: dict[str, Stored] = {}
        self._here: dict[str, dict[str, str]] = {}  # table -> column -> its name here
        self._exact: dict[str, int] = {}

    def _open(self, *, first: bool) -> Connection:
        connection = connect(self._settings, first=first)
        try:
            self._server = look_at(connection, self._settings.schema)
            if not self._server.schema_exists:
                raise ConfigError(f"there is no schema {self._server.schema!r}", hint="check ?schema=")
            with translating("begin reading"):
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # A role that may see 250 of 1,000 rows gets an error, not a short answer.
                local_settings(connection, row_security="off", transaction_timeout="0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _alive(self) -> None:
        """Open the store again where the connection was lost, with a new snapshot."""
        if self._connection.closed or self._connection.broken:
            self._connection = self._open(first=False)
            self.snapshot += 1

    def describe(self) -> str:
        """See `Store.describe`."""
        return str(self._settings)

    def close(self) -> None:
        """See `Store.close`."""
        with contextlib.suppress(psycopg.Error):  # the server ends the transaction with the connection
            self._connection.close()

    def _at(self, name: str) -> str:
        return qualified(self._server.schema, name)

    def _run(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(placed(sql), tuple(parameters))
        return cursor.fetchall() if cursor.description else []

    @property
    def books(self) -> Books:
        """Return memlift's own tables here, for reading; they may not exist."""
        return Books(self._run, self._at, NOW, row="ctid")

    def tables(self) -> list[Table]:
        """See `Source.tables`. A table that memlift wrote is described as its own source had it."""
        if self._tables is None:
            with translating("read the schema", schema=self._server.schema):
                found, self._stored, self._left = read_schema(self._connection, self._server.schema)
                self._tables = self._as_written(found)
        return self._tables

    def _as_written(self, found: list[Table]) -> list[Table]:
        for table in found:
            self._here[table.name] = {n: n for n in table.column_names}
        row = self._connection.execute("SELECT to_regclass(%s)", (self._at("memlift_tables"),)).fetchone()
        if row is None or row[0] is None:
            return found
        books = Books(self._run, self._at, NOW, row="ctid")
        self._exact = books.exact_count()
        here = {t.name: t for t in found}
        ours = {target for target, _ in books.made().values()}  # keys of texts have this collation there
        self._left = [
            n for n in self._left if n.reason != "COLLATE C" or n.name.rpartition(".")[0] not in ours
        ]
        tables = dict(here)
        for name, (target, table) in books.made().items():
            if target not in here:
                continue
            del tables[target]
            names = {c.name: fitting_column(c.name) for c in table.columns}
            extra = [c for c in here[target].columns if c.name not in names.values()]
            tables[name] = table.with_columns((*table.columns, *extra))
            self._here[name] = {**names, **{c.name: c.name for c in extra}}
            self._stored[name] = self._stored[target]
        return list(tables.values())

    def stands(self, table: Table) -> tuple[Stored, dict[str, str]]:
        """Return what stands behind a table, and the names that its columns have here."""
        self.tables()
        return self._stored[table.name], dict(self._here[table.name])

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        self.tables()
        return list(self._left)

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        self._alive()
        stored = self._stored[table.name]
        with translating("count rows", table=table.name):
            n = 0
            for leaf in stored.leaves:  # ONLY: the rows of a table that inherits are its own
                row = self._connection.execute(f"SELECT count(*) FROM ONLY {qualified(*leaf)}").fetchone()
                n += int(row[0]) if row else 0
            if self._exact.get(table.name):
                sql = (
                    f'SELECT count(*) FROM {self._at("memlift_exact")} WHERE "table" = ? AND "column" IS NULL'
                )
                n += int(self._run(sql, (table.name,))[0][0])
        return n

    def problems(self) -> list[str]:
        """See `Source.problems`: Postgres keeps its own constraints, but for those never validated."""
        with translating("list constraints"):
            found = self._connection.execute(
                "SELECT c.relname::text, k.conname::text FROM pg_catalog.pg_constraint k"
                " JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n"
                " ON n.oid = c.relnamespace WHERE n.nspname = %s AND NOT k.convalidated ORDER BY 1, 2",
                (self._server.schema,),
            ).fetchall()
        return [
            f"the constraint {name} of {table} was never validated: rows may break it"
            for table, name in found
        ]

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`."""
        self._alive()
        stored = self._stored[table.name]
        exact = _Spool(self._run, self._at, table, self._fit(table)) if self._exact.get(table.name) else None
        try:
            done = after is not None and after[0] == "exact"
            leaves = list(stored.leaves)
            if after is not None and not done:
                start = (
                    [f"{a}.{b}" for a, b in leaves].index(after[0])
                    if after[0] in [f"{a}.{b}" for a, b in leaves]
                    else 0
                )
                leaves = leaves[start:]
            position = after
            for i, leaf in enumerate(leaves if not done else ()):
                from_ctid = after[1] if after is not None and i == 0 else None
                for rows, ctid in self._copy(table, stored, leaf, size, from_ctid):
                    position = [f"{leaf[0]}.{leaf[1]}", ctid]
                    if exact is not None:
                        rows = restore(table, rows, exact.cells, exact.stands_for)
                    yield Batch(table, rows, position)
            if exact is not None:
                yield from exact.whole_rows(table, size, after[1] if done and after is not None else 0)
        finally:
            if exact is not None:
                exact.close()

    def _fit(self, table: Table) -> Fit:
        """Return by what rules a table's cells were written here."""
        own = next(t for t in self.tables() if t.name == table.name)
        codecs, here = self._stored[table.name].codecs, self._here[table.name]
        as_jsonb = [c for c in own.columns if column_here(c, own, Options()).codec == "jsonb"]
        plain = any(codecs.get(here[c.name]) == "text" for c in as_jsonb)
        return fit(own, Options(json="text" if plain else "jsonb"))

    def _copy(
        self, table: Table, stored: Stored, leaf: tuple[str, str], size: int, after: str | None
    ) -> Iterator[tuple[list[Row], str]]:
        here = self._here[table.name]
        wanted: list[str] = []
        codecs: list[str] = []
        absent = []  # columns beyond what a table may have: all their values are exact cells
        for i, column in enumerate(table.columns):
            name = here[column.name]
            codec = stored.codecs.get(name)
            if codec is None:
                absent.append(i)
                continue
            wanted.append(f"{ident(name)}::text" if codec in ("cast", "timestamptz") else ident(name))
            codecs.append("text" if codec == "cast" else codec)
        where = f" WHERE ctid > '{after}'::tid" if after is not None else ""
        sql = f"COPY (SELECT {', '.join([*wanted, 'ctid'])} FROM ONLY {qualified(*leaf)}{where}) TO STDOUT (FORMAT BINARY)"
        fields = len(wanted) + 1
        whole_at = [
            i
            for i, c in enumerate(table.columns)
            if c.kind is Kind.REAL and table.dialect == "sqlite" and affinity(c.declared) == "NUMERIC"
        ]
        for block in self._blocks(sql, fields, size, table.name):
            rows = wire.decode(block, codecs)
            for i in absent:
                rows = [(*row[:i], None, *row[i:]) for row in rows]
            if whole_at:
                rows = [_whole_numbers(row, whole_at) for row in rows]
            yield rows, block.last_ctid(fields - 1)
            del rows, block  # their memory serves the next batch

    def _blocks(self, sql: str, fields: int, size: int, table: str) -> Iterator[wire.Block]:
        """Yield the rows of a COPY. A savepoint around it keeps the snapshot when a reader stops early."""
        with translating("read rows", table=table):
            self._connection.execute("SAVEPOINT reading")
            try:
                with self._connection.cursor() as cursor, cursor.copy(sql) as copy, self._given_up_at_once():
                    out = CopyOut(copy)
                    while rows := out.take(size, BATCH_BYTES):
                        yield wire.Block(rows, fields)
                self._connection.execute("RELEASE reading")
            except GeneratorExit:
                self._connection.execute("ROLLBACK TO reading")
                raise

    @contextlib.contextmanager
    def _given_up_at_once(self) -> Iterator[None]:
        """Close a lost connection before the COPY is left: leaving it would ask the dead peer to cancel, 25 s more."""
        try:
            yield
        except psycopg.OperationalError:
            self._connection.close()
            raise


def _whole_numbers(row: Row, at: Sequence[int]) -> Row:
    """Make integers of whole doubles again, as SQLite's NUMERIC affinity does."""
    cells = list(row)
    for i in at:
        if isinstance(cells[i], float) and whole(cells[i]):
            cells[i] = int(cells[i])
    return tuple(cells)


class _Spool:
    """One table's exact values, taken to a private temporary file before its rows are streamed."""

    def __init__(self, run: Any, at: Any, table: Table, written: Fit) -> None:
        self.stands_for = written.standing_in(table)
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE exact (key BLOB, name TEXT, value BLOB)")
        sql = f'SELECT key, "column", value FROM {at("memlift_exact")} WHERE "table" = ?'
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO exact VALUES (?, ?, ?)", run(sql, (table.name,)))
        self._db.execute("CREATE INDEX by_key ON exact (key)")

    def close(self) -> None:
        self._db.close()

    def cells(self, keys: list[bytes]) -> list[tuple[bytes, str, bytes]]:
        found: list[tuple[bytes, str, bytes]] = []
        for i in range(0, len(keys), 500):
            part = keys[i : i + 500]
            marks = ", ".join("?" * len(part))
            found += self._db.execute(
                f"SELECT key, name, value FROM exact WHERE name IS NOT NULL AND key IN ({marks})", part
            )
        return found

    def whole_rows(self, table: Table, size: int, after: int) -> Iterator[Batch]:
        at = after
        while True:
            found = self._db.execute(
                "SELECT rowid, value FROM exact WHERE name IS NULL AND rowid > ? ORDER BY rowid LIMIT ?",
                (at, size),
            ).fetchall()
            if not found:
                return
            at = found[-1][0]
            yield Batch(table, [values.from_exact_row(bytes(v)) for _, v in found], ["exact", at])
