"""Sidecar and store under random changes, many readers, and writers that are killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.search.base import Means
from tests.search.hnsw.stores import Asking, Rows, change, fill, vectors

ROOT = Path(__file__).parents[3]
N, DIM = 1500, 16
INDEX = "HNSW sidecar"

_POOL = np.concatenate([vectors(40, 4, seed=2), np.zeros((1, 4), np.float32)])
_rows = st.lists(st.integers(0, len(_POOL) - 1), min_size=1, max_size=6)
_changes = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), _rows),
        st.tuples(st.just("update"), _rows),
        st.tuples(st.just("delete"), _rows),
        st.tuples(st.just("empty"), _rows),
        st.tuples(st.just("vacuum"), st.just([0])),
        st.tuples(st.just("renumber"), st.just([0])),
        st.tuples(st.just("reopen"), st.just([0])),
    ),
    min_size=1,
    max_size=7,
)


def _do(path: Path, what: str, picked: list[int], serial: int) -> None:
    with sqlite3.connect(path) as connection:
        if what == "insert":
            connection.executemany(
                "INSERT INTO memories VALUES (?, '', ?)",
                [(f"n{serial}-{i}", _POOL[p].tobytes()) for i, p in enumerate(picked)],
            )
        rowids = [r for (r,) in connection.execute("SELECT rowid FROM memories ORDER BY rowid")]
        aimed = [rowids[p % len(rowids)] for p in picked] if rowids else []
        for p, rowid in zip(picked, aimed, strict=False):
            if what == "update":
                cell = _POOL[(p + serial) % len(_POOL)].tobytes()
                connection.execute("UPDATE memories SET embedding = ? WHERE rowid = ?", (cell, rowid))
            elif what == "delete":
                connection.execute("DELETE FROM memories WHERE rowid = ?", (rowid,))
            elif what == "empty":
                connection.execute("UPDATE memories SET embedding = NULL WHERE rowid = ?", (rowid,))
        if what == "renumber":
            span = max(rowids, default=0) - min(rowids, default=0) + 1
            connection.execute("UPDATE memories SET rowid = rowid + ?", (span,))
    connection.close()
    if what == "vacuum":
        change(path, "VACUUM")


@settings(max_examples=50)
@given(changes=_changes, first=st.lists(st.integers(0, len(_POOL) - 2), min_size=12, max_size=50))
def test_whatever_changes_the_answers_are_those_of_every_vector(
    changes: list[tuple[str, list[int]]], first: list[int]
) -> None:
    folder = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("migrate.hnsw.settings.BUILD_FROM", 10)
        patched.setenv("MEMLIFT_HOME", str(folder / "home"))
        path = folder / "brain.sqlite"
        fill(path, _POOL[first])
        change(path, "PRAGMA synchronous = OFF")
        asking = Asking(path)
        kept = asking.searched()
        for serial, (what, picked) in enumerate([("nothing", [0]), *changes]):
            _do(path, what, picked, serial)
            if what == "reopen":
                asking.close()
                asking = Asking(path)
                asking._first = kept
            for _ in range(2):
                for query in (_POOL[3], _POOL[9] + _POOL[20]):
                    near, exact = asking.near(query, 7), asking.near(query, 7, exact=True)
                    assert near.found == exact.found, what
                asking.settled()
            if len(asking.near(query, 99, exact=True).found) >= 10:
                assert asking.near(query, 7).how == INDEX
        asking.close()
    shutil.rmtree(folder)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "brain.sqlite"
    fill(path, vectors(N, DIM))
    change(path, "PRAGMA journal_mode = WAL")
    return path


def test_readers_in_threads_get_right_answers_while_it_is_rebuilt(store: Path) -> None:
    """Every reader sees the row that was committed before it asked, whatever answers."""
    done = Event()
    wrong: list[object] = []
    answered: list[str] = []
    rows = vectors(N, DIM)

    def read() -> None:
        asking = Asking(store)
        try:
            while not done.is_set():
                for at in (3, 700):
                    near = asking.near(rows[at], 3)
                    if near.found[0][0] != at + 1 or near.found[0][1] < 0.999999:
                        wrong.append(near)
                    answered.append(near.how)
            asking.close()
        except BaseException as exc:
            wrong.append(exc)
            raise

    readers = [Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer = sqlite3.connect(store, isolation_level=None, timeout=30)
    for i in range(12):
        added = vectors(60, DIM, seed=100 + i)
        writer.execute("BEGIN")
        writer.executemany(
            "INSERT INTO memories VALUES (?, '', ?)",
            [(f"w{i}-{j}", row.tobytes()) for j, row in enumerate(added)],
        )
        writer.execute("DELETE FROM memories WHERE rowid BETWEEN ? AND ?", (10 + 20 * i, 29 + 20 * i))
        writer.execute("COMMIT")
        done.wait(0.1)
    writer.close()
    deadline = time.monotonic() + 60
    while INDEX not in answered[-50:] and time.monotonic() < deadline:
        done.wait(0.05)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert set(answered) == {INDEX, "every vector"}
    assert not list(store.parent.glob("*.building"))


_SEARCH = """
import sys
import numpy as np
from pathlib import Path
from tests.search.hnsw.stores import Asking, vectors
asking = Asking(Path(sys.argv[1]))
rows = vectors(1500, 16)
for at in (3, 700) * 20:
    near = asking.near(rows[at], 3)
    assert near.found[0][0] == at + 1, near
    print(near.how)
asking.close()
"""


def _started(store: Path, home: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SEARCH, str(store)],
        cwd=ROOT,
        env={**os.environ, "MEMLIFT_HOME": str(home), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_search_at_once_build_it_once(store: Path, home: Path) -> None:
    runs = [_started(store, home) for _ in range(3)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    assert sorted(p.name for p in store.parent.glob("*.hnsw*")) == ["brain.hnsw"]
    assert Asking(store).near(vectors(N, DIM)[3]).how == INDEX


@pytest.mark.parametrize("point", ["sidecar.writing", "sidecar.written", "sidecar.published"])
@pytest.mark.parametrize("again", [False, True], ids=["first", "update"])
def test_a_writer_that_is_killed_leaves_the_old_one_or_none(
    point: str, again: bool, store: Path, home: Path
) -> None:
    sidecar = store.with_name("brain.hnsw")
    if again:
        asking = Asking(store)
        asking.settled()
        asking.close()
        change(store, "DELETE FROM memories WHERE rowid BETWEEN 20 AND 60")
    before = sidecar.read_bytes() if again else None
    run = _started(store, home, MEMLIFT_FAILPOINT=f"{point}:1")
    run.communicate(timeout=120)
    assert run.returncode == -9
    if point != "sidecar.published":
        assert (sidecar.read_bytes() if sidecar.exists() else None) == before
    rows: Rows = vectors(N, DIM)
    asking = Asking(store)
    for _ in range(2):
        near: Any = asking.near(rows[700], 5)
        assert near.found == asking.near(rows[700], 5, exact=True).found
        asking.settled()
    assert near.how == INDEX or again or point != "sidecar.published"
    assert asking.near(rows[700], 5).how == INDEX
    assert sorted(p.name for p in store.parent.glob("*.hnsw*")) == ["brain.hnsw"]


def test_a_program_that_ends_tells_what_it_waits_for(store: Path) -> None:
    said: list[str] = []
    asking = Asking(store, Means(say=said.append))
    asking.near(np.ones(DIM))
    asking.close()
    assert said == ["bringing brain.hnsw up to date; Ctrl-C leaves it for another time"]
    assert store.with_name("brain.hnsw").exists()


def test_a_bug_in_the_background_is_not_hidden(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("migrate.hnsw.build.build", broken)
    asking = Asking(store)
    asking.settled()
    asking.close()
    assert [str(one.exc_value) for one in told] == ["a bug"]


_ENDS_AT_ONCE = _SEARCH.split("rows =")[0] + "asking.near([1.0] * 64)"
_ENDS_WHILE_IT_IS_WRITTEN = f"""
import threading
from migrate.hnsw import container

write, reached = container.write, threading.Event()

def late(*given):
    reached.set()
    threading.main_thread().join()
    return write(*given)

container.write = late
{_ENDS_AT_ONCE}
assert reached.wait(30)
"""


@pytest.mark.parametrize("code", [_ENDS_AT_ONCE, _ENDS_WHILE_IT_IS_WRITTEN], ids=["at once", "while writing"])
def test_a_program_that_just_ends_ends_cleanly(code: str, tmp_path: Path, home: Path) -> None:
    path = tmp_path / "brain.sqlite"
    fill(path, vectors(6000, 64))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path)],
        cwd=ROOT,
        env={**os.environ, "MEMLIFT_HOME": str(home)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    assert not list(tmp_path.glob("*.building"))
