"""`kill -9` at seeded points of a backup and of a restore: 10 of each in CI, 50 with --slow."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from backup_data import change, content, is_whole, make

from migrate.backup import BackupManager, Retention, Settings

KILLER = Path(__file__).resolve().parents[2] / "tests" / "backup" / "backup_killer.py"


def run(at: int, counter: Path, *arguments: object) -> int:
    line = [sys.executable, str(KILLER), str(at), str(counter), "backup", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, check=False, timeout=60, env=os.environ).returncode


def seeded(steps: int, points: int, seed: int) -> list[int]:
    """Spread over the whole run, with both ends."""
    dice = random.Random(seed)
    return sorted(dice.sample(range(1, steps + 1), min(points, steps)))


def test_a_killed_backup_is_never_listed_as_one(
    tmp_path: Path, store_at: Callable[..., str], points: int
) -> None:
    brain, url, counter = make(tmp_path / "brain.sqlite", 2_000), store_at(), tmp_path / "steps"
    assert run(0, counter, "create", brain, url, "--compression", "none", "--incremental") == 0
    steps = int(counter.read_text())
    assert steps > 20
    manager = BackupManager(
        brain, store=url, mode="incremental", settings=Settings(orphan_age=timedelta(seconds=-60))
    )
    good = [backup.id for backup in manager.list()]
    for number, at in enumerate(seeded(steps, points, 3)):
        change(brain, first=number * 3, seed=number)
        assert run(at, counter, "create", brain, url, "--compression", "none", "--incremental") in (
            -signal.SIGKILL,
            0,
        )
        now = manager.list()
        assert all(backup.problem is None for backup in now)
        new = [backup.id for backup in now if backup.id not in good]
        # Listed means whole: whatever a kill left, a listed backup passes its drill.
        assert len(new) <= 1
        for backup in new:
            assert manager.verify(backup).manifest.rows == 2_001
        good += new
        assert is_whole(brain)
    made = manager.create()
    assert manager.verify(made.id).manifest.rows == 2_001
    manager.prune(Retention(last=100))
    named = {piece.name for backup in manager.list() if backup.manifest for piece in backup.manifest.pieces}
    left = {info.key.partition("/")[2] for info in manager.store.objects(f"{manager.database}/")}
    assert {
        name for name in left if not name.startswith("proofs/") and not name.endswith(".manifest.json")
    } == named
    assert manager.store.stale_uploads(f"{manager.database}/") == []
    assert list((tmp_path / "scratch").iterdir()) == []  # the next run removed the dead ones' copies


def test_a_killed_restore_leaves_the_old_database_or_the_new_one_whole(
    tmp_path: Path, store_at: Callable[..., str], points: int
) -> None:
    brain, url, counter = make(tmp_path / "brain.sqlite", 2_000), store_at(), tmp_path / "steps"
    manager = BackupManager(brain, store=url)
    manager.create()
    new = content(brain)
    target = tmp_path / "target.sqlite"

    def prepare() -> str:
        """An old database with committed rows that are still in its WAL: its writer was killed."""
        for path in tmp_path.glob("target.sqlite*"):
            path.unlink()
        make(target, 50, seed=9)
        script = (
            "import os, sqlite3, sys\n"
            "db = sqlite3.connect(sys.argv[1])\n"
            "db.execute('PRAGMA wal_autocheckpoint=0')\n"
            "db.execute('UPDATE memories SET text = ?', ('only in the WAL',))\n"
            "db.commit()\n"
            "os.kill(os.getpid(), 9)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(target)], check=False, timeout=30)
        assert (tmp_path / "target.sqlite-wal").stat().st_size > 0
        aside = tmp_path / "aside"
        aside.mkdir(exist_ok=True)
        for suffix in ("", "-wal"):
            (aside / f"t{suffix}").write_bytes((tmp_path / f"target.sqlite{suffix}").read_bytes())
        with closing(sqlite3.connect(aside / "t")) as db:
            assert db.execute("SELECT DISTINCT text FROM memories").fetchall() == [("only in the WAL",)]
        return content(aside / "t")

    prepare()
    assert run(0, counter, "restore", url, target, "--force") == 0
    steps = int(counter.read_text())
    ends: set[str] = set()
    for at in [*seeded(steps, points - 2, 4), steps - 1, steps]:
        old = prepare()
        assert run(at, counter, "restore", url, target, "--force") in (-signal.SIGKILL, 0)
        found = content(target)
        assert found in (old, new), f"neither old nor new after step {at} of {steps}"
        assert is_whole(target)
        ends.add("old" if found == old else "new")
        if found == new:
            kept = [
                path
                for path in tmp_path.glob("target.sqlite.replaced-*")
                if path.suffix not in ("-wal", "-shm")
            ]
            assert [content(path) for path in kept] == [old]
        # Run again, it ends as if it had never been killed, and the dead one's files are gone.
        manager.restore(to=target)
        assert content(target) == new
        assert not list(tmp_path.glob(".target.sqlite*"))
    assert ends == {"old", "new"}
