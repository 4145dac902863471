"""A run that is asked to stop does so within 5 s, wherever it is, at a checkpoint; and killed index builds."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from integration.support import stores
from integration.support.child import Child
from integration.support.proxy import Proxy
from integration.support.servers import Database
from migrate import api
from migrate.api import Request, run
from migrate.errors import InterruptedRunError


class Stopper:
    """An observer that asks to stop at a step of a phase, and remembers when."""

    def __init__(self, phase: str, *, after_s: float = 0.0) -> None:
        self.stop = threading.Event()
        self._phase, self._after_s = phase, after_s
        self.asked = 0.0

    def say(self, text: str) -> None:
        if self._phase == "say":
            self._ask()

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        if phase == self._phase and done:
            self._ask()

    def _ask(self) -> None:
        if not self.asked:
            self.asked = time.monotonic() + self._after_s
            threading.Timer(self._after_s, self.stop.set).start()


def _vectors(db: sqlite3.Connection) -> None:
    rng = random.Random(3)
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)")
    for i in range(9000):
        db.execute("INSERT INTO t VALUES (?, ?)", (i, stores.vector(*(rng.gauss(0, 1) for _ in range(96)))))


@pytest.fixture(scope="module")
def many_vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose vector index takes some seconds to build."""
    return stores.made(tmp_path_factory.mktemp("vectors") / "a.sqlite", _vectors)


@pytest.mark.parametrize("phase", ["audit", "copy", "verify"])
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_stop_leaves_a_checkpoint_within_five_seconds(
    phase: str, kind: str, tmp_path: Path, database: Database
) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    target = database.at("store") if kind == "postgres" else str(tmp_path / "b.sqlite")
    stopper, request = Stopper(phase), Request(on_misfit="quarantine", batch_size=20)
    with pytest.raises(InterruptedRunError) as raised:
        run(source, target, request, observer=stopper, stop=stopper.stop)
    assert time.monotonic() - stopper.asked < 5
    assert raised.value.hint
    assert run(source, target, request).resumed == (phase != "audit")
    assert api.verify(source, target).verified


def test_a_stop_ends_the_waiting_for_a_server_within_five_seconds(tmp_path: Path, database: Database) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    stopper = Stopper("say", after_s=4.0)  # by then each wait is longer than 5 s
    with Proxy(database.port) as proxy:
        there = database.through(proxy.port).at("store")

        def gone(done: int, total: int, table: str) -> None:
            proxy.__exit__(None, None, None)

        request = Request(on_misfit="quarantine", batch_size=20)
        with pytest.raises(InterruptedRunError):
            run(source, there, request, observer=stopper, stop=stopper.stop, on_progress=gone)
    assert time.monotonic() - stopper.asked < 5


def test_a_run_killed_while_it_builds_an_index_is_taken_over(many_vectors: Path, database: Database) -> None:
    options: dict[str, Any] = {"commit_bytes": 8 * 2**20}
    first = Child(many_vectors, database.at("store"), **options)
    first.line("index t: vector index")
    time.sleep(0.5)
    assert first.kill().killed
    started = time.monotonic()
    ended = Child(many_vectors, database.at("store"), **options).wait()
    assert ended.status == 0, ended.said
    assert ended.said["report"]["resumed"]
    assert time.monotonic() - started < 30
    indexes = database.run("SELECT indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE '%hnsw%'")
    assert indexes == [(True,)]
