"""Writing SQLite rows again and again: odd keys, odd texts, and what an agent wrote meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrate import api
from migrate.errors import ConfigError, SchemaError, VerifyError
from migrate.schema import Column, Kind, Table
from tests.small_stores import asked, in_memory, pairs, sqlite_file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "it is a folder"),
        ("/", "it is a folder"),
        ("pipe", "a device, pipe or socket"),
        ("kept.db", "may not write to kept.db"),
        ("shut/b.db", "may not write to the folder shut"),
    ],
)
def test_a_target_that_can_be_no_database_is_refused_before_anything_is_begun(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    may = os.access  # root may write everywhere
    closed = {"kept.db", "shut"}
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in closed and may(path, mode))
    sqlite_file(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    os.mkfifo("pipe")
    Path("kept.db").touch()
    Path("shut").mkdir()
    for options in ({}, {"dry_run": True}):
        with pytest.raises(ConfigError, match=message):
            api.migrate("a.db", name, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "kept.db", "pipe", "shut"]


def copied(tmp_path: Path, script: str) -> tuple[Path, Path]:
    source, target = sqlite_file(tmp_path / "a.db", script), tmp_path / "b.db"
    assert api.migrate(source, target).verified
    return source, target


@pytest.mark.parametrize(
    ("script", "change", "kept"),
    [
        (
            "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES ('Red', 1)",
            "UPDATE t SET k = 'RED', v = 99",
            [("RED", 99)],
        ),
        (
            "CREATE TABLE t (k PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES (1, 1)",
            "UPDATE t SET k = 1.0, v = 99",
            [(1.0, 99)],
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)",
            "UPDATE t SET v = 99",
            [(1, 99)],
        ),
    ],
)
def test_what_an_agent_has_written_since_is_not_overwritten(
    script: str, change: str, kept: list[object], tmp_path: Path
) -> None:
    source, target = copied(tmp_path, script)
    asked(target, change)
    with pytest.raises(VerifyError):
        api.migrate(source, target)
    assert asked(target, "SELECT * FROM t") == kept
    assert api.migrate(source, target, mirror=True).verified
    assert asked(target, "SELECT * FROM t") == asked(source, "SELECT * FROM t")


NULLS = (
    "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 2), ('a', 3)"
)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_row_with_a_null_key_is_added_and_no_other(lost: int, tmp_path: Path) -> None:
    source, target = copied(tmp_path, NULLS)
    asked(target, "DELETE FROM t WHERE rowid = (SELECT rowid FROM t WHERE v = ? LIMIT 1)", (lost,))
    assert api.migrate(source, target).verified
    assert sorted(asked(target, "SELECT k, v FROM t"), key=repr) == sorted(
        asked(source, "SELECT k, v FROM t"), key=repr
    )


def test_a_surplus_row_with_a_null_key_is_removed_and_no_other(tmp_path: Path) -> None:
    source, target = copied(tmp_path, NULLS)
    asked(target, "INSERT INTO t VALUES (NULL, 7), (NULL, 2)")
    assert api.migrate(source, target, mirror=True).verified
    assert sorted(v for _, v in asked(target, "SELECT k, v FROM t")) == [1, 2, 2, 3]


@pytest.mark.parametrize("key", ["TEXT PRIMARY KEY NOT NULL", "TEXT"])
def test_rows_that_are_no_utf8_are_written_added_and_removed(key: str, tmp_path: Path) -> None:
    source, target = copied(
        tmp_path,
        f"CREATE TABLE t (k {key}, v); INSERT INTO t VALUES ('a', 1), (CAST(x'ff' AS TEXT), 2), (CAST(x'c3' AS TEXT), 3)",
    )
    listed = "SELECT hex(k), typeof(k), v FROM t ORDER BY v"
    wanted = [("61", "text", 1), ("FF", "text", 2), ("C3", "text", 3)]
    assert asked(target, listed) == wanted
    asked(target, "DELETE FROM t WHERE v = 2")
    asked(target, "INSERT INTO t VALUES (CAST(x'fe' AS TEXT), 4)")
    assert api.migrate(source, target, mirror=True).verified
    assert asked(target, listed) == wanted


def test_a_surplus_row_is_told_from_one_that_looks_alike(tmp_path: Path) -> None:
    source, target = copied(tmp_path, "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, x'31'), ('1', NULL)")
    asked(target, "INSERT INTO t VALUES (1.0, x'31'), ('1', ''), (1, '1')")
    assert api.migrate(source, target, mirror=True).verified
    assert asked(target, "SELECT a, typeof(a), b FROM t") == [(1, "integer", b"1"), ("1", "text", None)]


@pytest.mark.usefixtures("shelves")
def test_tables_that_differ_only_in_case_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    in_memory("m", (pairs("Notes"), [(1, "a")]), (pairs("notes"), [(2, "b")]))
    with pytest.raises(SchemaError, match="differ only in case"):
        api.migrate("memory:m", tmp_path / "b.db")
    names = asked(tmp_path / "b.db", "SELECT name FROM sqlite_schema WHERE lower(name) = 'notes'")
    assert names == []


def test_a_file_is_made_by_the_first_write_and_not_before(tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "a.db", "CREATE TABLE t (v)")
    api.migrate(source, tmp_path / "b.db", dry_run=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_only_memlifts_tables_are_beside_the_data(tmp_path: Path) -> None:
    _, target = copied(tmp_path, "CREATE TABLE t (v)")
    names = asked(target, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    assert [n for (n,) in names] == [
        "memlift_columns",
        "memlift_exact",
        "memlift_lease",
        "memlift_positions",
        "memlift_runs",
        "memlift_tables",
        "t",
    ]
    assert api.undo(target) == ["t"]
    assert asked(target, "SELECT name FROM sqlite_schema") == []


def test_the_books_themselves_are_never_carried_on(tmp_path: Path) -> None:
    _, target = copied(tmp_path, "CREATE TABLE t (v); INSERT INTO t VALUES (1)")
    report = api.migrate(target, tmp_path / "c.db")
    assert [t.name for t in report.tables] == ["t"]
    assert report.not_carried == ()


@pytest.mark.parametrize("kind", ["INDEX T_V ON t (v)", "VIEW T_V AS SELECT 1 AS x"])
def test_a_table_that_comes_later_with_the_name_of_an_index_or_view_is_refused(
    kind: str, tmp_path: Path
) -> None:
    path = sqlite_file(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    api.migrate(path, tmp_path / "b.db")
    asked(tmp_path / "b.db", f"CREATE {kind}")
    asked(path, "CREATE TABLE t_v (x TEXT)")
    with pytest.raises(SchemaError, match="its name is that of a") as raised:
        api.migrate(path, tmp_path / "b.db")
    assert "drop or rename" in str(raised.value.hint)


def test_two_spellings_of_one_json_are_two_keys_which_a_mirror_removes(tmp_path: Path) -> None:
    source, target = copied(
        tmp_path,
        """CREATE TABLE t (j JSON PRIMARY KEY, v TEXT);
        INSERT INTO t VALUES ('["a", "b"]', 'x'), ('["a","b"]', 'y'), ('[ 1 ]', 'z'), ('{ }', NULL)""",
    )
    for change in ("DELETE FROM t WHERE v IN ('x', 'z')", "UPDATE t SET j = '{}' WHERE j = '{ }'"):
        sqlite_file(source, change)
        assert api.migrate(source, target, mirror=True).verified
        assert asked(target, "SELECT * FROM t ORDER BY j") == asked(source, "SELECT * FROM t ORDER BY j")


@pytest.mark.usefixtures("shelves")
def test_a_key_of_json_is_removed_however_it_is_spelled(tmp_path: Path) -> None:
    table = Table("t", (Column("j", Kind.JSON), Column("v", Kind.TEXT)), ("j",))
    source = in_memory("a", (table, [('{"b": 1, "a": 2}', "x"), ("[1, 2]", "y")]))
    assert api.migrate("memory:a", tmp_path / "b.db").verified
    source.shelf.rows["t"] = [("[1, 2]", "y")]
    assert api.migrate("memory:a", tmp_path / "b.db", mirror=True).verified
    assert asked(tmp_path / "b.db", "SELECT * FROM t") == [("[1, 2]", "y")]
