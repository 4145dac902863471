"""memlift's own tables in a SQL store: runs, positions, names, exact cells, the lease.

All are named `memlift_*`; they are never carried as data. Statements are
written once with `?` for values; a store passes a function that runs them in
its own dialect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from migrate import values
from migrate.backends.base import Position
from migrate.batch import ExactCell, Row
from migrate.lease import Holder
from migrate.schema import Table

PREFIX = "memlift_"
Run = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Runs one statement with `?` placeholders inside the caller's transaction; returns its rows."""


def is_ours(name: str) -> bool:
    """Whether a name is reserved for memlift's own tables."""
    return name.lower().startswith(PREFIX)


def statements(blob: str, integer: str, real: str, at: Callable[[str], str]) -> list[str]:
    """Return the DDL of all our tables, in a store's words for its types; `at` qualifies and quotes a name."""
    return [
        f"CREATE TABLE IF NOT EXISTS {at('memlift_runs')} (id TEXT PRIMARY KEY, state TEXT NOT NULL,"
        " plan TEXT NOT NULL, started TEXT NOT NULL, finished TEXT)",
        f'CREATE TABLE IF NOT EXISTS {at("memlift_positions")} (run TEXT NOT NULL, "table" TEXT NOT NULL,'
        f' "cursor" TEXT, "rows" {integer} NOT NULL, done {integer} NOT NULL, PRIMARY KEY (run, "table"))',
        f"CREATE TABLE IF NOT EXISTS {at('memlift_tables')} (name TEXT PRIMARY KEY, target TEXT NOT NULL,"
        " run TEXT NOT NULL, created TEXT NOT NULL, definition TEXT NOT NULL)",
        f'CREATE TABLE IF NOT EXISTS {at("memlift_columns")} ("table" TEXT NOT NULL, "column" TEXT NOT NULL,'
        f" position {integer} NOT NULL, kind TEXT NOT NULL, declared TEXT NOT NULL, target TEXT NOT NULL,"
        ' PRIMARY KEY ("table", "column"))',
        f'CREATE TABLE IF NOT EXISTS {at("memlift_exact")} ("table" TEXT NOT NULL, key {blob},'
        f' "column" TEXT, reason TEXT NOT NULL, value {blob} NOT NULL)',
        f'CREATE INDEX IF NOT EXISTS memlift_exact_key ON {at("memlift_exact")} ("table", key)',
        f"CREATE TABLE IF NOT EXISTS {at('memlift_lease')} (id {integer} PRIMARY KEY, owner TEXT NOT NULL,"
        f" host TEXT NOT NULL, pid {integer} NOT NULL, beat {real} NOT NULL)",
    ]


NAMES = (
    "memlift_runs",
    "memlift_positions",
    "memlift_tables",
    "memlift_columns",
    "memlift_exact",
    "memlift_lease",
    "memlift_places",  # of a sidecar alone: `migrate.backends.sidecar` makes it
)


class Books:
    """Reads and writes our tables through `run`; knows no driver.

    at:  qualifies and quotes one of our names.
    now: SQL expression for the store's clock, in seconds since 1970.
    row: the name under which the store tells rows apart (`rowid`, `ctid`).
    lock: what a SELECT needs so that nobody changes its rows before the transaction ends.
    """

    def __init__(self, run: Run, at: Callable[[str], str], now: str, *, row: str, lock: str = "") -> None:
        self._run, self._at, self._now, self._row, self._lock = run, at, now, row, lock

    @property
    def run(self) -> Run:
        """Return what runs a statement, for those who keep more books beside these."""
        return self._run

    def at(self, name: str) -> str:
        """Return one of our names qualified and quoted."""
        return self._at(name)

    # --- runs -----------------------------------------------------------------

    def last_run(self) -> tuple[str, str, dict[str, Any]] | None:
        """Return (id, state, plan) of the newest run, or None."""
        rows = self._run(
            f"SELECT id, state, plan FROM {self._at('memlift_runs')} ORDER BY started DESC, id DESC", ()
        )
        return (rows[0][0], rows[0][1], json.loads(rows[0][2])) if rows else None

    def begin_run(self, run: str, plan: dict[str, Any]) -> None:
        """Store a run with its plan, as running."""
        self._run(
            f"INSERT INTO {self._at('memlift_runs')} (id, state, plan, started) VALUES (?, 'running', ?, ?)",
            (run, json.dumps(plan, sort_keys=True), datetime.now(UTC).isoformat()),
        )

    def end_run(self, run: str) -> None:
        """Mark a run as done."""
        self._run(
            f"UPDATE {self._at('memlift_runs')} SET state = 'done', finished = ? WHERE id = ?",
            (datetime.now(UTC).isoformat(), run),
        )

    def forget_run(self, run: str) -> None:
        """Remove a run and its positions."""
        self._run(f"DELETE FROM {self._at('memlift_positions')} WHERE run = ?", (run,))
        self._run(f"DELETE FROM {self._at('memlift_runs')} WHERE id = ?", (run,))

    # --- positions ------------------------------------------------------------

    def positions(self, run: str) -> dict[str, Position]:
        """Return where the tables of a run stand."""
        sql = f'SELECT "table", "cursor", "rows", done FROM {self._at("memlift_positions")} WHERE run = ?'
        return {
            t: Position(t, json.loads(c) if c else None, n, bool(d)) for t, c, n, d in self._run(sql, (run,))
        }

    def save_position(self, run: str, at: Position) -> None:
        """Store where a table stands."""
        cursor = None if at.cursor is None else json.dumps(at.cursor)
        self._run(
            f'INSERT INTO {self._at("memlift_positions")} (run, "table", "cursor", "rows", done)'
            ' VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, "table") DO UPDATE SET'
            ' "cursor" = excluded."cursor", "rows" = excluded."rows", done = excluded.done',
            (run, at.table, cursor, at.rows, int(at.done)),
        )

    def drop_position(self, run: str, table: str) -> None:
        """Forget where a table stands."""
        self._run(f'DELETE FROM {self._at("memlift_positions")} WHERE run = ? AND "table" = ?', (run, table))

    # --- what we made ---------------------------------------------------------

    def made(self) -> dict[str, tuple[str, Table]]:
        """Return {source name: (name here, the table as its source had it)} of all we made."""
        rows = self._run(
            f"SELECT name, target, definition FROM {self._at('memlift_tables')} ORDER BY name", ()
        )
        return {name: (target, Table.from_dict(json.loads(text))) for name, target, text in rows}

    def adopted(self) -> set[str]:
        """Return the source names of tables that we write to and did not make (--into-existing)."""
        return {r[0] for r in self._run(f"SELECT name FROM {self._at('memlift_tables')} WHERE run = ''", ())}

    def made_by(self, run: str) -> list[str]:
        """Return the names here of the tables that one run created, newest first."""
        sql = f"SELECT target FROM {self._at('memlift_tables')} WHERE run = ? ORDER BY created DESC"
        return [row[0] for row in self._run(sql, (run,))]

    def add_table(self, run: str, table: Table, target: str, types: Sequence[tuple[str, str]]) -> None:
        """Remember a table. `types`: (name here, type here) of each column; no run: we did not make it."""
        self._run(
            f"INSERT INTO {self._at('memlift_tables')} (name, target, run, created, definition)"
            " VALUES (?, ?, ?, ?, ?)",
            (table.name, target, run, datetime.now(UTC).isoformat(), json.dumps(table.to_dict())),
        )
        for i, (column, (name, _)) in enumerate(zip(table.columns, types, strict=True)):
            self._run(
                f'INSERT INTO {self._at("memlift_columns")} ("table", "column", position, kind, declared, target)'
                " VALUES (?, ?, ?, ?, ?, ?)",
                (table.name, column.name, i, column.kind.value, column.declared, name),
            )

    def forget_table(self, name: str) -> None:
        """Forget a table that we made, by its name in the source, with its exact cells."""
        for book, column in (("tables", "name"), ("columns", '"table"'), ("exact", '"table"')):
            self._run(f"DELETE FROM {self._at(PREFIX + book)} WHERE {column} = ?", (name,))

    # --- exact cells ----------------------------------------------------------

    def add_exact(self, cells: Iterable[ExactCell]) -> None:
        """Keep exact values."""
        for c in cells:
            self._run(
                f'INSERT INTO {self._at("memlift_exact")} ("table", key, "column", reason, value)'
                " VALUES (?, ?, ?, ?, ?)",
                (c.table, c.key, c.column, c.reason, c.value),
            )

    def drop_exact(self, table: str, keys: Iterable[bytes] | None = None) -> None:
        """Forget the exact values of some rows, or of the whole table."""
        sql = f'DELETE FROM {self._at("memlift_exact")} WHERE "table" = ?'
        if keys is None:
            self._run(sql, (table,))
            return
        for key in keys:
            self._run(sql + " AND key = ?", (table, key))

    def drop_exact_row(self, table: str, value: bytes) -> bool:
        """Forget one copy of a whole row kept aside, by its bytes; return whether there was one."""
        book = self._at("memlift_exact")
        found = self._run(
            f"DELETE FROM {book} WHERE {self._row} = (SELECT {self._row} FROM {book}"
            f' WHERE "table" = ? AND "column" IS NULL AND value = ? LIMIT 1) RETURNING 1',
            (table, value),
        )
        return bool(found)

    def exact_count(self) -> dict[str, int]:
        """Return how many exact values each table has."""
        sql = f'SELECT "table", count(*) FROM {self._at("memlift_exact")} GROUP BY "table"'
        return {table: int(n) for table, n in self._run(sql, ())}

    def kept_whole(self) -> set[str]:
        """Return the tables of which rows are kept aside whole."""
        sql = f'SELECT DISTINCT "table" FROM {self._at("memlift_exact")} WHERE "column" IS NULL'
        return {row[0] for row in self._run(sql, ())}

    # --- the lease ------------------------------------------------------------

    def holder(self) -> Holder | None:
        """Return who holds the lease."""
        sql = (
            f"SELECT owner, host, pid, beat, {self._now} - beat FROM {self._at('memlift_lease')}"
            " WHERE id = 1 AND owner <> ''"
        )
        rows = self._run(sql, ())
        return Holder(*rows[0]) if rows else None

    def take(self, owner: str, host: str, pid: int, instead_of: Holder | None) -> bool:
        """Become the holder, if nothing has changed since `instead_of` was seen."""
        old_owner, old_beat = (instead_of.owner, instead_of.beat) if instead_of else ("", 0.0)
        same = "owner = ''" if instead_of is None else "owner = ? AND beat = ?"
        rows = self._run(
            f"INSERT INTO {self._at('memlift_lease')} AS l (id, owner, host, pid, beat)"
            f" VALUES (1, ?, ?, ?, {self._now}) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner,"
            f" host = excluded.host, pid = excluded.pid, beat = excluded.beat WHERE l.{same.replace(' AND ', ' AND l.')}"
            " RETURNING owner",
            (owner, host, pid, *((old_owner, old_beat) if instead_of else ())),
        )
        return bool(rows)

    def owned_by(self, owner: str) -> bool:
        """Whether `owner` still holds the lease; nobody can take it before this transaction ends."""
        sql = f"SELECT 1 FROM {self._at('memlift_lease')} WHERE id = 1 AND owner = ?{self._lock}"
        return bool(self._run(sql, (owner,)))

    def beat(self, owner: str) -> None:
        """Renew the lease."""
        self._run(
            f"UPDATE {self._at('memlift_lease')} SET beat = {self._now} WHERE id = 1 AND owner = ?", (owner,)
        )

    def release(self, owner: str) -> None:
        """Give the lease back, if it is still ours."""
        self._run(f"UPDATE {self._at('memlift_lease')} SET owner = '' WHERE id = 1 AND owner = ?", (owner,))


def restore(
    table: Table,
    rows: list[Row],
    exact: Callable[[list[bytes]], Iterable[tuple[bytes, str, bytes]]],
    stands_for: Callable[[int, Any, Any], bool] = lambda at, exact, present: True,
) -> list[Row]:
    """Put exact cells back into rows. `exact` returns (key, column, value) for a batch's keys.

    stands_for: (column, exact value, present cell) -> whether the cell still is what was written in its
    place (`Fit.stands_for`). What an agent has written there since is newer than the exact value, and stays.
    """
    names = table.column_names
    by_key: dict[bytes, list[tuple[int, Any]]] = {}
    keys = [values.row_key(table, row) for row in rows]
    for key, column, value in exact(keys):
        if column in names:
            by_key.setdefault(bytes(key), []).append((names.index(column), values.from_exact(bytes(value))))
    if not by_key:
        return rows
    restored = []
    for key, row in zip(keys, rows, strict=True):
        if key in by_key:
            cells = list(row)
            for at, cell in by_key[key]:
                if stands_for(at, cell, row[at]):
                    cells[at] = cell
            row = tuple(cells)
        restored.append(row)
    return restored


def keys_kept_aside(exact: Iterable[ExactCell]) -> list[Row]:
    """Return the keys of rows that are kept whole: those the table may have from when they did fit."""
    return [values.from_exact_row(c.key) for c in exact if c.column is None and c.key is not None]


def merge_sequence(table: Table, largest: int | None) -> Table:
    """Return the table with its sequence at least at the largest number in use."""
    numbers = [n for n in (table.sequence, largest) if n is not None]
    return replace(table, sequence=max(numbers) if numbers else None)
