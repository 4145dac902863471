"""What networks and servers do to a backup on its way, and what is true afterwards."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backup_cli import run
from backup_data import content, make
from fault_proxy import FaultProxy, Rule, Seen, error, flip

from migrate.backup import BackupManager, Settings
from migrate.errors import BackendError, ConfigError, TransientError, VerifyError

StoreAt = Callable[..., str]
DATA = re.compile(r"/\d{10}-[^/?]*\.sqlite")


def is_data(seen: Seen) -> bool:
    return DATA.search(seen.path) is not None


def times(count: int, rule: Rule, when: Callable[[Seen], bool] = lambda seen: True) -> Rule:
    """Apply a rule to the first `count` requests that fit."""
    left = [count]

    def limited(seen: Seen) -> None:
        if left[0] and when(seen):
            left[0] -= 1
            rule(seen)

    return limited


def busy(seen: Seen) -> None:
    seen.answer = (503, error("SlowDown"))


def reset(seen: Seen) -> None:
    seen.reset = True


def test_a_storm_of_503_longer_than_boto3s_patience_is_sat_out(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    manager = BackupManager(make(tmp_path / "brain.sqlite"), store=store_at(proxy.url))
    # boto3 gives up after 3 tries.
    proxy.rules = [times(8, busy, lambda seen: seen.method == "PUT" and is_data(seen))]
    made = manager.create()
    assert sum(method == "PUT" and DATA.search(path) is not None for method, path in proxy.seen) == 9
    proxy.rules = [times(7, busy, lambda seen: seen.method == "GET" and is_data(seen))]
    assert manager.verify().manifest.id == made.manifest.id


def test_a_store_that_stays_away_fails_in_bounded_time_and_leaves_no_half_backup(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain = make(tmp_path / "brain.sqlite")
    manager = BackupManager(brain, store=store_at(proxy.url), settings=Settings(patience_s=1.0))
    proxy.rules = [lambda seen: busy(seen) if seen.method == "PUT" else None]
    with pytest.raises(TransientError, match="SlowDown"):
        manager.create()
    proxy.rules.clear()
    assert manager.list() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_write_of_the_lease_does_not_wait_as_long_as_minio_asks_for(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    store = BackupManager(make(tmp_path / "brain.sqlite"), store=store_at(proxy.url)).store

    def asks(seen: Seen) -> None:
        seen.answer, seen.retry_after = (503, error("SlowDown")), "60"

    proxy.rules = [asks]
    began = time.monotonic()
    with pytest.raises(TransientError, match="SlowDown") as raised:
        store.put("d/lease.json", b"{}", within_s=1.0)
    assert raised.value.retry_after == 60
    assert time.monotonic() - began < 30


def test_a_store_that_is_full_is_told_at_once(tmp_path: Path, store_at: StoreAt, proxy: FaultProxy) -> None:
    manager = BackupManager(make(tmp_path / "brain.sqlite"), store=store_at(proxy.url))

    def full(seen: Seen) -> None:
        if seen.method == "PUT" and is_data(seen):
            seen.answer = (507, error("XMinioStorageFull"))

    proxy.rules = [full]
    with pytest.raises(BackendError, match="XMinioStorageFull") as raised:
        manager.create()
    assert not isinstance(raised.value, TransientError)
    assert "store is full" in str(raised.value.hint)
    assert len([path for method, path in proxy.seen if method == "PUT" and DATA.search(path)]) <= 3


def test_resets_are_survived(tmp_path: Path, store_at: StoreAt, proxy: FaultProxy) -> None:
    manager = BackupManager(make(tmp_path / "brain.sqlite"), store=store_at(proxy.url))
    proxy.rules = [times(2, reset, lambda seen: seen.method == "PUT")]
    manager.create()
    proxy.rules = [times(2, reset, lambda seen: seen.method == "GET")]
    manager.verify()


def test_an_answer_that_is_lost_after_the_server_acted_does_no_harm(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.backup.s3upload.PART_BYTES", 5 << 20)
    brain = make(tmp_path / "brain.sqlite", 30_000)
    manager = BackupManager(brain, store=store_at(proxy.url), compression="none")

    def lose(seen: Seen) -> None:
        seen.lose_answer = True

    completing = times(1, lose, lambda seen: seen.method == "POST" and "uploadId=" in seen.path)
    manifest = times(1, lose, lambda seen: seen.method == "PUT" and seen.path.endswith(".manifest.json"))
    proxy.rules = [completing, manifest]
    made = manager.create()
    assert [backup.id for backup in manager.list()] == [made.id]
    assert manager.verify().manifest.rows == 30_001


def test_a_download_that_is_cut_goes_on_by_range(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain = make(tmp_path / "brain.sqlite", 3_000)
    manager = BackupManager(brain, store=store_at(proxy.url), compression="none")
    made = manager.create()
    starts: list[str] = []

    def cut(seen: Seen) -> None:
        if seen.method == "GET" and is_data(seen):
            starts.append(seen.headers.get("Range", "whole"))
            if len(starts) <= 4:
                seen.cut_answer = 200_000

    proxy.rules = [cut]
    manager.restore(to=tmp_path / "back.sqlite")
    assert content(tmp_path / "back.sqlite") == content(brain)
    offsets = [int(start[6:-1]) for start in starts[1:]]
    assert starts[0] == "whole"
    assert len(offsets) == 4
    # Each goes on where the one before broke off, less the 64 KiB that were being read.
    assert all(
        100_000 < later - earlier <= 200_000 for earlier, later in zip([0, *offsets], offsets, strict=False)
    )
    assert made.manifest.artefact.size > 1_000_000


def test_an_object_that_changes_between_two_ranges_is_not_mixed(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    manager = BackupManager(
        make(tmp_path / "brain.sqlite", 3_000), store=store_at(proxy.url), compression="none"
    )
    made = manager.create()
    key = f"{manager.database}/{made.manifest.artefact.name}"

    def cut_and_replace(seen: Seen) -> None:
        seen.cut_answer = 200_000
        proxy.rules.clear()
        manager.store.put(key, b"x" * made.manifest.artefact.size)

    proxy.rules = [times(1, cut_and_replace, lambda seen: seen.method == "GET" and is_data(seen))]
    with pytest.raises(Exception, match=r"PreconditionFailed|damaged|pre-conditions"):
        manager.restore(to=tmp_path / "back.sqlite")
    assert not (tmp_path / "back.sqlite").exists()


@pytest.mark.parametrize("server_checks", [True, False], ids=["server checks", "server checks nothing"])
def test_100_random_bits_flipped_on_the_way_up_are_all_found(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy, server_checks: bool
) -> None:
    """With Content-MD5 removed the server takes anything, as R2, B2 or a proxy of one's own may."""
    count = 20 if server_checks else 100
    brain, dice = make(tmp_path / "brain.sqlite", 40, wal=False), random.Random(7)
    manager = BackupManager(brain, store=store_at(proxy.url))
    flipped = [0]

    def damage(seen: Seen) -> None:
        if not server_checks:
            seen.headers.pop("Content-MD5", None)

    def once(seen: Seen) -> None:
        flipped[0] += 1
        seen.body = flip(seen.body, dice.randrange(len(seen.body) * 8))

    for number in range(count):
        # Each request with a body takes its turn: the data, then the manifest.
        proxy.rules = [damage, times(1, once, lambda seen, n=number: bool(seen.body) and (  # type: ignore[misc]
            is_data(seen) if n % 4 else seen.path.endswith(".manifest.json")))]  # fmt: skip
        made = manager.create()
        assert flipped[0] == number + 1
        raw, _ = manager.store.get(f"{manager.database}/{made.manifest.artefact.name}", max_bytes=1 << 20)
        assert hashlib.sha256(raw).hexdigest() == made.manifest.artefact.sha256
    backups = manager.list()
    assert len(backups) == count
    assert all(backup.problem is None for backup in backups)
    assert manager.verify().manifest.rows == 41


def test_100_random_bits_flipped_on_the_way_down_are_all_found(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain, dice = make(tmp_path / "brain.sqlite", 40, wal=False), random.Random(8)
    manager = BackupManager(brain, store=store_at(proxy.url))
    manager.create()
    before, target = content(brain), tmp_path / "target.sqlite"
    target.write_bytes(b"precious")
    found = 0

    def damage(seen: Seen) -> None:
        if seen.method == "GET" and is_data(seen):
            seen.change_answer = lambda data: flip(data, bit % (len(data) * 8))

    for _ in range(100):
        bit = dice.randrange(1 << 40)
        proxy.rules = [damage]
        with pytest.raises(VerifyError):  # three times damaged: at rest, as far as one can tell
            manager.restore(to=target)
        found += 1
        assert target.read_bytes() == b"precious"
    assert found == 100
    proxy.rules = [times(1, damage)]
    proxy.rules = [times(2, damage, lambda seen: seen.method == "GET" and is_data(seen))]
    manager.restore(to=tmp_path / "back.sqlite")  # damaged twice on the way, whole at the third try
    assert content(tmp_path / "back.sqlite") == before


def test_a_bit_flipped_at_rest_is_found_by_the_drill(tmp_path: Path, store_at: StoreAt) -> None:
    manager = BackupManager(make(tmp_path / "brain.sqlite", 40), store=store_at())
    made = manager.create()
    key = f"{manager.database}/{made.manifest.artefact.name}"
    raw, _ = manager.store.get(key, max_bytes=1 << 20)
    for bit in (0, len(raw) * 4, len(raw) * 8 - 1):
        manager.store.put(key, flip(raw, bit))
        with pytest.raises(VerifyError):
            manager.verify()
    assert manager.list()[0].last_proven is None


def test_wrong_credentials_fail_at_once_and_say_what_to_do(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at(proxy.url)

    def refuse(seen: Seen) -> None:
        seen.answer = (403, error("SignatureDoesNotMatch"))

    proxy.rules = [refuse]
    done = run("create", brain, url, code=2)
    assert "hint: the secret key is wrong" in done.stderr
    assert len(proxy.seen) == 1
    with pytest.raises(ConfigError):
        BackupManager(brain, store=url).create()
    assert len(proxy.seen) == 2


def test_a_store_that_is_away_at_the_start_begins_nothing(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argparse import ArgumentParser

    from migrate.backup import cli

    brain, url = make(tmp_path / "brain.sqlite"), store_at(proxy.url)
    proxy.rules = [reset]
    monkeypatch.setattr(cli, "_REACH_S", 0.0)
    parser = ArgumentParser()
    cli.register(parser.add_subparsers())
    args = parser.parse_args(["backup", "create", str(brain), url])
    with pytest.raises(ConfigError, match="cannot be reached"):
        args.run(args)


def test_a_store_that_ignores_conditions_is_noticed(
    tmp_path: Path, store_at: StoreAt, proxy: FaultProxy
) -> None:
    manager = BackupManager(make(tmp_path / "brain.sqlite"), store=store_at(proxy.url))

    def ignore(seen: Seen) -> None:
        for name in ("If-None-Match", "If-Match"):
            seen.headers.pop(name, None)

    proxy.rules = [ignore]
    assert not manager.store.conditional_writes()
    proxy.rules.clear()
    assert [info.key for info in manager.store.objects()] == []
