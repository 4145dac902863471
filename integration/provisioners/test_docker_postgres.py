"""Postgres in a real container, pulled by its real name from a registry of our own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from docker_kit import DockerKit

import provisioners
from provisioners import saved
from provisioners.engine import EngineError, PullError
from provisioners.errors import ProvisionError

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
NAME = "memlift-postgres"
PG16 = "pgvector/pgvector:0.8.5-pg16"
PG18 = "pgvector/pgvector:0.8.5-pg18"
said: list[str] = []


@pytest.fixture(autouse=True)
def quiet(docker_home: Path) -> None:
    said.clear()


def up(**options: Any) -> provisioners.Endpoint:
    return provisioners.up("postgres", "docker", said.append, ready_timeout=60, **options)


def fill(url: str, rows: int = 2000) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE chunk (id int PRIMARY KEY, e vector(8))")
        conn.execute(
            "INSERT INTO chunk SELECT g, array_fill(g::real, ARRAY[8])::vector FROM generate_series(1, %s) g",
            (rows,),
        )


def build_index_in_parallel(url: str) -> None:
    """Needs more shared memory than the 64 MB that an engine gives by default."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET min_parallel_table_scan_size = 0")
        conn.execute("SET max_parallel_maintenance_workers = 2")
        conn.execute("SET maintenance_work_mem = '256MB'")
        conn.execute("ALTER TABLE chunk SET (parallel_workers = 2)")
        conn.execute("CREATE INDEX ON chunk USING hnsw (e vector_l2_ops)")


def count(url: str) -> int:
    with psycopg.connect(url) as conn:
        found = conn.execute("SELECT count(*), count(DISTINCT e::text) FROM chunk").fetchone()
    assert found is not None
    assert found[0] == found[1]
    return int(found[0])


def inspect(kit: DockerKit, name: str = NAME) -> dict[str, object]:
    found: dict[str, object] = kit.client.api.inspect_container(name)
    return found


def test_the_whole_life_of_a_store_keeps_every_row(kit: DockerKit) -> None:
    if kit.client.images.list(PG16):
        kit.client.images.remove(PG16, force=True)
    endpoint = up()
    assert [text.split("]")[0] + "]" for text in said if text.startswith("[")] == [
        "[1/7]", "[3/7]", "[3/7]", "[4/7]", "[5/7]", "[5/7]", "[5/7]", "[6/7]", "[7/7]"
    ]  # fmt: skip
    assert endpoint.version == "16.14"
    assert endpoint.extension == "0.8.5"
    assert str(endpoint.details["digest"]).startswith("sha256:")
    url = endpoint.url
    fill(url)
    build_index_in_parallel(url)

    with psycopg.connect(url):  # an open client does not hold up a stop
        begun = time.monotonic()
        assert provisioners.stop() == [NAME]
        assert time.monotonic() - begun < 20
    assert kit.client.containers.get(NAME).attrs["State"]["ExitCode"] == 0
    assert up().url == url
    assert count(url) == 2000

    kit.client.containers.get(NAME).kill("SIGKILL")
    kit.client.containers.get(NAME).wait()
    assert up().url == url
    assert count(url) == 2000

    kit.client.containers.get(NAME).pause()
    assert up().url == url
    assert count(url) == 2000

    assert provisioners.down() == [NAME]
    assert up().url == url
    assert count(url) == 2000
    assert provisioners.down(volumes=True, confirm=lambda question: "2000 rows" in question) == [
        NAME,
        "memlift-postgres-16",
    ]
    assert kit.client.volumes.list(filters={"label": "memlift.managed=1"}) == []
    assert saved.load() == {}


def test_a_server_killed_from_outside_comes_back_by_itself(kit: DockerKit) -> None:
    url = up().url
    fill(url)
    os.kill(kit.client.containers.get(NAME).attrs["State"]["Pid"], signal.SIGKILL)
    assert up().url == url
    assert count(url) == 2000


def test_it_is_safe_by_default(kit: DockerKit) -> None:
    password = psycopg.conninfo.conninfo_to_dict(up().url)["password"]
    assert isinstance(password, str)
    found = inspect(kit)
    assert password not in str(found)
    assert password not in subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    assert password not in kit.client.containers.get(NAME).logs().decode()
    assert password not in str(provisioners.status())
    assert password not in str(said)
    host = found["HostConfig"]
    assert isinstance(host, dict)
    assert host["PortBindings"]["5432/tcp"][0]["HostIp"] == "127.0.0.1"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] == 512
    assert host["ShmSize"] > 64 * 1024**2
    shown = [e for e in found["Config"]["Env"] if e.startswith("POSTGRES_PASSWORD=")]  # type: ignore[index]
    port = host["PortBindings"]["5432/tcp"][0]["HostPort"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://memlift:{shown[0].split('=', 1)[1]}@127.0.0.1:{port}/memory")


def test_a_busy_port_is_replaced_and_the_new_one_kept(kit: DockerKit) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then somebody else keeps it busy for us
            other.bind(("127.0.0.1", 5432))
            other.listen()
        url = up().url
        assert ":5432/" not in url
    fill(url)
    provisioners.stop()
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        second = up().url
    assert f":{port}/" not in second
    assert count(second) == 2000
    assert len(kit.client.containers.list(all=True)) == 1


def test_strangers_of_the_same_name_are_left_alone(kit: DockerKit) -> None:
    up()
    image = kit.client.images.get(PG16)
    provisioners.down(volumes=True, confirm=lambda _: True)
    stranger = kit.client.containers.create(image, name=NAME, labels={"app": "theirs"})
    volume = kit.client.volumes.create("other-postgres-16", labels={"app": "theirs"})
    try:
        with pytest.raises(ProvisionError, match="memlift did not make"):
            up()
        with pytest.raises(ProvisionError, match="volume named other-postgres-16"):
            up(name="other")
        provisioners.down(volumes=True, confirm=lambda _: True)
        assert kit.client.containers.get(NAME).id == stranger.id
        assert kit.client.volumes.get("other-postgres-16").attrs["Labels"] == {"app": "theirs"}
    finally:
        stranger.remove(v=True)
        volume.remove()


def test_two_processes_at_once_make_one_container(kit: DockerKit, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import provisioners\n"
        "print(provisioners.up('postgres', 'docker', ready_timeout=60).url)"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    urls = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert len(urls) == 1
    with psycopg.connect(urls.pop()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert [c.name for c in kit.client.containers.list(all=True)] == [NAME]


def test_another_home_does_not_adopt_our_store(
    kit: DockerKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = up().url
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "another"))
    with pytest.raises(ProvisionError, match="set up with another password"):
        up()
    kit.client.containers.get(NAME).remove(force=True)
    with pytest.raises(ProvisionError, match="volume memlift-postgres-16 was set up with another password"):
        up()
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))
    assert up().url == url


def test_a_server_that_is_not_ready_yet_is_waited_for(kit: DockerKit) -> None:
    """The image's own check is green during the first set-up; only a query from outside counts."""
    slow = variant(kit, "slow", ["ENV INIT_DELAY=3"])
    begun = time.monotonic()
    url = up(image=slow).url
    assert time.monotonic() - begun > 3
    fill(url, 10)


def test_a_server_that_dies_shows_its_last_words_and_leaves_nothing(kit: DockerKit) -> None:
    broken = variant(kit, "broken", ["ENV FAIL=1"])
    begun = time.monotonic()
    with pytest.raises(ProvisionError, match="this image was told to fail"):
        up(image=broken)
    assert time.monotonic() - begun < 30
    assert kit.client.containers.list(all=True) == []
    assert kit.client.volumes.list() == []


def test_data_of_another_major_is_explained_and_kept(kit: DockerKit) -> None:
    url = up().url
    fill(url)
    with pytest.raises(ProvisionError, match="holds postgres 16, not 18"):
        up(version="18")
    provisioners.down()
    with pytest.raises(ProvisionError, match="holds data of postgres 16, which 18 cannot read"):
        up(version="18")
    assert count(up().url) == 2000


def test_postgres_18_keeps_its_data_where_its_image_has_it(kit: DockerKit) -> None:
    url = up(version="18").url
    fill(url)
    provisioners.down()
    assert count(up().url) == 2000
    assert [v.name for v in kit.client.volumes.list()] == ["memlift-postgres-18"]


def test_a_missing_image_and_a_silent_registry_are_told_apart(kit: DockerKit) -> None:
    registry = f"127.0.0.1:{kit.registry_port}"
    with pytest.raises(PullError, match="no such image"):
        up(image=f"{registry}/pgvector/pgvector:9.9.9-pg16")
    kit.registry.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(PullError, match=r"nothing came from the registry for 2 s|cannot be reached"):
            up(image=f"{registry}/pgvector/other:1-pg16", stall=2)
    finally:
        kit.registry.send_signal(signal.SIGCONT)
    with pytest.raises(PullError, match="cannot be reached"):
        up(image="127.0.0.1:9/pgvector/pgvector:0.8.5-pg16")
    assert kit.client.containers.list(all=True) == []


def test_an_engine_on_another_machine_gives_its_address(
    kit: DockerKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", kit.remote_url)
    endpoint = up()
    assert f"@{kit.address}:" in endpoint.url
    fill(endpoint.url, 10)
    bindings = kit.client.api.inspect_container(NAME)["HostConfig"]["PortBindings"]
    assert bindings["5432/tcp"][0]["HostIp"] == kit.address


def test_engines_that_cannot_be_used_are_told_apart(
    kit: DockerKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(EngineError, match="nothing listens there") as missing:
        up()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{kit.folder}/dead.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{kit.folder}/dead.sock")
    with pytest.raises(EngineError, match="does not answer") as down:
        up()
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import docker\n"
        "from provisioners import discovery, pgbinaries\n"
        "os.setgroups([]); who = pgbinaries.service_user(); os.setgid(who.gid); os.setuid(who.uid)\n"
        "try:\n    discovery.find_engine()\nexcept Exception as exc:\n    print(type(exc).__name__, exc)\n"
    )
    monkeypatch.setenv("DOCKER_HOST", kit.url)
    denied = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert denied.startswith("EngineDeniedError DOCKER_HOST is there, and you may not use it")
    assert type(missing.value) is not type(down.value)
    assert "--embedded" in str(missing.value.hint)
    assert "--embedded" in str(down.value.hint)


def test_status_and_logs_tell_what_is(kit: DockerKit) -> None:
    url = up().url
    fill(url)
    (now,) = provisioners.status()
    assert (now.name, now.state, now.health, now.rows, now.rows_exact) == (
        NAME,
        "running",
        "healthy",
        2000,
        True,
    )
    assert now.disk is not None
    assert now.disk > 10_000_000
    assert now.since is not None
    assert now.image == PG16
    assert "ready to accept connections" in provisioners.logs()
    provisioners.stop()
    (now,) = provisioners.status()
    assert (now.state, now.health) == ("exited", "-")
    provisioners.down()
    (now,) = provisioners.status()
    assert (now.state, now.note) == ("missing", "data kept in memlift-postgres-16")


def test_a_temporary_store_leaves_nothing(kit: DockerKit) -> None:
    with provisioners.temporary("postgres", "docker", ready_timeout=60) as endpoint:
        fill(endpoint.url, 10)
    assert kit.client.containers.list(all=True) == []
    assert kit.client.volumes.list() == []
    assert saved.load() == {}


def variant(kit: DockerKit, name: str, lines: list[str]) -> str:
    """Build an image on top of the Postgres one, and return its name."""
    if not kit.client.images.list(PG16):
        kit.client.images.pull(PG16)
    text = "\n".join([f"FROM {PG16}", *lines, ""])
    kit.client.images.build(fileobj=io.BytesIO(text.encode()), tag=f"memlift-test/{name}:pg16", rm=True)
    return f"memlift-test/{name}:pg16"
