"""What memlift did not make: it is refused, or left alone, and undo drops nothing of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from integration.postgres.rerun_kit import Goal, edit, rows
from integration.support import comparing, stores
from integration.support.servers import Database
from migrate import api
from migrate.errors import ConfigError, SchemaError, VerifyError
from migrate.schema import Column, Kind, Table
from tests.small_stores import in_memory


def test_a_table_that_memlift_did_not_make_is_refused(goal: Goal, source: Path, database: Database) -> None:
    if "://" in goal.url:
        database.run("CREATE SCHEMA store")
    goal.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, mine TEXT)")
    goal.sql("INSERT INTO t VALUES (1, 'precious')")
    with pytest.raises(SchemaError) as raised:
        api.migrate(source, goal.url)
    assert raised.value.exit_code == 2
    assert "--into-existing" in (raised.value.hint or "")
    assert goal.sql("SELECT * FROM t") == [(1, "precious")]
    report = api.migrate(source, goal.url, dry_run=True)
    assert any("would refuse" in w for w in report.warnings)


def test_rows_are_added_to_an_existing_table_that_was_looked_at(
    goal: Goal, source: Path, database: Database
) -> None:
    if "://" in goal.url:
        database.run("CREATE SCHEMA store")
    goal.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT, w DOUBLE PRECISION)")
    goal.sql("INSERT INTO t VALUES (3, 'three', 3.5), (8, 'precious', NULL)")
    with pytest.raises(VerifyError):  # the row that only the target has
        api.migrate(source, goal.url, into_existing=True)
    assert rows(goal) == [(1, "one"), (2, "two"), (3, "three"), (8, "precious")]
    assert "t" not in api.undo(goal.url) or rows(goal)
    assert (8, "precious") in rows(goal)


def test_an_existing_table_with_other_columns_is_refused(
    goal: Goal, source: Path, database: Database
) -> None:
    if "://" in goal.url:
        database.run("CREATE SCHEMA store")
    goal.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, other TEXT)")
    goal.sql("INSERT INTO t VALUES (1, 'precious')")
    with pytest.raises(SchemaError) as raised:
        api.migrate(source, goal.url, into_existing=True)
    assert raised.value.exit_code == 2
    assert goal.sql("SELECT * FROM t") == [(1, "precious")]


def test_undo_drops_what_memlift_made_and_nothing_else(goal: Goal, source: Path, database: Database) -> None:
    if "://" in goal.url:
        database.run("CREATE SCHEMA store")
    goal.sql("CREATE TABLE mine (id INTEGER PRIMARY KEY)")
    api.migrate(source, goal.url)
    assert sorted(api.undo(goal.url)) == ["loose", "t"]
    if "://" in goal.url:
        with database.connect() as db:
            assert comparing.relations(db, "store") == {("mine", "r"), ("mine_pkey", "i")}
    else:
        assert goal.sql("SELECT name FROM sqlite_schema") == [("mine",)]
    assert api.undo(goal.url) == []


def test_undo_drops_a_schema_that_memlift_made(source: Path, database: Database) -> None:
    api.migrate(source, database.at("store"))
    api.undo(database.at("store"))
    assert database.run("SELECT 1 FROM pg_namespace WHERE nspname = 'store'") == []


def test_undo_of_a_brain_leaves_an_empty_file(tmp_path: Path) -> None:
    api.migrate(stores.BRAIN, tmp_path / "b.sqlite")
    api.undo(tmp_path / "b.sqlite")
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as db:
        assert [r for r in db.execute("SELECT name FROM sqlite_schema") if r[0] != "sqlite_sequence"] == []


def test_an_enum_that_memlift_did_not_make_is_not_dropped(database: Database) -> None:
    for schema in ("mine", "store"):
        database.run(f"CREATE SCHEMA {schema}", f"CREATE TYPE {schema}.mood AS ENUM ('a', 'b')")
    database.run(
        "CREATE TABLE mine.t (id int PRIMARY KEY, m mine.mood)", "INSERT INTO mine.t VALUES (1, 'a')"
    )
    database.run("CREATE TABLE store.own (m store.mood)")
    for schema in ("store", "other"):
        assert api.migrate(database.at("mine"), database.at(schema)).verified
        assert api.undo(database.at(schema)) == ["t"]
    types = "SELECT typnamespace::regnamespace::text FROM pg_type WHERE typname = 'mood' ORDER BY 1"
    assert database.run(types) == [("mine",), ("store",)]


def test_an_enum_of_other_labels_is_refused(database: Database) -> None:
    database.run("CREATE SCHEMA mine", "CREATE TYPE mine.mood AS ENUM ('a', 'b')")
    database.run("CREATE TABLE mine.t (id int PRIMARY KEY, m mine.mood)")
    database.run("CREATE SCHEMA store", "CREATE TYPE store.mood AS ENUM ('z')")
    with pytest.raises(SchemaError, match="a type 'mood' already, without the label 'a'"):
        api.migrate(database.at("mine"), database.at("store"))


@pytest.mark.parametrize(("taken", "what"), [("t_v", "index"), ("t_id_seq", "sequence"), ("t_pkey", "index")])
def test_a_table_that_comes_later_with_the_name_of_an_index_or_sequence_is_refused_with_what_to_do(
    taken: str, what: str, database: Database, tmp_path: Path
) -> None:
    source = stores.made(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX t_v ON t (v)"
    )
    api.migrate(source, database.at("store"))
    edit(source, f"DROP INDEX t_v; CREATE TABLE {taken} (x TEXT)")
    with pytest.raises(SchemaError, match=f"its name is that of an? {what} of 't'") as raised:
        api.migrate(source, database.at("store"))
    rename, _, _ = str(raised.value.hint).partition(";")
    database.run(rename)  # it is what to run
    assert api.migrate(source, database.at("store")).verified


@pytest.mark.parametrize(
    ("kind", "extension"),
    [("citext", "citext"), ("public.hstore[]", "hstore SCHEMA public"), ("geometry(Point,4326)", "postgis")],
)
def test_a_type_of_an_extension_that_is_not_there_is_one_error_before_anything_begins(
    kind: str, extension: str, database: Database
) -> None:
    table = Table(
        "t",
        (Column("id", Kind.INTEGER, "bigint"), Column("v", Kind.NATIVE, kind)),
        ("id",),
        dialect="postgres",
    )
    in_memory("needs_types", (table, [(1, "x")]))
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"the server has no type .*which t\.v needs") as raised:
            api.migrate("memory:needs_types", database.at("store"), dry_run=dry_run)
        assert f"CREATE EXTENSION {extension}` in database" in str(raised.value.hint)
    assert database.run("SELECT 1 FROM pg_namespace WHERE nspname = 'store'") == []
