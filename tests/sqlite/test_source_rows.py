"""Reading SQLite rows: every shape of key, dynamic types, and text that is no UTF-8."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from migrate import api
from migrate.backends.sqlite.source import SqliteSource
from migrate.batch import Row
from migrate.schema import Kind, Table
from tests.small_stores import multiset, sqlite_file, typed


def opened(path: Path) -> tuple[SqliteSource, Table]:
    source = SqliteSource(path)
    (table,) = source.tables()
    return source, table


def read(source: SqliteSource, table: Table, size: int, after: Any = None) -> list[Row]:
    return [row for batch in source.batches(table, size=size, after=after) for row in batch.rows]


def test_every_cell_keeps_the_type_it_was_stored_with(tmp_path: Path) -> None:
    cells = [
        1,
        2**63 - 1,
        -(2**63),
        1.5,
        1.0,
        float("inf"),
        "1",
        "",
        "a\0b",
        "é😀",
        b"1",
        b"",
        b"\x00\xff",
        None,
    ]
    path = sqlite_file(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v)",
        *(("INSERT INTO t (v) VALUES (?)", (cell,)) for cell in cells),
    )
    source, table = opened(path)
    assert typed(read(source, table, 3)) == typed(list(enumerate(cells, 1)))
    source.close()


SHAPES: dict[str, str] = {
    "integer primary key": "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (-5, 'a'), (0, 'b'), (9, 'c')",
    "alias in the middle": "CREATE TABLE t (v, id INTEGER, PRIMARY KEY (id)); INSERT INTO t VALUES ('a', 2), ('b', 1)",
    "text key": "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('b', 1), ('a', 2), ('', 3), ('B', 4)",
    "null keys": "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 1), (NULL, 1), ('a', 2)",
    "key of any type": "CREATE TABLE t (k PRIMARY KEY, v); INSERT INTO t VALUES (1, 1), ('1', 2), (x'31', 3), (1.5, 4)",
    "composite key": "CREATE TABLE t (a TEXT, b INT, v, PRIMARY KEY (b, a)); INSERT INTO t VALUES ('x', 1, 1), ('x', 2, 2), ('y', 1, 3)",
    "without rowid": "CREATE TABLE t (a TEXT, b BLOB, v, PRIMARY KEY (a, b DESC)) WITHOUT ROWID; INSERT INTO t VALUES ('k', x'01', 1), ('k', x'02', 2), ('', x'', 3), ('K', x'01', 4)",
    "without rowid, nocase": "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES ('b', 1), ('A', 2), ('C', 3), ('Ä', 4), ('ä', 5)",
    "without rowid, any type": "CREATE TABLE t (a PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES (2, 1), ('1', 2), (x'31', 3), (1.5, 4), ('', 5)",
    "no key": "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1), (1, 1), (NULL, NULL), (2, 'x')",
    "a column named rowid": "CREATE TABLE t (rowid TEXT, v); INSERT INTO t VALUES ('z', 1), ('a', 2), ('z', 1)",
    "columns named rowid and oid": "CREATE TABLE t (RowID TEXT, oid TEXT); INSERT INTO t VALUES ('z', 1), ('a', 2)",
    "all names of the rowid taken": "CREATE TABLE t (rowid TEXT, oid TEXT, _rowid_ TEXT); INSERT INTO t VALUES ('a', 'b', 'c'), ('a', 'b', 'c'), ('d', NULL, 'f')",
    "all names taken, with a key": "CREATE TABLE t (rowid TEXT, oid TEXT, _rowid_ TEXT PRIMARY KEY); INSERT INTO t VALUES ('a', 'b', 'z'), ('c', 'd', 'y')",
    "an integer primary key named oid": "CREATE TABLE t (oid INTEGER PRIMARY KEY, rowid TEXT, _rowid_ TEXT); INSERT INTO t VALUES (2, 'b', 'c'), (1, 'd', 'e')",
    "integer primary key desc": "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, v); INSERT INTO t VALUES (NULL, 1), ('x', 2), (5, 3), (NULL, 4)",
    "holes": "CREATE TABLE t (v); INSERT INTO t VALUES (1), (2), (3), (4), (5); DELETE FROM t WHERE v IN (2, 4)",
    "text that is no utf-8": "CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('a'), (CAST(x'ff' AS TEXT)), ('é'), (CAST(x'c328' AS TEXT)), ('z')",
    "keys that are no utf-8": "CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES ('a', 1), (CAST(x'ff' AS TEXT), 2), (CAST(x'ff00' AS TEXT), 3), ('z', 4)",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_after_a_cursor_continues_without_gap_or_overlap(shape: str, tmp_path: Path) -> None:
    source, table = opened(sqlite_file(tmp_path / "a.db", SHAPES[shape]))
    whole = read(source, table, 100)
    assert len(whole) == source.count(table)
    for size in (1, 2):
        seen = 0
        for batch in source.batches(table, size=size):
            assert len(batch.rows) <= size
            seen += len(batch.rows)
            cursor = json.loads(json.dumps(batch.cursor))
            assert multiset(read(source, table, size, cursor)) == multiset(whole[seen:])
            assert read(source, table, size, cursor) == read(source, table, 100, cursor)
        assert seen == len(whole)
    source.close()


def test_text_that_is_no_utf8_is_read_byte_for_byte(tmp_path: Path) -> None:
    raw = [b"ok", b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00\xff", "é".encode()]
    path = sqlite_file(
        tmp_path / "a.db",
        "CREATE TABLE t (v TEXT, w TEXT)",
        *(("INSERT INTO t VALUES (CAST(? AS TEXT), 'é')", (data,)) for data in raw),
    )
    source, table = opened(path)
    rows = read(source, table, 2)
    assert [v.encode("utf-8", "surrogateescape") for v, _ in rows] == raw
    assert {w for _, w in rows} == {"é"}
    source.close()


def test_columns_may_be_picked(tmp_path: Path) -> None:
    source, table = opened(sqlite_file(tmp_path / "a.db", SHAPES["composite key"]))
    narrow = table.with_columns((table.columns[2], table.columns[0]))
    assert [row for b in source.batches(narrow, size=9) for row in b.rows] == [(1, "x"), (2, "x"), (3, "y")]
    source.close()


def test_rows_without_their_parents_are_told(tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p);"
        "INSERT INTO c VALUES (1), (2), (NULL)",
    )
    source = SqliteSource(path)
    assert source.problems() == ["2 rows of c name a row of p that is not there"]
    source.close()


@pytest.mark.parametrize("parent", ["p (a)", "p", "nowhere (a)"])
def test_a_foreign_key_that_names_no_key_is_told_and_no_obstacle(parent: str, tmp_path: Path) -> None:
    path = sqlite_file(
        tmp_path / "a.db",
        f"CREATE TABLE p (a, b); CREATE TABLE c (x REFERENCES {parent}); INSERT INTO c VALUES (1), (NULL)",
    )
    source = SqliteSource(path)
    problems = source.problems()
    source.close()
    assert len(problems) == 1
    assert " c " in problems[0]
    report = api.migrate(path, tmp_path / "b.db")
    assert report.verified
    assert len([w for w in report.warnings if " c " in w]) >= 1


@pytest.mark.parametrize(
    ("declared", "stored", "wanted"),
    [
        ("INTEGER", "1", Kind.INTEGER),
        ("TEXT", "'x'", Kind.TEXT),
        ("BLOB", "x'00'", Kind.BLOB),
        ("REAL", "1.5", Kind.REAL),
        ("JSON", "'{}'", Kind.JSON),
        ("VARCHAR(9)", "'x'", Kind.TEXT),
        ("DECIMAL(9, 2)", "1.5", Kind.REAL),
        ("DATETIME", "'2024-01-01'", Kind.TEXT),
        ("BOOLEAN", "1", Kind.INTEGER),
        ("", "1", Kind.INTEGER),
        ("", "'x'", Kind.TEXT),
        ("", "x'00'", Kind.BLOB),
        ("BLOB", "'x'", Kind.TEXT),
        ("TEXT", "x'00'", Kind.BLOB),
    ],
)
def test_a_columns_kind_is_what_it_declares_or_what_it_holds(
    declared: str, stored: str, wanted: Kind, tmp_path: Path
) -> None:
    source, table = opened(
        sqlite_file(
            tmp_path / "a.db", f"CREATE TABLE t (v {declared}); INSERT INTO t VALUES ({stored}), (NULL)"
        )
    )
    assert table.columns[0].kind is wanted
    source.close()


def test_rows_that_are_heavy_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[SqliteSource.__module__], "BATCH_BYTES", 1000)
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);" + "".join(
        f"INSERT INTO t VALUES ({i}, zeroblob({1 if i < 30 else 400}));" for i in range(60)
    )
    source = SqliteSource(sqlite_file(tmp_path / "a.db", script))
    [table] = source.tables()
    batches = list(source.batches(table, size=25))
    assert [row[0] for batch in batches for row in batch.rows] == list(range(60))
    assert len(batches[0].rows) == 25
    assert all(len(batch.rows) <= 3 for batch in batches[3:])
    assert [batch.cursor for batch in batches] == [batch.rows[-1][0] for batch in batches]
    source.close()
