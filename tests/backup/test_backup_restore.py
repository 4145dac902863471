"""Restores: old or new, whole, with nothing left over that could undo them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from backup_data import change, content, files, is_whole, make

from migrate.backup import BackupManager, Settings, swap
from migrate.backup.swap import InUseError
from migrate.errors import BackendError, ConfigError


@pytest.fixture
def manager(brain: Path, url: str) -> BackupManager:
    made = BackupManager(brain, store=url)
    made.create()
    return made


def with_hot_wal(path: Path) -> str:
    """Leave a database as a killed writer does: rows in its WAL only. Return what it says."""
    make(path, 50, seed=9)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("UPDATE memories SET text = 'only in the WAL'")
        db.commit()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{path}{suffix}.aside")
    for suffix in ("", "-wal"):
        os.replace(f"{path}{suffix}.aside", f"{path}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    shutil.copyfile(path, f"{path}.look")
    shutil.copyfile(f"{path}-wal", f"{path}.look-wal")
    said = content(Path(f"{path}.look"))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}.look{suffix}").unlink(missing_ok=True)
    return said


def test_a_left_over_wal_does_not_undo_a_restore(tmp_path: Path, manager: BackupManager) -> None:
    target = tmp_path / "t" / "target.sqlite"
    target.parent.mkdir()
    old = with_hot_wal(target)
    done = manager.restore(to=target)
    assert content(target) == content(manager.path)
    assert done.replaced is not None
    assert content(done.replaced) == old  # with what was in its WAL
    assert files(target.parent) == [target.name, done.replaced.name]


def test_a_wal_without_its_database_does_not_undo_a_restore(tmp_path: Path, manager: BackupManager) -> None:
    target = tmp_path / "t" / "target.sqlite"
    target.parent.mkdir()
    with_hot_wal(target)
    target.unlink()
    assert manager.restore(to=target).replaced is None
    assert content(target) == content(manager.path)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_damaged_old_database_is_replaced_and_kept(
    tmp_path: Path, manager: BackupManager, suffix: str
) -> None:
    target = tmp_path / "t" / "target.sqlite"
    target.parent.mkdir()
    target.write_bytes(b"no database at all" * 100)
    Path(f"{target}{suffix}").write_bytes(b"rubbish")
    done = manager.restore(to=target, keep_replaced=False)
    assert content(target) == content(manager.path)
    assert done.replaced is not None  # what cannot be read is not thrown away
    assert done.replaced.read_bytes().startswith(b"no database")
    assert not Path(f"{target}{suffix}").exists()


def test_an_open_database_is_not_replaced(tmp_path: Path, manager: BackupManager) -> None:
    target = make(tmp_path / "target.sqlite", 5)
    before = content(target)
    script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT 1 FROM memories').fetchone(); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InUseError, match=str(other.pid)):
            manager.restore(to=target)
        assert swap.users_of(target) == [other.pid]
    finally:
        other.communicate("")
    with closing(sqlite3.connect(target)) as db:
        db.execute("SELECT 1 FROM memories").fetchone()
        with pytest.raises(InUseError, match="this process"):
            manager.restore(to=target)
    assert content(target) == before
    manager.restore(to=target)


def test_locks_alone_also_show_that_a_database_is_open(
    tmp_path: Path, manager: BackupManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "users_of", lambda path: [])  # no /proc: another user's process, another system
    target = make(tmp_path / "target.sqlite", 5)
    before = content(target)
    with closing(sqlite3.connect(target)) as db:
        db.execute("SELECT 1 FROM memories").fetchone()
        with pytest.raises(InUseError):
            manager.restore(to=target)
    assert content(target) == before


def test_existing_files_folders_and_links(tmp_path: Path, manager: BackupManager) -> None:
    target = make(tmp_path / "target.sqlite", 5)
    before = content(target)
    with pytest.raises(ConfigError, match="exists"):
        manager.restore(to=target, replace=False)
    assert content(target) == before
    with pytest.raises(ConfigError, match="folder"):
        manager.restore(to=tmp_path)
    link = tmp_path / "link.sqlite"
    link.symlink_to(target)
    os.chmod(target, 0o640)
    manager.restore(to=link, keep_replaced=False)
    assert link.is_symlink()
    assert content(target) == content(manager.path)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert not list(tmp_path.glob("target.sqlite.*"))
    fresh = manager.restore(to=tmp_path / "new" / "folder" / "x.sqlite").path
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600


def test_a_restored_database_is_in_the_mode_it_was_in(tmp_path: Path, manager: BackupManager) -> None:
    manager.restore(to=tmp_path / "x.sqlite")
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_at_the_target_is_seen_first(
    tmp_path: Path, manager: BackupManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    for call in (lambda: manager.restore(to=tmp_path / "x.sqlite"), manager.verify, manager.create):
        with pytest.raises(BackendError, match="disk full"):
            call()
    assert not (tmp_path / "x.sqlite").exists()
    assert files(tmp_path / "scratch") == []


def test_an_index_goes_along_and_an_old_one_does_not_stay(tmp_path: Path, brain: Path, url: str) -> None:
    (tmp_path / "brain.hnsw").write_bytes(b"index")
    (tmp_path / "brain.hnsw.map.json").write_bytes(b"{}")
    (tmp_path / "brain.sqlite.docs.hnsw").write_bytes(b"other index")
    (tmp_path / "brain.txt").write_bytes(b"not an index")
    manager = BackupManager(brain, store=url, mode="incremental")
    first = manager.create().manifest
    assert [side.suffix for side in first.sidecars] == [".hnsw", ".hnsw.map.json", ".docs.hnsw"]
    assert manager.create().unchanged
    (tmp_path / "brain.hnsw").write_bytes(b"new index")
    second = manager.create()
    assert not second.unchanged
    assert second.manifest.sidecars[2].piece == first.sidecars[2].piece  # shared with the parent
    (tmp_path / "t").mkdir()
    target = make(tmp_path / "t" / "target.db", 5)
    (tmp_path / "t" / "target.hnsw").write_bytes(b"index of something else")
    (tmp_path / "t" / "target.db.more.hnsw").write_bytes(b"and another")
    done = manager.restore(to=target)
    assert done.replaced is not None
    assert files(tmp_path / "t") == sorted(
        ["target.db", "target.hnsw", "target.hnsw.map.json", "target.db.docs.hnsw", done.replaced.name,
         f"{done.replaced.name}.target.hnsw", f"{done.replaced.name}.target.db.more.hnsw"]
    )  # fmt: skip
    assert (tmp_path / "t" / "target.hnsw").read_bytes() == b"new index"
    assert manager.verify().manifest == second.manifest


def test_every_link_of_a_chain_can_be_restored(tmp_path: Path, url: str) -> None:
    brain = make(tmp_path / "b.sqlite", 2_000)
    manager = BackupManager(brain, store=url, mode="incremental", settings=Settings(max_chain=3))
    said: dict[str, str] = {}
    for step in range(10):
        with closing(sqlite3.connect(brain)) as db:
            if step == 3:
                db.execute("DELETE FROM memories WHERE id > 500")
            if step == 4:
                db.commit()
                db.execute("VACUUM")
            if step == 5:
                db.execute("CREATE TABLE more (x)")
            if step == 6:
                db.executemany(
                    "INSERT INTO memories (embedding) VALUES (?)", ((os.urandom(256),) for _ in range(900))
                )
            db.commit()
        change(brain, first=step, seed=step)
        made = manager.create()
        assert not made.unchanged
        said[made.id] = content(brain)
        assert manager.create().unchanged
    kinds = [backup.kind for backup in manager.list()]
    assert kinds[0] == "full"
    assert 2 <= kinds.count("full") <= 5
    for backup, expected in said.items():
        target = tmp_path / f"{backup}.sqlite"
        manager.restore(backup, to=target)
        assert content(target) == expected
        assert is_whole(target)


def test_a_broken_link_breaks_what_stands_on_it_and_nothing_else(tmp_path: Path, url: str) -> None:
    brain = make(tmp_path / "b.sqlite")
    manager = BackupManager(brain, store=url, mode="incremental", settings=Settings(max_chain=2))
    ids = []
    for step in range(5):
        change(brain, seed=step + 10)
        ids.append(manager.create().manifest)
    assert [m.kind[0] for m in ids] == ["f", "i", "i", "f", "i"]
    manager.store.delete(f"{manager.database}/{ids[1].artefact.name}")
    assert [backup.problem is None for backup in manager.list()] == [True, False, False, True, True]
    manager.verify(str(ids[0].id))
    manager.verify()
    manager.store.delete(f"{manager.database}/{ids[4].id}.manifest.json")
    manager.store.delete(f"{manager.database}/{ids[3].artefact.name}")
    change(brain, seed=99)
    assert manager.create().manifest.parent == ids[0].id  # the newest that is whole
    manager.store.delete(f"{manager.database}/{ids[0].artefact.name}")
    assert manager.create().manifest.kind == "full"  # nothing to stand on: begun anew


def test_times_choose_the_newest_before_them(tmp_path: Path, manager: BackupManager) -> None:
    first = manager.list()[0]
    second = manager.create()
    assert manager.restore("latest", to=tmp_path / "a").manifest.id == second.manifest.id
    assert first.time is not None
    for at in (first.time, first.time.isoformat(), first.time.timestamp() + 0.000001, first.id, "1"):
        assert str(manager.restore(at, to=tmp_path / "a").manifest.id) == first.id
    for wrong in ("1999-01-01", "yesterday", "0000000009-20260101T000000Z-00000000"):
        with pytest.raises(ConfigError):
            manager.restore(wrong, to=tmp_path / "a")
