#!/usr/bin/env python3
"""How fast memlift copies, as ratios of what the stores themselves can do.

Each figure alternates the raw limit and memlift in one run and takes the best
of several rounds, because machines are noisy: trust the ratios, not the rates.
Prints one JSON document. Needs the extras `embedded` and `qdrant`.

    scripts/bench_copy.py [--rounds 5] [--only 384,qdrant,...] [--scale 1.0]
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from migrate import migrate
from migrate.api import audit, undo
from migrate.backends.postgres import wire
from migrate.backends.sqlite import SqliteSource
from provisioners.embedded import EmbeddedPostgres

WITH_VECTOR = ["text", "text", "text", "text", "text", "float8", "int8", "vector"]
PLAIN = WITH_VECTOR[:-1]
DDL = (
    "CREATE TABLE memories (id TEXT PRIMARY KEY, session TEXT, role TEXT, content TEXT, meta TEXT,"
    " score REAL, created INTEGER{vector})"
)


def make(path: Path, rows: int, dim: int) -> None:
    """Write a store of `rows` memories; dim 0 leaves the vectors out."""
    rng = np.random.default_rng(7)
    db = sqlite3.connect(path)
    db.execute(DDL.format(vector=", embedding BLOB" if dim else ""))
    words = [f"word{i}" for i in range(500)]

    def each() -> Iterator[tuple[Any, ...]]:
        for start in range(0, rows, 1000):
            block = rng.standard_normal((1000, dim), dtype=np.float32) if dim else None
            picks = rng.integers(0, 500, (1000, 45))
            for i in range(min(1000, rows - start)):
                n = start + i
                text = " ".join(words[p] for p in picks[i])
                row = (
                    f"mt_{n:012d}",
                    f"session-{n % 97}",
                    "user" if n % 2 else "assistant",
                    text,
                    json.dumps({"n": n, "tags": ["a", "b"], "source": "bench"}),
                    n / 7,
                    1_760_000_000_000 + n,
                )
                yield (*row, block[i].tobytes()) if block is not None else row

    marks = ", ".join("?" * (8 if dim else 7))
    db.executemany(f"INSERT INTO memories VALUES ({marks})", each())
    db.commit()
    db.close()


def best(rounds: int, **contenders: Callable[[], float]) -> dict[str, float]:
    """Run each contender in turn, `rounds` times; return the least seconds of each."""
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seen[name].append(run())
    return {name: min(times) for name, times in seen.items()}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def read_all(path: Path) -> list[tuple[Any, ...]]:
    """Return all rows of a store."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT * FROM memories ORDER BY rowid").fetchall()
    db.close()
    return rows


def sqlite_to_postgres(path: Path, url: str, dim: int, rounds: int) -> dict[str, Any]:
    """Copy and verify against a raw COPY in, and a raw COPY out plus reading and encoding."""
    rows = read_all(path)
    codecs = WITH_VECTOR if dim else PLAIN
    blocks = [wire.encode(rows[i : i + 1000], codecs) for i in range(0, len(rows), 1000)]
    ddl = (
        "CREATE TABLE raw.memories (id text, session text, role text, content text, meta text,"
        f" score double precision, created bigint{f', embedding vector({dim})' if dim else ''})"
    )
    target = f"{url}&schema=lifted" if "?" in url else f"{url}?schema=lifted"
    clocks: dict[str, list[float]] = {"index": [], "verify": [], "audit": []}

    def raw() -> float:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            db.execute("DROP SCHEMA IF EXISTS raw CASCADE")
            db.execute("CREATE SCHEMA raw")
            db.execute(ddl)

            def copy() -> None:
                into = "COPY raw.memories FROM STDIN (FORMAT BINARY)"
                with db.transaction(), db.cursor() as cursor, cursor.copy(into) as out:
                    out.write(wire.HEADER)
                    for block in blocks:
                        out.write(block)
                    out.write(wire.TRAILER)

            return timed(copy)

    def lifted() -> float:
        undo(target)
        report = migrate(path, target, index="none")
        if not report.verified:
            raise SystemExit("the copy could not be verified")
        table = report.tables[0]
        clocks["index"].append(table.index_s)
        clocks["verify"].append(table.verify_s)
        clocks["audit"].append(table.audit_s)
        return table.copy_s

    def check_floor() -> float:
        def drain() -> None:
            out_of = "COPY lifted.memories TO STDOUT (FORMAT BINARY)"
            with psycopg.connect(url) as db, db.cursor() as cursor, cursor.copy(out_of) as out:
                for _ in out:
                    pass
            reading = sqlite3.connect(path)
            cursor = reading.execute("SELECT * FROM memories ORDER BY rowid")
            while chunk := cursor.fetchmany(1000):
                wire.encode(chunk, codecs)
            reading.close()

        return timed(drain)

    def row_by_row() -> float:
        part = rows[:2000]
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("DROP TABLE IF EXISTS raw.slow")
            db.execute(ddl.replace("raw.memories", "raw.slow"))
            marks = ", ".join(["%s"] * len(codecs))

            def insert() -> None:
                for row in part:
                    cells = list(row)
                    if dim:
                        cells[-1] = str(np.frombuffer(row[-1], "<f4").tolist())
                    db.execute(f"INSERT INTO raw.slow VALUES ({marks})", cells)

            return timed(insert) * len(rows) / len(part)

    found = best(rounds, raw=raw, memlift=lifted, verify_floor=check_floor)
    slow = best(1, slow=row_by_row)["slow"]
    undo(target)
    return {
        "rows": len(rows),
        "rows_per_s": {
            "raw_copy": round(len(rows) / found["raw"]),
            "memlift": round(len(rows) / found["memlift"]),
        },
        "copy_of_raw_copy": round(found["raw"] / found["memlift"], 3),
        "times_row_by_row": round(slow / found["memlift"], 1),
        "verify_of_reading_both_sides": round(min(clocks["verify"]) / found["verify_floor"], 3),
        "keys_s": round(min(clocks["index"]), 3),
    }


def postgres_to_sqlite(path: Path, url: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Copy back against a raw executemany of ready tuples into the same table."""
    rows = read_all(path)
    origin = f"{url}?schema=lifted"
    migrate(path, origin, index="none")
    raw_file, lifted_file = folder / "raw.sqlite", folder / "lifted.sqlite"
    wide = len(rows[0]) == 8

    def fresh(file: Path) -> None:
        for tail in ("", "-wal", "-shm"):
            Path(f"{file}{tail}").unlink(missing_ok=True)

    def raw() -> float:
        fresh(raw_file)
        db = sqlite3.connect(raw_file, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(DDL.format(vector=", embedding BLOB" if wide else ""))
        marks = ", ".join("?" * len(rows[0]))

        def insert() -> None:
            for i in range(0, len(rows), 4000):
                db.execute("BEGIN")
                db.executemany(f"INSERT INTO memories VALUES ({marks})", rows[i : i + 4000])
                db.execute("COMMIT")

        seconds = timed(insert)
        db.close()
        return seconds

    def lifted() -> float:
        fresh(lifted_file)
        report = migrate(origin, lifted_file, verify="counts")
        return report.tables[0].copy_s

    found = best(rounds, raw=raw, memlift=lifted)
    undo(origin)
    return {"rows": len(rows), "copy_of_raw_executemany": round(found["raw"] / found["memlift"], 3)}


def audit_pass(path: Path, rounds: int) -> dict[str, Any]:
    """The audit against reading the same rows with fetchmany."""

    def read() -> float:
        def work() -> None:
            source = SqliteSource(path)
            cursor = source._connection.execute("SELECT * FROM memories ORDER BY rowid")
            while cursor.fetchmany(1000):
                pass
            source.close()

        return timed(work)

    target = "postgresql+embedded:/nowhere/needed"
    found = best(rounds, read=read, memlift=lambda: audit(path, target).tables[0].audit_s)
    return {"of_fetchmany": round(found["memlift"] / found["read"], 3)}


_PEAK = """
import resource, sys
from migrate import migrate
migrate(sys.argv[1], sys.argv[2], index="none")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_memory(folder: Path, url: str, rows: int) -> dict[str, Any]:
    """Peak resident memory of a whole run, verification included, in MB, at two sizes."""
    peaks = {}
    for n in (rows // 5, rows):
        path = folder / f"large-{n}.sqlite"
        make(path, n, 384)
        target = f"{url}?schema=large"
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path), target], capture_output=True, text=True, check=True
        )
        peaks[n] = int(done.stdout)
        undo(target)
        path.unlink()
    return {"peak_mb": peaks, "growth": round(peaks[rows] / peaks[rows // 5], 3)}


def postgres(args: argparse.Namespace, only: set[str], folder: Path) -> dict[str, Any]:
    """Run what was asked for between SQLite and Postgres and return the figures."""
    figures: dict[str, Any] = {}
    with EmbeddedPostgres(folder / "pg") as server:
        for name, rows, dim in (("384", 50_000, 384), ("1536", 20_000, 1536), ("plain", 100_000, 0)):
            wanted = not only or only & {name, "back", "audit"}
            if not wanted:
                continue
            path = folder / f"{name}.sqlite"
            make(path, int(rows * args.scale), dim)
            if not only or name in only:
                figures[f"sqlite-postgres-{name}"] = sqlite_to_postgres(path, server.url, dim, args.rounds)
            if (not only or "back" in only) and dim:
                figures[f"postgres-sqlite-{name}"] = postgres_to_sqlite(path, server.url, args.rounds, folder)
            if not only or "audit" in only:
                figures[f"audit-{name}"] = audit_pass(path, args.rounds)
            path.unlink()
        if "memory" in only:
            figures["memory"] = peak_memory(folder, server.url, args.memory_rows)
    return figures


def qdrant(args: argparse.Namespace, only: set[str], folder: Path) -> dict[str, Any]:
    """Run what was asked for between SQLite and Qdrant and return the figures."""
    import bench_qdrant

    parts = {name.removeprefix("qdrant-") for name in only & QDRANT} - {"qdrant"}
    rows = int(20_000 * args.scale)
    return bench_qdrant.figures_of(
        parts or {"edge", "server"}, folder, args.rounds, rows, args.memory_rows // 5
    )


QDRANT = {"qdrant", "qdrant-edge", "qdrant-server", "qdrant-memory"}


def main() -> None:
    """Run the benchmarks that were asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of rows")
    names = f"384, 1536, plain, back, audit, memory, {', '.join(sorted(QDRANT))}"
    parser.add_argument("--only", default="", help=f"comma-separated: {names}; all but memory if left out")
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    folder = Path(tempfile.mkdtemp(prefix="memlift-bench-"))
    figures: dict[str, Any] = {"cpus": os.cpu_count()}
    try:
        if not only or only - QDRANT:
            figures |= postgres(args, only, folder)
        if not only or only & QDRANT:
            figures |= qdrant(args, only, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
