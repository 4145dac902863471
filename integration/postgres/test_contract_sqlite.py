"""SQLite stores of every odd shape go to Postgres and back; each cell is compared by plain drivers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from integration.support import comparing, stores
from integration.support.comparing import same
from integration.support.servers import Database, Postgres
from migrate import api
from migrate.errors import MisfitError


@pytest.mark.parametrize("name", stores.ODD)
def test_an_odd_store_is_the_same_in_postgres_and_after_the_way_back(
    name: str, tmp_path: Path, database: Database
) -> None:
    source, back = stores.made(tmp_path / "a.sqlite", stores.ODD[name]), tmp_path / "b.sqlite"
    before = source.read_bytes()
    there = database.at("store")

    report = api.migrate(source, there)

    assert report.verified
    assert report.misfits == 0
    with database.connect() as db:
        shapes = comparing.pg_tables(db, "store")
        assert sorted(shapes) == sorted(comparing.sqlite_tables(source))
        same(comparing.pg_rows(db, "store"), comparing.sqlite_as_postgres(source, shapes))
    assert api.verify(source, there).verified
    assert api.migrate(there, back).verified
    same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))
    same(comparing.sqlite_shape(back), comparing.sqlite_shape(source))
    assert api.verify(source, back).verified
    assert source.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("a.sqlite")] == ["a.sqlite"]


@pytest.mark.parametrize("name", stores.ODD)
def test_an_odd_store_is_the_same_in_another_file(name: str, tmp_path: Path) -> None:
    source, copy = stores.made(tmp_path / "a.sqlite", stores.ODD[name]), tmp_path / "b.sqlite"
    assert api.migrate(source, copy).verified
    same(comparing.sqlite_state(copy), comparing.sqlite_state(source))


def test_a_brain_is_the_same_after_the_way_through_two_schemas(tmp_path: Path, database: Database) -> None:
    source, back = stores.brain(tmp_path / "brain.sqlite"), tmp_path / "back.sqlite"
    assert api.migrate(source, database.at("one")).verified
    assert api.migrate(database.at("one"), database.at("two")).verified
    assert api.migrate(database.at("two"), back).verified
    same(comparing.sqlite_rows(back, json_values=True), comparing.sqlite_rows(source, json_values=True))
    assert api.verify(source, database.at("two")).verified
    with database.connect() as db:
        same(comparing.pg_texts(db, "one"), comparing.pg_texts(db, "two"))
        same(comparing.pg_shape(db, "one"), comparing.pg_shape(db, "two"))


def test_a_brain_goes_to_postgres_16_and_back(tmp_path: Path, postgres16: Postgres) -> None:
    source, back = stores.brain(tmp_path / "brain.sqlite"), tmp_path / "back.sqlite"
    with postgres16.database() as database:
        assert api.migrate(source, database.at("one"), json="text").verified
        assert api.migrate(database.at("one"), back).verified
    same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))


@pytest.mark.parametrize("name", stores.MISFITS)
def test_a_misfit_fails_the_run_and_leaves_the_target_as_it_was(
    name: str, tmp_path: Path, database: Database
) -> None:
    source = stores.misfit(name, tmp_path / "a.sqlite")
    with pytest.raises(MisfitError) as raised:
        api.migrate(source, database.at("store"), vectors=stores.FORCED.get(name, ()))
    assert raised.value.exit_code == 4
    assert raised.value.report is not None
    assert raised.value.report.misfits > 0
    found = database.run("SELECT nspname FROM pg_namespace WHERE nspname = 'store'")
    assert found == []


@pytest.mark.parametrize("name", stores.MISFITS)
def test_quarantined_misfits_come_back_as_they_were(name: str, tmp_path: Path, database: Database) -> None:
    source, back = stores.misfit(name, tmp_path / "a.sqlite"), tmp_path / "b.sqlite"
    there, vectors = database.at("store"), stores.FORCED.get(name, ())

    report = api.migrate(source, there, on_misfit="quarantine", vectors=vectors)

    assert report.verified
    assert report.quarantine is not None or name in ("a table name of 80 bytes", "reserved column names")
    assert api.verify(source, there).verified
    assert api.migrate(there, back).verified
    same(comparing.sqlite_state(back), comparing.sqlite_state(source))
    assert api.migrate(
        source, there, on_misfit="quarantine", vectors=vectors
    ).verified  # a rerun finds nothing to do


def test_text_that_is_no_utf8_fails_or_is_kept_exactly(tmp_path: Path, database: Database) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w TEXT NOT NULL);"
        "INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT), CAST(x'c328' AS TEXT)), (2, 'ok', 'ok'),"
        " (3, CAST(x'eda080' AS TEXT), '')",
    )
    with pytest.raises(MisfitError):
        api.migrate(source, database.at("store"))
    assert api.migrate(source, database.at("store"), on_misfit="quarantine").verified
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_table_of_1700_columns_fails_or_is_kept_exactly(tmp_path: Path, database: Database) -> None:
    columns = ", ".join(f"c{i} INTEGER" for i in range(1699))

    def fill(db: sqlite3.Connection) -> None:
        for n in range(3):
            cells = (str(n * i) if i % 4 == n else "NULL" for i in range(1699))
            db.execute(f"INSERT INTO t VALUES ({n}, {', '.join(cells)})")
        db.execute("INSERT INTO t (id) VALUES (7)")

    source = stores.made(tmp_path / "a.sqlite", f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})", fill)
    with pytest.raises(MisfitError):
        api.migrate(source, database.at("store"))
    assert api.migrate(source, database.at("store"), on_misfit="quarantine").verified
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_row_too_big_for_a_page_fails_or_is_kept_exactly(tmp_path: Path, database: Database) -> None:
    def fill(db: sqlite3.Connection) -> None:
        columns = ", ".join(f"c{i} INTEGER" for i in range(1199))
        db.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})")
        db.execute(f"INSERT INTO t VALUES (1, {', '.join('7' * 1199)})")
        db.execute("INSERT INTO t (id) VALUES (2)")

    source = stores.made(tmp_path / "a.sqlite", fill)
    with pytest.raises(MisfitError):
        api.migrate(source, database.at("store"))
    assert api.migrate(source, database.at("store"), on_misfit="quarantine").verified
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_children_of_a_row_with_a_misfit_key_do_not_stop_the_run(tmp_path: Path, database: Database) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE p (k TEXT PRIMARY KEY NOT NULL, v TEXT);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT REFERENCES p (k));"
        "INSERT INTO p VALUES ('a' || char(0), 'x'), ('b', 'y' || char(0));"
        "INSERT INTO c VALUES (1, 'a' || char(0)), (2, 'b'), (3, NULL)",
    )
    assert api.migrate(source, database.at("store"), on_misfit="quarantine").verified
    with database.connect() as db:
        kinds = db.execute("SELECT convalidated FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert kinds == [(True,)]  # the child's own cell is a misfit as well, and NULL here
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_foreign_keys_to_unique_columns_are_made(tmp_path: Path, database: Database) -> None:
    source = stores.made(tmp_path / "a.sqlite", stores.ODD["foreign keys to a unique column"])
    report = api.migrate(source, database.at("store"))
    made = database.run("SELECT convalidated FROM pg_constraint WHERE contype = 'f'")
    assert made == [(True,), (True,)], report.warnings


def test_a_foreign_key_whose_check_was_broken_off_is_checked_by_the_next_run(
    tmp_path: Path, database: Database
) -> None:
    source = stores.made(tmp_path / "a.sqlite", stores.ODD["foreign keys to a unique column"])
    api.migrate(source, database.at("store"))
    keys = database.run(
        "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'f'"
    )
    for table, name, sql in keys:
        database.run(
            f'ALTER TABLE {table} DROP CONSTRAINT "{name}"',
            f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {sql} NOT VALID',
        )
    api.migrate(source, database.at("store"))
    assert database.run("SELECT convalidated FROM pg_constraint WHERE contype = 'f'") == [(True,), (True,)]


def test_orphans_of_the_source_stay_and_are_reported(tmp_path: Path, database: Database) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p);"
        "INSERT INTO c VALUES (1, 404), (2, NULL)",
    )
    report = api.migrate(source, database.at("store"))
    assert report.verified
    assert any("NOT VALID" in w for w in report.warnings)
    assert database.run("SELECT convalidated FROM pg_constraint WHERE contype = 'f'") == [(False,)]
    again = api.migrate(source, database.at("store"))
    assert (again.verified, again.warnings) == (True, report.warnings)
    back = api.migrate(database.at("store"), tmp_path / "b.sqlite")
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    assert any("not there" in w for w in back.warnings)


def test_numbering_goes_on_after_the_largest_number_ever_given_out(
    tmp_path: Path, database: Database
) -> None:
    source = stores.made(tmp_path / "a.sqlite", stores.ODD["autoincrement"])
    api.migrate(source, database.at("store"))
    new = database.run("INSERT INTO store.auto (v) VALUES ('new') RETURNING id")
    assert new == [(5,)]  # 3 and 4 were given out once
    assert database.run("INSERT INTO store.plain (v) VALUES ('new') RETURNING id") == [(8,)]
    assert database.run("INSERT INTO store.unused (v) VALUES ('new') RETURNING id") == [(1,)]
    api.migrate(database.at("store"), tmp_path / "b.sqlite")
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as db:
        assert db.execute("INSERT INTO auto (v) VALUES ('x') RETURNING id").fetchone() == (6,)
