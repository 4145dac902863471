#!/usr/bin/env python3
"""How fast memlift searches SQLite files, as ratios of what the machine and hnswlib do themselves.

Contenders alternate in one run and the best of several rounds counts, because
machines are noisy: trust the ratios. Prints one JSON document; progress goes to
stderr. Needs the extra `hnsw`.

    scripts/bench_search.py [--rows 100000] [--dim 384] [--rounds 5] [--data clusters|manifold|random]
                            [--open-rows 500000] [--only exact,index,open]

exact   Looking at every vector. `kept` is the share of one numpy product of the same matrix with
        the same vector, once the vectors are in memory; `cold` is the time of a first query as a
        multiple of reading the file, both with the file dropped from the page cache before
        (`cold_median` of the medians); `warm` the same with it there. `memory` is what a query takes that keeps nothing.
index   The sidecar: recall@10 by queries that are not in the store, against looking at every
        vector; latency as a multiple of bare hnswlib's, built with the same settings over the same
        rows and asked with the same width: candidates from the index, scores from the store. Each
        query is asked often, so its rows are in memory; `unmet` is for rows that no query met before,
        and `with_look` adds the look at the file, with each query, whether it was written. The rate of
        building is a share of bare hnswlib's with the rows in memory, all processors each.
open    Opening a store with a sidecar of so many rows, up to the first answer: the first time (read
        and hashed) and later, as multiples of reading the sidecar and hashing it once; `in_memory` is
        an answer for which hnswlib takes the index over, as it does after some questions.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from migrate.hnsw import build, places, sidecar
from migrate.hnsw.graph import Shape
from migrate.hnsw.sidecar import Sidecar
from migrate.schema import Metric
from migrate.search.base import Means, Searched
from migrate.search.sqlite.nearest import Nearby, Nearest
from migrate.search.sqlite.reading import SqliteFile

Rows = npt.NDArray[np.float32]
QUERIES = 200


def say(line: str) -> None:
    """Tell a person what is going on."""
    print(line, file=sys.stderr, flush=True)


def data(kind: str, n: int, dim: int, seed: int = 0) -> Iterator[Rows]:
    """Yield n rows in pieces: clusters of 100, a curved space of 32 dimensions, or no structure at all."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 100), dim)).astype(np.float32)
    bend = rng.standard_normal((32, dim)).astype(np.float32) * 0.3
    topics = 3 * rng.standard_normal((50, 32)).astype(np.float32)
    for start in range(0, n, 5000):
        size = min(5000, n - start)
        noise = rng.standard_normal((size, dim)).astype(np.float32)
        if kind == "clusters":
            yield centres[rng.integers(0, len(centres), size)] + np.float32(0.4) * noise
        elif kind == "manifold":
            inner = rng.standard_normal((size, 32)).astype(np.float32) + topics[rng.integers(0, 50, size)]
            yield np.tanh(inner @ bend) + np.float32(0.05) * noise
        else:
            yield noise


def make(path: Path, kind: str, n: int, dim: int) -> Rows:
    """Write a store of n rows with a text of 200 bytes each; return queries of the same kind."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE memories (id TEXT PRIMARY KEY, content TEXT, embedding BLOB)")
    at, queries = 0, np.empty((0, dim), np.float32)
    for rows in data(kind, n + QUERIES, dim):
        kept = rows[: max(0, n - at)]
        queries = np.concatenate([queries, rows[len(kept) :]])
        cells = ((f"m{at + i:08}", "word " * 40, row.tobytes()) for i, row in enumerate(kept))
        db.executemany("INSERT INTO memories VALUES (?, ?, ?)", cells)
        db.commit()
        at += len(kept)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    os.sync()
    return queries


class Asking:
    """A store that is asked as `migrate.search` asks it, the opening of the file included."""

    def __init__(self, path: Path, **means: Any) -> None:
        self.file, self.nearest = SqliteFile(path), Nearest(path, Means(**means))
        self.searched: Searched = next(s for s in self.file.tables() if s.vector is not None)

    def __call__(self, query: Rows, *, exact: bool = False) -> Nearby:
        with self.file.reading() as reading:
            return self.nearest.search(reading, self.searched, query, 10, exact=exact)

    def sidecar(self) -> Sidecar:
        """Return the sidecar of the table, made or not."""
        searched = self.searched
        assert searched.vector is not None
        with self.file.reading() as reading:
            return Sidecar(self.file.path, reading.at(searched).table, searched.vector, searched.metric)


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(
    rounds: int, *contenders: Callable[[], Any], before: Callable[[], Any] = lambda: None
) -> list[list[float]]:
    """Return the seconds of each contender in each round."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, taken in zip(contenders, times, strict=True):
            before()
            taken.append(timed(contender))
    return times


def best(rounds: int, *contenders: Callable[[], Any]) -> list[float]:
    """Return the least seconds of each contender, in turns."""
    return [min(taken) for taken in in_turns(rounds, *contenders)]


def read(path: Path) -> None:
    """Read a file from its beginning to its end."""
    buffer = bytearray(2**20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def drop(path: Path) -> None:
    """Drop a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def measure_exact(path: Path, queries: Rows, rounds: int) -> dict[str, Any]:
    """Look at every vector."""
    kept = Asking(path, hnsw=False)
    kept(queries[0])
    kept(queries[0])
    (held,) = kept.nearest._exact._held.values()
    matrix = np.concatenate(held.blocks)
    query = queries[1] / np.linalg.norm(queries[1])
    product, ours = best(10 * rounds, partial(np.dot, matrix, query), partial(kept, queries[1]))
    del matrix, held
    kept.nearest.close()

    bare = Asking(path, hnsw=False, cache_bytes=0)
    bare(queries[2])
    reading, answering = in_turns(
        5 * rounds, partial(read, path), partial(bare, queries[2]), before=partial(drop, path)
    )
    warm = best(rounds, partial(read, path), partial(bare, queries[2]))
    tracemalloc.start()
    bare(queries[3])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "kept": round(product / ours, 3),
        "kept_ms": round(ours * 1e3, 2),
        "cold": round(min(answering) / min(reading), 3),
        "cold_median": round(median(answering) / median(reading), 3),
        "cold_ms": round(min(answering) * 1e3, 1),
        "warm": round(warm[1] / warm[0], 3),
        "warm_ms": round(warm[1] * 1e3, 1),
        "memory_mb": round(peak / 2**20, 1),
    }


def measure_index(path: Path, kind: str, n: int, dim: int, queries: Rows, rounds: int) -> dict[str, Any]:
    """Build and ask the sidecar, and bare hnswlib over the same rows."""
    import hnswlib  # type: ignore[import-untyped]

    asking = Asking(path)
    shape = Shape(Metric.COSINE, dim)
    rows = np.concatenate(list(data(kind, n + QUERIES, dim)))[:n]

    def bare_build() -> Any:
        index = hnswlib.Index("cosine", dim)
        index.init_index(n, M=shape.m, ef_construction=shape.ef_construction)
        index.add_items(rows)
        return index

    def our_build() -> None:
        for file in path.parent.glob("*.hnsw*"):
            file.unlink()
        assert asking.sidecar().bring_up_to_date()

    say("building, bare and ours")
    bare: list[Any] = []
    theirs = timed(lambda: bare.append(bare_build()))
    ours = timed(our_build)
    for query in queries[:10]:  # glances at the file first
        asking(query)
    (made,) = asking.nearest._sidecars.values()
    index = made._index
    assert index is not None
    say(f"width {index.width}, recall {index.recall:.3f} while it was built")
    found = [asking(query) for query in queries]
    truth = [asking(query, exact=True) for query in queries]
    hits = [len(set(dict(a.found)) & set(dict(b.found))) for a, b in zip(found, truth, strict=True)]
    asking.nearest._exact.forget()  # as for who never asked exactly
    width = index.width or 10
    bare[0].set_ef(width)

    def each(ask: Callable[[Rows], Any]) -> Callable[[], Any]:
        return lambda: [None for query in queries if ask(query) is None]

    with asking.file.reading() as reading:

        def scored_alone(query: Rows) -> Any:
            return asking.nearest.search(reading, asking.searched, query, 10)

        def unmet(query: Rows) -> Any:
            asking.nearest._met.clear()
            return scored_alone(query)

        alone, scored, fresh, whole = best(
            3 * rounds,
            each(lambda query: bare[0].knn_query(query, k=10, num_threads=1)),
            each(scored_alone),
            each(unmet),
            each(asking),
        )
    return {
        "data": kind,
        "how": found[0].how,
        "recall_at_10": round(sum(hits) / (10 * len(queries)), 4),
        "width": index.width,
        "latency": round(scored / alone, 3),
        "latency_ms": round(scored / len(queries) * 1e3, 3),
        "unmet": round(fresh / alone, 3),
        "with_look": round(whole / alone, 3),
        "bare_ms": round(alone / len(queries) * 1e3, 3),
        "build_rate": round(theirs / ours, 3),
        "build_s": round(ours, 1),
        "bare_build_s": round(theirs, 1),
    }


def measure_open(folder: Path, n: int, dim: int, rounds: int) -> dict[str, Any]:
    """Open a sidecar of n rows. Its graph is built with few links and little care: opening reads bytes."""
    path = folder / "open.sqlite"
    queries = make(path, "clusters", n, dim)
    asking = Asking(path)
    say("building an index to open")
    with (
        patch.object(build, "Shape", partial(Shape, ef_construction=8)),
        patch.object(build, "WANTED_RECALL", 0),
        patch.object(build, "WANTED_DISTURBED", 0),
    ):
        assert asking.sidecar().bring_up_to_date()
    del asking
    gc.collect()
    file = places.usual_path(path)

    def read_and_hash() -> None:
        digest, buffer = hashlib.sha256(), bytearray(2**20)
        with open(file, "rb", buffering=0) as opened:
            while size := opened.readinto(buffer):
                digest.update(memoryview(buffer)[:size])

    def opened(into: list[float], *, remembering: bool = True) -> None:
        if not remembering:
            places.memory(file).unlink(missing_ok=True)
        one = Asking(path)
        into.append(timed(lambda: answers.append(one(queries[0]).how)))
        gc.collect()

    first: list[float] = []
    later: list[float] = []
    taken: list[float] = []
    answers: list[str] = []

    def taken_over() -> None:
        with patch.object(sidecar, "_GLANCES", 0):
            opened(taken)

    baseline, *_ = best(
        rounds, read_and_hash, lambda: opened(first, remembering=False), lambda: opened(later), taken_over
    )
    assert set(answers) == {"HNSW sidecar"}, answers
    return {
        "rows": n,
        "bytes": file.stat().st_size,
        "read_and_hash_s": round(baseline, 3),
        "first": round(min(first) / baseline, 3),
        "later": round(min(later) / baseline, 3),
        "in_memory": round(min(taken) / baseline, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast memlift searches SQLite files.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", choices=("clusters", "manifold", "random"), default="clusters")
    parser.add_argument("--open-rows", type=int, default=500_000)
    parser.add_argument("--only", default="exact,index,open")
    given = parser.parse_args()
    only = given.only.split(",")
    found: dict[str, Any] = {"rows": given.rows, "dim": given.dim, "processors": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        folder = Path(name)
        os.environ["MEMLIFT_HOME"] = str(folder / "home")
        path = folder / "brain.sqlite"
        if "exact" in only or "index" in only:
            say(f"making a store of {given.rows:,} x {given.dim}")
            queries = make(path, given.data, given.rows, given.dim)
        if "exact" in only:
            found["exact"] = measure_exact(path, queries, given.rounds)
            say(json.dumps(found["exact"]))
        if "index" in only:
            found["index"] = measure_index(path, given.data, given.rows, given.dim, queries, given.rounds)
            say(json.dumps(found["index"]))
        if "open" in only:
            found["open"] = measure_open(folder, given.open_rows, given.dim, given.rounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
