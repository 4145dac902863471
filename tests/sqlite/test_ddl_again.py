"""A table made again in SQLite is declared as it was: the same PRAGMA output, the same numbering."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from migrate import api
from tests.small_stores import asked, sqlite_file

DECLARED = {
    "keys": "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(20) NOT NULL)",
    "text key": "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)",
    "nullable text key": "CREATE TABLE t (k TEXT PRIMARY KEY, v)",
    "composite key": "CREATE TABLE t (a TEXT, b INT, v, PRIMARY KEY (b, a))",
    "without rowid": "CREATE TABLE t (a TEXT, b INT, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "strict": "CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT",
    "strict without rowid": "CREATE TABLE t (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
    "int is no alias": "CREATE TABLE t (id INT PRIMARY KEY, v)",
    "desc is no alias": "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, v)",
    "odd names": 'CREATE TABLE "t" ("a ""b" TEXT, "select" BLOB, "%s" REAL, "x;y" INTEGER, "😀" NUMERIC, "?" TEXT)',
    "odd types": "CREATE TABLE t (a DECIMAL(10, 2), b DOUBLE PRECISION, c [odd type], d UNSIGNED BIG INT, e, f JSON)",
    "defaults": "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'it''s', b DEFAULT 7, c DEFAULT -1.5,"
    " d DEFAULT CURRENT_TIMESTAMP, e DEFAULT TRUE, f DEFAULT NULL, g DEFAULT x'00ff', h DEFAULT (1 + 1), i DEFAULT \"dq\","
    " j DEFAULT '', k DEFAULT (datetime('now')), l DEFAULT +5, m DEFAULT 1e5, n DEFAULT 0x1F, o DEFAULT (lower('A') || 'b'),"
    " p DEFAULT current_date, q DEFAULT (-(1)), r DEFAULT false, s DEFAULT ('a' || 'b'),"
    " t DEFAULT (CURRENT_TIMESTAMP || 'Z'), u DEFAULT (x'00' || 'a'))",
    "collations": "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b TEXT COLLATE RTRIM, c TEXT COLLATE BINARY)",
    "unique": "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT COLLATE NOCASE, c, UNIQUE (c, b))",
    "foreign keys": "CREATE TABLE p (a, b, PRIMARY KEY (a, b)); CREATE TABLE t (x UNIQUE, y, z REFERENCES t (x),"
    " FOREIGN KEY (x, y) REFERENCES p (a, b) ON DELETE CASCADE ON UPDATE SET NULL)",
    "indexes": "CREATE TABLE t (a, b TEXT, c); CREATE INDEX i1 ON t (a DESC, b COLLATE NOCASE);"
    ' CREATE UNIQUE INDEX i2 ON t (c) WHERE c IS NOT NULL AND b > \'x)\'; CREATE INDEX "i ""3" ON t (b)',
    "autoincrement": "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
}


def shape(path: Path) -> dict[str, Any]:
    """Return what SQLite says of each table."""
    with closing(sqlite3.connect(path)) as db:
        names = [
            n
            for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            if not n.startswith(("sqlite_", "memlift_"))
        ]
        found: dict[str, Any] = {}
        for name in names:
            indexes = []
            for _, index, unique, origin, partial in db.execute(f"PRAGMA index_list('{name}')").fetchall():
                quoted = index.replace("'", "''")
                parts = [r[2:] for r in db.execute(f"PRAGMA index_xinfo('{quoted}')").fetchall()]
                indexes.append((index if origin == "c" else "", unique, origin, partial, parts))
            found[name] = {
                "columns": db.execute(f"PRAGMA table_xinfo('{name}')").fetchall(),
                "flags": db.execute(
                    'SELECT wr, "strict" FROM pragma_table_list WHERE name = ?', (name,)
                ).fetchall(),
                "links": db.execute(f"PRAGMA foreign_key_list('{name}')").fetchall(),
                "indexes": sorted(indexes, key=repr),
            }
        return found


@pytest.mark.parametrize("name", DECLARED)
def test_a_table_is_declared_as_it_was(name: str, tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "a.db", DECLARED[name])
    assert api.migrate(source, tmp_path / "b.db").verified
    assert shape(tmp_path / "b.db") == shape(source)
    assert api.migrate(tmp_path / "b.db", tmp_path / "c.db").verified
    assert shape(tmp_path / "c.db") == shape(source)


def test_defaults_give_the_same_values(tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "a.db", DECLARED["defaults"])
    api.migrate(source, tmp_path / "b.db")
    columns = "a, b, c, e, f, g, h, i, j, l, m, n, o, q, r"
    rows = []
    for path in (source, tmp_path / "b.db"):
        asked(path, "INSERT INTO t (id) VALUES (1)")
        rows.append(asked(path, f"SELECT {columns} FROM t"))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("given", [0, 3])
def test_autoincrement_goes_on_after_the_largest_number_ever_given_out(given: int, tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "a.db", DECLARED["autoincrement"])
    for n in range(given):
        asked(source, "INSERT INTO t (v) VALUES (?)", (n,))
    asked(source, "DELETE FROM t WHERE id > 1")
    api.migrate(source, tmp_path / "b.db")
    assert asked(tmp_path / "b.db", "INSERT INTO t (v) VALUES (9) RETURNING id") == [(given + 1,)]
    asked(tmp_path / "b.db", "DELETE FROM t")
    assert asked(tmp_path / "b.db", "INSERT INTO t (v) VALUES (9) RETURNING id") == [(given + 2,)]


def test_collations_work_as_before(tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "a.db", DECLARED["collations"] + "; INSERT INTO t VALUES ('A', 'b', 'c')")
    api.migrate(source, tmp_path / "b.db")
    assert asked(tmp_path / "b.db", "SELECT a = 'a', b = 'b  ', c = 'C' FROM t") == [(1, 1, 0)]
    with pytest.raises(sqlite3.IntegrityError):
        asked(tmp_path / "b.db", "INSERT INTO t VALUES ('a', 'x', 'x')")
