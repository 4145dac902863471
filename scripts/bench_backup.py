#!/usr/bin/env python3
"""Measure backups: ratios in one run, as JSON on stdout.

    python scripts/bench_backup.py speed  [--mb 200]          CPU against VACUUM INTO | gzip -6 and sha256sum
    python scripts/bench_backup.py writer [--mb 200]          commit p99 of a writer at 100 commits/s, before and during
    python scripts/bench_backup.py memory [--mb 200 1000 ...] peak memory above a process that has imported boto3
    python scripts/bench_backup.py incremental [--mb 200]     bytes after 1 % of the rows changed, against a full backup
    python scripts/bench_backup.py kill [--points 50]         kill -9 of backup and restore at seeded steps

The data are made from a seed: text of a few thousand words, JSON and unit vectors of 768 float32, as
an agent's memory has. CPU seconds are user + system of the processes concerned; wall times are given too,
but other work on the machine moves them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DIM = 768


def make(path: Path, megabytes: int, seed: int = 5) -> int:
    """Write a database of about that size; return its rows."""
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    rows = megabytes * 1_000_000 // 4_130  # a row's share of the file
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, text TEXT, meta TEXT, embedding BLOB)")
        db.execute("CREATE INDEX by_text ON memories (substr(text, 1, 12))")
        for start in range(0, rows, 5000):
            count = min(5000, rows - start)
            vectors = rng.standard_normal((count, DIM), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO memories VALUES (?, ?, ?, ?)",
                (
                    (
                        start + n,
                        " ".join(dice.choices(words, weights, k=130)),
                        json.dumps({"importance": dice.random(), "source": dice.choice(words)}),
                        vectors[n].tobytes(),
                    )
                    for n in range(count)
                ),
            )
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows


def cpu_of(work: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU seconds of this process and its children, and wall seconds."""

    def spent() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    before, started = spent(), time.monotonic()
    work()
    return spent() - before, time.monotonic() - started


def shell(line: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, stdout=subprocess.DEVNULL)


def speed(place: Path, megabytes: list[int]) -> dict[str, Any]:
    """Backup and restore against the tools that everybody has."""
    from migrate.backup.artefact import Courier
    from migrate.backup.folder import FolderStore
    from migrate.backup.manager import BackupManager
    from migrate.backup.patience import Patience
    from migrate.backup.restore import rebuild

    source = place / "brain.db"
    make(source, megabytes[0])
    vacuumed, zipped, plain = place / "vacuumed.db", place / "plain.gz", place / "plain.db"

    def reference() -> None:
        with closing(sqlite3.connect(source)) as db:
            db.execute("VACUUM INTO ?", (str(vacuumed),))
        shell(f"gzip -6 -c {vacuumed} | tee {zipped} | sha256sum")

    manager = BackupManager(source, store=f"file://{place}/store")
    manager.store.checks_uploads = lambda: True  # type: ignore[method-assign]  # as S3 does: no reading back
    made: list[Any] = []
    # The reference hashes the compressed bytes once; the backup hashes raw and compressed ones and checks the copy.
    reference_cpu, reference_wall = cpu_of(reference)
    backup_cpu, backup_wall = cpu_of(lambda: made.append(manager.create()))
    manifest = made[0].manifest
    stored = place / "store" / manager.database / manifest.artefact.name

    def plain_restore() -> None:
        shell(f"gunzip -c {stored} > {plain} && sha256sum {plain}")

    courier = Courier(FolderStore(place / "store"), manager.database, Patience())
    restore_reference_cpu, restore_reference_wall = cpu_of(plain_restore)
    restore_cpu, restore_wall = cpu_of(lambda: rebuild([manifest], courier, place / "restored.db"))
    backup = _pair(backup_cpu, backup_wall, reference_cpu, reference_wall, goal=0.35)
    restore = _pair(restore_cpu, restore_wall, restore_reference_cpu, restore_reference_wall, goal=1.5)
    return {
        "megabytes": megabytes[0],
        "backup": backup,
        "restore_and_verify": restore,
        "met": backup["met"] and restore["met"],
        "stored_bytes": manifest.stored_bytes,
        "gzip_6_bytes": zipped.stat().st_size,
    }


def _pair(
    cpu: float, wall: float, reference_cpu: float, reference_wall: float, *, goal: float
) -> dict[str, Any]:
    return {
        "cpu_s": round(cpu, 2), "reference_cpu_s": round(reference_cpu, 2), "cpu_ratio": round(cpu / reference_cpu, 3),
        "wall_s": round(wall, 2), "reference_wall_s": round(reference_wall, 2),
        "wall_ratio": round(wall / reference_wall, 3), "goal": goal, "met": cpu / reference_cpu <= goal,
    }  # fmt: skip


_WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute("PRAGMA synchronous=NORMAL")
n, due = 0, time.monotonic()
while True:
    due += 0.01
    time.sleep(max(due - time.monotonic(), 0))
    began = time.monotonic()
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE memories SET meta = ? WHERE id = ?", (str(n), (n * 7919) % 30000))
    db.execute("COMMIT")
    print(began, time.monotonic() - began, flush=True)
    n += 1
"""


def writer(place: Path, megabytes: list[int]) -> dict[str, Any]:
    """A writer in another process, alone and during backups, in turns."""
    from migrate.backup.manager import BackupManager

    source = place / "brain.db"
    make(source, megabytes[0])
    manager = BackupManager(source, store=f"file://{place}/store")
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(source)], stdout=subprocess.PIPE, text=True
    )
    seen: list[tuple[float, float]] = []

    def read() -> None:
        for line in process.stdout or ():
            began, took = line.split()
            seen.append((float(began), float(took)))

    threading.Thread(target=read, daemon=True).start()
    busy: list[tuple[float, float]] = []
    snapshots: list[tuple[float, float]] = []
    made = []
    try:
        time.sleep(1.0)
        for _ in range(4):
            time.sleep(4.0)
            began = time.monotonic()
            made.append(manager.create())
            busy.append((began, time.monotonic()))
            snapshots.append((began, began + made[-1].snapshot_s))
    finally:
        process.kill()
        process.wait()

    def p99(spans: list[tuple[float, float]], inside: bool) -> float:
        took = sorted(t for at, t in seen[50:] if any(a <= at <= b for a, b in spans) is inside)
        return round(1000 * took[int(len(took) * 0.99)], 2)

    alone, during = p99(busy, False), p99(busy, True)
    return {
        "megabytes": megabytes[0],
        "commits": len(seen),
        "commit_p99_ms_alone": alone,
        "commit_p99_ms_during_backup": during,
        "commit_p99_ms_during_snapshot": p99(snapshots, True),
        "worse_by_ms": round(during - alone, 2),
        "goal_ms": 10,
        "met": during - alone <= 10,
        "snapshot_s": [round(one.snapshot_s, 2) for one in made],
        "backup_s": [round(one.seconds, 2) for one in made],
    }


_MEMORY = """
import json, sys
sys.path.insert(0, sys.argv[1])
import boto3
boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x").close()
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before = peak()
from pathlib import Path
from migrate.backup import BackupManager, Settings
from migrate.backup.sealing import Secret
options = json.loads(sys.argv[4])
secret = Secret.passphrase("a long passphrase") if options["sealed"] else None
settings = Settings(secret=secret, workdir=Path(options["workdir"]))
manager = BackupManager(sys.argv[2], store=sys.argv[3], mode=options["mode"], settings=settings)
if options["restore"]:
    manager.restore(to=options["restore"])
else:
    manager.create()
print(json.dumps({"mb": round(peak() - before, 1), "base_mb": round(before, 1)}))
"""


def memory(place: Path, megabytes: list[int]) -> dict[str, Any]:
    """Peak of a backup and of a restore through HTTP, above a process that has imported boto3."""
    results: list[dict[str, Any]] = []
    with s3_server() as store:
        for size in megabytes:
            source = place / f"brain{size}.db"
            make(source, size)
            for kind in ({"mode": "full", "sealed": False}, {"mode": "incremental", "sealed": True}):
                url = store(f"m{size}{kind['mode']}")
                peaks = {}
                for action in ("backup", "restore"):
                    target = str(place / "restored.db") if action == "restore" else None
                    options = json.dumps(kind | {"restore": target, "workdir": str(place)})
                    line = [sys.executable, "-c", _MEMORY, str(ROOT), str(source), url, options]
                    peaks[action] = json.loads(
                        subprocess.run(line, check=True, capture_output=True, text=True).stdout
                    )
                (place / "restored.db").unlink()
                results.append(
                    {
                        "megabytes": size,
                        **kind,
                        "backup_mb": peaks["backup"]["mb"],
                        "restore_mb": peaks["restore"]["mb"],
                    }
                )
            source.unlink()
    worst = max(max(one["backup_mb"], one["restore_mb"]) for one in results)
    return {"above_boto3": results, "worst_mb": worst, "goal_mb": 64, "met": worst <= 64}


def incremental(place: Path, megabytes: list[int]) -> dict[str, Any]:
    """Bytes that go up after 1 % of the rows changed."""
    from migrate.backup.manager import BackupManager

    source = place / "brain.db"
    rows = make(source, megabytes[0])
    manager = BackupManager(source, store=f"file://{place}/store", mode="incremental")
    full = manager.create()
    dice = random.Random(11)
    with closing(sqlite3.connect(source)) as db:
        for row in dice.sample(range(rows), rows // 100):
            db.execute(
                "UPDATE memories SET meta = ? WHERE id = ?", (f'{{"importance": {dice.random()}}}', row)
            )
        db.commit()
    changed = manager.create()
    nothing = manager.create()
    manager.verify(changed.id)
    ratio = changed.uploaded / full.uploaded
    return {
        "megabytes": megabytes[0], "full_bytes": full.uploaded, "incremental_bytes": changed.uploaded,
        "changed_blocks": changed.changed_blocks, "blocks": -(-full.manifest.size // 4096),
        "ratio": round(ratio, 4), "goal": 0.03, "met": ratio <= 0.03,
        "unchanged_uploads_bytes": nothing.uploaded, "unchanged": nothing.unchanged,
    }  # fmt: skip


@contextlib.contextmanager
def s3_server() -> Iterator[Callable[[str], str]]:
    """Run the test server; yield a function from a prefix to a store's address."""
    import boto3

    command = subprocess.run(
        [ROOT / "scripts" / "setup_backup_tests"], check=True, capture_output=True, text=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "DOCKER_HOST": "unix:///nonexistent"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    server = subprocess.Popen(
        [command.stdout.strip()],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        until = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="bench")
                break
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield lambda prefix: f"s3://bench/{prefix}?endpoint=http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def kill(place: Path, points: int) -> dict[str, Any]:
    """The tests' seeded kills, more of them."""
    del place
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(ROOT / "integration" / "backup" / "test_backup_kill.py"),
    ]
    done = subprocess.run(
        line, env=os.environ | {"BACKUP_KILL_POINTS": str(points)}, cwd=ROOT, stdout=sys.stderr, check=False
    )
    return {"points": points, "met": done.returncode == 0}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "writer", "memory", "incremental", "kill"))
    parser.add_argument("--mb", type=int, nargs="+", default=None, help="size of the database, MB")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the files go (default: a temporary folder)"
    )
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bench-backup-", dir=args.dir))
    try:
        if args.what == "kill":
            result = kill(place, args.points)
        else:
            sizes = args.mb or ([200, 2000] if args.what == "memory" else [200])
            run = {"speed": speed, "writer": writer, "memory": memory, "incremental": incremental}[args.what]
            result = run(place, sizes)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(json.dumps({"bench": f"backup {args.what}"} | result, indent=2))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
