"""What an agent writes into a SQLite copy of a Postgres schema, and what of it Postgres can take back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from integration.support.servers import Database
from migrate import api
from migrate.errors import MisfitError

TABLE = """
    CREATE SCHEMA src; SET search_path = src, public;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE t (id int PRIMARY KEY, tz timestamptz, d date, u uuid, i interval, n numeric(6, 2), e mood NOT NULL,
        es mood[], ia int[], b bit(3), r int4range, m money, ip inet, j json, v varchar(3), c char(3), f real[]);
    INSERT INTO t SELECT n, now(), now(), gen_random_uuid(), '1 day 03:00', 2.5, 'ok', '{sad}', '{1,2}', '101', '[1,4)',
        '$3', '10.0.0.1/24', '{"a": 1}', 'ab', 'a', '{0.1}' FROM generate_series(1, 3) n;
"""


@pytest.fixture
def copy(tmp_path: Path, database: Database) -> Path:
    database.run(TABLE)
    path = tmp_path / "copy.sqlite"
    assert api.migrate(database.at("src"), path).verified
    return path


def written(path: Path, column: str, value: object) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE t SET {column} = ? WHERE id = 2", (value,))
        db.commit()


def test_rows_that_nobody_touched_are_taken_back(copy: Path, database: Database) -> None:
    assert api.migrate(copy, database.at("there")).verified


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("tz", "not a date"),
        ("tz", "2024-13-01T10:00:00.000000+00:00"),
        ("d", "2024-02-31"),
        ("u", "none"),
        ("i", "90 min"),
        ("n", "123456.00"),
        ("n", "1.239"),
        ("e", "glad"),
        ("es", "{sad,glad}"),
        ("ia", "{1,x}"),
        ("b", "1"),
        ("r", "[4,1)"),
        ("m", "much"),
        ("ip", "10.0.0.1/99"),
        ("j", "{"),
        ("v", "abcd"),
        ("c", "a"),
        ("f", "{0.123456789012}"),
    ],
)
def test_a_cell_that_its_type_does_not_take_is_found_before_anything_is_written(
    column: str, value: str, copy: Path, database: Database, tmp_path: Path
) -> None:
    written(copy, column, value)
    with pytest.raises(MisfitError):
        api.migrate(copy, database.at("there"))
    assert database.run("SELECT 1 FROM pg_namespace WHERE nspname = 'there'") == []
    report = api.migrate(copy, database.at("there"), on_misfit="quarantine")
    assert report.verified
    assert [t.rows_quarantined for t in report.tables] == [1]
    back = tmp_path / "back.sqlite"
    assert api.migrate(database.at("there"), back).verified
    with closing(sqlite3.connect(back)) as db:
        assert db.execute(f"SELECT {column} FROM t WHERE id = 2").fetchall() == [(value,)]


def test_a_time_as_sqlite_writes_it_is_that_time(copy: Path, database: Database, tmp_path: Path) -> None:
    written(copy, "tz", "2024-05-01 10:00:00")
    assert api.migrate(copy, database.at("there")).verified
    assert database.run("SELECT extract(epoch FROM tz)::bigint FROM there.t WHERE id = 2") == [(1714557600,)]
    back = tmp_path / "back.sqlite"
    api.migrate(database.at("there"), back)
    with closing(sqlite3.connect(back)) as db:
        assert db.execute("SELECT tz FROM t WHERE id = 2").fetchall() == [("2024-05-01 10:00:00",)]


def test_a_key_that_its_type_does_not_take_is_kept_aside_and_changes_with_its_row(
    database: Database, tmp_path: Path
) -> None:
    database.run("CREATE SCHEMA src; CREATE TABLE src.k (u uuid PRIMARY KEY, v text);")
    database.run("INSERT INTO src.k VALUES ('00000000-0000-0000-0000-000000000001', 'a')")
    path = tmp_path / "copy.sqlite"
    api.migrate(database.at("src"), path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO k VALUES ('mine', 'b')")
        db.commit()
    assert api.migrate(path, database.at("there"), on_misfit="quarantine").verified
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM k WHERE u = 'mine'")
        db.commit()
    assert api.migrate(path, database.at("there"), mirror=True).verified
