"""Passwords, volumes, versions and strangers, on an engine in memory: nothing lost, nothing shown, nothing taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import NAME, PG16, PG17, QDRANT, FakeEngine, postgres_image, said, store

from migrate.config import mask
from provisioners import saved
from provisioners.engine import Container, Image, PullError, Volume
from provisioners.errors import ProvisionError


def test_a_container_is_safe_by_default(engine: FakeEngine) -> None:
    store(engine).up()
    spec = engine.specs[NAME]
    assert {host for host, _ in spec.ports.values()} == {"127.0.0.1"}
    assert spec.volumes == {"/var/lib/postgresql/data": "memlift-postgres-16"}
    assert spec.memory == 4 * 1024**3
    assert spec.shm > spec.memory // 8
    assert spec.pids > 0
    assert spec.check is not None
    assert "-h" in spec.check
    password = saved.load()[NAME]["password"]
    shown = (spec.env, spec.command, spec.labels, spec.check)
    assert password not in str(shown)
    assert len(password) >= 40


def test_the_password_that_inspect_shows_opens_nothing_after_the_first_start(engine: FakeEngine) -> None:
    store(engine).up()
    entry = saved.load()[NAME]
    assert engine.passwords["memlift-postgres-16"] == entry["password"]
    assert engine.specs[NAME].env["POSTGRES_PASSWORD"] != entry["password"]
    assert "first_password" not in entry


def test_a_crash_before_the_password_was_replaced_is_made_good(engine: FakeEngine) -> None:
    store(engine).up()
    first = engine.specs[NAME].env["POSTGRES_PASSWORD"]
    engine.passwords["memlift-postgres-16"] = first
    saved.put(NAME, saved.load()[NAME] | {"first_password": first})
    endpoint = store(engine).up()
    assert engine.passwords["memlift-postgres-16"] in endpoint.url
    assert endpoint.url == store(engine).up().url


def test_an_image_without_pgvector_leaves_nothing_behind(engine: FakeEngine) -> None:
    engine.vector = None
    engine.registry["postgres:16"] = postgres_image("16")
    with pytest.raises(ProvisionError, match="no pgvector"):
        store(engine, image="postgres:16").up()
    assert (engine.boxes, engine.disks, saved.load()) == ({}, {}, {})


@pytest.mark.parametrize("state", ["running", "exited", "created", "dead"])
def test_a_strangers_container_is_never_touched(engine: FakeEngine, state: str) -> None:
    stranger = Container("their-id", NAME, state, {"app": "theirs"}, "postgres:16")
    engine.boxes[NAME] = stranger
    with pytest.raises(ProvisionError, match="memlift did not make; it stays untouched") as caught:
        store(engine).up()
    assert "--name" in str(caught.value.hint)
    assert store(engine).down(volumes=True) == []
    assert store(engine).stop() is False
    assert (engine.boxes, engine.calls) == ({NAME: stranger}, [])


def test_a_strangers_volume_is_never_touched(engine: FakeEngine) -> None:
    engine.disks["memlift-postgres-16"] = Volume("memlift-postgres-16", {"app": "theirs"})
    with pytest.raises(ProvisionError, match="volume named memlift-postgres-16"):
        store(engine).up()
    assert store(engine).down(volumes=True) == []
    assert engine.disks == {"memlift-postgres-16": Volume("memlift-postgres-16", {"app": "theirs"})}
    assert engine.boxes == {}


def test_a_container_removed_by_hand_is_made_anew_on_its_volume(engine: FakeEngine) -> None:
    first = store(engine).up()
    del engine.boxes[NAME]
    assert store(engine).up() == first


def test_a_volume_of_another_major_is_explained_and_kept(engine: FakeEngine) -> None:
    store(engine).up()
    store(engine).down()
    with pytest.raises(ProvisionError, match="memlift-postgres-16 holds data of postgres 16, which 17"):
        store(engine, version="17").up()
    assert list(engine.disks) == ["memlift-postgres-16"]
    assert engine.boxes == {}
    assert store(engine).up().version == "16.14"


def test_a_running_container_of_another_major_is_explained(engine: FakeEngine) -> None:
    store(engine).up()
    with pytest.raises(ProvisionError, match="holds postgres 16, not 17"):
        store(engine, version="17").up()
    with pytest.raises(ProvisionError, match="holds postgres 16, not 17"):
        store(engine, image=PG17).up()
    assert engine.boxes[NAME].state == "running"


def test_another_image_of_the_same_major_replaces_the_container_on_its_data(engine: FakeEngine) -> None:
    first = store(engine).up()
    engine.registry["mirror/pgvector:0.8.6-pg16"] = postgres_image("16")
    second = store(engine, image="mirror/pgvector:0.8.6-pg16").up()
    assert engine.boxes[NAME].image == "mirror/pgvector:0.8.6-pg16"
    assert second.url == first.url


def test_the_image_of_existing_data_is_used_again(engine: FakeEngine) -> None:
    engine.registry["mirror/pgvector:0.8.6-pg17"] = postgres_image("17")
    store(engine, image="mirror/pgvector:0.8.6-pg17").up()
    store(engine).down()
    store(engine).up()
    assert engine.boxes[NAME].image == "mirror/pgvector:0.8.6-pg17"


def test_qdrant_is_not_downgraded(engine: FakeEngine) -> None:
    store(engine, "qdrant").up()
    engine.registry["qdrant/qdrant:v1.18.2"] = Image("i", None, {}, ())
    with pytest.raises(ProvisionError, match="cannot go back"):
        store(engine, "qdrant", image="qdrant/qdrant:v1.18.2").up()
    assert engine.boxes["memlift-qdrant"].image == QDRANT


def test_a_volume_with_another_password_is_explained_and_kept(engine: FakeEngine, memlift_home: Path) -> None:
    store(engine).up()
    store(engine).down()
    (memlift_home / "vector-store.json").unlink()
    with pytest.raises(ProvisionError, match="volume memlift-postgres-16 was set up with another password"):
        store(engine).up()
    assert list(engine.disks) == ["memlift-postgres-16"]
    assert engine.boxes == {}


def test_a_running_container_with_another_password_is_explained(
    engine: FakeEngine, memlift_home: Path
) -> None:
    store(engine).up()
    (memlift_home / "vector-store.json").unlink()
    with pytest.raises(ProvisionError, match="container memlift-postgres was set up with another password"):
        store(engine).up()
    assert engine.boxes[NAME].state == "running"


def test_a_password_changed_inside_the_server_ends_the_wait_at_once(engine: FakeEngine) -> None:
    store(engine).up()
    engine.passwords["memlift-postgres-16"] = "changed by hand"
    with pytest.raises(ProvisionError, match="password authentication failed"):
        store(engine, ready_timeout=60).up()


def test_a_lost_key_of_stopped_qdrant_data_is_replaced(engine: FakeEngine, memlift_home: Path) -> None:
    first = store(engine, "qdrant").up()
    store(engine, "qdrant").down()
    (memlift_home / "vector-store.json").unlink()
    second = store(engine, "qdrant").up()
    assert first.api_key != second.api_key
    assert list(engine.disks) == ["memlift-qdrant-1"]


def test_qdrants_key_is_in_a_file_and_nowhere_to_be_listed(engine: FakeEngine) -> None:
    endpoint = store(engine, "qdrant").up()
    spec = engine.specs["memlift-qdrant"]
    assert endpoint.api_key is not None
    assert endpoint.api_key not in str((spec.env, spec.command, spec.labels))
    assert endpoint.api_key not in repr(spec)
    assert endpoint.settings() == {
        "type": "qdrant",
        "url": "http://127.0.0.1:6333",
        "api_key": endpoint.api_key,
        "grpc_port": 6334,
    }


def test_a_missing_image_leaves_nothing_behind(engine: FakeEngine) -> None:
    with pytest.raises(PullError):
        store(engine, image="nobody/nothing:pg16").up()
    assert (engine.boxes, engine.disks, saved.load()) == ({}, {}, {})


def test_an_image_that_does_not_tell_its_postgres_is_refused(engine: FakeEngine) -> None:
    engine.registry["my/db:latest"] = Image("i", None, {}, ())
    with pytest.raises(ProvisionError, match="cannot tell which Postgres"):
        store(engine, image="my/db:latest").up()


def test_postgres_18_is_mounted_where_its_image_says(engine: FakeEngine) -> None:
    engine.registry["pgvector/pgvector:0.8.5-pg18"] = postgres_image("18")
    store(engine, version="18").up()
    assert engine.specs[NAME].volumes == {"/var/lib/postgresql": "memlift-postgres-18"}


def test_a_container_that_another_home_made_meanwhile_is_left_to_it(engine: FakeEngine) -> None:
    """The name is taken between our look and our create, by somebody whose password we do not have."""

    def somebody_is_faster() -> None:
        labels = store(engine).labels | {"memlift.secret": "theirs", "memlift.major": "16"}
        engine.boxes[NAME] = Container("their-id", NAME, "running", labels, PG16)

    engine.on_create = somebody_is_faster
    with pytest.raises(ProvisionError, match="another password"):
        store(engine).up()
    assert engine.boxes[NAME].id == "their-id"
    assert f"remove {NAME}" not in engine.calls


def test_down_with_volumes_takes_ours_alone(engine: FakeEngine) -> None:
    store(engine).up()
    store(engine, name="other").up()
    engine.disks["theirs"] = Volume("theirs", {})
    assert store(engine).down(volumes=True) == [NAME, "memlift-postgres-16"]
    assert sorted(engine.disks) == ["other-postgres-16", "theirs"]
    assert list(saved.load()) == ["other-postgres"]


def test_a_store_of_the_same_name_on_another_engine_costs_no_password(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(engine).up()
    store(engine).down()
    here = (engine.boxes, engine.disks, engine.specs, engine.passwords, engine.id)
    engine.boxes, engine.disks, engine.specs, engine.passwords, engine.id = {}, {}, {}, {}, "engine-2"
    second = store(engine).up()
    assert second.url != first.url
    store(engine).down(volumes=True)
    assert "old" in saved.load()[NAME]
    engine.boxes, engine.disks, engine.specs, engine.passwords, engine.id = here
    assert store(engine).up().url == first.url
    store(engine).down(volumes=True)
    assert saved.load() == {}


def test_down_with_volumes_on_the_wrong_engine_forgets_nothing(engine: FakeEngine) -> None:
    first = store(engine).up()
    here = (engine.boxes, engine.disks, engine.id)
    engine.boxes, engine.disks, engine.id = {}, {}, "engine-2"
    assert store(engine).down(volumes=True) == []
    engine.boxes, engine.disks, engine.id = here
    assert store(engine).up() == first


def test_all_that_is_said_is_free_of_secrets(engine: FakeEngine) -> None:
    endpoint = store(engine).up()
    assert [mask(text) for text in said] == said
    assert endpoint.masked == "postgresql://memlift:***@127.0.0.1:5432/memory"
