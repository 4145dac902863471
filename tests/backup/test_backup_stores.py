"""Addresses, presets, names and the folder store."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from backup_contract import CONTRACT
from botocore.stub import Stubber

from migrate.backup.folder import FolderStore
from migrate.backup.names import BackupId, check_database_id, database_id, is_piece, owner_of
from migrate.backup.objectstore import ObjectStore, StaleUpload, open_store, parse_url
from migrate.backup.presets import PRESETS, preset_for
from migrate.backup.s3 import S3Settings, S3Store
from migrate.backup.s3upload import PART_BYTES, part_size
from migrate.errors import ConfigError


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: str(check.__name__))
def test_a_folder_keeps_the_contract(check: Callable[[ObjectStore], None], tmp_path: Path) -> None:
    check(FolderStore(tmp_path / "store"))


def test_a_link_does_not_lead_out_of_a_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("db/a", b"1")
    (tmp_path / "store" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"1")
    for call in (lambda: store.put("out/x", b"1"), lambda: store.delete("out/precious")):
        with pytest.raises(ConfigError, match="out of the store"):
            call()
    assert os.listdir(tmp_path / "elsewhere") == ["precious"]


def test_parts_of_a_dead_writer_are_found_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    living = store.upload("db/a", size_bound=1, labels={})
    dead = tmp_path / "store" / "db" / ".memlift-part-0123456789abcdef-b"
    dead.write_bytes(b"half")
    assert [stale.key for stale in store.stale_uploads("db/")] == ["db/b"]
    store.abort_stale(store.stale_uploads("db/")[0])
    assert not dead.exists()
    living.commit()
    assert [info.key for info in store.objects()] == ["db/a"]


@pytest.mark.parametrize(
    "url",
    ["", "brain.sqlite", "s3://", "s3:///prefix", "s3://key:secret@bucket/p", "file://", "file:///", "file://host/a",
     "http://bucket", "s3://b/p?endpoint=a&endpoint=b", "file:///a?b=c"],
)  # fmt: skip
def test_wrong_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(url)


@pytest.mark.parametrize(
    "options",
    ["endpoint=ftp://x", "endpoint=http://key:secret@x", "secret_key=x", "path_style=maybe", "sse=none",
     "lock_days=-1", "lock_days=1e3", "lock_mode=HARD"],
)  # fmt: skip
def test_wrong_options_are_refused_and_show_no_secret(options: str) -> None:
    with pytest.raises(ConfigError) as refused:
        S3Settings.from_url(parse_url(f"s3://bucket/p?{options}"))
    assert "key:secret" not in str(refused.value)


def test_every_preset_is_found_by_its_endpoint() -> None:
    hosts = {
        "s3.eu-central-1.amazonaws.com": "aws", "abc.r2.cloudflarestorage.com": "r2",
        "s3.us-west-004.backblazeb2.com": "b2", "storage.googleapis.com": "gcs",
        "fra1.digitaloceanspaces.com": "digitalocean", "fsn1.your-objectstorage.com": "hetzner",
        "s3.fr-par.scw.cloud": "scaleway", "s3.wasabisys.com": "wasabi", "s3.filebase.com": "filebase",
        "x.supabase.co": "supabase", "fly.storage.tigris.dev": "tigris", "127.0.0.1": "custom",
        "notamazonaws.com": "custom",
    }  # fmt: skip
    assert {host: preset_for(host).name for host in hosts} == hosts
    assert {preset.name for preset in PRESETS} <= set(hosts.values())
    assert all(preset.why for preset in PRESETS)
    assert preset_for(None).name == "aws"


@pytest.mark.parametrize(
    "host", ["x.r2.cloudflarestorage.com", "127.0.0.1:9000", "s3.us-west-004.backblazeb2.com"]
)
def test_clients_send_no_checksums_of_boto3s_own_and_sign_every_body(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = open_store(f"s3://bucket/p?endpoint=https://{host}")
    assert isinstance(store, S3Store)
    config: Any = store._client.meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"
    assert config.s3 == {"addressing_style": "path", "payload_signing_enabled": True}
    assert store._client.meta.region_name == ("auto" if "r2" in host else "us-east-1")
    assert store.url == f"s3://bucket/p?endpoint=https://{host}"


@pytest.mark.parametrize(("server", "n"), [("MinIO", 1), ("AmazonS3", 0)])
def test_a_dead_upload_is_found_where_a_prefix_has_to_be_a_whole_key(
    server: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = open_store("s3://bucket/p?endpoint=http://127.0.0.1:9")
    assert isinstance(store, S3Store)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    told: dict[str, Any] = {"ResponseMetadata": {"HTTPHeaders": {"server": server}}}
    every = [
        {"Key": key, "UploadId": "u", "Initiated": began} for key in ("p/db/1.gz", "p/other/1.gz", "db/1")
    ]
    with Stubber(store._client) as stub:
        stub.add_response("list_multipart_uploads", told, {"Bucket": "bucket", "Prefix": "p/db/"})
        if n:
            stub.add_response(
                "list_multipart_uploads", {**told, "Uploads": every}, {"Bucket": "bucket", "Prefix": ""}
            )
        assert store.stale_uploads("db/") == [StaleUpload("db/1.gz", "u", began)][:n]
        stub.assert_no_pending_responses()


def test_parts_are_equal_and_at_most_10000() -> None:
    for size in (0, 1, PART_BYTES, 60 << 30, 5 << 40):
        part = part_size(size)
        assert part >= 5 << 20
        assert -(-size // part) <= 10_000


def test_ids_sort_by_sequence_before_time() -> None:
    early, late = BackupId(2, "20000101T000000Z", "00000000"), BackupId(1, "20990101T000000Z", "ffffffff")
    assert late < early
    assert str(late) < str(early)
    assert BackupId.parse(str(early)) == early
    for text in ("", "x", "0000000001-20260101T000000Z-0000000g", "../0000000001-20260101T000000Z-00000000"):
        assert BackupId.parse(text) is None


def test_only_names_of_our_own_making_are_ours() -> None:
    backup = BackupId(1, "20260101T000000Z", "0a0b0c0d")
    for tail in (".sqlite", ".sqlite.gz", ".pages.zst.enc", ".index", ".side3.gz", ".manifest.json"):
        assert owner_of(f"{backup}{tail}") == backup
    for name in (
        f"{backup}.txt",
        f"{backup}.sqlite.gz.bak",
        f"x{backup}.sqlite",
        "AAA-note.txt",
        f"{backup}",
    ):
        assert owner_of(name) is None
    assert not is_piece(f"{backup}.manifest.json", backup)
    assert not is_piece("../x.sqlite", backup)


def test_a_database_is_known_by_its_resolved_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert database_id(tmp_path / "a" / "b.db") == database_id(tmp_path / "link" / "b.db")
    assert database_id(tmp_path / "a" / "b.db") != database_id(tmp_path / "b.db")
    assert check_database_id(database_id(tmp_path / "日本 €.sqlite"))
    for text in ("", "..", "a/b", "-a", "proofs", "a" * 101, "a\n"):
        with pytest.raises(ConfigError):
            check_database_id(text)
