"""SQLite's names, affinities and errors: the few rules the other files share."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from migrate import values
from migrate.errors import BackendError, SchemaError, TransientError
from migrate.schema import Table

PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
"""The names of errors that pass by themselves. The last: ten seconds were lost to others in a race for the WAL."""

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*\Z", re.ASCII)


def ident(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text as an SQL literal, for the few places (PRAGMA) that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def looks_like_number(text: str) -> bool:
    """Whether SQLite's numeric affinities would turn this text into a number."""
    return bool(_NUMBER.match(text))


def rowid_alias(table: Table) -> str | None:
    """Return the column that is the rowid (INTEGER PRIMARY KEY), or None."""
    if table.without_rowid or len(table.key) != 1 or table.dialect != "sqlite":
        return None
    column = table.column(table.key[0])
    return column.name if column.identity else None


def rowid_name(table: Table) -> str | None:
    """Return a name under which SQL sees the rowid, or None where columns hide all of them.

    A full-text table has it among its columns.
    """
    if table.without_rowid or table.full_text is not None:
        return None
    taken = {name.lower() for name in table.column_names}
    return next((n for n in ("rowid", "_rowid_", "oid") if n not in taken), None)


def bound(cell: Any) -> tuple[Any, bool]:
    """Return a cell as it is bound, and whether it must be cast to text: text that is no UTF-8 is bound as bytes."""
    if isinstance(cell, str):
        try:
            cell.encode()
        except UnicodeEncodeError:
            return values.text_bytes(cell), True
    return cell, False


def holds(column: str, cell: Any) -> tuple[str, list[Any]]:
    """Return a test that a column, as SQL names it, holds just this cell, its type included; and what it binds."""
    value, cast = bound(cell)
    mark = "CAST(? AS TEXT)" if cast else "?"
    return f"{column} IS {mark} AND typeof({column}) = typeof({mark})", [value, value]


def orphans_of(connection: sqlite3.Connection, table: str) -> tuple[dict[str, int], str | None]:
    """Return how many rows of a table name no row, by parent, and what SQLite says of a key it cannot check.

    A foreign key on columns that are not unique is common, for SQLite checks none unless asked to.
    """
    orphans: dict[str, int] = {}
    try:
        for _, _, parent, _ in connection.execute(f"PRAGMA foreign_key_check({literal(table)})"):
            orphans[parent] = orphans.get(parent, 0) + 1
    except sqlite3.OperationalError as exc:
        if "foreign key mismatch" not in str(exc):
            raise
        return orphans, str(exc)
    return orphans, None


class translating:  # noqa: N801 (it reads as a verb; a generator would take 4 us a query)
    """Turn sqlite3's errors into ours: what passes by itself is worth another try, nothing else is."""

    def __init__(self, op: str, **where: Any) -> None:
        self._op, self._where = op, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if not isinstance(exc, sqlite3.Error):
            return
        code = getattr(exc, "sqlite_errorname", None) or type(exc).__name__
        message = f"SQLite could not {self._op}: {exc}"
        if code.startswith(PASSING):
            raise TransientError(message, hint="another program holds the file", **self._where) from exc
        raise BackendError(message, hint=_hint(code), **self._where) from exc


def _hint(code: str) -> str | None:
    if code.startswith("SQLITE_FULL"):
        return "the disk is full: make room and run the same command again, it goes on from its checkpoint"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "the file is damaged: try `sqlite3 FILE .recover`, or restore a backup"
    if code.startswith("SQLITE_IOERR"):
        return "the disk answered with an error: check it, then run the same command again"
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "check the permissions of the file and its folder"
    return None


def check_names(tables: Sequence[Table]) -> None:
    """Raise SchemaError for names that SQLite refuses, or takes for one."""
    tables_here = [t.name.lower() for t in tables]
    for table in tables:
        if tables_here.count(table.name.lower()) > 1:
            raise SchemaError(
                f"table names that differ only in case: {table.name!r}",
                hint="SQLite takes them for one: leave one out with --exclude",
            )
        if table.name.lower().startswith("sqlite_"):
            raise SchemaError(
                f"SQLite reserves the table name {table.name!r}", hint=f"--exclude {table.name} leaves it out"
            )
        columns = [n.lower() for n in table.column_names]
        twice = [n for n in table.column_names if columns.count(n.lower()) > 1]
        if twice:
            raise SchemaError(
                f"column names of {table.name!r} that differ only in case: {', '.join(twice[:4])}",
                hint=f"SQLite takes them for one: rename one, or leave the table out with --exclude {table.name}",
            )
