"""Rows of a COPY TO as psycopg itself gives them, however they arrive; what the server says in place of a row."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from integration.support.servers import Database
from migrate.backends.postgres.copyout import CopyOut
from migrate.backends.postgres.wire import HEADER, TRAILER

LIMIT = 1 << 30


def sent(select: str) -> str:
    return f"COPY ({select}) TO STDOUT (FORMAT BINARY)"


def taken(db: psycopg.Connection[Any], select: str, n: int, limit: int = LIMIT) -> list[list[bytes]]:
    with db.cursor() as cursor, cursor.copy(sent(select).encode()) as copy:
        out, parts = CopyOut(copy), []
        while rows := out.take(n, limit):
            parts.append([bytes(r) for r in rows])
        assert out.take(n, limit) == []
    return parts


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize("rows", [0, 1, 7, 5000])
def test_rows_are_those_of_psycopg(database: Database, rows: int, n: int) -> None:
    select = f"SELECT g, repeat('x', g), NULL::text FROM generate_series(1, {rows}) g"
    with database.connect() as db:
        with db.cursor() as cursor, cursor.copy(sent(select).encode()) as copy:
            whole = b"".join(map(bytes, copy))
        parts = taken(db, select, n)
        assert db.execute("SELECT 1").fetchone() == (1,)  # the COPY has ended
    assert HEADER + b"".join(map(b"".join, parts)) + TRAILER == whole
    assert [len(p) for p in parts[:-1]] == [n] * (len(parts) - 1)
    assert sum(map(len, parts)) == rows


def test_heavy_rows_come_a_few_at_a_time(database: Database) -> None:
    select = "SELECT CASE WHEN g <= 100 THEN '' ELSE repeat('x', 100000) END FROM generate_series(1, 130) g"
    with database.connect() as db:
        parts = taken(db, select, 1000, 250_000)
    assert [len(p) for p in parts] == [103, *[3] * 9]


@pytest.mark.parametrize("after_s", [0.0, 0.3])  # the error has arrived with the rows before it, or not yet
def test_an_error_between_rows_is_the_servers_own(database: Database, after_s: float) -> None:
    seen: list[int] = []

    def read(db: psycopg.Connection[Any]) -> None:
        select = "SELECT 1 / (50 - g) FROM generate_series(1, 100) g"
        with db.cursor() as cursor, cursor.copy(sent(select).encode()) as copy:
            out = CopyOut(copy)
            time.sleep(after_s)
            seen.append(len(out.take(49, LIMIT)))
            out.take(1, LIMIT)

    with database.connect() as db:
        with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero") as failed:
            read(db)
        assert seen == [49]
        assert failed.value.sqlstate == "22012"
        db.rollback()
        assert db.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_goes_away_between_rows_is_a_lost_connection(database: Database) -> None:
    def read(db: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
        select = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"
        with db.cursor() as cursor, cursor.copy(sent(select).encode()) as copy:
            out = CopyOut(copy)
            other.execute("SELECT pg_terminate_backend(%s)", (db.info.backend_pid,))
            try:
                while out.take(1000, LIMIT):
                    pass
            except psycopg.Error:
                db.close()  # leaving the COPY would ask the dead server to cancel
                raise

    with database.connect() as db, database.connect() as other:
        with pytest.raises(psycopg.OperationalError):
            read(db, other)
        other.rollback()
        assert other.execute("SELECT 1").fetchone() == (1,)
