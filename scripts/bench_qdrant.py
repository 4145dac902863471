#!/usr/bin/env python3
"""How fast memlift copies into Qdrant, as ratios of what the engine and its client do themselves.

Contenders alternate in one run and the best of several rounds counts, because
machines are noisy: trust the ratios. Prints one JSON document. Needs the extra
`qdrant`; the server is the test server of this repository, on the loopback.
`scripts/bench_copy.py --only qdrant` runs the same.

    scripts/bench_qdrant.py [--rounds 3] [--rows 10000] [--only edge,server,memory]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the test server is no installed package

import numpy as np
from bench_copy import make

from migrate import migrate
from migrate.config import QdrantSettings
from migrate.engine import COMMIT_BYTES


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    """Return all rows of a store."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT * FROM memories ORDER BY rowid").fetchall()
    db.close()
    return rows


def payload(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row as a person would write its payload."""
    names = ("id", "session", "role", "content", "meta", "score", "created")
    return dict(zip(names, row[:7], strict=True))


def edge(path: Path, dim: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Copy against loops over the same rows in memory, with the log on, which memlift reads from a file.

    making: makes the points and upserts them. ready: upserts points that were made before the clock
    started, with the same payload. Both flush once, at the end; `making_with_commits` as often as
    memlift commits.
    """
    import qdrant_edge as engine

    rows = rows_of(path)

    def shard() -> Any:
        shutil.rmtree(folder / "raw", ignore_errors=True)
        params = {"embedding": engine.EdgeVectorParams(dim, engine.Distance.Cosine)}
        off = engine.EdgeOptimizersConfig(indexing_threshold=0)
        return engine.EdgeShard.create(str(folder / "raw"), engine.EdgeConfig(vectors=params, optimizers=off))

    def point(n: int, row: tuple[Any, ...]) -> Any:
        vector: Any = {"embedding": memoryview(row[7]).cast("f")}
        return engine.Point(n, vector, payload(row))

    commit = max(1, COMMIT_BYTES // (4 * dim + 400) // 500)  # flush as often as memlift commits

    def loop(*, made: bool, durable: bool = True) -> float:
        raw = shard()
        ready = [point(n, row) for n, row in enumerate(rows)] if made else []
        started = time.perf_counter()
        for i in range(0, len(rows), 500):
            part = ready[i : i + 500] or [point(i + k, row) for k, row in enumerate(rows[i : i + 500])]
            raw.update(engine.UpdateOperation.upsert_points(part))
            if durable and (i // 500) % commit == commit - 1:
                raw.flush()
        raw.flush()
        seconds = time.perf_counter() - started
        raw.close()
        return seconds

    def lifted() -> float:
        for old in folder.glob("lifted*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        to = QdrantSettings(path=folder / "lifted")
        return migrate(path, to, index="none", verify="counts").tables[0].copy_s

    found = best(
        rounds,
        making=lambda: loop(made=False, durable=False),
        making_with_commits=lambda: loop(made=False),
        ready=lambda: loop(made=True, durable=False),
        memlift=lifted,
    )
    return {
        "rows": len(rows),
        "rows_per_s": {name: round(len(rows) / s) for name, s in found.items()},
        "of_a_loop_that_makes_and_upserts_points": round(found["making"] / found["memlift"], 2),
        "of_the_same_flushing_at_each_commit": round(found["making_with_commits"] / found["memlift"], 2),
        "of_a_loop_that_upserts_ready_made_points": round(found["ready"] / found["memlift"], 2),
    }


def best(rounds: int, **contenders: Callable[[], float]) -> dict[str, float]:
    """Run each contender in turn, `rounds` times; return the least seconds of each."""
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seen[name].append(run())
    return {name: min(times) for name, times in seen.items()}


def server(path: Path, dim: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Client CPU seconds a point against `upload_points`, reading the same file."""
    from qdrant_client import QdrantClient, models

    from integration.qdrant_server import QdrantTestServer

    n = len(rows_of(path))
    with QdrantTestServer(folder / "server") as running:

        def upload(*, prefer_grpc: bool) -> float:
            client = QdrantClient(
                url=running.url,
                grpc_port=running.grpc_port,
                prefer_grpc=prefer_grpc,
                check_compatibility=False,
                timeout=60,
            )
            client.delete_collection("raw")
            params = models.VectorParams(size=dim, distance=models.Distance.COSINE)
            off = models.OptimizersConfigDiff(indexing_threshold=0)
            client.create_collection("raw", vectors_config={"embedding": params}, optimizers_config=off)
            started = time.process_time()
            db = sqlite3.connect(path)
            points = (
                models.PointStruct(
                    id=i,
                    vector={"embedding": np.frombuffer(row[7], "<f4").tolist()},
                    payload=payload(row),
                )
                for i, row in enumerate(db.execute("SELECT * FROM memories ORDER BY rowid"))
            )
            client.upload_points("raw", points, batch_size=256, wait=True)
            seconds = time.process_time() - started
            db.close()
            client.close()
            return seconds

        class Clock:
            """CPU time from the first to the last word about copying."""

            first = last = 0.0

            def say(self, text: str) -> None:
                pass

            def step(self, phase: str, table: str, done: int, total: int) -> None:
                if phase == "copy":
                    self.first = self.first or time.process_time()
                    self.last = time.process_time()

        whole: list[float] = []

        def lifted() -> float:
            from migrate.api import undo

            side = folder / "side.sqlite"
            to = QdrantSettings(url=running.url, grpc_port=running.grpc_port, prefix="l_", sidecar=str(side))
            if side.exists():
                undo(to)
            clock, started = Clock(), time.process_time()
            migrate(path, to, index="none", verify="none", observer=clock)
            whole.append(time.process_time() - started)
            return clock.last - clock.first

        found = best(
            rounds,
            grpc=lambda: upload(prefer_grpc=True),
            rest=lambda: upload(prefer_grpc=False),
            memlift=lifted,
        )
    return {
        "rows": n,
        "client_cpu_us_a_point": {name: round(s / n * 1e6, 1) for name, s in found.items()},
        "times_less_than_upload_points_over_grpc": round(found["grpc"] / found["memlift"], 2),
        "times_less_than_upload_points_over_rest": round(found["rest"] / found["memlift"], 2),
        "memlift_with_audit_us": round(min(whole) / n * 1e6, 1),
    }


_PEAK = """
import sys
from migrate import migrate
migrate(sys.argv[1], sys.argv[2], index="none")
(line,) = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
print(int(line.split()[1]) // 1024)
"""


def memory(folder: Path, rows: int) -> dict[str, Any]:
    """Peak resident memory in MB of our process, verification included, without the engine's, at two sizes."""
    from integration.qdrant_server import QdrantTestServer

    peaks: dict[str, dict[int, int]] = {"edge": {}, "server": {}}
    with QdrantTestServer(folder / "memory") as running:
        for n in (rows // 5, rows):
            path = folder / f"large-{n}.sqlite"
            make(path, n, 384)
            side = folder / f"side-{n}.sqlite"
            served = f"qdrant+{running.url}?prefix=m{n}_&sidecar={side}&grpc_port={running.grpc_port}"
            for kind, target in (("edge", f"qdrant:{folder}/store-{n}"), ("server", served)):
                done = subprocess.run(
                    [sys.executable, "-c", _PEAK, str(path), target],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peaks[kind][n] = int(done.stdout)
            path.unlink()
            shutil.rmtree(folder / f"store-{n}")
    return {"peak_mb": peaks}


def figures_of(only: set[str], folder: Path, rounds: int, rows: int, memory_rows: int) -> dict[str, Any]:
    """Run the benchmarks that were asked for (edge, server, memory) and return their figures."""
    os.environ["MEMLIFT_HOME"] = str(folder / "home")
    figures: dict[str, Any] = {}
    for dim in (384, 1536):
        if not only & {"edge", "server"}:
            break
        path = folder / f"qdrant-{dim}.sqlite"
        make(path, rows, dim)
        if "edge" in only:
            figures[f"sqlite-edge-{dim}"] = edge(path, dim, rounds, folder)
        if "server" in only:
            figures[f"sqlite-server-{dim}"] = server(path, dim, rounds, folder)
        path.unlink()
    if "memory" in only:
        figures["qdrant-memory"] = memory(folder, memory_rows)
    return figures


def main() -> None:
    """Run the benchmarks that were asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--only", default="edge,server,memory", help="comma-separated: edge, server, memory")
    parser.add_argument("--memory-rows", type=int, default=100_000)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="memlift-bench-"))
    figures: dict[str, Any] = {"cpus": os.cpu_count()}
    try:
        figures |= figures_of(set(args.only.split(",")), folder, args.rounds, args.rows, args.memory_rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
