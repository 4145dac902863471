"""Two runs at once, stolen leases, and a source that is written to all the time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.support import comparing, stores
from integration.support.child import Child
from integration.support.comparing import same
from integration.support.servers import Database
from migrate import api
from migrate.errors import CheckpointError

OPTIONS: dict[str, Any] = {"on_misfit": "quarantine", "batch_size": 20}


@dataclass
class Goal:
    """A target, a way to run SQL in it, and to read all that is there."""

    url: str
    sql: Callable[[str], Any]
    everything: Callable[[], Any]


@pytest.fixture(params=["postgres", "sqlite"])
def goal(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Goal:
    if request.param == "postgres":

        def all_here() -> Any:
            with database.connect() as db:
                shape = comparing.pg_shape(db, "store")
                books = comparing.books(lambda s: db.execute(s.encode()).fetchall(), "store.")
                return comparing.pg_texts(db, "store"), shape, books

        def in_schema(statement: str) -> Any:
            return database.run("SET search_path = store, public", statement)

        return Goal(database.at("store"), in_schema, all_here)
    path = tmp_path / "b.sqlite"

    def here(statement: str) -> Any:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as db:
            return db.execute(statement).fetchall()

    def all_there() -> Any:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as db:
            books = comparing.books(lambda s: db.execute(s).fetchall(), "")
        return comparing.sqlite_state(path), books

    return Goal(str(path), here, all_there)


def test_of_two_runs_at_once_one_proceeds_and_the_other_is_told(goal: Goal, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    first = Child(source, goal.url, pause={"copy.after_commit": 0.2}, **OPTIONS)
    first.line("at copy.after_commit")
    started = time.monotonic()
    second = Child(source, goal.url, **OPTIONS).wait()
    assert time.monotonic() - started < 10
    assert second.status == 2
    assert second.said["error"] == "CheckpointError"
    assert f"process {first.pid} " in second.said["message"]
    assert second.said["hint"]
    ended = first.wait()
    assert ended.status == 0, ended.said
    assert api.verify(source, goal.url).verified


def test_of_runs_that_start_together_exactly_one_proceeds(goal: Goal, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    for _ in range(3):
        runs = [Child(source, goal.url, pause={"claim.after": 1.0}, **OPTIONS) for _ in range(3)]
        ended = [run.wait() for run in runs]
        told = Counter(e.status for e in ended)
        assert told == {0: 1, 2: 2}, [e.said.get("message") for e in ended]
        assert api.verify(source, goal.url).verified


def test_two_runs_of_one_process_do_not_meet_either(tmp_path: Path, database: Database) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    begun, refused = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def slow(done: int, total: int, table: str) -> None:
        begun.set()
        refused.wait(20)

    def first() -> None:
        try:
            api.migrate(source, database.at("store"), on_progress=slow, **OPTIONS)
        except Exception as exc:
            errors.append(exc)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(30)
    with pytest.raises(CheckpointError):
        api.migrate(source, database.at("store"), **OPTIONS)
    refused.set()
    thread.join(60)
    assert errors == []
    assert api.verify(source, database.at("store")).verified


@pytest.mark.parametrize(
    "point",
    [
        "prepare.after",
        "copy.append",
        "copy.before_commit",
        "copy.after_commit",
        "index.before",
        "finish.before",
    ],
)
def test_a_run_whose_lease_was_taken_writes_nothing_more(point: str, goal: Goal, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    if "://" not in goal.url and point in ("copy.append", "copy.before_commit"):
        return  # a SQLite file has one writer at a time: nobody can take a lease within its transaction
    run = Child(source, goal.url, pause={point: 1.0}, **OPTIONS)
    run.line(f"at {point}")
    if point.startswith("copy"):
        run.line(f"at {point}")
    goal.sql("UPDATE memlift_lease SET owner = 'thief', beat = beat + 1000000")
    before = goal.everything()
    ended = run.wait()
    assert ended.status == 1, ended.said
    assert ended.said["error"] == "LeaseLostError"
    assert ended.said["hint"]
    same(goal.everything(), before)


def test_a_mending_run_whose_lease_was_taken_writes_nothing_more(goal: Goal, tmp_path: Path) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    )
    assert Child(source, goal.url).wait().status == 0
    with closing(sqlite3.connect(source)) as db:
        db.executescript("UPDATE t SET v = 'A' WHERE id = 1; INSERT INTO t VALUES (3, 'c')")
    run = Child(source, goal.url, pause={"mend.before_amend": 1.0}, update=True)
    run.line("at mend.before_amend")
    goal.sql("UPDATE memlift_lease SET owner = 'thief', beat = beat + 1000000")
    before = goal.everything()
    ended = run.wait()
    assert (ended.status, ended.said["error"]) == (1, "LeaseLostError")
    same(goal.everything(), before)


def test_the_lease_of_a_dead_run_elsewhere_is_taken_over_within_30_seconds(
    goal: Goal, tmp_path: Path
) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    assert Child(source, goal.url, failpoint="copy.after_commit:2", **OPTIONS).wait().killed
    clock = (
        "extract(epoch from clock_timestamp())"
        if "://" in goal.url
        else "((julianday('now') - 2440587.5) * 86400.0)"
    )
    # It ran on another machine, where nobody can see whether it lives, and was last heard of 16 s ago.
    goal.sql(f"UPDATE memlift_lease SET host = 'elsewhere/1/2#3', beat = {clock} - 16")
    started = time.monotonic()
    ended = Child(source, goal.url, **OPTIONS).wait()
    assert ended.status == 0, ended.said
    assert ended.said["report"]["resumed"]
    assert 2 < time.monotonic() - started < 20
    assert any("lease" in line for line in ended.lines)


def test_another_plan_than_the_unfinished_one_is_refused_until_restarted(goal: Goal, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    assert Child(source, goal.url, failpoint="copy.after_commit:2", **OPTIONS).wait().killed
    other = stores.brain(tmp_path / "other.sqlite")
    changes: list[tuple[Path, dict[str, Any]]] = [(other, {}), (source, {"tables": ["part"]})]
    for asked, more in changes:
        ended = Child(asked, goal.url, **OPTIONS, **more).wait()
        assert (ended.status, ended.said["error"]) == (2, "CheckpointError"), ended.said
        assert "--restart" in ended.said["hint"]
    ended = Child(other, goal.url, restart=True, **OPTIONS).wait()
    assert ended.status == 0, ended.said
    assert api.verify(other, goal.url).verified
    assert goal.sql("SELECT count(*) FROM memlift_tables WHERE name = 'part'")[0][0] == 0
    with pytest.raises(Exception, match="part"):
        goal.sql("SELECT * FROM part")


def _write_all_the_time(path: Path, stop: threading.Event, written: list[int]) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        n = 10_000
        while not stop.is_set():
            n += 1
            db.execute("INSERT INTO part (id, body, code) VALUES (?, 'new', ?)", (n, f"w{n}"))
            db.execute("UPDATE part SET body = ? WHERE id = 1", (f"counted to {n}",))
            db.commit()
            written.append(n)
            time.sleep(0.002)


def test_a_source_that_is_written_to_is_carried_as_it_was_at_one_moment(goal: Goal, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    with closing(sqlite3.connect(source)) as db:
        assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        stop, written = threading.Event(), [10_000]
        writer = threading.Thread(target=_write_all_the_time, args=(source, stop, written))
        writer.start()
        try:
            run = Child(source, goal.url, pause={"copy.after_commit": 0.05}, **OPTIONS)
            run.line("at copy.after_commit")
            late = written[-1]
            ended = run.wait()
        finally:
            stop.set()
            writer.join()
        assert ended.status == 0, ended.said
        assert ended.said["report"]["verified"]
        found = [r[0] for r in goal.sql("SELECT id FROM part WHERE id > 10000 ORDER BY id")]
        assert found == list(range(10_001, 10_001 + len(found)))  # a prefix: one moment, no gaps
        assert 10_000 + len(found) <= late
        told = goal.sql("SELECT body FROM part WHERE id = 1")[0][0]
        assert told == (f"counted to {found[-1]}" if found else told)

        again = Child(source, goal.url, **OPTIONS).wait()  # adds the rest, but changes nothing unasked
        assert (again.status, again.said["error"]) == (3, "VerifyError")
        assert goal.sql("SELECT max(id) FROM part")[0][0] == written[-1]
        assert goal.sql("SELECT body FROM part WHERE id = 1")[0][0] == told
        assert Child(source, goal.url, update=True, **OPTIONS).wait().status == 0
    assert api.verify(source, goal.url).verified


def test_a_postgres_source_that_is_written_to_is_carried_as_it_was_at_one_moment(
    tmp_path: Path, database: Database
) -> None:
    api.migrate(stores.crash_store(tmp_path / "a.sqlite"), database.at("store"), on_misfit="quarantine")
    stop, target = threading.Event(), tmp_path / "b.sqlite"

    def write() -> None:
        with database.connect() as db:
            n = 10_000
            while not stop.is_set():
                n += 1
                db.execute(
                    "WITH a AS (INSERT INTO store.part (id, body) VALUES (%s, 'new') RETURNING id)"
                    " UPDATE store.part SET body = %s WHERE id = 2",
                    (n, f"counted to {n}"),
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run = Child(database.at("store"), target, pause={"copy.after_commit": 0.05}, **OPTIONS)
        ended = run.wait()
    finally:
        stop.set()
        writer.join()
    assert ended.status == 0, ended.said
    assert ended.said["report"]["verified"]
    with closing(sqlite3.connect(target)) as db:
        found = [r[0] for r in db.execute("SELECT id FROM part WHERE id > 10000 ORDER BY id")]
        told = db.execute("SELECT body FROM part WHERE id = 2").fetchone()[0]
    assert found == list(range(10_001, 10_001 + len(found)))
    assert told == (f"counted to {found[-1]}" if found else told)
    assert Child(database.at("store"), target, update=True, **OPTIONS).wait().status == 0
    assert api.verify(database.at("store"), target).verified
