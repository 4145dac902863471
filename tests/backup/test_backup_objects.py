"""What an object goes through: compression, sealing, pages, manifests; and what a hostile store puts there."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from backup_data import change, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrate.backup import BackupManager, codecs, manifest, pages
from migrate.backup.manifest import Manifest, dump, load
from migrate.backup.names import BackupId
from migrate.backup.sealing import Keyring, Sealer, Secret, unseal
from migrate.errors import ConfigError, MigrateError, VerifyError

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("name", ["gzip", "zstd", "none"])
@FEW
@given(data=st.binary(max_size=5000), size=st.integers(1, 700))
def test_what_is_compressed_expands_again(name: str, data: bytes, size: int) -> None:
    engine = codecs.compressor(name)
    packed = b"".join(engine.compress(piece) for piece in pieces(data, size)) + engine.flush()
    assert b"".join(codecs.decompress(name, pieces(packed, size))) == data
    if name == "gzip":
        assert gzip.decompress(packed) == data


def test_gzip_that_is_cut_or_has_a_tail_is_damaged() -> None:
    packed = gzip.compress(b"memory" * 1000)
    for wrong in (packed[:-1], packed + b"x", packed[:10], b"", b"no gzip", packed + packed):
        with pytest.raises(VerifyError):
            b"".join(codecs.decompress("gzip", pieces(wrong, 100)))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_bomb_expands_in_small_pieces(name: str) -> None:
    plain = bytes(50 << 20)
    bomb = gzip.compress(plain) if name == "gzip" else zstandard.ZstdCompressor().compress(plain)
    total = 0
    for piece in codecs.decompress(name, iter([bomb])):
        assert len(piece) <= codecs.CHUNK
        total += len(piece)
    assert total == len(plain)


def test_a_zstd_frame_that_wants_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(200 << 20))
    with pytest.raises(VerifyError):
        for _ in codecs.decompress("zstd", iter([frame])):
            pass


KEY = Secret("key", bytes(32))


def seal(data: bytes, name: str = "a", secret: Secret = KEY) -> tuple[bytes, bytes]:
    keyring = Keyring(secret)
    master = keyring.master(keyring.new_params())
    sealer = Sealer(master, name)
    return sealer.update(data) + sealer.finish(), master


@FEW
@given(size=st.sampled_from([0, 1, 65535, 65536, 65537, 131072, 200000]), step=st.integers(1, 100_000))
def test_what_is_sealed_opens_again(size: int, step: int) -> None:
    data = random.Random(size).randbytes(size)
    sealed, master = seal(data)
    assert b"".join(unseal(master, "a", pieces(sealed, step))) == data


def test_nothing_of_a_sealed_object_can_be_changed_cut_moved_or_renamed() -> None:
    data = random.Random(1).randbytes(150_000)
    sealed, master = seal(data)
    head, chunk = 24, (64 << 10) + 16
    first, second = sealed[head : head + chunk], sealed[head + chunk : head + 2 * chunk]
    dice = random.Random(2)
    wrong = [sealed[: head + chunk], sealed[: head + 2 * chunk], sealed[:-1], sealed + b"x", b"", sealed[:20]]
    wrong += [sealed[:head] + second + first + sealed[head + 2 * chunk :]]  # moved
    wrong += [sealed[:head] + first + first + sealed[head + 2 * chunk :]]  # doubled
    for _ in range(100):
        bit = dice.randrange(len(sealed) * 8)
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        wrong.append(bytes(flipped))
    for changed in wrong:
        with pytest.raises(VerifyError):
            b"".join(unseal(master, "a", pieces(changed, 50_000)))
    with pytest.raises(VerifyError):
        b"".join(unseal(master, "b", iter([sealed])))
    with pytest.raises(VerifyError):
        b"".join(unseal(bytes(32), "a", iter([sealed])))


def test_keys_are_never_weak_and_never_shown(tmp_path: Path) -> None:
    for text in ("", "short"):
        with pytest.raises(ConfigError):
            Secret.passphrase(text)
    (tmp_path / "key").write_bytes(b"x" * 31)
    with pytest.raises(ConfigError, match="31 bytes"):
        Secret.from_key_file(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot read"):
        Secret.from_key_file(tmp_path / "none")
    assert "correct" not in repr(Secret.passphrase("correct horse"))
    one, two = Keyring(KEY), Keyring(Secret("key", b"2" * 32))
    with pytest.raises(ConfigError, match="another passphrase or key"):
        two.master(one.new_params())
    with pytest.raises(VerifyError):  # a store may not choose cheaper parameters, nor dearer ones
        Keyring(KEY).master(
            {"scheme": "AES-256-GCM-64K", "kdf": "scrypt", "salt": "00" * 16, "n": 2, "r": 8, "p": 1}
        )


@FEW
@given(
    old=st.lists(st.integers(0, 5), max_size=40),
    new=st.lists(st.integers(0, 5), max_size=40),
    tail=st.integers(0, 4095),
)
def test_changed_blocks_turn_any_file_into_any_other(
    tmp_path: Path, old: list[int], new: list[int], tail: int
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"".join(bytes([n]) * 4096 for n in old))
    b.write_bytes(b"".join(bytes([n]) * 4096 for n in new) + b"t" * tail)
    pages.index_and_compare(a, tmp_path / "ia", None)
    difference = pages.index_and_compare(b, tmp_path / "ib", tmp_path / "ia")
    stream = b"".join(pages.delta(b, difference))
    for _ in range(2):  # twice is once
        pages.apply(pieces(stream, 1000), a, size=b.stat().st_size)
        assert a.read_bytes() == b.read_bytes()
    blocks = -(-b.stat().st_size // 4096)
    pages.lay_over(pages.delta_index(tmp_path / "ib", difference), tmp_path / "ia", blocks=blocks)
    assert (tmp_path / "ia").read_bytes() == (tmp_path / "ib").read_bytes()


def test_a_hostile_stream_of_pages_writes_nothing_outside(tmp_path: Path) -> None:
    file = tmp_path / "a"
    head = b"MLPAGES1" + (8192).to_bytes(8, "big")

    def run(first: int, count: int) -> bytes:
        return first.to_bytes(8, "big") + count.to_bytes(8, "big")

    for stream in (b"", b"MLPAGES2", head, head + run(2, 1) + bytes(4096), head + run(0, 1 << 40), head + run(0, 1),
                   head + run(1 << 60, 1) + bytes(4096), head + run(0, 0) + b"x", head[:8] + bytes(8) + run(0, 0)):  # fmt: skip
        file.write_bytes(bytes(8192))
        with pytest.raises(VerifyError):
            pages.apply(iter([stream]), file, size=8192)
        assert file.stat().st_size <= 8192


@pytest.fixture
def made(tmp_path: Path, url: str) -> tuple[BackupManager, Manifest, bytes]:
    manager = BackupManager(make(tmp_path / "m.sqlite", 20), store=url)
    known = manager.create().manifest
    raw, _ = manager.store.get(f"{manager.database}/{known.id}.manifest.json", max_bytes=1 << 20)
    return manager, known, raw


def test_a_manifest_comes_back_as_it_was_written(made: tuple[BackupManager, Manifest, bytes]) -> None:
    manager, known, raw = made
    assert load(raw, database=manager.database, backup=known.id) == known


def test_every_flipped_bit_of_a_manifest_is_found(made: tuple[BackupManager, Manifest, bytes]) -> None:
    manager, known, raw = made
    dice = random.Random(4)
    for bit in dice.sample(range(len(raw) * 8), 400):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = load(bytes(changed), database=manager.database, backup=known.id)
        except VerifyError:
            continue
        assert found == known  # white space, or the case of an escape: it says the same


def rewrite(raw: bytes, **changes: object) -> bytes:
    """Change a manifest as someone who knows how to compute its hash."""
    import hashlib

    body = json.loads(raw)["manifest"]
    for path, value in changes.items():
        place = body
        *parents, last = path.split("__")
        for name in parents:
            place = place[name]
        place[last] = value
    return json.dumps(
        {"manifest": body, "sha256": hashlib.sha256(manifest._canonical(body)).hexdigest()}
    ).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"artefact__name": "../../etc/passwd"}, {"artefact__name": "/etc/passwd"},
        {"artefact__name": "0000000001-20260101T000000Z-00000000.sqlite.gz"}, {"artefact__size": -1},
        {"artefact__size": 1 << 60}, {"artefact__size": True}, {"artefact__size": 1.5}, {"artefact__sha256": "x"},
        {"artefact__compression": "lzma"}, {"artefact__sealed": True}, {"artefact": None}, {"artefact": []},
        {"database": "other"}, {"id": "0000000009-20260101T000000Z-00000000"}, {"kind": "incremental"},
        {"kind": "other"}, {"version": 2}, {"format": "other"}, {"parent": "0000000000-20260101T000000Z-00000000"},
        {"time": "2026-01-01T00:00:00"}, {"time": "yesterday"}, {"time": None}, {"tables": []},
        {"tables": {"t": -1}}, {"tables": {"t": "1"}}, {"size": 1}, {"encryption": "none"}, {"encryption": {}},
        {"sidecars": [{"base": "name", "suffix": "/../../x", "piece": {}}]},
        {"sidecars": [{"base": "name", "suffix": "..", "piece": {}}]}, {"sidecars": 3}, {"sha256": "0" * 63},
        {"base": "0000000000-20260101T000000Z-00000000"}, {"notes": [1]}, {"chain": -1}, {"source_path": 3},
    ],
    ids=lambda changes: str(changes)[:60],
)  # fmt: skip
def test_wrong_manifests_are_refused_and_listed_as_damaged(
    made: tuple[BackupManager, Manifest, bytes], changes: dict[str, object], tmp_path: Path
) -> None:
    manager, known, raw = made
    wrong = rewrite(raw, **changes)
    with pytest.raises(VerifyError):
        load(wrong, database=manager.database, backup=known.id)
    manager.store.put(f"{manager.database}/{known.id}.manifest.json", wrong)
    (listed,) = BackupManager(manager.path, store=manager.store).list()
    assert listed.problem
    with pytest.raises(MigrateError):
        manager.restore(to=tmp_path / "x.sqlite")
    assert not (tmp_path / "x.sqlite").exists()


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"manifest": 1, "sha256": 2}', b'{"a": NaN}'],
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(VerifyError):
        load(raw, database="d", backup=BackupId(1, "20260101T000000Z", "00000000"))


def test_a_manifest_that_is_too_clever_about_its_contents_is_found_by_the_drill(
    made: tuple[BackupManager, Manifest, bytes],
) -> None:
    manager, known, _ = made
    for lie in (
        replace(known, tables={**known.tables, "memories": 19}),
        replace(known, schema_sha256="0" * 64),
        replace(known, sha256="0" * 64),
        replace(known, artefact=replace(known.artefact, raw_sha256="0" * 64)),
        replace(known, artefact=replace(known.artefact, sha256="0" * 64)),
    ):
        manager.store.put(f"{manager.database}/{known.id}.manifest.json", dump(lie))
        with pytest.raises(VerifyError):
            BackupManager(manager.path, store=manager.store).verify()


def test_objects_that_are_exchanged_between_backups_are_found(tmp_path: Path, url: str) -> None:
    manager = BackupManager(make(tmp_path / "m.sqlite", 20), store=url)
    one = manager.create().manifest
    change(manager.path)
    two = manager.create().manifest
    raw, _ = manager.store.get(f"{manager.database}/{one.artefact.name}", max_bytes=1 << 20)
    manager.store.put(f"{manager.database}/{two.artefact.name}", raw)
    with pytest.raises(VerifyError):
        manager.verify()
    manager.store.delete(f"{manager.database}/{two.artefact.name}")
    assert [backup.problem for backup in manager.list()] == [None, f"{two.artefact.name} is missing"]
    assert manager.verify().manifest == one  # the newest that can be restored
