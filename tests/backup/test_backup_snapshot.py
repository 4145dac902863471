"""Copies of live databases: one moment, checked, and nothing changed at the source."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from backup_data import change, content, files, make

from migrate.backup import snapshot, workspace
from migrate.backup.snapshot import Limits, take
from migrate.errors import BackendError, ConfigError, InterruptedRunError, TransientError, VerifyError


def age(path: Path, seconds: float = 60.0) -> None:
    """Set a file's time back: a file that was written just now is read the locked way."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9)))


def test_a_closed_database_is_copied_without_a_trace(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    brain = make(folder / "brain.sqlite")
    age(brain)
    before, stat = brain.read_bytes(), brain.stat()
    taken = take(brain, tmp_path / "copy")
    assert files(folder) == ["brain.sqlite"]
    assert (brain.read_bytes(), brain.stat().st_mtime_ns) == (before, stat.st_mtime_ns)
    assert taken.journal_mode == "wal"
    assert taken.tables == {"memories": 300, 'odd "name" ☃': 1, "empty": 0}
    assert content(tmp_path / "copy") == content(brain)


def test_two_copies_of_an_unchanged_database_are_the_same_bytes(tmp_path: Path, brain: Path) -> None:
    for name in ("a", "b"):
        take(brain, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("wal", [True, False])
def test_rows_that_are_only_in_the_wal_are_there_and_uncommitted_ones_are_not(
    tmp_path: Path, wal: bool
) -> None:
    brain = make(tmp_path / "brain.sqlite", wal=wal)
    with closing(sqlite3.connect(brain, isolation_level=None)) as writer:
        writer.execute("INSERT INTO memories (text) VALUES ('committed')")
        if wal:  # in a rollback journal a writer's lock keeps readers out only while it commits
            writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO empty VALUES (1)")
        if not wal:
            writer.execute("DELETE FROM empty")
        taken = take(brain, tmp_path / "copy")
        assert taken.tables["memories"] == 301
        assert taken.tables["empty"] == 0


def test_a_commit_in_the_middle_of_the_copy_is_not_in_it(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", 3_000)
    with closing(sqlite3.connect(brain)) as other:
        other.execute("SELECT 1 FROM memories").fetchone()
        steps = 0

        def step(done: int, total: int) -> None:
            nonlocal steps
            steps += 1
            assert 0 < done <= total
            change(brain, first=steps, count=1)

        before = content(brain)
        taken = take(brain, tmp_path / "copy", limits=Limits(pages=10, pause_s=0), progress=step)
    assert steps > 10  # and it ended: without the pinned transaction each commit begins it anew
    assert content(tmp_path / "copy") == before
    assert taken.wal_growth > 0


def test_the_wal_is_not_held_beyond_its_bounds(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", 3_000)
    with closing(sqlite3.connect(brain)) as other:
        other.execute("SELECT 1 FROM memories").fetchone()
        with pytest.raises(BackendError, match="the WAL was held"):
            take(
                brain, tmp_path / "copy", limits=Limits(pages=10, pause_s=0, max_wal_bytes=20_000),
                progress=lambda done, total: change(brain, seed=done),
            )  # fmt: skip
        with pytest.raises(BackendError, match="the WAL was held"):
            take(
                brain, tmp_path / "copy2", limits=Limits(pages=1, max_pin_s=0.05),
                progress=lambda *_: time.sleep(0.002),
            )  # fmt: skip
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # free again


def test_a_copy_can_be_cancelled(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", 3_000)
    cancel = threading.Event()
    with closing(sqlite3.connect(brain)) as other:
        other.execute("SELECT 1 FROM memories").fetchone()
        with pytest.raises(InterruptedRunError):
            take(
                brain,
                tmp_path / "copy",
                limits=Limits(pages=10),
                progress=lambda *_: cancel.set(),
                cancel=cancel,
            )


def test_a_hot_journal_is_recovered_in_a_copy_and_stays_where_it_is(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", wal=False)
    whole = content(brain)
    script = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size=1'); db.execute('PRAGMA cache_spill=1'); db.execute('BEGIN')\n"
        "db.execute('UPDATE memories SET embedding = randomblob(256)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(brain)], check=False, timeout=30)
    journal = Path(f"{brain}-journal")
    assert journal.stat().st_size > 0
    before = (brain.read_bytes(), journal.read_bytes())
    take(brain, tmp_path / "copy")
    assert content(tmp_path / "copy") == whole
    assert (brain.read_bytes(), journal.read_bytes()) == before
    assert not (tmp_path / "recover.db").exists()


def test_the_wal_of_a_killed_writer_is_read_and_stays_where_it_is(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite")
    with closing(sqlite3.connect(brain)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE memories SET text = 'in the WAL'")
        writer.commit()
        killed = tmp_path / "killed"
        killed.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{brain}{suffix}", killed / f"brain.sqlite{suffix}")
    wal = killed / "brain.sqlite-wal"
    before = wal.read_bytes()
    take(killed / "brain.sqlite", tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT DISTINCT text FROM memories").fetchall() == [("in the WAL",)]
    assert wal.read_bytes() == before


def test_a_damaged_database_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", 3_000, wal=False)
    raw = bytearray(brain.read_bytes())
    for page in range(20, 60):
        raw[page * 4096 : page * 4096 + 200] = bytes(200)
    brain.write_bytes(raw)
    with pytest.raises(VerifyError):
        take(brain, tmp_path / "copy")


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be looked at" * 50)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        take(text, tmp_path / "copy")
    with pytest.raises(ConfigError, match="no such database"):
        snapshot.database_size(tmp_path / "none")


@pytest.mark.parametrize("wal", [True, False])
@pytest.mark.parametrize(
    ("left", "what"), [(0, "empty"), (50, "truncated"), (4096, "truncated"), (-100, "truncated")]
)
def test_a_file_that_was_cut_off_is_refused_and_nothing_is_left_beside_it(
    left: int, what: str, wal: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    brain = make(folder / "brain.sqlite", wal=wal)
    brain.write_bytes(brain.read_bytes()[:left])
    with pytest.raises(ConfigError, match=what) as raised:
        take(brain, tmp_path / "copy")
    assert raised.value.hint
    assert files(folder) == ["brain.sqlite"]


def test_a_locked_database_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", wal=False)
    with closing(sqlite3.connect(brain, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked"):
            take(brain, tmp_path / "copy", limits=Limits(busy_s=0.1, max_pin_s=0.3))


def test_hostile_schemas_run_nothing(tmp_path: Path) -> None:
    brain = make(tmp_path / "brain.sqlite", 3)
    with closing(sqlite3.connect(brain)) as db:
        db.execute(
            "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT x FROM n"
        )
        db.execute("CREATE TABLE vectors (id)")
        db.execute("PRAGMA writable_schema=ON")
        db.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING unknown_module(a)')"
        )
        db.commit()
    assert take(brain, tmp_path / "copy").tables["vectors"] == 0


def test_room_is_looked_for_first(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="disk full"), workspace.workspace(tmp_path / "w", need=1 << 60):
        pass
    assert files(tmp_path / "w") == []


def test_the_copies_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from migrate.backup.workspace import workspace\n"
        "with workspace(Path(sys.argv[1]), need=0) as place:\n"
        "    (place / 'copy').write_bytes(b'x' * 100)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "w"), root], check=False, timeout=30)
    assert len(files(tmp_path / "w")) == 1
    with workspace.workspace(tmp_path / "w", need=0) as mine:
        (mine / "copy").touch()
        with workspace.workspace(tmp_path / "w", need=0):
            assert (mine / "copy").exists()
            assert len([name for name in files(tmp_path / "w") if name.endswith("copy")]) == 1
    assert os.listdir(tmp_path / "w") == []
