"""Every state of a SQLite file that nobody has open, made by real writers in processes of their own."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest

from migrate.backends.sqlite.opening import Opened, open_source

# Runs each line of its input as SQL and answers "ok" or the error; ends cleanly with its input.
_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.1)
for line in sys.stdin:
    try:
        connection.execute(line).fetchall()
        print("ok", flush=True)
    except sqlite3.Error as exc:
        print(exc.sqlite_errorname, flush=True)
connection.close()
"""

ROWS = 100
FILL = (
    "CREATE TABLE t (i INTEGER PRIMARY KEY, v BLOB)",
    "INSERT INTO t (v) WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 100)"
    " SELECT zeroblob(200) FROM r",
)


class Writer:
    """A connection in another process."""

    def __init__(self, path: Path, *sql: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for statement in sql:
            assert self.answer(statement) == "ok"

    def answer(self, statement: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def listing(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder: size, mtime and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (info.st_size, info.st_mtime_ns, content)
    return found


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    before = listing(folder)
    yield
    assert listing(folder) == before


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    source = open_source(path)
    try:
        yield source
    finally:
        source.close()


def count(source: Opened) -> int:
    (n,) = source.connection.execute("SELECT count(v) FROM t WHERE i > 0").fetchone()
    return int(n)


def in_wal_mode(path: Path) -> Writer:
    return Writer(path, "PRAGMA journal_mode = WAL", *FILL)


def closed_wal(path: Path) -> None:
    in_wal_mode(path).close()


def killed_wal(path: Path) -> None:
    in_wal_mode(path).kill()
    assert beside(path, "-wal").stat().st_size > 0


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def without_shm(path: Path) -> None:
    killed_wal(path)
    beside(path, "-shm").unlink()


def with_empty_wal(path: Path) -> None:
    closed_wal(path)
    beside(path, "-wal").touch()


def with_garbage_in_wal(path: Path) -> None:
    closed_wal(path)
    beside(path, "-wal").write_bytes(b"\1" * 9000)


def with_nothing_committed_in_wal(path: Path) -> None:
    closed_wal(path)
    writer = Writer(path, "PRAGMA cache_size = 2", "BEGIN", "UPDATE t SET v = zeroblob(4000)")
    writer.kill()
    beside(path, "-shm").unlink()
    assert beside(path, "-wal").stat().st_size > 4096


def with_shm_alone(path: Path) -> None:
    closed_wal(path)
    beside(path, "-shm").write_bytes(b"\0" * 32768)


def rollback(path: Path) -> None:
    Writer(path, *FILL).close()


def with_persistent_journal(path: Path) -> None:
    Writer(path, "PRAGMA journal_mode = PERSIST", *FILL).close()
    assert beside(path, "-journal").stat().st_size > 0


def with_truncated_journal(path: Path) -> None:
    Writer(path, "PRAGMA journal_mode = TRUNCATE", *FILL).close()
    assert beside(path, "-journal").stat().st_size == 0


def hot_journal(path: Path) -> None:
    """A killed writer whose uncommitted pages are in the file already."""
    spilling = ("PRAGMA cache_size = 2", "BEGIN", "UPDATE t SET v = zeroblob(3000)")
    Writer(path, *FILL, *spilling, "DELETE FROM t WHERE i < 10").kill()
    assert beside(path, "-journal").stat().st_size > 0
    assert path.stat().st_size > 100_000


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (killed_wal, "wal"),
        (without_shm, "no-lock"),
        (closed_wal, "immutable"),
        (with_empty_wal, "immutable"),
        (with_garbage_in_wal, "immutable"),
        (with_nothing_committed_in_wal, "immutable"),
        (with_shm_alone, "immutable"),
        (rollback, "locks"),
        (with_persistent_journal, "locks"),
        (with_truncated_journal, "locks"),
        (hot_journal, "copy"),
    ],
)
def test_a_file_that_nobody_has_open_is_read_whole_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], how: str
) -> None:
    path = tmp_path / "a.db"
    make(path)
    with untouched(tmp_path):
        with opened(path) as source:
            assert (source.how, count(source)) == (how, ROWS)
            assert source.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            source.check()
            with untouched(tmp_path):
                assert count(source) == ROWS
        with opened(path) as source:
            assert count(source) == ROWS


@pytest.mark.parametrize("shm", ["of the writer", "empty", "zeros"])
@pytest.mark.parametrize(
    "left",
    [
        lambda wal: b"",
        lambda wal: wal[:10],
        lambda wal: wal[:32],
        lambda wal: wal[:31] + b"?",
        lambda wal: wal[:2000],
        lambda wal: b"?" + wal[1:],
        lambda wal: b"\0" * 9000,
    ],
    ids=["nothing", "10 bytes", "a header", "a bad header", "half a frame", "damaged", "zeros"],
)
def test_a_wal_that_was_begun_by_a_killed_writer_keeps_nobody_waiting(
    tmp_path: Path, left: Callable[[bytes], bytes], shm: str
) -> None:
    path = tmp_path / "a.db"
    writer = in_wal_mode(path)
    wal = beside(path, "-wal").read_bytes()
    assert writer.answer("PRAGMA wal_checkpoint(TRUNCATE)") == "ok"
    writer.kill()
    beside(path, "-wal").write_bytes(left(wal))
    if shm != "of the writer":
        beside(path, "-shm").write_bytes(b"\0" * (32768 if shm == "zeros" else 0))

    began = time.monotonic()
    with untouched(tmp_path), opened(path) as source:
        assert count(source) == ROWS
        source.check()
    assert time.monotonic() - began < 8, "SQLite gives up after 10 s"
