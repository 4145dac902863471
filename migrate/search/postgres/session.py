"""A connection for queries: each is one read-only transaction, so that a pooler may be in front."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from migrate.backends.postgres.connect import Connection, connect
from migrate.backends.postgres.names import translating
from migrate.config import PostgresSettings

# Set in each transaction, for through a pooler anything else would reach other clients.
_LOCAL = {
    "statement_timeout": "0",
    "client_connection_check_interval": "5000",
    "max_parallel_workers_per_gather": "2",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """An open transaction: one snapshot."""

    connection: Connection

    def __call__(self, sql: str, bound: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement with `$n` marks; vectors come in binary form."""
        with psycopg.RawCursor(self.connection) as cursor:
            cursor.execute(sql.encode(), bound, binary=True)
            return cursor.fetchall()

    def each(self, sql: str, bound: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Run a statement and yield its rows as they come, without keeping them."""
        with psycopg.RawCursor(self.connection) as cursor:
            yield from cursor.stream(sql.encode(), bound, binary=True)


class Session:
    """The one connection of an open store. Queries of several threads wait for each other."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._connection: Connection | None = None

    def connection(self, *, first: bool = False) -> Connection:
        """Return the connection, opened again where it was lost."""
        with self._lock:
            known = self._connection
            if known is None or known.closed or known.broken:
                known = self._connection = connect(self._settings, first=first)
            return known

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        with self._lock:
            known, self._connection = self._connection, None
        if known is not None:
            with contextlib.suppress(psycopg.Error):  # what matters is that it is gone
                known.close()

    @contextmanager
    def reading(self, op: str, **more: str) -> Iterator[Reading]:
        """Run a block in one snapshot, with more settings for its statements."""
        with self._lock, translating(op):
            connection = self.connection()
            wanted = {**_LOCAL, **more}
            calls = ", ".join("set_config(%s, %s, true)" for _ in wanted)
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.execute(f"SELECT {calls}", [text for pair in wanted.items() for text in pair])
                yield Reading(connection)
                connection.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    with contextlib.suppress(psycopg.Error):  # the error that is under way says more
                        connection.rollback()
                raise
