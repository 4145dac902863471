"""Advice on managed services, saved addresses, limits and settings."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from provisioners import pgtuning, remote, saved, services
from provisioners.docker_engine import _pull_error, _split
from provisioners.engine import Image
from provisioners.errors import ProvisionError
from provisioners.files import exclusive, locked, size_of, try_lock
from provisioners.pgtuning import GIB, MIB


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u@db.abc.supabase.co/postgres", ["Supabase", "sslmode=require", "Extensions"]),
        ("postgresql://u@aws-0.pooler.supabase.com:6543/postgres", ["transaction mode", "port 5432"]),
        ("postgresql://u@ep-a-pooler.eu.aws.neon.tech/db", ["Neon", "without -pooler"]),
        ("postgresql://u@x.eu-west-1.rds.amazonaws.com/db", ["rds_superuser", "global-bundle.pem"]),
        ("postgresql://u@x.postgres.database.azure.com/db", ["azure.extensions"]),
    ],
)
def test_managed_postgres_is_known_and_explained(url: str, words: list[str]) -> None:
    advice = "\n".join(remote.advise_postgres(url))
    assert [word for word in words if word not in advice] == []


def test_supabases_session_pooler_and_direct_hosts_need_no_word_on_poolers() -> None:
    for host in ("aws-0.pooler.supabase.com:5432", "db.abc.supabase.co:5432"):
        advice = remote.advise_postgres(f"postgresql://u@{host}/postgres?sslmode=verify-full")
        assert "transaction mode" not in "\n".join(advice)
        assert "falls back" not in "\n".join(advice)


@pytest.mark.parametrize("mode", ["disable", "allow"])
def test_a_managed_service_without_tls_is_refused(mode: str) -> None:
    with pytest.raises(ProvisionError, match="in clear"):
        remote.advise_postgres(f"postgresql://u@x.neon.tech/db?sslmode={mode}")


def test_hosts_that_only_look_managed_are_not() -> None:
    assert remote.advise_postgres("postgresql://u@neon.tech.example.org/db") == []
    assert remote.advise_postgres("postgresql://u@localhost/db?sslmode=disable") == []


def test_qdrant_cloud_needs_https_and_a_key() -> None:
    with pytest.raises(ProvisionError, match="https only"):
        remote.advise_qdrant("http://x.eu.cloud.qdrant.io:6333", "k")
    with pytest.raises(ProvisionError, match="needs an API key"):
        remote.advise_qdrant("https://x.eu.cloud.qdrant.io:6333", None)
    assert remote.advise_qdrant("https://x.eu.cloud.qdrant.io:6333", "k")
    assert "readable" in remote.advise_qdrant("http://box:6333", "k")[0]
    assert remote.advise_qdrant("http://localhost:6333", "k") == []


def test_saved_addresses_are_private_and_whole(memlift_home: Path) -> None:
    threads = [
        threading.Thread(target=saved.put, args=(f"s{n}", {"kind": "postgres", "how": "docker"}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(saved.load()) == [f"s{n}" for n in range(8)]
    assert stat.S_IMODE(saved.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(memlift_home.stat().st_mode) == 0o700
    assert [p.name for p in memlift_home.iterdir() if not p.name.endswith(".lock")] == ["vector-store.json"]
    saved.put("s1", {"folder": "p\udcff"})  # a name that is no UTF-8, as Python has it
    assert saved.load()["s1"]["folder"] == "p\udcff"
    saved.forget("s0")
    saved.forget("s0")
    assert saved.get("s0") is None


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": 99, "stores": {}})])
def test_a_damaged_or_newer_file_is_never_overwritten(memlift_home: Path, text: str) -> None:
    memlift_home.mkdir(parents=True)
    saved.path().write_text(text)
    with pytest.raises(ProvisionError):
        saved.put("x", {})
    assert saved.path().read_text() == text


def test_a_lock_ends_with_its_holder_and_excludes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not locked(path)
    with exclusive(path, timeout=1, what="x"):
        assert locked(path)
        assert try_lock(path) is None
        with pytest.raises(ProvisionError, match="busy with x"), exclusive(path, timeout=0.1, what="x"):
            pytest.fail("two holders")
    assert not locked(path)


def test_sizes_count_what_is_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert 8192 <= size_of(tmp_path) <= 20_480


@pytest.mark.parametrize(
    ("memory", "disk", "shm"), [(256 * MIB, GIB, 0), (GIB, 5 * GIB, 64 * MIB), (64 * GIB, 2**41, 32 * GIB)]
)
def test_settings_stay_within_the_machine_and_keep_data_safe(memory: int, disk: int, shm: int) -> None:
    found = pgtuning.settings(port=1, memory=memory, free_disk=disk, shm=shm, cpus=2)
    assert int(found["shared_buffers"][:-2]) * MIB <= memory // 4
    assert int(found["maintenance_work_mem"][:-2]) * MIB <= memory // 4
    assert int(found["max_wal_size"][:-2]) * MIB <= max(disk // 4, 256 * MIB)
    assert found["dynamic_shared_memory_type"] == ("posix" if shm > 3 * GIB else "mmap")
    assert not {"fsync", "full_page_writes", "synchronous_commit"} & set(found)


def test_configuration_values_are_quoted() -> None:
    assert "a = 'it''s'" in pgtuning.as_conf({"a": "it's"})


def test_limits_leave_room_for_parallel_index_builds() -> None:
    limits = services.limits_for(services.POSTGRES, 8 * GIB, None)
    command = services.command_for(services.POSTGRES, limits)
    (maintenance,) = [int(c.split("=")[1][:-2]) for c in command if c.startswith("maintenance_work_mem=")]
    assert limits.shm > maintenance * MIB
    assert limits.memory == 4 * GIB
    assert services.limits_for(services.POSTGRES, 8 * GIB, GIB).memory == GIB


def test_images_are_pinned() -> None:
    for service in services.SERVICES.values():
        for image in service.images.values():
            assert image.count(":") == 1
            assert "latest" not in image
            assert any(c.isdigit() for c in image.split(":")[1])


@pytest.mark.parametrize(
    ("reference", "env", "major"),
    [
        ("x:latest", {"PG_MAJOR": "17"}, "17"),
        ("pgvector/pgvector:pg16", {}, "16"),
        ("pgvector/pgvector:0.8.5-pg17-bookworm", {}, "17"),
        ("localhost:5000/postgres:18", {}, "18"),
    ],
)
def test_the_major_version_of_an_image_is_known(reference: str, env: dict[str, str], major: str) -> None:
    assert services.major_of(services.POSTGRES, Image("i", None, env, ()), reference) == major


def test_a_volume_goes_where_the_image_keeps_its_data() -> None:
    for declared, wanted in [
        (("/var/lib/postgresql/data",), "/var/lib/postgresql/data"),
        (("/var/lib/postgresql",), "/var/lib/postgresql"),
        ((), "/var/lib/postgresql/data"),
        (("/elsewhere",), "/var/lib/postgresql/data"),
    ]:
        assert services.data_folder(services.POSTGRES, Image("i", None, {}, declared)) == wanted


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        ("postgres", ("postgres", "latest")),
        ("a/b:1", ("a/b", "1")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a/b:1", ("localhost:5000/a/b", "1")),
        ("a/b:1@sha256:ff", ("a/b", "sha256:ff")),
        ("localhost:5000/a@sha256:ff", ("localhost:5000/a", "sha256:ff")),
    ],
)
def test_names_of_images_are_cut_right(reference: str, wanted: tuple[str, str]) -> None:
    assert _split(reference) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("toomanyrequests: You have reached your pull rate limit", "limits how often"),
        ("no matching manifest for linux/arm64/v8", "processor"),
        ("manifest for x:1 not found: manifest unknown", "no such image"),
        ("pull access denied for x, repository does not exist", "no such image"),
        ("unauthorized: authentication required", "refuses"),
        ("write /var/lib/docker/tmp: no space left on device", "disk is full"),
        ("Get https://r/v2/: dial tcp: lookup r: no such host", "cannot be reached"),
    ],
)
def test_failed_pulls_are_told_apart(text: str, words: str) -> None:
    assert words in _pull_error("x:1", text).message
