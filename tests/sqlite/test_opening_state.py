"""`Opened.state`: equal names mean equal rows."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from migrate.backends.sqlite.opening import open_source


def made(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE t (a)")
    return connection


def seen(path: Path) -> tuple[str | None, int]:
    with closing(open_source(path)) as opened:
        (n,) = opened.connection.execute("SELECT count(*) FROM t").fetchone()
        return opened.state, n


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_each_commit_is_another_state_at_once(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    states: dict[str | None, int] = {}
    with closing(made(path, mode)) as writer:
        writer.execute("PRAGMA synchronous = OFF")
        for i in range(1, 200):
            writer.execute("INSERT INTO t VALUES (1)")
            if i % 50 == 0:
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                writer.execute("INSERT INTO t VALUES (1)")
            state, n = seen(path)
            assert state is not None
            assert states.setdefault(state, n) == n
        assert len(states) == 199


def test_a_checkpoint_that_leaves_the_wal_changes_no_state(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(made(path, "WAL")) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        before = seen(path)
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert seen(path) == before


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_file_that_was_left_keeps_its_state_until_it_is_written(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made(path, mode).close()
    time.sleep(0.03)
    first = seen(path)
    assert first[0] is not None
    assert seen(path) == first
    for n in (1, 2):
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("INSERT INTO t VALUES (1)")
        time.sleep(0.03)
        later = seen(path)
        assert later[1] == n
        assert later[0] not in (None, first[0])
