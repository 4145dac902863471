"""Writers of a file are seen as far as this system shows them, and no lock is touched by looking."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from migrate import writers
from migrate.config import MemorySettings, SqliteSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only /proc shows who has a file open")

_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[2]); db.execute(sys.argv[3])
print("holding", flush=True); sys.stdin.read()
"""


@contextmanager
def another(path: Path, *statements: str) -> Iterator[None]:
    """Let another process have the file open, after two statements."""
    first, second = (*statements, "SELECT 1", "SELECT 1")[:2]
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), first, second],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield
    finally:
        process.communicate()


@pytest.fixture(params=["DELETE", "WAL"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a b.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {request.param}")
        db.execute("CREATE TABLE t (a)")
    return path


def test_a_file_that_nobody_has_open_has_no_writers(store: Path) -> None:
    seen = writers.seen(SqliteSettings(store))
    assert (seen.count, seen.busy) == (0, 0)
    assert seen.note.startswith("the file is in ")


def test_who_has_it_open_may_write_and_who_holds_the_lock_does(store: Path) -> None:
    with another(store, "SELECT count(*) FROM t"):
        idle = writers.seen(SqliteSettings(store))
    with another(store, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"), another(store):
        busy = writers.seen(SqliteSettings(store))
    assert (idle.count, idle.busy) == (1, 0)
    assert (busy.count, busy.busy) == (2, 1)
    assert "have the file open for writing" in busy.how


def test_looking_drops_no_lock_of_this_process(store: Path) -> None:
    # Closing any descriptor of a file drops all locks that its process has on it (POSIX).
    with closing(sqlite3.connect(store, isolation_level=None)) as mine:
        mine.execute("BEGIN IMMEDIATE")
        assert writers.seen(SqliteSettings(store)).count == 0  # we are not another process
        tried = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sqlite3; sqlite3.connect({str(store)!r}, timeout=0).execute('BEGIN IMMEDIATE')",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "database is locked" in tried.stderr


def test_the_journal_mode_is_read_from_the_header(tmp_path: Path, store: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    assert writers.journal_mode(store) == ("WAL" if mode == "wal" else "rollback")
    assert writers.journal_mode(tmp_path / "none") is None


def test_stores_that_tell_nothing_are_said_to(tmp_path: Path, store: Path) -> None:
    seen = writers.seen(MemorySettings("x"))
    assert seen.count is None
    assert "not measurable here" in seen.note
    without = writers._of_file(store, proc=tmp_path / "no proc")
    assert without.count is None
    assert "this system has no /proc" in without.note
