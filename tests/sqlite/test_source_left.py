"""What a SQLite file has that no row carries: listed, never silent."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migrate import api
from migrate.backends.sqlite.source import SqliteSource
from tests.small_stores import asked, sqlite_file


def left(path: Path) -> dict[str, tuple[str, bool]]:
    source = SqliteSource(path)
    found = {n.name: (n.reason, n.derived) for n in source.not_carried()}
    source.close()
    return found


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("CREATE VIEW v AS SELECT * FROM t", {"v": ("a view", False)}),
        ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", {"g": ("a trigger", False)}),
        ("CREATE INDEX e ON t (lower(v))", {"e": ("an index on an expression", False)}),
        (
            "CREATE TABLE u (a, b GENERATED ALWAYS AS (a + 1) STORED, c AS (a))",
            {"u.b": ("a generated column", False), "u.c": ("a generated column", False)},
        ),
        ("CREATE TABLE u (a CHECK (a > 0))", {"u": ("CHECK constraints", False)}),
        ("CREATE TABLE u (a DEFAULT 'check (')", {}),
    ],
)
def test_what_is_not_carried_is_listed(
    script: str, wanted: dict[str, tuple[str, bool]], tmp_path: Path
) -> None:
    path = sqlite_file(tmp_path / "a.db", f"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); {script}")
    assert left(path) == wanted


def test_statistics_are_the_targets_own(tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db", "CREATE TABLE t (v); CREATE INDEX i ON t (v); INSERT INTO t VALUES (1); ANALYZE"
    )
    assert left(path) == {"sqlite_stat1": ("statistics; the target makes its own", True)}


def test_full_text_indexes_are_derived_and_their_shadows_as_well(tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db", "CREATE TABLE t (v); CREATE VIRTUAL TABLE f USING fts5(v, content='t')"
    )
    found = left(path)
    assert found["f"] == ("a full-text index over a table that is carried", True)
    assert {reason for name, (reason, _) in found.items() if name != "f"} == {"part of a virtual table"}
    source = SqliteSource(path)
    assert [t.name for t in source.tables()] == ["t"]
    source.close()


@pytest.mark.parametrize("how", ["rtree(id, a, b)", "fts4(v, compress=a, uncompress=b)"])
def test_virtual_tables_whose_rows_cannot_be_read_are_no_derived_things(how: str, tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db", "CREATE VIRTUAL TABLE f USING " + how.split(", c")[0].rstrip(")") + ")"
    )
    with closing(sqlite3.connect(path)) as db:  # such functions would have to be there to make it
        db.execute("PRAGMA writable_schema = ON")
        sql = f"CREATE VIRTUAL TABLE f USING {how}"
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'f'", (sql,))
        db.commit()
    reason, derived = left(path)["f"]
    assert reason.startswith("ITS ROWS ARE LEFT BEHIND")
    assert not derived


def test_a_virtual_table_of_a_module_that_is_not_here_names_it_and_its_parts(tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db",
        "CREATE TABLE vec_rowids (rowid INTEGER PRIMARY KEY, id); PRAGMA writable_schema = ON;"
        "INSERT INTO sqlite_schema VALUES ('table', 'vec', 'vec', 0,"
        " 'CREATE VIRTUAL TABLE vec USING vec0(embedding float[3])')",
    )
    reason, derived = left(path)["vec"]
    assert reason.startswith("ITS ROWS ARE LEFT BEHIND")
    assert "vec0" in reason
    assert "vec_rowids" in reason
    assert not derived


def test_a_full_text_index_without_text_of_its_own_is_not_said_to_be_rebuilt(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "a.db", "CREATE VIRTUAL TABLE f USING fts5(v, content='')")
    reason, derived = left(path)["f"]
    assert "keeps no text" in reason
    assert not derived


@pytest.mark.parametrize("name", ["memlift_diary", "MEMLIFT_diary", "memlift_"])
def test_a_table_with_a_reserved_name_is_not_left_out_in_silence(name: str, tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db", f"CREATE TABLE t (v); CREATE TABLE {name} (v); INSERT INTO {name} VALUES (1)"
    )
    assert name in left(path)


@pytest.mark.parametrize(
    ("declaration", "word"),
    [
        ("id INTEGER PRIMARY KEY ON CONFLICT REPLACE, v", "ON CONFLICT"),
        ("id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT IGNORE", "ON CONFLICT"),
        ("id INTEGER PRIMARY KEY, v NOT NULL ON CONFLICT ABORT", "ON CONFLICT"),
        ("id INTEGER PRIMARY KEY, p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED", "DEFERRABLE"),
    ],
)
def test_a_clause_is_carried_or_listed(declaration: str, word: str, tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db", f"CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE t ({declaration})"
    )
    report = api.migrate(path, tmp_path / "b.db")
    ((made,),) = asked(tmp_path / "b.db", "SELECT sql FROM sqlite_schema WHERE name = 't'")
    listed = " ".join(f"{n['name']} {n['reason']}" for n in report.not_carried)
    assert word in str(made).upper() or word in listed.upper()
