"""Servers that restart, connections that break or fall silent, locks: the run goes on by itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.support import comparing, stores
from integration.support.child import Child, Ended
from integration.support.comparing import same
from integration.support.proxy import Proxy
from integration.support.servers import Database, Postgres
from migrate import api

OPTIONS: dict[str, Any] = {"on_misfit": "quarantine", "batch_size": 20}
SLOWLY = {"copy.append": 0.1}


def done_right(ended: Ended, source: Path, database: Database, tmp_path: Path) -> None:
    """The run went on by itself to its end, and all is there: the way back gives the source again."""
    assert ended.status == 0, ended.said
    assert ended.said["report"]["verified"]
    assert not ended.said["report"]["resumed"]
    assert api.verify(source, database.at("store")).verified
    api.migrate(database.at("store"), tmp_path / "back.sqlite")
    same(comparing.sqlite_state(tmp_path / "back.sqlite"), comparing.sqlite_state(source))


@pytest.mark.parametrize("how", ["restarts", "is killed"])
def test_a_server_that_dies_in_the_middle_of_a_copy_is_waited_for(
    how: str, tmp_path: Path, mortal: Postgres
) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    with mortal.database() as database:
        child = Child(source, database.at("store"), pause=SLOWLY, **OPTIONS)
        for _ in range(8):
            child.line("at copy.append")  # in a COPY, after some commits
        if how == "restarts":
            mortal.server.stop(force=True)
        else:
            os.kill(mortal.postmaster, signal.SIGKILL)
            while mortal.server.running():
                time.sleep(0.05)
        time.sleep(1)
        mortal.server.start()
        done_right(child.wait(), source, database, tmp_path)


@pytest.mark.parametrize(
    "point", ["copy.append", "copy.after_commit", "key.before", "index.before", "verify.batch"]
)
def test_a_connection_that_is_reset_is_opened_again(point: str, tmp_path: Path, database: Database) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    with Proxy(database.port) as proxy:
        behind = database.through(proxy.port)
        child = Child(source, behind.at("store"), pause={point: 0.2}, **OPTIONS)
        child.line(f"at {point}")
        child.line(f"at {point}")
        proxy.reset()
        done_right(child.wait(), source, database, tmp_path)


def test_connections_that_are_reset_all_the_time_only_slow_a_run_down(
    tmp_path: Path, database: Database
) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    with Proxy(database.port) as proxy:
        child = Child(
            source, database.through(proxy.port).at("store"), pause={"copy.append": 0.03}, **OPTIONS
        )
        for _ in range(4):
            child.line("copy ")
            proxy.reset()
        done_right(child.wait(), source, database, tmp_path)


def from_behind_a_proxy(tmp_path: Path, database: Database, point: str) -> tuple[Proxy, Child]:
    source = stores.crash_store(tmp_path / "a.sqlite")
    api.migrate(source, database.at("store"), on_misfit="quarantine")
    proxy = Proxy(database.port)
    child = Child(
        database.through(proxy.port).at("store"), tmp_path / "b.sqlite", pause={point: 0.1}, **OPTIONS
    )
    for _ in range(3):
        child.line(f"at {point}")
    return proxy, child


@pytest.mark.parametrize("point", ["audit.batch", "copy.after_commit", "verify.batch"])
def test_a_source_whose_connection_is_reset_is_read_again(
    point: str, tmp_path: Path, database: Database
) -> None:
    proxy, child = from_behind_a_proxy(tmp_path, database, point)
    with proxy:
        proxy.reset()
        ended = child.wait()
    assert ended.status == 0, ended.said
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(tmp_path / "a.sqlite"))


def noticed_after_s(child: Child) -> float:
    """Return how long it says nothing, until it says that it tries again."""
    last = time.monotonic()
    while True:
        line = child.line("")
        now = time.monotonic()
        if line.startswith("say "):
            return now - last
        last = now


@pytest.mark.parametrize("point", ["copy.append", pytest.param("verify.batch", marks=pytest.mark.slow)])
def test_connections_that_fall_silent_are_given_up_within_30_seconds(
    point: str, tmp_path: Path, database: Database
) -> None:
    """To a target that is written to and, at the same time, from a source that is read."""

    def large(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((i, "x" * 3000) for i in range(9000)))

    source = stores.made(tmp_path / "a.sqlite", large)
    api.migrate(source, database.at("other"))
    with Proxy(database.port) as proxy, ThreadPoolExecutor() as pool:
        there = database.through(proxy.port)
        options = OPTIONS | {"pause": {point: 0.2}, "commit_bytes": 10**6}
        writes = Child(source, there.at("store"), **options)
        reads = Child(there.at("other"), tmp_path / "b.sqlite", **options)
        for child in (writes, reads):
            child.line(f"at {point}")
            child.line(f"at {point}")
        proxy.black_hole()
        seconds = dict(zip(("writing", "reading"), pool.map(noticed_after_s, (writes, reads)), strict=True))
        assert max(seconds.values()) < 30, seconds
        proxy.heal()
        ended = reads.wait()
        assert ended.status == 0, ended.said
        same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
        done_right(writes.wait(), source, database, tmp_path)


def test_a_lock_that_somebody_holds_is_waited_for_in_turns(tmp_path: Path, database: Database) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    child = Child(
        source,
        database.at("store"),
        pause={"copy.after_commit": 0.1},
        patches={"migrate.backends.postgres.target:_PLAIN_LOCK_S": "500ms"},
        **OPTIONS,
    )
    child.line("at copy.after_commit")
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE store.piece IN ACCESS EXCLUSIVE MODE")
        child.line("say ")  # the lock timed out, and is tried again
        time.sleep(1)
    done_right(child.wait(), source, database, tmp_path)


def test_a_locked_sqlite_target_is_waited_for(tmp_path: Path) -> None:
    source, target = stores.crash_store(tmp_path / "a.sqlite"), tmp_path / "b.sqlite"
    child = Child(
        source,
        target,
        pause={"copy.after_commit": 0.1},
        patches={"migrate.backends.sqlite.target:_BUSY_MS": 300},
        **OPTIONS,
    )
    child.line("at copy.after_commit")
    with closing(sqlite3.connect(target, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        child.line("say ")
        other.execute("ROLLBACK")
    ended = child.wait()
    assert ended.status == 0, ended.said
    same(comparing.sqlite_rows(target), comparing.sqlite_rows(source))


def test_a_server_that_stays_away_ends_the_run_at_its_checkpoint(tmp_path: Path, database: Database) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    with Proxy(database.port) as proxy:
        there = database.through(proxy.port).at("store")
        child = Child(
            source,
            there,
            pause={"copy.append": 0.1},
            patches={"migrate.retry:call.__kwdefaults__": {"patience_s": 3.0}},
            **OPTIONS,
        )
        for _ in range(9):
            child.line("at copy.append")
    ended = child.wait()  # nothing listens any more
    assert ended.status == 1, ended.said
    assert ended.said["error"] == "TransientError"
    ended = Child(source, database.at("store"), **OPTIONS).wait()
    assert ended.status == 0, ended.said
    same_end = api.verify(source, database.at("store"))
    assert same_end.verified


def test_a_revoked_right_stops_the_run_and_it_goes_on_when_granted_again(
    tmp_path: Path, database: Database
) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    database.run(
        "DROP ROLE IF EXISTS plain_one",
        "CREATE ROLE plain_one LOGIN PASSWORD 'secret'",
        "CREATE SCHEMA store AUTHORIZATION plain_one",
    )
    try:
        child = Child(
            source, database.role("plain_one").at("store"), pause={"copy.after_commit": 0.1}, **OPTIONS
        )
        child.line("at copy.after_commit")
        database.run("REVOKE ALL ON ALL TABLES IN SCHEMA store FROM plain_one")
        ended = child.wait()
        assert ended.status == 1, ended.said
        assert "permission denied" in ended.said["message"]
        assert "GRANT" in ended.said["hint"]
        database.run("GRANT ALL ON ALL TABLES IN SCHEMA store TO plain_one")
        ended = Child(source, database.role("plain_one").at("store"), **OPTIONS).wait()
        assert ended.status == 0, ended.said
        assert ended.said["report"]["resumed"]
    finally:
        database.run("DROP OWNED BY plain_one CASCADE", "DROP ROLE plain_one")
