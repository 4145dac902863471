"""Backups on a real S3-speaking server: the contract, the artefact, the commands."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from backup_cli import run, run_json
from backup_contract import CONTRACT
from backup_data import change, content, is_whole, make

from migrate.backup import BackupManager, Retention
from migrate.backup.objectstore import ObjectStore, open_store
from migrate.backup.s3upload import PART_BYTES
from migrate.errors import BackendError

StoreAt = Callable[..., str]


@pytest.fixture
def client(s3_server: tuple[str, int]) -> Any:
    host, port = s3_server
    made = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    yield made
    made.close()


def prefix_of(url: str) -> str:
    return url.split("/")[3].split("?")[0]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: str(check.__name__))
def test_s3_keeps_the_contract(check: Callable[[ObjectStore], None], store_at: StoreAt) -> None:
    check(open_store(store_at()))


def test_gunzip_and_sqlite_alone_restore_a_backup(tmp_path: Path, store_at: StoreAt, client: Any) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    made = run_json("create", brain, url)
    key = f"{prefix_of(url)}/{made['key']}"
    client.download_file("backups", key, str(tmp_path / "got.sqlite.gz"))
    subprocess.run([shutil.which("gunzip") or "gunzip", tmp_path / "got.sqlite.gz"], check=True)
    assert content(tmp_path / "got.sqlite") == content(brain)
    assert is_whole(tmp_path / "got.sqlite")


def test_every_command_speaks_json(tmp_path: Path, store_at: StoreAt) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    first = run_json("create", brain, url)
    change(brain)
    second = run_json("create", brain, url, "--compression", "zstd")
    listed = run_json("list", url)
    assert [b["id"] for b in listed["backups"]] == [first["id"], second["id"]]
    assert {"id", "time", "size", "kind", "rows", "last_proven"} <= set(listed["backups"][0])
    assert listed["backups"][0]["rows"] == 301
    assert listed["databases"][0]["last_proven"] is None
    proven = run_json("verify", url)
    assert proven["verified"]
    assert proven["id"] == second["id"]
    listed = run_json("list", url)
    assert listed["databases"][0]["last_proven"] == second["id"]
    assert listed["databases"][0]["last_proven_age_s"] < 60
    done = run_json("restore", url, tmp_path / "old.sqlite", "--at", first["id"])
    assert done["id"] == first["id"]
    assert content(tmp_path / "old.sqlite") != content(brain)
    run("restore", url, tmp_path / "old.sqlite", code=2)
    run_json("restore", url, tmp_path / "old.sqlite", "--force")
    assert content(tmp_path / "old.sqlite") == content(brain)
    assert run_json("prune", url, "--keep", 1, "--dry-run")["removed"] == [first["id"]]
    assert run_json("prune", url, "--keep", 1)["removed"] == [first["id"]]
    assert [b["id"] for b in run_json("list", url)["backups"]] == [second["id"]]


def test_a_wrong_bucket_or_address_begins_nothing(tmp_path: Path, store_at: StoreAt) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    missing = run("create", brain, url.replace("//backups/", "//no-such-bucket/"), code=2)
    assert "NoSuchBucket" in missing.stderr
    assert "hint: create the bucket" in missing.stderr
    run("create", tmp_path / "none.sqlite", url, code=2)
    run("restore", url, tmp_path / "x.sqlite", code=2)
    assert not (tmp_path / "x.sqlite").exists()


def test_large_objects_go_in_equal_parts(tmp_path: Path, store_at: StoreAt, client: Any) -> None:
    brain, url = tmp_path / "brain.sqlite", store_at()
    with closing(sqlite3.connect(brain)) as db:
        db.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, embedding BLOB)")
        db.executemany("INSERT INTO memories VALUES (?, randomblob(100000))", ((n,) for n in range(200)))
        db.commit()
    manager = BackupManager(brain, "backups", prefix_of(url), url.split("endpoint=")[1], compression="none")
    made = manager.create()
    key = f"{prefix_of(url)}/{manager.database}/{made.manifest.artefact.name}"
    head = client.head_object(Bucket="backups", Key=key, PartNumber=1)
    assert made.manifest.artefact.size > 3 * PART_BYTES
    assert head["Metadata"]["memlift-database"] == manager.database
    assert client.head_object(Bucket="backups", Key=key)["ETag"].endswith('-4"')
    assert manager.verify().manifest.rows == 200
    assert client.list_multipart_uploads(Bucket="backups").get("Uploads", []) == []


def test_prune_removes_what_a_dead_upload_left_and_only_that(
    tmp_path: Path, store_at: StoreAt, client: Any
) -> None:
    from datetime import timedelta

    from migrate.backup import Settings

    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    manager = BackupManager(brain, store=url, settings=Settings(orphan_age=timedelta(seconds=-5)))
    made = manager.create()
    folder = f"{prefix_of(url)}/{manager.database}"
    dead, foreign = f"{folder}/0000000009-20260101T000000Z-00000000.sqlite.gz", f"{folder}/their-own.gz"
    client.create_multipart_upload(Bucket="backups", Key=dead)
    client.create_multipart_upload(Bucket="backups", Key=foreign)
    labels = {"memlift-database": manager.database, "memlift-backup": "0000000008-20260101T000000Z-00000000"}
    client.put_object(Bucket="backups", Key=dead.replace("0009-", "0008-"), Body=b"half", Metadata=labels)
    client.put_object(
        Bucket="backups", Key=dead.replace("0009-", "0007-"), Body=b"looks like ours, has no label"
    )
    client.put_object(Bucket="backups", Key=foreign, Body=b"theirs")
    pruned = manager.prune(Retention(last=5))
    assert [key.rpartition("/")[2] for key in pruned.orphans] == [
        "0000000008-20260101T000000Z-00000000.sqlite.gz"
    ]
    assert [key.rpartition("/")[2] for key in pruned.uploads] == [
        "0000000009-20260101T000000Z-00000000.sqlite.gz"
    ]
    left = client.list_multipart_uploads(Bucket="backups", Prefix=folder).get("Uploads", [])
    assert [upload["Key"] for upload in left] == [foreign]
    names = [
        item["Key"].rpartition("/")[2]
        for item in client.list_objects_v2(Bucket="backups", Prefix=folder)["Contents"]
    ]
    assert "their-own.gz" in names
    assert "0000000007-20260101T000000Z-00000000.sqlite.gz" in names
    assert [backup.id for backup in manager.list() if backup.problem is None] == [made.id]
    client.abort_multipart_upload(Bucket="backups", Key=foreign, UploadId=left[0]["UploadId"])


def test_server_side_encryption_and_object_lock_are_asked_for(
    tmp_path: Path, s3_server: tuple[str, int], client: Any
) -> None:
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    host, port = s3_server
    url = f"s3://locked/p?endpoint=http://{host}:{port}&sse=AES256&lock_days=2&lock_mode=COMPLIANCE"
    manager = BackupManager(make(tmp_path / "brain.sqlite"), store=url)
    made = manager.create()
    key = f"p/{manager.database}/{made.manifest.artefact.name}"
    head = client.head_object(Bucket="locked", Key=key)
    assert head["ServerSideEncryption"] == "AES256"
    assert head["ObjectLockMode"] == "COMPLIANCE"
    with pytest.raises(client.exceptions.ClientError):
        client.delete_object(Bucket="locked", Key=key, VersionId=head["VersionId"])
    assert manager.verify().manifest.rows == 301


def test_a_sealed_backup_needs_its_key_and_says_so(tmp_path: Path, store_at: StoreAt) -> None:
    brain, url = make(tmp_path / "brain.sqlite"), store_at()
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse battery\n")
    wrong.write_text("incorrect horse battery\n")
    run_json("create", brain, url, "--passphrase-file", right)
    assert run_json("list", url)["backups"][0]["encrypted"]
    assert "sealed" in run("restore", url, tmp_path / "a", code=2).stderr
    assert (
        "another passphrase" in run("restore", url, tmp_path / "a", "--passphrase-file", wrong, code=2).stderr
    )
    assert not (tmp_path / "a").exists()
    run_json("restore", url, tmp_path / "a", "--passphrase-file", right)
    assert content(tmp_path / "a") == content(brain)
    assert run_json("verify", url, "--passphrase-file", right)["verified"]


def test_a_store_error_names_the_place(tmp_path: Path, store_at: StoreAt) -> None:
    store = open_store(store_at())
    with pytest.raises(BackendError) as failed:
        store.get("db/none", max_bytes=1)
    assert failed.value.where["key"] == "db/none"
