"""The service: one owner, no overlap, no pile-up, a clean stop; many backups; a writer; a full disk."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backup_cli import command, run, run_json
from backup_data import change, content, files, is_whole, make
from fault_proxy import FaultProxy, Seen, error

from migrate.backup import BackupManager, Retention, catalog
from migrate.backup.manifest import dump
from migrate.backup.names import BackupId
from migrate.backup.patience import parallel
from migrate.backup.service import Service, ServiceSettings

StoreAt = Callable[..., str]


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@contextmanager
def daemon(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("run", *arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_service_keeps_to_its_schedule_and_stops_cleanly(tmp_path: Path, store_at: StoreAt) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    beats: list[str] = []

    class Beat(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            beats.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Beat) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        with http.server.HTTPServer(("127.0.0.1", 0), Beat) as free:
            port = free.server_address[1]
        heartbeat = f"http://127.0.0.1:{listener.server_address[1]}/ping?a=1"
        options = ["--interval", "0.5s", "--keep", 2, "--verify-every", "1h", "--heartbeat", heartbeat]
        with daemon(brain, url, *options, "--metrics", f"127.0.0.1:{port}", "--json") as process:
            wait_for(lambda: len(beats) >= 3)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                metrics = answer.read().decode()
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            printed, messages = process.communicate(timeout=20)
            assert time.monotonic() - asked < 5
            assert process.returncode == 0, messages
            assert json.loads(printed)["clean"] is True
        listener.shutdown()
    assert set(beats) == {"/ping?a=1"}
    for name in (
        "age_seconds",
        "size_bytes",
        "duration_seconds",
        "last_drill_age_seconds",
        "proven_age_seconds",
    ):
        assert f"memlift_backup_{name}{{" in metrics
    assert 'result="failure"} 0' in metrics
    assert len(run_json("list", url)["backups"]) == 2


def test_two_daemons_at_once_have_one_owner_and_a_stopped_one_is_succeeded(
    tmp_path: Path, store_at: StoreAt
) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    made: dict[str, list[str]] = {"a": [], "b": []}

    def service(name: str) -> Service:
        manager = BackupManager(brain, store=url, on_success=lambda created: made[name].append(created.id))
        one = Service(manager, ServiceSettings(interval_s=0.2, lease_ttl_s=40.0))
        one.start()
        return one

    both = {name: service(name) for name in made}
    wait_for(lambda: len(made["a"]) + len(made["b"]) >= 5)
    owner, other = ("a", "b") if made["a"] else ("b", "a")
    assert made[other] == []
    assert both[owner].metrics.owner
    assert not both[other].metrics.owner
    assert both[owner].stop()  # releases the lease, which the other looks for every 4 s
    wait_for(lambda: len(made[other]) >= 2, 20)
    assert both[other].stop()
    ids = [backup.id for backup in BackupManager(brain, store=url).list()]
    assert set(ids) == {*made["a"], *made["b"]}


def test_a_killed_daemon_process_is_succeeded(tmp_path: Path, store_at: StoreAt) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    with daemon(brain, url, "--interval", "0.3s") as process:
        manager = BackupManager(brain, store=url)
        wait_for(lambda: len(manager.list()) >= 1)
        process.kill()
        process.wait()
    made: list[str] = []
    manager = BackupManager(brain, store=url, on_success=lambda created: made.append(created.id))
    heir = Service(manager, ServiceSettings(interval_s=0.3, lease_ttl_s=1.5))
    heir.start()
    wait_for(lambda: bool(made), 15)
    assert heir.stop()


def test_after_an_outage_there_is_one_backup_and_no_pile_up(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at(proxy.url)
    made: list[float] = []
    failed: list[Exception] = []
    from migrate.backup import Settings

    manager = BackupManager(
        brain, store=url, settings=Settings(patience_s=0.2),
        on_success=lambda created: made.append(time.monotonic()), on_error=failed.append,
    )  # fmt: skip
    service = Service(manager, ServiceSettings(interval_s=0.5, lease_ttl_s=60, backoff_s=0.1))
    service.start()
    wait_for(lambda: len(made) >= 2)

    def away(seen: Seen) -> None:
        seen.answer = (503, error("ServiceUnavailable"))

    proxy.rules = [away]
    wait_for(lambda: len(failed) >= 2)
    time.sleep(1.0)
    before = len(made)
    assert service.metrics.results["failure"] >= 2
    assert (service.metrics.age("backup") or 0) > 0.8  # the age rises
    proxy.rules = []
    back = time.monotonic()
    wait_for(lambda: len(made) >= before + 3)
    assert service.stop()
    later = [at - back for at in made[before:]]
    # Three intervals and more were missed; they are not caught up with.
    assert all(b - a > 0.4 for a, b in itertools.pairwise(later))


def test_a_stop_in_the_middle_of_an_upload_leaves_no_half_backup(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at(proxy.url)
    held, release = threading.Event(), threading.Event()

    def hold(seen: Seen) -> None:
        if seen.method == "PUT" and ".sqlite" in seen.path:
            held.set()
            release.wait(20)

    proxy.rules = [hold]
    with daemon(brain, url, "--interval", "1h") as process:
        assert held.wait(20)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        process.wait(timeout=20)
        assert time.monotonic() - asked < 8
        assert process.returncode == 143
    release.set()
    proxy.rules = []
    assert BackupManager(brain, store=url).list() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_create_cleans_up_and_says_so(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy, number: signal.Signals, code: int
) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at(proxy.url)
    held, release = threading.Event(), threading.Event()

    def hold(seen: Seen) -> None:
        if seen.method == "PUT" and ".sqlite" in seen.path:
            held.set()
            release.wait(20)

    proxy.rules = [hold]
    process = subprocess.Popen(command("create", brain, url), stderr=subprocess.PIPE, text=True)
    try:
        assert held.wait(20)
        process.send_signal(number)
        _, messages = process.communicate(timeout=10)
    finally:
        release.set()
        process.kill()
        process.communicate()
    assert process.returncode == code, messages
    assert "interrupted" in messages
    assert files(tmp_path / "scratch") == []
    proxy.rules = []
    assert BackupManager(brain, store=url).list() == []


def test_over_1000_backups_are_all_listed_and_foreign_objects_stay(
    tmp_path: Path, store_at: StoreAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain, url = make(tmp_path / "brain.sqlite", 5), store_at()
    manager = BackupManager(brain, store=url)
    other = BackupManager(make(tmp_path / "other.sqlite", 5), store=url).create()
    first = manager.create().manifest
    body, _ = manager.store.get(f"{manager.database}/{first.artefact.name}", max_bytes=1 << 20)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def copy(number: int) -> None:
        from dataclasses import replace

        # The clock jumps about: every seventh backup says it is of years ago.
        moment = start + timedelta(hours=number, days=-3650 if number % 7 == 0 else 0)
        backup = BackupId(number, moment.strftime("%Y%m%dT%H%M%SZ"), f"{number:08x}")
        piece = replace(first.artefact, name=f"{backup}.sqlite.gz")
        manifest = replace(first, id=backup, base=backup, time=moment, artefact=piece)
        manager.store.put(f"{manager.database}/{piece.name}", body)
        manager.store.put(f"{manager.database}/{backup}.manifest.json", dump(manifest))

    parallel(copy, list(range(2, 1052)), workers=4)
    foreign = [
        f"{manager.database}/AAA-note.txt",
        "backup-other-db.json",
        f"{manager.database}/zzz.manifest.json",
    ]
    for key in foreign:
        manager.store.put(key, b"{}")
    looked_at: list[str] = []
    owner_of = catalog.owner_of
    monkeypatch.setattr(catalog, "owner_of", lambda name: (looked_at.append(name), owner_of(name))[1])
    assert len(manager.list()) == 1051
    assert len(looked_at) < 5 * 1051, "each object is looked at, not each with each"
    newest = manager.create()
    assert newest.manifest.id.sequence == 1052
    pruned = manager.prune(Retention(last=1001))
    sequences = [BackupId.parse(kept).sequence for kept in pruned.kept]  # type: ignore[union-attr]
    assert sequences == list(range(52, 1053))
    assert len(pruned.removed) == 51
    keys = {info.key for info in manager.store.objects()}
    assert set(foreign) <= keys
    assert f"{other.manifest.database}/{other.manifest.artefact.name}" in keys
    assert len(keys) == 1001 * 2 + len(foreign) + 2
    assert manager.verify().manifest.id == newest.manifest.id


def test_a_writer_goes_on_throughout_and_every_backup_is_one_moment(
    tmp_path: Path, store_at: StoreAt
) -> None:
    brain, url = make(tmp_path / "brain.sqlite", 3_000), store_at()
    with closing(sqlite3.connect(brain)) as db:
        db.execute("CREATE TABLE pair (a INTEGER, b INTEGER)")
        db.execute("INSERT INTO pair VALUES (0, 0)")
        db.commit()
    script = (
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    db.execute('BEGIN IMMEDIATE')\n"
        "    db.execute('UPDATE pair SET a = ?', (n,))\n"
        "    db.execute('INSERT INTO memories (text) VALUES (?)', ('x' * 200,))\n"
        "    db.execute('UPDATE pair SET b = ?', (n,))\n"
        "    db.execute('COMMIT')\n"
        "    time.sleep(0.005)\n"
    )
    manager = BackupManager(brain, store=url, mode="incremental")
    writer = subprocess.Popen([sys.executable, "-c", script, str(brain)])
    try:
        wait_for(lambda: _pair(brain)[0] > 3)
        made = [manager.create() for _ in range(6)]
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    seen = []
    for number, one in enumerate(made):
        target = tmp_path / f"restored{number}.sqlite"
        manager.restore(one.id, to=target)
        assert is_whole(target)
        a, b, rows = _pair(target)
        assert a == b
        assert rows == 3_000 + a
        seen.append(a)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    assert {one.manifest.kind for one in made} == {"full", "incremental"}


def _pair(path: Path) -> tuple[int, int, int]:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        a, b = db.execute("SELECT a, b FROM pair").fetchone()
        return a, b, db.execute("SELECT count(*) FROM memories").fetchone()[0]


def test_a_full_disk_fails_with_a_clear_error_and_harms_nothing(tmp_path: Path, store_at: StoreAt) -> None:
    """The process may write no file beyond 300 kB: the copy and the restored file break off in the middle."""
    brain, url = make(tmp_path / "brain.sqlite", 3_000), store_at()
    good = run_json("create", brain, url)["id"]
    target = make(tmp_path / "target.sqlite", 5)
    before = content(target)
    for arguments in (("create", brain, url), ("restore", url, target, "--force"), ("verify", url)):
        line = ["bash", "-c", 'ulimit -f 300; exec "$@"', "limited", *command(*arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
        assert done.returncode == 1, done.stderr
        assert "hint: make room" in done.stderr
        assert [backup["id"] for backup in run_json("list", url)["backups"]] == [good]
        assert content(target) == before
        assert files(tmp_path / "scratch") == []
        assert not list(tmp_path.glob(".target*"))
    run("create", brain, url)


@pytest.mark.parametrize("days", [-365, -1, 1, 365])
def test_a_clock_that_jumps_neither_hides_nor_overwrites_a_backup(
    tmp_path: Path, store_at: StoreAt, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    brain, manager = make(tmp_path / "brain.sqlite", 5), None
    manager = BackupManager(brain, store=store_at())
    first = manager.create()
    from migrate.backup import manager as module

    jumped = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(module, "utc_now", lambda: jumped)
    change(brain, count=1)
    second, third = manager.create(), manager.create()  # two in one second
    assert [backup.id for backup in manager.list()] == [first.id, second.id, third.id]
    assert manager.prune(Retention(last=1)).kept == [third.id]
    manager.restore(to=tmp_path / "back.sqlite")
    assert content(tmp_path / "back.sqlite") == content(brain)
