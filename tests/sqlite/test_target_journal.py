"""How a SQLite target is journalled: fast while rows are added, WAL at the end, others' files as they are."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from migrate import engine
from migrate.api import audit, migrate
from tests.small_stores import in_memory, pairs

ROWS = [(n, f"v{n}") for n in range(200)]

pytestmark = pytest.mark.usefixtures("shelves")

KILLED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = TRUNCATE")
db.execute("PRAGMA cache_size = 5")
db.execute("BEGIN")
db.execute("UPDATE t SET v = hex(zeroblob(3000))")  # spills: pages reach the file before the commit
os._exit(0)
"""


@pytest.fixture
def source() -> str:
    in_memory("from", (pairs(), ROWS))
    return "memory:from"


def mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA journal_mode").fetchone()[0])


def seen_while_writing(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(
        engine, "hit", lambda name: seen.append(mode(path)) if name == "copy.append" else None
    )
    return seen


def test_a_new_file_is_loaded_without_a_wal_and_left_in_wal_mode(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_while_writing(monkeypatch, tmp_path / "to.sqlite")
    assert migrate(source, tmp_path / "to.sqlite").verified
    assert set(seen) == {"delete"}  # what another connection is told of any rollback journal
    assert mode(tmp_path / "to.sqlite") == "wal"
    assert [p.name for p in tmp_path.iterdir()] == ["to.sqlite"]


def test_a_file_in_wal_mode_stays_in_it_throughout(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "to.sqlite"
    migrate(source, path)
    in_memory("from", (pairs(), [*ROWS, (1000, "new")]))
    seen = seen_while_writing(monkeypatch, path)
    assert migrate(source, path).verified
    assert set(seen) <= {"wal"}
    assert mode(path) == "wal"


def test_a_file_with_tables_of_others_keeps_its_journal_mode(source: str, tmp_path: Path) -> None:
    path = tmp_path / "to.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    assert migrate(source, path).verified
    assert mode(path) == "delete"


def test_a_program_that_has_the_file_open_is_named_in_a_warning(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "to.sqlite"
    module = sys.modules["migrate.backends.sqlite.target"]
    monkeypatch.setattr(module, "_BUSY_MS", 50)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:

        def begin(name: str) -> None:
            if name == "finish.inside":
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM t").fetchall()

        monkeypatch.setattr(module, "hit", begin)
        report = migrate(source, path)
    assert report.verified
    assert any("WAL mode" in warning for warning in report.warnings)


def test_a_killed_writers_journal_is_rolled_back_in_place_but_not_by_a_dry_run(
    source: str, tmp_path: Path
) -> None:
    path = tmp_path / "to.sqlite"
    migrate(source, path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True, timeout=60)
    journal = path.with_name("to.sqlite-journal")
    before = path.read_bytes(), journal.read_bytes()
    audit(source, path)
    assert (path.read_bytes(), journal.read_bytes()) == before
    assert migrate(source, path).verified
    with closing(sqlite3.connect(path)) as db:
        assert sorted(db.execute("SELECT * FROM t")) == ROWS


def test_a_run_killed_in_its_first_commit_goes_on(source: str, tmp_path: Path) -> None:
    path = tmp_path / "to.sqlite"
    filled = KILLED.replace(
        "UPDATE t SET v = hex(zeroblob(3000))",
        "CREATE TABLE t AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 900)"
        " SELECT n, hex(zeroblob(300)) AS v FROM r",
    )
    subprocess.run([sys.executable, "-c", filled, str(path)], check=True, timeout=60)
    assert path.stat().st_size > 0  # pages of a transaction that never was
    journal = path.with_name("to.sqlite-journal")
    before = path.read_bytes(), journal.read_bytes()
    assert len(before[1]) > 0
    assert audit(source, path).total_rows == len(ROWS)
    assert (path.read_bytes(), journal.read_bytes()) == before
    assert migrate(source, path).verified
    with closing(sqlite3.connect(path)) as db:
        assert sorted(db.execute("SELECT * FROM t")) == ROWS
