"""Postgres sources of every type go to SQLite and to Postgres, and come back as Postgres prints them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.support import comparing, stores
from integration.support.comparing import same
from integration.support.pgstores import SOURCES
from integration.support.servers import Database, Postgres
from migrate import api
from migrate.errors import ConfigError, MigrateError, MisfitError


def filled(database: Database, name: str, schema: str = "src") -> None:
    with database.connect() as db:
        db.execute(f'CREATE SCHEMA "{schema}"'.encode())
        db.execute(f'SET search_path = "{schema}", public'.encode())
        db.execute(SOURCES[name].encode())


def texts(database: Database, schema: str) -> dict[str, Any]:
    """Return all rows as text, without columns that are generated."""
    with database.connect() as db:
        found = comparing.pg_texts(db, schema)
    return {
        table: Counter(
            {tuple(cell for cell in row if cell[0] != "b" or table != "g"): n for row, n in rows.items()}
        )
        for table, rows in found.items()
    }


@pytest.mark.parametrize("name", SOURCES)
def test_a_schema_comes_back_from_sqlite_as_it_was(name: str, tmp_path: Path, database: Database) -> None:
    filled(database, name)
    file = tmp_path / "b.sqlite"
    before = texts(database, "src")

    assert api.migrate(database.at("src"), file, on_misfit="quarantine").verified
    assert api.verify(database.at("src"), file).verified
    with closing(sqlite3.connect(file)) as db:
        declared = {
            row[2]
            for t in comparing.sqlite_tables(file)
            for row in db.execute(f"PRAGMA table_info({comparing.quoted(t)})")
        }
    assert declared <= {"INTEGER", "REAL", "TEXT", "BLOB"}
    assert api.migrate(file, database.at("back")).verified

    same(texts(database, "back"), before)
    same(texts(database, "src"), before)
    assert api.verify(database.at("src"), database.at("back")).verified


@pytest.mark.parametrize("name", SOURCES)
def test_a_schema_is_the_same_in_another_schema(name: str, database: Database) -> None:
    filled(database, name)
    assert api.migrate(database.at("src"), database.at("copy")).verified
    same(texts(database, "copy"), texts(database, "src"))


@pytest.mark.parametrize("name", ["others", "generated", "keys", "names"])
def test_a_schema_goes_to_another_database_through_a_file(
    name: str, tmp_path: Path, database: Database, postgres: Postgres
) -> None:
    filled(database, name)
    api.migrate(database.at("src"), tmp_path / "b.sqlite")
    with postgres.database() as other:
        api.migrate(tmp_path / "b.sqlite", other.at("src"))
        same(texts(other, "src"), texts(database, "src"))


def types(database: Database, schema: str) -> dict[str, Any]:
    with database.connect() as db:
        found = comparing.pg_tables(db, schema)
    return {
        t: {c: kind.replace(f"{schema}.", "") for c, kind in columns if (t, c) != ("g", "b")}
        for t, columns in found.items()
    }


@pytest.mark.parametrize("name", SOURCES)
def test_types_come_back_from_sqlite_as_they_were(name: str, tmp_path: Path, database: Database) -> None:
    filled(database, name)
    api.migrate(database.at("src"), tmp_path / "b.sqlite", on_misfit="quarantine")
    api.migrate(tmp_path / "b.sqlite", database.at("back"))
    wanted = types(database, "src")
    if name == "others":  # a domain's check and a name of 64 bytes at most are not carried
        wanted["o"] |= {"w": "integer"}
    same(types(database, "back"), wanted)


@pytest.mark.parametrize("name", ["keys", "vectors", "texts"])
def test_keys_and_indexes_are_the_same_in_another_schema(name: str, database: Database) -> None:
    filled(database, name)
    api.migrate(database.at("src"), database.at("copy"))
    with database.connect() as db:
        same(comparing.pg_shape(db, "copy"), comparing.pg_shape(db, "src"))


def test_what_sqlite_cannot_hold_of_postgres_fails_the_run(tmp_path: Path, database: Database) -> None:
    filled(database, "numbers")
    with pytest.raises(MisfitError) as raised:
        api.migrate(database.at("src"), tmp_path / "b.sqlite")
    assert raised.value.exit_code == 4
    assert not (tmp_path / "b.sqlite").exists()


def test_numbering_goes_on_after_the_way_through_sqlite(tmp_path: Path, database: Database) -> None:
    filled(database, "generated")
    api.migrate(database.at("src"), tmp_path / "b.sqlite")
    api.migrate(tmp_path / "b.sqlite", database.at("back"))
    for schema in ("src", "back"):
        assert database.run(f"INSERT INTO {schema}.big (v) VALUES ('new') RETURNING id") == [(3,)]
    (new,) = database.run("INSERT INTO back.g (a) VALUES (9) RETURNING id")[0]
    assert new > 11  # 5, 8 and 11 were given out


def test_values_are_stored_in_sqlite_as_the_guide_says(tmp_path: Path, database: Database) -> None:
    filled(database, "times")
    api.migrate(database.at("src"), tmp_path / "b.sqlite")
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as db:
        found = db.execute("SELECT tz FROM w ORDER BY id").fetchall()
        kinds = dict(db.execute("""SELECT "column", declared FROM memlift_columns WHERE "table" = 'w'"""))
    assert found[0] == ("2024-02-29T07:04:56.789012+00:00",)
    assert found[1] == ("infinity",)
    assert kinds["tz"] == "timestamp with time zone"
    assert kinds["i"] == "interval"


# --- roles, extensions, row security -----------------------------------------


@pytest.fixture
def owner(database: Database) -> Any:
    """A role without any special right, that owns the schema `store`."""
    name = "plain_" + database.url.rpartition("/")[2]
    database.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'", f"CREATE SCHEMA store AUTHORIZATION {name}")
    yield database.role(name)
    database.run(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_a_role_without_special_rights_is_enough(tmp_path: Path, database: Database, owner: Database) -> None:
    source = stores.brain(tmp_path / "a.sqlite")
    assert api.migrate(source, owner.at("store")).verified
    assert api.migrate(owner.at("store"), tmp_path / "b.sqlite").verified
    source2 = stores.crash_store(tmp_path / "c.sqlite")
    with pytest.raises(ConfigError, match="may not create the schema") as raised:
        api.migrate(source2, owner.at("not_mine"))
    assert "CREATE SCHEMA" in (raised.value.hint or "")


def test_a_schema_that_may_not_be_written_is_refused_with_what_to_run(
    tmp_path: Path, database: Database, owner: Database
) -> None:
    database.run("CREATE SCHEMA foreign_one")
    with pytest.raises(ConfigError, match="may not create tables") as raised:
        api.migrate(stores.brain(tmp_path / "a.sqlite"), owner.at("foreign_one"))
    assert raised.value.exit_code == 2
    assert "GRANT USAGE, CREATE ON SCHEMA" in (raised.value.hint or "")


def test_an_extension_that_is_not_there_and_may_not_be_made_is_one_clear_error(
    tmp_path: Path, bare_database: Database
) -> None:
    name = "plain_" + bare_database.url.rpartition("/")[2]
    bare_database.run(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'", f"CREATE SCHEMA store AUTHORIZATION {name}"
    )
    try:
        with pytest.raises(ConfigError, match="pgvector is not created") as raised:
            api.migrate(stores.brain(tmp_path / "a.sqlite"), bare_database.role(name).at("store"))
        assert "CREATE EXTENSION vector" in (raised.value.hint or "")
        plain = stores.made(tmp_path / "plain.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
        assert api.migrate(plain, bare_database.role(name).at("store")).verified  # needs no vectors
    finally:
        bare_database.run(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_the_extension_is_made_where_that_is_allowed(tmp_path: Path, bare_database: Database) -> None:
    assert api.migrate(stores.brain(tmp_path / "a.sqlite"), bare_database.at("store")).verified
    assert bare_database.run("SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == [(1,)]


def test_the_extension_may_be_in_another_schema(tmp_path: Path, bare_database: Database) -> None:
    source = stores.made(tmp_path / "a.sqlite", stores.ODD["vectors"])
    bare_database.run('CREATE SCHEMA "Ext ""1"""', 'CREATE EXTENSION vector SCHEMA "Ext ""1"""')
    assert api.migrate(source, bare_database.at("store")).verified
    assert api.migrate(source, bare_database.at("store")).verified
    assert api.migrate(bare_database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    with closing(sqlite3.connect(source)) as db:
        db.executescript(
            "UPDATE note SET embedding = zeroblob(32) WHERE id = 'n3'; DELETE FROM note WHERE id = 'n5'"
        )
    assert api.migrate(source, bare_database.at("store"), mirror=True).verified
    indexes = bare_database.run(
        "SELECT count(*) FROM pg_indexes WHERE schemaname = 'store' AND indexdef LIKE '%hnsw%'"
    )
    assert indexes == [(1,)]


def test_row_security_is_an_error_and_not_fewer_rows(tmp_path: Path, database: Database) -> None:
    name = "reader_" + database.url.rpartition("/")[2]
    database.run(
        "CREATE SCHEMA src",
        "CREATE TABLE src.t AS SELECT i AS id, i % 4 = 0 AS mine FROM generate_series(1, 1000) i",
        "ALTER TABLE src.t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON src.t USING (mine)",
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA src TO {name}",
        f"GRANT SELECT ON src.t TO {name}",
    )
    try:
        assert database.role(name).run("SELECT count(*) FROM src.t") == [(250,)]
        with pytest.raises(MigrateError) as raised:
            api.migrate(database.role(name).at("src"), tmp_path / "b.sqlite")
        assert "row-level security" in str(raised.value) or "row security" in str(raised.value)
        assert raised.value.hint
        assert not (tmp_path / "b.sqlite").exists()
        assert api.migrate(database.at("src"), tmp_path / "b.sqlite").verified  # the owner sees all
    finally:
        database.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_table_that_may_not_be_read_is_one_clear_error(tmp_path: Path, database: Database) -> None:
    name = "reader_" + database.url.rpartition("/")[2]
    database.run(
        "CREATE SCHEMA src",
        "CREATE TABLE src.secret (id int)",
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA src TO {name}",
    )
    try:
        with pytest.raises(MigrateError, match="permission denied") as raised:
            api.migrate(database.role(name).at("src"), tmp_path / "b.sqlite")
        assert "GRANT" in (raised.value.hint or "")
        assert not (tmp_path / "b.sqlite").exists()
    finally:
        database.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_schema_that_is_not_there_is_refused(tmp_path: Path, database: Database) -> None:
    with pytest.raises(ConfigError, match="no schema"):
        api.migrate(database.at("nowhere"), tmp_path / "b.sqlite")
    assert not (tmp_path / "b.sqlite").exists()


def test_settings_of_the_role_do_not_change_what_is_carried(tmp_path: Path, database: Database) -> None:
    filled(database, "times")
    filled(database, "numbers", "num")
    before = texts(database, "src"), texts(database, "num")
    name = database.url.rpartition("/")[2]
    for setting in (
        "TimeZone = 'America/New_York'", "DateStyle = 'German, DMY'", "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -10", "bytea_output = 'escape'", "statement_timeout = '1h'", "lc_monetary = 'C'",
        "default_transaction_read_only = off", "search_path = ''",
    ):  # fmt: skip
        database.run(f"ALTER DATABASE {name} SET {setting}")
    for schema in ("src", "num"):
        assert api.migrate(
            database.at(schema), tmp_path / f"{schema}.sqlite", on_misfit="quarantine"
        ).verified
        assert api.migrate(tmp_path / f"{schema}.sqlite", database.at(f"{schema}2")).verified
    for setting in ("DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "search_path"):
        database.run(f"ALTER DATABASE {name} RESET {setting}")
    same((texts(database, "src2"), texts(database, "num2")), before)


def test_a_timeout_of_the_role_does_not_end_a_long_read(tmp_path: Path, database: Database) -> None:
    filled(database, "keys")
    name = database.url.rpartition("/")[2]
    for setting in ("statement_timeout = '50ms'", "idle_in_transaction_session_timeout = '50ms'"):
        database.run(f"ALTER DATABASE {name} SET {setting}")
    with psycopg.connect(database.url) as probe, pytest.raises(psycopg.errors.QueryCanceled):
        probe.execute("SELECT pg_sleep(1)")
    assert api.migrate(database.at("src"), tmp_path / "b.sqlite").verified
    assert api.migrate(tmp_path / "b.sqlite", database.at("back")).verified
