"""Retention, the lease, the service and the commands, without a server."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backup_cli import run, run_json
from backup_data import change, content, make
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.backup import BackupManager, Retention, Settings, backup_before
from migrate.backup.catalog import Entry, Listing
from migrate.backup.folder import FolderStore
from migrate.backup.lease import Lease
from migrate.backup.manifest import Manifest, Piece
from migrate.backup.names import BackupId
from migrate.backup.objectstore import PreconditionError
from migrate.backup.patience import Patience
from migrate.backup.retention import plan
from migrate.backup.service import Service, ServiceSettings, beat, check_heartbeat
from migrate.backup.text import duration
from migrate.errors import BackendError, ConfigError, InterruptedRunError, LeaseLostError, TransientError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def entry(number: int, time_: datetime, parent: Entry | None = None, problem: str | None = None) -> Entry:
    backup = BackupId(number, time_.strftime("%Y%m%dT%H%M%SZ"), f"{number:08x}")
    piece = Piece(f"{backup}.sqlite.gz", 1, "0" * 64, 1, "0" * 64, "gzip", False)
    above = parent.manifest if parent else None
    manifest = Manifest(
        id=backup, database="d", time=time_, kind="incremental" if above else "full",
        parent=above.id if above else None, base=above.base if above else backup,
        chain=above.chain + 1 if above else 0, size=1, sha256="0" * 64, page_size=4096, page_count=1, tables={},
        schema_sha256="0" * 64, source_path="", journal_mode="wal", tool="", artefact=piece,
    )  # fmt: skip
    return Entry(backup, "d", manifest, problem)


@settings(max_examples=200, deadline=None)
@given(
    hours=st.lists(st.integers(-9000, 100), min_size=1, max_size=40),
    kinds=st.lists(st.sampled_from(["full", "incremental", "bad"]), min_size=40, max_size=40),
    last=st.one_of(st.none(), st.integers(1, 10)),
    daily=st.integers(0, 5), monthly=st.integers(0, 3), days=st.one_of(st.none(), st.integers(1, 400)),
)  # fmt: skip
def test_the_newest_good_one_and_what_it_stands_on_always_stay(
    hours: list[int], kinds: list[str], last: int | None, daily: int, monthly: int, days: int | None
) -> None:
    """Times are in no order: clocks jump."""
    entries: list[Entry] = []
    for number, (hour, kind) in enumerate(zip(hours, kinds, strict=False), 1):
        good = [one for one in entries if one.good]
        parent = good[-1] if kind == "incremental" and good else None
        entries.append(
            entry(number, NOW + timedelta(hours=hour), parent, "damaged" if kind == "bad" else None)
        )
    listing = Listing("d", entries)
    if last is None and not daily and not monthly and days is None:
        with pytest.raises(ConfigError):
            Retention(last, None, daily, 0, monthly)
        return
    keep = Retention(last, timedelta(days=days) if days else None, daily, 0, monthly)
    decided = plan(listing, keep, NOW)
    kept, removed = {one.id for one in decided.keep}, {one.id for one in decided.remove}
    assert not kept & removed
    assert all(one.good for one in decided.keep)
    good = [one for one in entries if one.good]
    if good:
        assert good[-1].id in kept
    for one in decided.keep:
        assert one.manifest
        assert {link.id for link in listing.chain(one.manifest)} <= kept
    fulls = [one for one in good if one.manifest and one.manifest.parent is None]
    if last and not daily and not monthly and days is None and len(fulls) == len(good):
        assert [one.id for one in decided.keep] == [one.id for one in good[-last:]]


def test_daily_weekly_and_monthly_keep_the_newest_of_each() -> None:
    entries = [entry(n + 1, NOW - timedelta(days=99 - n, hours=h)) for n in range(100) for h in (1,)]
    decided = plan(Listing("d", entries), Retention(daily=3, weekly=2, monthly=3), NOW)
    assert [(NOW - one.manifest.time).days for one in decided.keep if one.manifest] == [52, 21, 6, 2, 1, 0]


@pytest.mark.parametrize(
    "wrong", [{"last": 0}, {"last": -1}, {}, {"daily": -1, "last": 1}, {"max_age": timedelta(0), "last": 2}]
)
def test_a_retention_that_would_keep_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Retention(**wrong)  # type: ignore[arg-type]


def test_a_damaged_manifest_is_left_where_it_is_and_so_is_every_foreign_object(brain: Path, url: str) -> None:
    manager = BackupManager(brain, store=url)
    made = [manager.create() for _ in range(4)]
    manager.store.put(f"{manager.database}/{made[0].id}.manifest.json", b"damaged")
    foreign = [
        f"{manager.database}/AAA-note.txt",
        f"{manager.database}/{made[1].id}.sqlite.gz.bak",
        "note",
        "a/b/c",
    ]
    for key in foreign:
        manager.store.put(key, b"theirs")
    pruned = manager.prune(Retention(last=1), dry_run=True)
    assert (pruned.removed, pruned.kept, len(manager.list())) == ([made[1].id, made[2].id], [made[3].id], 4)
    pruned = manager.prune(Retention(last=1))
    assert len(pruned.left) == 1
    assert [backup.id for backup in manager.list()] == [made[0].id, made[3].id]
    assert set(foreign) <= {info.key for info in manager.store.objects()}


def test_another_database_in_the_same_place_is_not_touched(tmp_path: Path, url: str) -> None:
    one = BackupManager(make(tmp_path / "one.sqlite"), store=url)
    two = BackupManager(make(tmp_path / "two.sqlite"), store=url)
    for manager in (one, two, one, two):
        manager.create()
    assert len(one.prune(Retention(last=1)).removed) == 1
    assert (len(one.list()), len(two.list())) == (1, 2)
    assert "holds 2 databases" in run("restore", url, tmp_path / "x", code=2).stderr
    run("restore", url, tmp_path / "x", "--db", two.database)
    assert len(run_json("verify", url)["drills"]) == 2
    assert len(run_json("prune", url, "--keep", 1)["removed"]) == 1
    assert (len(one.list()), len(two.list())) == (1, 1)


def test_a_lease_has_one_owner_and_is_taken_over_after_silence(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    one, two = Lease(store, "d", ttl_s=0.6), Lease(store, "d", ttl_s=0.6)
    assert one.try_acquire() is None
    assert "process" in (two.try_acquire() or "")
    time.sleep(0.9)
    assert two.try_acquire() is not None  # it is renewed
    assert one.held
    one._stop.set()  # it dies
    time.sleep(0.1)
    assert two.try_acquire() is not None
    time.sleep(0.7)
    assert two.try_acquire() is None
    with pytest.raises(LeaseLostError):
        one.renew()
    with pytest.raises(LeaseLostError):
        one.check()
    two.release()
    assert one.try_acquire() is None
    one.release()


def test_twenty_leases_at_once_have_one_owner(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    all_ = [Lease(store, "d", ttl_s=30) for _ in range(20)]
    threads = [threading.Thread(target=one.try_acquire) for one in all_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.held for one in all_) == 1
    for one in all_:
        one.release()


def test_a_renewal_that_is_told_to_stop_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Lease(FolderStore(tmp_path / "store"), "d", ttl_s=0.3)
    assert one.try_acquire() is None

    def stopped(*given: object, **options: object) -> str:
        raise InterruptedRunError("stopped")

    monkeypatch.setattr(FolderStore, "put", stopped)
    assert one._thread is not None
    one._thread.join(5)  # an exception there would fail this test
    assert not one._thread.is_alive()
    monkeypatch.undo()
    one.release()


def test_a_renewal_is_given_up_before_the_next_one_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, told = Lease(FolderStore(tmp_path / "store"), "d", ttl_s=60), list[Any]()
    assert one.try_acquire() is None
    put = FolderStore.put

    def watched(*given: Any, **options: Any) -> str:
        told.append(options.get("within_s"))
        return put(*given, **options)

    monkeypatch.setattr(FolderStore, "put", watched)
    one.renew()
    assert told == [20.0]  # a store's Retry-After of 60 s would outlast the lease
    one.release()


def test_a_store_that_asks_for_longer_than_there_is_patience_is_tried_once_more() -> None:
    tried: list[float] = []

    def operation() -> int:
        tried.append(time.monotonic())
        if len(tried) == 1:
            raise TransientError("SlowDown", retry_after=60.0)
        return 7

    assert Patience(total_s=0.2).call(operation) == 7
    assert 0.2 <= tried[1] - tried[0] < 5
    tried.clear()
    with pytest.raises(TransientError):
        Patience(total_s=0.0).call(operation)


def test_a_store_that_is_away_keeps_nobody_from_releasing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, back = Lease(FolderStore(tmp_path / "store"), "d", ttl_s=30), threading.Event()
    assert one.try_acquire() is None
    monkeypatch.setattr("migrate.backup.lease._FAREWELL_S", 0.1)
    monkeypatch.setattr(FolderStore, "put", lambda *given, **options: back.wait(30))
    one.release()
    assert not back.is_set()
    assert not one.held
    back.set()


def test_a_lease_whose_answer_was_lost_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store")
    put = FolderStore.put

    def lost(self: FolderStore, key: str, body: bytes, **options: object) -> str:
        put(self, key, body, **options)  # type: ignore[arg-type]
        raise PreconditionError("the second try met the first one")

    one = Lease(store, "d", ttl_s=30)
    monkeypatch.setattr(FolderStore, "put", lost)
    assert one.try_acquire() is None
    one.renew()
    assert one.held
    monkeypatch.undo()
    one.renew()
    one.release()


def test_patience_ends_and_waits_as_long_as_it_is_asked_to() -> None:
    calls: list[float] = []

    def away() -> None:
        calls.append(time.monotonic())
        raise TransientError("away", retry_after=0.15)

    with pytest.raises(TransientError):
        Patience(total_s=0.5, first_s=0.01).call(away)
    assert 3 <= len(calls) <= 4
    assert all(b - a >= 0.14 for a, b in itertools.pairwise(calls))
    stopped = Patience(total_s=60)
    threading.Timer(0.1, stopped.cancel.set).start()
    with pytest.raises(InterruptedRunError):
        stopped.call(away)
    with pytest.raises(BackendError):
        Patience().call(lambda: (_ for _ in ()).throw(BackendError("for good")))


def wait_for(done: threading.Event) -> None:
    assert done.wait(20)


def test_the_service_outlives_failures_and_tells_them(
    brain: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    failed, made = threading.Event(), threading.Event()
    manager = BackupManager(
        brain, store=url, interval=0.1, max_backups=2,
        on_error=lambda exc: failed.set(), on_success=lambda created: made.set(),
    )  # fmt: skip
    aside = brain.rename(brain.with_name("aside"))
    service = Service(manager, ServiceSettings(interval_s=0.1, verify_every_s=3600, backoff_s=0.05))
    with caplog.at_level(logging.ERROR, "memlift.backup"):
        service.start()
        wait_for(failed)
        aside.rename(brain)
        wait_for(made)
        assert service.stop()
    assert "no such database" in caplog.text
    text = service.metrics.render()
    assert service.metrics.results["failure"] >= 1
    assert f'memlift_backup_runs_total{{database="{manager.database}",result="success"}}' in text
    assert "memlift_backup_last_drill_age_seconds" in text or service.metrics.drills["success"] == 0


def test_a_store_without_conditional_writes_gets_a_warning_and_its_backups(
    brain: Path, url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderStore, "conditional_writes", lambda self: False)
    made = threading.Event()
    manager = BackupManager(brain, store=url, on_success=lambda created: made.set())
    with caplog.at_level(logging.WARNING, "memlift.backup"):
        manager.start()
        wait_for(made)
        assert manager.stop()
    assert caplog.text.count("no conditional writes") == 1


def test_start_and_stop_of_the_manager(brain: Path, url: str) -> None:
    made = threading.Event()
    manager = BackupManager(brain, store=url, interval=3600, on_success=lambda created: made.set())
    manager.start()
    with pytest.raises(ConfigError, match="runs already"):
        manager.start()
    wait_for(made)
    assert manager.stop()
    assert manager.stop()
    made.clear()
    manager.start()
    wait_for(made)
    assert manager.stop()
    assert len(manager.list()) == 2


def test_heartbeats_go_to_http_only() -> None:
    for wrong in ("file:///etc/passwd", "ftp://x", "ping", "http://"):
        with pytest.raises(ConfigError):
            check_heartbeat(wrong)
    with pytest.raises(OSError, match="refused"):
        beat("http://127.0.0.1:1/")


def test_a_backup_before_something_else(brain: Path, url: str, tmp_path: Path) -> None:
    made = backup_before(brain, url)
    change(brain)
    run("restore", url, tmp_path / "before.sqlite", "--at", made.id)
    assert content(tmp_path / "before.sqlite") != content(brain)


def test_wrong_use_of_the_manager_is_refused(brain: Path, url: str) -> None:
    for wrong in ({}, {"store": url, "bucket": "b"}, {"store": url, "mode": "other"}, {"store": url, "interval": 0},
                  {"store": url, "compression": "lzma"}, {"store": url, "database_id": "../x"}, {"store": "x"}):  # fmt: skip
        with pytest.raises(ConfigError):
            BackupManager(brain, **wrong)


def test_sealing_on_and_off_begins_a_new_chain(brain: Path, url: str) -> None:
    from migrate.backup.sealing import Secret

    def manager(secret: Secret | None) -> BackupManager:
        return BackupManager(brain, store=url, mode="incremental", settings=Settings(secret=secret))

    key, other = Secret("key", b"k" * 32), Secret("key", b"o" * 32)
    kinds: list[str] = []
    for secret in (None, None, key, key, other, other, None):
        change(brain, seed=len(kinds))
        kinds.append(manager(secret).create().manifest.kind[0])
    assert "".join(kinds) == "fififif"
    ids = [backup.id for backup in manager(None).list()]
    manager(key).verify(ids[3])
    with pytest.raises(ConfigError, match="not sealed"):  # a plain one in a sealed one's place is refused
        manager(key).verify(ids[0])
    assert b"memory 1" not in b"".join(p.read_bytes() for p in Path(url[7:]).rglob(f"{ids[2]}*"))


def test_a_forged_manifest_is_refused_by_its_code(brain: Path, url: str) -> None:
    from migrate.backup.manifest import dump
    from migrate.backup.sealing import Secret
    from migrate.errors import VerifyError

    manager = BackupManager(brain, store=url, settings=Settings(secret=Secret("key", b"k" * 32)))
    known = manager.create().manifest
    manager.store.put(
        f"{manager.database}/{known.id}.manifest.json", dump(replace(known, source_path="/forged"))
    )
    with pytest.raises(VerifyError, match="not authentic"):
        manager.restore(to=brain.with_name("x"))


@pytest.mark.parametrize("text", ["99999999999999999999999999d", "5300w"])
def test_a_length_of_time_that_no_clock_takes_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="too long"):
        duration(text)
    assert duration("36500d") == 36500 * 86400


def test_a_file_whose_name_is_no_utf_8_is_backed_up_like_any_other(tmp_path: Path, url: str) -> None:
    path = make(tmp_path / os.fsdecode(b"by\xff.sqlite"))
    made = BackupManager(path, store=url).create()
    run_json("verify", url)
    run_json("restore", url, tmp_path / os.fsdecode(b"to\xff.sqlite"))
    assert made.manifest.rows == BackupManager(path, store=url).list()[0].rows
    assert (tmp_path / os.fsdecode(b"to\xff.sqlite")).is_file()


def test_a_restore_takes_an_address_as_a_migration_does_and_no_other_store(tmp_path: Path, url: str) -> None:
    run("create", f"sqlite:{make(tmp_path / 'one.sqlite')}", url)
    run("restore", url, f"sqlite:///{tmp_path / 'a%20b.sqlite'}")
    refused = run("restore", url, "postgresql://u:hunter2@h/db", code=2).stderr
    assert "backups are of SQLite files, and postgresql://u:***@h/db is none" in refused
    assert (tmp_path / "a b.sqlite").is_file()
