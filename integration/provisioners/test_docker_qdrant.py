"""Qdrant's container: the steps of setting it up, on a stand-in that answers as Qdrant does and asks for the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_kit import DockerKit

import provisioners
from provisioners import saved
from provisioners.errors import ProvisionError
from provisioners.ready import RefusedError, ask_qdrant

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_home")]
NAME = "memlift-qdrant"


def up() -> provisioners.Endpoint:
    return provisioners.up("qdrant", "docker", ready_timeout=60)


def test_its_life_with_a_random_key_on_loopback_alone(kit: DockerKit) -> None:
    endpoint = up()
    assert endpoint.version == "1.19.1"
    assert endpoint.grpc_port is not None
    with pytest.raises(RefusedError, match="HTTP 401"):
        ask_qdrant(endpoint.url, None)
    found = kit.client.api.inspect_container(NAME)
    assert endpoint.api_key is not None
    assert endpoint.api_key not in str(found)
    bindings = found["HostConfig"]["PortBindings"]
    assert sorted(bindings) == ["6333/tcp", "6334/tcp"]
    assert {b["HostIp"] for both in bindings.values() for b in both} == {"127.0.0.1"}
    (now,) = provisioners.status("qdrant")
    assert (now.state, now.health, now.rows, now.address) == ("running", "healthy", 7, endpoint.url)
    provisioners.stop("qdrant")
    assert up() == endpoint
    provisioners.down("qdrant")
    again = up()
    assert (again.url, again.api_key) == (endpoint.url, endpoint.api_key)
    code, starts = kit.client.containers.get(NAME).exec_run(["du", "-b", "/qdrant/storage/starts"])
    assert code == 0
    assert isinstance(starts, bytes)
    assert int(starts.split()[0]) >= 3 * len("started\n")
    assert provisioners.down("qdrant", volumes=True, confirm=lambda _: True) == [NAME, "memlift-qdrant-1"]
    assert saved.load() == {}


def test_a_lost_key_gets_a_new_one_and_the_data_stays(kit: DockerKit, docker_home: Path) -> None:
    first = up()
    (docker_home / "vector-store.json").unlink()
    with pytest.raises(ProvisionError, match="set up with another API key") as caught:
        up()
    assert "down qdrant" in str(caught.value.hint)
    kit.client.containers.get(NAME).remove(force=True)
    assert up().api_key != first.api_key


def test_a_qdrant_url_that_answers_401_makes_no_new_database(
    kit: DockerKit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = up().url
    monkeypatch.setenv("QDRANT_URL", url)
    monkeypatch.setenv("QDRANT_API_KEY", "not-the-key")
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "another"))
    before = {c.id for c in kit.client.containers.list(all=True)}
    with pytest.raises(
        ProvisionError, match="QDRANT_URL is set, but does not work: Qdrant refuses the API key"
    ):
        provisioners.auto_setup("qdrant")
    assert {c.id for c in kit.client.containers.list(all=True)} == before
