"""Runs over targets that hold rows of earlier runs: what is added, changed, removed, and what is left."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.postgres.rerun_kit import TABLE, Goal, edit, rows
from integration.support import comparing, stores
from integration.support.comparing import same
from integration.support.servers import Database
from migrate import api
from migrate.errors import SchemaError, VerifyError


def test_a_rerun_writes_nothing_when_nothing_has_changed(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    report = api.migrate(source, goal.url)
    assert report.verified
    assert {t.name: (t.rows_written, t.rows_unchanged) for t in report.tables} == {
        "t": (0, 3),
        "loose": (0, 3),
    }


def test_a_rerun_adds_what_is_missing(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    edit(
        source, "INSERT INTO t VALUES (4, 'four', NULL), (0, 'zero', 0.5); INSERT INTO loose VALUES ('a', 1)"
    )
    report = api.migrate(source, goal.url)
    assert report.verified
    assert {t.name: t.rows_written for t in report.tables} == {"t": 2, "loose": 1}
    assert rows(goal) == [(0, "zero"), (1, "one"), (2, "two"), (3, "three"), (4, "four")]
    assert sorted(goal.sql("SELECT x, y FROM loose")) == [("a", 1), ("a", 1), ("a", 1), ("b", 2)]


def test_a_rerun_writes_a_table_as_it_was_made_though_its_values_look_otherwise_now(
    goal: Goal, tmp_path: Path
) -> None:
    source = stores.made(
        tmp_path / "growing.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB, w)"
    )
    api.migrate(source, goal.url)  # nothing tells yet that these are to be vectors
    packed = [struct.pack("<4f", i, 0.5, -1, 2) for i in range(60)]
    with closing(sqlite3.connect(source)) as db, db:
        db.executemany("INSERT INTO t VALUES (?, ?, x'01')", enumerate(packed, 1))
    report = api.migrate(source, goal.url)
    assert report.verified
    assert [bytes(row[0]) for row in goal.sql("SELECT embedding FROM t ORDER BY id")] == packed
    assert any("t.embedding: stays blob, as the earlier migration made it" in note for note in report.notes)


def test_json_is_not_written_in_another_form_than_the_table_keeps(database: Database, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "j.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON); INSERT INTO t VALUES (1, '{}')",
    )
    api.migrate(source, database.at("store"), json="text")
    edit(source, "INSERT INTO t VALUES (2, '[]')")
    with pytest.raises(SchemaError, match=r"keeps t.j as text, not as jsonb") as raised:
        api.migrate(source, database.at("store"))
    assert raised.value.hint is not None
    assert "--json-columns text" in raised.value.hint
    assert database.run("SELECT * FROM store.t") == [(1, "{}")]
    assert api.migrate(source, database.at("store"), json="text").verified


def test_what_an_agent_writes_over_a_cell_that_did_not_fit_is_newer_than_its_exact_value(
    database: Database, tmp_path: Path
) -> None:
    source = stores.made(
        tmp_path / "odd.sqlite",
        """CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w TEXT NOT NULL, n DECIMAL NOT NULL);
        INSERT INTO t VALUES (1, CAST(x'610062' AS TEXT), CAST(x'610062' AS TEXT), 9007199254740993),
                             (2, CAST(x'610062' AS TEXT), CAST(x'610062' AS TEXT), 9007199254740993)""",
    )
    api.migrate(source, database.at("store"), on_misfit="quarantine")
    database.run("UPDATE store.t SET v = 'new', w = 'new' WHERE id = 1")
    back = tmp_path / "back.sqlite"
    api.migrate(database.at("store"), back)
    with closing(sqlite3.connect(back)) as db:
        assert db.execute("SELECT * FROM t ORDER BY id").fetchall() == [
            (1, "new", "new", 9007199254740993),
            (2, "a\0b", "a\0b", 9007199254740993),
        ]
    with pytest.raises(VerifyError) as raised:
        api.migrate(source, database.at("store"), on_misfit="quarantine")
    [table] = raised.value.report.tables
    assert table.differences["shown"] == [
        {"table": "t", "what": "different", "key": [1], "columns": ["v", "w"]}
    ]


def test_a_rerun_reports_rows_that_differ_and_leaves_them(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    goal.sql("UPDATE t SET v = 'written by the agent since' WHERE id = 2")
    with pytest.raises(VerifyError) as raised:
        api.migrate(source, goal.url)
    assert raised.value.exit_code == 3
    assert "--update" in (raised.value.hint or "")
    report = raised.value.report
    assert report is not None
    assert not report.verified
    table = next(t for t in report.tables if t.name == "t")
    assert table.differences["different"] == 1
    assert table.differences["shown"] == [{"table": "t", "what": "different", "key": [2], "columns": ["v"]}]
    assert (2, "written by the agent since") in rows(goal)


def test_an_update_lets_the_source_win_and_keeps_what_only_the_target_has(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    goal.sql("UPDATE t SET v = 'changed' WHERE id = 2")
    goal.sql("INSERT INTO t (id, v) VALUES (9, 'of the agent')")
    with pytest.raises(VerifyError):
        api.migrate(source, goal.url, update=True)
    assert rows(goal) == [(1, "one"), (2, "two"), (3, "three"), (9, "of the agent")]


def test_a_mirror_also_removes_what_only_the_target_has(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    goal.sql("UPDATE t SET v = 'changed' WHERE id = 2")
    goal.sql("INSERT INTO t (id, v) VALUES (9, 'of the agent')")
    goal.sql("INSERT INTO loose VALUES ('a', 1)")
    goal.sql("DELETE FROM t WHERE id = 1")
    report = api.migrate(source, goal.url, mirror=True)
    assert report.verified
    assert rows(goal) == [(1, "one"), (2, "two"), (3, "three")]
    assert sorted(goal.sql("SELECT x, y FROM loose")) == [("a", 1), ("a", 1), ("b", 2)]


def test_extra_rows_are_reported_and_left(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    goal.sql("INSERT INTO t (id, v) VALUES (9, 'of the agent')")
    goal.sql("INSERT INTO loose VALUES ('b', 2)")
    with pytest.raises(VerifyError) as raised:
        api.migrate(source, goal.url)
    assert raised.value.report is not None
    assert {t.name: t.rows_extra for t in raised.value.report.tables} == {"t": 1, "loose": 1}
    assert (9, "of the agent") in rows(goal)


def test_values_that_two_unique_rows_have_swapped_are_updated(goal: Goal, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL UNIQUE);"
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    api.migrate(source, goal.url)
    edit(
        source,
        "UPDATE t SET v = 'x' WHERE id = 1; UPDATE t SET v = 'a' WHERE id = 2; UPDATE t SET v = 'b' WHERE id = 1",
    )
    assert api.migrate(source, goal.url, update=True).verified
    assert rows(goal) == [(1, "b"), (2, "a"), (3, "c")]
    with pytest.raises(Exception, match=r"(?i)unique"):
        goal.sql("INSERT INTO t VALUES (4, 'a')")


def test_an_update_keeps_children_of_changed_rows(goal: Goal, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT UNIQUE);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id) ON DELETE CASCADE);"
        "INSERT INTO p VALUES (1, 'a'), (2, 'b'); INSERT INTO c VALUES (1, 1), (2, 2), (3, 1)",
    )
    api.migrate(source, goal.url)
    edit(source, "UPDATE p SET v = v || '!'; INSERT INTO p VALUES (3, 'a'); DELETE FROM c WHERE id = 3")
    assert api.migrate(source, goal.url, mirror=True).verified
    assert goal.sql("SELECT count(*) FROM c") == [(2,)]


def test_misfits_that_heal_or_appear_are_followed_by_an_update(goal: Goal, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);"
        "INSERT INTO t VALUES (1, 'a' || char(0)), (2, 'b'), (3, 'c' || char(0));"
        "CREATE TABLE k (k TEXT PRIMARY KEY, v TEXT);"
        "INSERT INTO k VALUES ('a' || char(0), 'x'), (NULL, 'y'), (NULL, 'y'), ('b', 'z');"
        "CREATE TABLE loose (x TEXT);"
        "INSERT INTO loose VALUES ('a' || char(0)), ('a' || char(0)), ('a' || char(0)), ('b')",
    )
    options: dict[str, Any] = {"on_misfit": "quarantine"}
    assert api.migrate(source, goal.url, **options).verified
    edit(
        source,
        "UPDATE t SET v = 'healed' WHERE id = 1; UPDATE t SET v = char(0) WHERE id = 2; DELETE FROM t WHERE id = 3;"
        "UPDATE k SET v = 'changed' WHERE k = 'a' || char(0); DELETE FROM k WHERE rowid = 2;"
        "DELETE FROM loose WHERE rowid = 1; INSERT INTO loose VALUES (char(0))",
    )
    assert api.migrate(source, goal.url, mirror=True, **options).verified
    report = api.migrate(source, goal.url, **options)
    assert {t.name: t.rows_written for t in report.tables} == {"t": 0, "k": 0, "loose": 0}
    assert api.verify(source, goal.url).verified


def test_tenants_have_a_schema_each(tmp_path: Path, database: Database) -> None:
    one = stores.made(tmp_path / "one.sqlite", TABLE)
    two = stores.made(tmp_path / "two.sqlite", TABLE, "DELETE FROM t WHERE id = 1")
    api.migrate(one, database.at("tenant_one"))
    api.migrate(two, database.at('Tenant "two" % ?'))
    assert api.verify(one, database.at("tenant_one")).verified
    assert api.verify(two, database.at('Tenant "two" % ?')).verified
    with pytest.raises(VerifyError):
        api.verify(one, database.at('Tenant "two" % ?'))
    api.undo(database.at("tenant_one"))
    api.migrate(database.at('Tenant "two" % ?'), tmp_path / "back.sqlite")
    same(comparing.sqlite_state(tmp_path / "back.sqlite"), comparing.sqlite_state(two))


def test_a_table_with_other_columns_than_before_is_refused(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    edit(source, "ALTER TABLE t ADD COLUMN more TEXT")
    with pytest.raises(SchemaError):
        api.migrate(source, goal.url)
    assert len(rows(goal)) == 3


def test_a_table_that_came_later_is_added_by_a_rerun(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    edit(
        source,
        "CREATE TABLE late (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t); INSERT INTO late VALUES (1, 1)",
    )
    assert api.migrate(source, goal.url).verified
    assert goal.sql("SELECT id, t FROM late") == [(1, 1)]


def test_a_table_that_was_dropped_is_made_again(goal: Goal, source: Path) -> None:
    api.migrate(source, goal.url)
    goal.sql("DROP TABLE t")
    report = api.migrate(source, goal.url, tables=["loose"])
    assert report.verified  # what is gone concerns nobody
    report = api.migrate(source, goal.url)
    assert report.verified
    assert {t.name: t.rows_written for t in report.tables} == {"t": 3, "loose": 0}


LINKED = """
    CREATE TABLE p (id INTEGER PRIMARY KEY, e TEXT UNIQUE);
    CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id), n TEXT UNIQUE);
    INSERT INTO p VALUES (1, 'a'), (2, 'b');
    INSERT INTO c VALUES (1, 1, 'x');
"""


def built(database: Database) -> list[tuple[Any, ...]]:
    return sorted(
        database.run(
            "SELECT conrelid::regclass::text, conname::text, contype::text FROM pg_constraint"
            " WHERE connamespace = 'store'::regnamespace AND contype IN ('f', 'u')"
            " AND conrelid::regclass::text NOT LIKE '%memlift_%' UNION ALL"
            " SELECT tablename::text, indexname::text, 'i' FROM pg_indexes"
            " WHERE schemaname = 'store' AND tablename NOT LIKE 'memlift_%'"
        )
    )


def test_a_change_of_one_table_takes_no_link_or_index_of_another_away(
    database: Database, tmp_path: Path
) -> None:
    source = stores.made(tmp_path / "linked.sqlite", LINKED)
    api.migrate(source, database.at("store"))
    before = built(database)
    assert ("store.c", "c_p_fkey1", "f") in before
    edit(source, "UPDATE p SET e = 'z' WHERE id = 1")
    assert api.migrate(source, database.at("store"), tables=["p"], update=True).verified
    assert built(database) == before


def test_constraints_of_tables_that_memlift_did_not_make_stay(database: Database, tmp_path: Path) -> None:
    source = stores.made(tmp_path / "linked.sqlite", LINKED)
    database.run(
        "CREATE SCHEMA store",
        "CREATE TABLE store.p (id bigint PRIMARY KEY, e text UNIQUE)",
        "CREATE TABLE store.c (id bigint PRIMARY KEY, p bigint CONSTRAINT c_p_fkey1 REFERENCES store.p, n text UNIQUE)",
    )
    before = built(database)
    assert api.migrate(source, database.at("store"), into_existing=True).verified
    edit(source, "UPDATE p SET e = 'z' WHERE id = 1")
    assert api.migrate(source, database.at("store"), into_existing=True, update=True).verified
    assert built(database) == before


@pytest.mark.parametrize("key", [", PRIMARY KEY (e, es)", ""])
def test_a_mirror_removes_rows_that_are_told_by_an_enum(key: str, database: Database) -> None:
    database.run(
        "CREATE SCHEMA src",
        "CREATE TYPE src.mood AS ENUM ('sad', 'so so')",
        f"CREATE TABLE src.t (e src.mood, es src.mood[], v int{key})",
        "INSERT INTO src.t VALUES ('sad', '{}', 1), ('so so', '{sad,\"so so\"}', 2)",
    )
    api.migrate(database.at("src"), database.at("store"))
    database.run("DELETE FROM src.t WHERE v = 2")
    assert api.migrate(database.at("src"), database.at("store"), mirror=True).verified
    assert database.run("SELECT e::text, v FROM store.t") == [("sad", 1)]


def test_two_spellings_of_one_json_are_two_keys(database: Database, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "j.sqlite",
        """CREATE TABLE t (j JSON PRIMARY KEY, u JSON UNIQUE, free JSON);
        INSERT INTO t VALUES ('{"a":1}', '[1]', '{}'), ('{"a": 1}', '[ 1 ]', '{}')""",
    )
    for _ in range(2):
        assert api.migrate(source, database.at("store")).verified
    assert api.migrate(database.at("store"), tmp_path / "back.sqlite").verified
    with closing(sqlite3.connect(tmp_path / "back.sqlite")) as db:
        assert db.execute("SELECT j, u FROM t ORDER BY u").fetchall() == [
            ('{"a": 1}', "[ 1 ]"),
            ('{"a":1}', "[1]"),
        ]


@pytest.mark.parametrize("choice", ["update", "mirror"])
def test_a_row_that_no_longer_fits_is_not_left_where_it_was(
    choice: str, database: Database, tmp_path: Path
) -> None:
    make = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    source = stores.made(tmp_path / "a.sqlite", make)
    api.migrate(source, database.at("store"))
    for change in ("v || char(0)", "'z' || v", "'fits'", "'not' || char(0)"):
        edit(source, f"UPDATE t SET v = {change} WHERE id = 1")
        assert api.migrate(source, database.at("store"), on_misfit="quarantine", **{choice: True}).verified
    assert database.run("SELECT * FROM store.t") == [(2, "b")]

    database.run("CREATE SCHEMA src", "CREATE TABLE src.t (id int PRIMARY KEY, r real NOT NULL UNIQUE)")
    database.run("INSERT INTO src.t VALUES (1, 1.5)")
    api.migrate(database.at("src"), tmp_path / "b.sqlite")
    database.run("UPDATE src.t SET r = 'NaN'")
    report = api.migrate(database.at("src"), tmp_path / "b.sqlite", on_misfit="quarantine", **{choice: True})
    assert report.verified


def test_a_link_to_a_row_that_is_kept_aside_is_not_said_to_be_broken_in_the_source(
    database: Database, tmp_path: Path
) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        """CREATE TABLE p (id INTEGER PRIMARY KEY, u TEXT NOT NULL UNIQUE);
        CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id));
        INSERT INTO p VALUES (1, 'a' || char(0)); INSERT INTO c VALUES (1, 1)""",
    )
    report = api.migrate(source, database.at("store"), on_misfit="quarantine")
    told = "the rows of c break its foreign key c_p_fkey1, for rows of p are kept aside: left NOT VALID"
    assert (report.verified, told in report.warnings) == (True, True)
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_row_kept_aside_keeps_its_number(database: Database, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "n.sqlite",
        """CREATE TABLE t (id INTEGER PRIMARY KEY, e TEXT NOT NULL UNIQUE);
        INSERT INTO t VALUES (1, 'a'), (2, CAST(x'610062' AS TEXT))""",
    )
    api.migrate(source, database.at("store"), on_misfit="quarantine")
    database.run("INSERT INTO store.t (e) VALUES ('new')")
    api.migrate(database.at("store"), tmp_path / "back.sqlite")
    with closing(sqlite3.connect(tmp_path / "back.sqlite")) as db:
        assert db.execute("SELECT * FROM t ORDER BY id").fetchall() == [(1, "a"), (2, "a\0b"), (3, "new")]


@pytest.mark.parametrize("key", ["PRIMARY KEY", ""])
def test_a_row_whose_unique_value_another_row_has_by_now_is_left_out_and_reported(
    key: str, goal: Goal, tmp_path: Path
) -> None:
    make = f"CREATE TABLE t (id INTEGER {key}, v TEXT UNIQUE); INSERT INTO t VALUES (1, 'one')"
    source = stores.made(tmp_path / "a.sqlite", make)
    api.migrate(source, goal.url)
    goal.sql("INSERT INTO t VALUES (7, 'two')")
    edit(source, "INSERT INTO t VALUES (2, 'two'), (3, 'three')")
    for written in (1, 0):
        with pytest.raises(VerifyError) as raised:
            api.migrate(source, goal.url)
        assert raised.value.exit_code == 3
        assert raised.value.report is not None
        assert raised.value.report.tables[0].rows_written == written
        assert rows(goal) == [(1, "one"), (3, "three"), (7, "two")]
        with pytest.raises((psycopg.errors.UniqueViolation, sqlite3.IntegrityError)):
            goal.sql("INSERT INTO t VALUES (9, 'one')")
    assert api.migrate(source, goal.url, mirror=True).verified
    assert rows(goal) == [(1, "one"), (2, "two"), (3, "three")]
