"""The engine's process: it ends with its parent, leaves signals alone, and one folder has one owner."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from migrate.backends.qdrant import edge_channel
from migrate.backends.qdrant.edge import EdgeEngine
from migrate.backends.qdrant.engine import Point
from migrate.errors import BackendError, TransientError

SETTINGS = {"vectors": {"v": {"size": 64, "distance": "Dot"}}, "hnsw_config": {"m": 0}}
INDEXED = {
    "hnsw_config": {"m": 32, "ef_construct": 400, "max_indexing_threads": 1},
    "optimizers_config": {"indexing_threshold": 1},
}
ROOT = Path(__file__).resolve().parents[2]


def filled(folder: Path, n: int) -> EdgeEngine:
    engine = EdgeEngine(folder, writing=True)
    engine.create("c", SETTINGS, {})
    rnd = os.urandom
    for start in range(0, n, 1000):
        points = [
            Point(i, {"v": bytes(b & 0x3F for b in rnd(256))}, {"n": i}) for i in range(start, start + 1000)
        ]
        engine.send("c", engine.pack("c", points))
    engine.settle()
    return engine


def test_an_interrupted_index_build_lets_go_at_once_and_loses_nothing(tmp_path: Path) -> None:
    engine = filled(tmp_path / "store", 6000)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(total)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.index("c", INDEXED, stop)
    started = time.monotonic()
    engine.abandon()
    assert engine.count("c") == 6000
    engine.close()
    assert time.monotonic() - started < 10
    assert seen == [6000]


_BUILD = """
import sys
from pathlib import Path
from tests.qdrant.test_edge_process import INDEXED, filled
engine = filled(Path(sys.argv[1]), 8000)
print(next(iter(__import__("psutil").Process().children())).pid, flush=True)
engine.index("c", INDEXED, lambda done, total: None)
"""


def test_the_engine_ends_with_a_killed_parent_even_amid_an_index_build(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.5)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    gone, alive = psutil.wait_procs([child], timeout=5)
    assert (len(gone), alive) == (1, [])
    engine = EdgeEngine(tmp_path / "store", writing=True)
    assert engine.count("c") == 8000
    engine.close()


def test_other_threads_go_on_while_the_engine_works(tmp_path: Path) -> None:
    engine = filled(tmp_path / "store", 4000)
    ticks: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    engine.index("c", INDEXED, lambda done, total: None)
    seconds = time.monotonic() - started
    over.set()
    thread.join()
    engine.close()
    assert len(ticks) > 20 * seconds
    info = EdgeEngine(tmp_path / "store", writing=False)
    found = info.info("c")
    info.close()
    assert found is not None
    assert found.settings["hnsw_config"]["m"] == 32


def test_a_folder_that_another_process_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_channel, "_BUSY_S", 0.5)
    import qdrant_edge

    filled(tmp_path / "store", 1000).close()
    held = qdrant_edge.EdgeShard.load(str(tmp_path / "store" / "c"))
    engine = EdgeEngine(tmp_path / "store", writing=True)
    with pytest.raises(TransientError, match="another process holds"):
        engine.count("c")
    held.close()
    assert engine.count("c") == 1000
    engine.close()


def test_an_engine_that_was_killed_is_a_transient_error_and_starts_again(tmp_path: Path) -> None:
    others = set(psutil.Process().children())  # servers of other tests' sessions
    engine = filled(tmp_path / "store", 1000)
    (child,) = {*psutil.Process().children()} - others
    child.kill()
    with pytest.raises(TransientError, match="engine ended"):
        engine.count("c")
    engine.reconnect()
    assert engine.count("c") == 1000
    engine.close()


def test_a_point_that_the_engine_refuses_is_an_error(tmp_path: Path) -> None:
    engine = filled(tmp_path / "store", 1000)
    engine.send("c", engine.pack("c", [Point(5000, {"v": bytes(8)}, {})]))
    with pytest.raises(BackendError, match="dimension"):
        engine.settle()
    assert engine.count("c") == 1000
    engine.close()


def test_what_was_settled_is_in_the_log_even_if_nothing_else_reached_the_disk(tmp_path: Path) -> None:
    """A power cut keeps what was synced: here the segments as they were made, and the log as it is."""
    engine = EdgeEngine(tmp_path / "store", writing=True)
    engine.create("c", SETTINGS, {})
    shutil.copytree(tmp_path / "store", tmp_path / "after")
    for start in (0, 500):
        points = [Point(i, {"v": bytes(256)}, {"n": i}) for i in range(start, start + 500)]
        engine.send("c", engine.pack("c", points))
        engine.settle()
    shutil.rmtree(tmp_path / "after" / "c" / "wal")
    shutil.copytree(tmp_path / "store" / "c" / "wal", tmp_path / "after" / "c" / "wal")
    engine.close()
    after = EdgeEngine(tmp_path / "after", writing=True)
    found, _ = after.scroll("c", 2000, None, vectors=False)
    after.close()
    assert [(p.id, p.payload) for p in found] == [(i, {"n": i}) for i in range(1000)]


def test_settling_writes_the_log_of_each_changed_shard_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(edge_channel.__file__).parent))
    shards = importlib.import_module("edge_process").Shards(str(tmp_path))
    for name in ("a", "b"):
        shards.create(name, SETTINGS)
    shards.upsert("a", [(1, {"v": bytes(256)}, {})], False)
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}"))))
    shards.sync()
    log = tmp_path / "a" / "wal"
    assert {log, *log.iterdir()} <= set(synced)
    assert not any(tmp_path / "b" in path.parents for path in synced)
    shards.close()
