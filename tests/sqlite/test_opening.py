"""A source among live writers: snapshots, locks, and what is left behind (nothing)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_opening_states import (
    FILL,
    ROWS,
    Writer,
    closed_wal,
    count,
    hot_journal,
    in_wal_mode,
    killed_wal,
    opened,
    rollback,
    untouched,
    without_shm,
)

from migrate.backends.sqlite.opening import identity, open_source
from migrate.errors import BackendError, TransientError

# Commits rows in threes until its input ends, checkpoints all the time, tells the last commit in a file.
_BUSY_WRITER = """
import os, select, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
told, n = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), 0
connection.execute("PRAGMA wal_autocheckpoint = 3")
while not select.select([sys.stdin], [], [], 0)[0]:
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        connection.execute("INSERT INTO t (v) VALUES (zeroblob(3000))")
    connection.execute("COMMIT")
    n += 1
    os.pwrite(told, b"%9d" % n, 0)
connection.close()
"""


def test_rows_that_a_live_wal_writer_committed_are_seen_and_its_shm_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with in_wal_mode(path) as writer:
        with untouched(tmp_path), opened(path) as source:
            assert (source.how, count(source)) == ("wal", ROWS)
        with opened(path) as source:
            assert writer.answer("INSERT INTO t (v) VALUES (1)") == "ok"
            assert writer.answer("PRAGMA wal_checkpoint(PASSIVE)") == "ok"
            assert writer.answer("DELETE FROM t WHERE i < 50") == "ok"
            assert count(source) == ROWS
            source.check()
        with opened(path) as source:
            assert count(source) == ROWS + 1 - 49


def test_a_snapshot_stays_whole_and_steady_under_a_writer_that_never_rests(tmp_path: Path) -> None:
    path, told = tmp_path / "a.db", tmp_path / "told"
    Writer(path, "PRAGMA journal_mode = WAL", FILL[0]).close()
    writer = subprocess.Popen([sys.executable, "-c", _BUSY_WRITER, path, told], stdin=subprocess.PIPE)
    try:
        while not (told.exists() and told.read_bytes()):
            time.sleep(0.01)
        begun = opens = 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            committed = int(told.read_bytes())
            begun, opens = begun or committed, opens + 1
            with opened(path) as source:
                seen = count(source)
                assert source.how == "wal"
                assert seen >= 3 * committed
                assert seen % 3 == 0
                time.sleep(0.005)
                assert count(source) == seen
                assert source.connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
                source.check()
        assert int(told.read_bytes()) > begun
        assert opens > 5
    finally:
        writer.communicate(b"")


def test_a_writer_that_comes_after_a_killed_one_cannot_disturb_the_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    killed_wal(path)
    with opened(path) as source, Writer(path, "DELETE FROM t", "INSERT INTO t (v) VALUES (7)") as writer:
        assert writer.answer("PRAGMA wal_checkpoint(PASSIVE)") == "ok"
        writer.close()
        assert source.connection.execute("SELECT count(*), max(length(v)) FROM t").fetchall() == [(ROWS, 200)]
        source.check()
    with opened(path) as source:
        assert count(source) == 1


@pytest.mark.parametrize(("make", "how"), [(without_shm, "no-lock"), (closed_wal, "immutable")])
def test_without_locks_new_rows_are_harmless_and_a_checkpoint_is_told(
    tmp_path: Path, make: Callable[[Path], None], how: str
) -> None:
    path = tmp_path / "a.db"
    make(path)
    with opened(path) as source:
        assert source.how == how
        with Writer(path, "DELETE FROM t WHERE i > 10") as writer:
            assert count(source) == ROWS
            source.check()
            assert writer.answer("PRAGMA wal_checkpoint(TRUNCATE)") == "ok"
            with pytest.raises(BackendError, match="changed while it was read") as caught:
                source.check()
            assert caught.value.hint is not None
            assert not isinstance(caught.value, TransientError)


@pytest.mark.parametrize("make", [without_shm, closed_wal, rollback])
def test_a_file_that_is_replaced_or_gone_while_it_is_read_is_told(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    make(path)
    rollback(other)
    with opened(path) as source:
        source.check()
        other.replace(path)
        with pytest.raises(BackendError, match="replaced"):
            source.check()
        path.unlink()
        with pytest.raises(BackendError, match="gone"):
            source.check()
        assert count(source) == ROWS


def test_a_rollback_journal_writer_waits_until_the_source_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rollback(path)
    with Writer(path, "BEGIN IMMEDIATE", "DELETE FROM t") as writer:
        with untouched(tmp_path), opened(path) as source:
            assert (source.how, count(source)) == ("locks", ROWS)
            identity(path)  # must not drop our lock: closing any descriptor of the file would
            assert writer.answer("COMMIT") == "SQLITE_BUSY"
            assert count(source) == ROWS
        assert writer.answer("COMMIT") == "ok"
    with opened(path) as source:
        assert count(source) == 0


def test_opening_and_closing_leaves_the_locks_of_this_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rollback(path)
    mine = sqlite3.connect(path, isolation_level=None)
    try:
        mine.execute("BEGIN IMMEDIATE")
        with opened(path) as source:
            assert count(source) == ROWS
        identity(path)
        with Writer(path) as other:
            assert other.answer("BEGIN IMMEDIATE") == "SQLITE_BUSY"
            mine.execute("COMMIT")
            assert other.answer("BEGIN IMMEDIATE") == "ok"
    finally:
        mine.close()


def test_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rollback(path)
    with opened(path):
        pass
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with opened(path) as source, opened(path) as again:
            assert count(source) == count(again) == ROWS
            identity(path)
    assert len(os.listdir("/dev/fd")) <= before


def test_a_writer_with_the_file_locked_is_worth_another_try(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rollback(path)
    with Writer(path, "BEGIN EXCLUSIVE") as writer:
        with untouched(tmp_path), pytest.raises(TransientError) as caught:
            open_source(path)
        assert caught.value.hint is not None
        assert writer.answer("COMMIT") == "ok"
    with opened(path) as source:
        assert count(source) == ROWS


def test_a_private_copy_goes_away_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, path = tmp_path / "private", tmp_path / "source" / "a.db"
    private.mkdir()
    path.parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    hot_journal(path)
    source = open_source(path)
    (folder,) = private.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert count(source) == ROWS
    source.close()
    source.close()
    assert list(private.iterdir()) == []


def test_another_thread_may_read(tmp_path: Path) -> None:
    path, seen = tmp_path / "a.db", list[int]()
    rollback(path)
    with opened(path) as source:
        thread = threading.Thread(target=lambda: seen.append(count(source)))
        thread.start()
        thread.join()
    assert seen == [ROWS]


def test_identity_tells_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rollback(path)
    before = identity(path)
    assert set(before) == {
        "size",
        "page_size",
        "change_counter",
        "schema_cookie",
        "user_version",
        "mtime_ns",
    }
    assert (before["size"], before["page_size"]) == (path.stat().st_size, 4096)
    assert identity(path) == before
    Writer(path, "PRAGMA user_version = -5", "CREATE TABLE u (a)").close()
    after = identity(path)
    assert after["user_version"] == -5
    assert after["schema_cookie"] == before["schema_cookie"] + 1
    assert after["change_counter"] == before["change_counter"] + 2
