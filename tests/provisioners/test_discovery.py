"""Finding the engine: what was chosen, the usual places, and three different errors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from migrate.errors import ConfigError, MissingExtraError
from provisioners import discovery
from provisioners.discovery import Candidate
from provisioners.engine import EngineDeniedError, EngineDownError, EngineError, EngineMissingError


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Programs that are said to be installed."""
    found: set[str] = set()
    monkeypatch.setattr("shutil.which", lambda name: name if name in found else None)
    return found


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    places = [
        Candidate(f"unix://{tmp_path}/a.sock", "Docker"),
        Candidate(f"unix://{tmp_path}/b.sock", "podman"),
    ]
    monkeypatch.setattr(discovery, "usual_places", lambda: places)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path


@pytest.fixture
def dead_socket(nowhere: Path) -> Path:
    path = nowhere / "b.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


def test_not_installed(nowhere: Path, no_programs: set[str]) -> None:
    with pytest.raises(EngineMissingError, match="no container engine is installed") as caught:
        discovery.find_engine()
    assert "install Docker" in str(caught.value.hint)
    assert "--embedded" in str(caught.value.hint)


@pytest.mark.parametrize("program", ["docker", "dockerd", "podman"])
def test_installed_and_not_running(nowhere: Path, no_programs: set[str], program: str) -> None:
    no_programs.add(program)
    with pytest.raises(EngineDownError, match="installed, and does not run") as caught:
        discovery.find_engine()
    assert "--embedded" in str(caught.value.hint)


def test_a_socket_left_by_a_dead_engine(dead_socket: Path, no_programs: set[str]) -> None:
    with pytest.raises(EngineDownError, match="podman does not answer: Connection refused"):
        discovery.find_engine()


def test_no_permission_is_told_before_not_running(
    dead_socket: Path, no_programs: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guarded(socket.socket):
        def connect(self, address: Any) -> None:
            if str(address).endswith("a.sock"):
                raise PermissionError(13, "Permission denied")
            super().connect(address)

    monkeypatch.setattr("socket.socket", Guarded)
    with pytest.raises(EngineDeniedError, match="Docker is there, and you may not use it") as caught:
        discovery.find_engine()
    assert "usermod -aG docker" in str(caught.value.hint)
    assert "--embedded" in str(caught.value.hint)


def test_a_chosen_engine_that_fails_is_never_replaced_by_another(
    nowhere: Path, no_programs: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{nowhere}/chosen.sock")
    monkeypatch.setattr(discovery, "usual_places", lambda: pytest.fail("looked elsewhere"))
    with pytest.raises(EngineMissingError, match="DOCKER_HOST: nothing listens there"):
        discovery.find_engine()


def test_a_tcp_engine_that_is_down(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{sock.getsockname()[1]}")
        with pytest.raises(EngineError, match="DOCKER_HOST does not answer"):
            discovery.find_engine()


def context(folder: Path, name: str, host: str) -> None:
    import hashlib

    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(document))


def test_contexts_are_followed(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = nowhere / "docker"
    context(folder, "rootless", "unix:///run/user/7/docker.sock")
    context(folder, "farm", "tcp://build7:2375")
    (folder / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    found = discovery.chosen_engine()
    assert found is not None
    assert (found.url, found.source) == ("unix:///run/user/7/docker.sock", "context rootless")
    monkeypatch.setenv("DOCKER_CONTEXT", "farm")
    found = discovery.chosen_engine()
    assert found is not None
    assert found.url == "tcp://build7:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert discovery.chosen_engine() is None
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(ConfigError, match="no Docker context 'gone'"):
        discovery.chosen_engine()


def test_docker_host_wins_over_contexts(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    monkeypatch.setenv("DOCKER_HOST", "tcp://build7:2375")
    found = discovery.chosen_engine()
    assert found is not None
    assert (found.url, found.source) == ("tcp://build7:2375", "DOCKER_HOST")


def test_the_usual_places_are_docker_rootless_desktop_and_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    places = [(c.source, c.url) for c in discovery.usual_places()]
    assert places[0] == ("Docker", "unix:///var/run/docker.sock")
    assert ("rootless Docker", "unix:///run/user/7/docker.sock") in places
    assert ("podman", "unix:///run/user/7/podman/podman.sock") in places
    assert ("podman", "unix:///run/podman/podman.sock") in places
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert f"unix:///run/user/{os.getuid()}/docker.sock" in [c.url for c in discovery.usual_places()]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("unix:///var/run/docker.sock", ("127.0.0.1", True)),
        ("http+docker://localhost", ("127.0.0.1", True)),
        ("tcp://localhost:2375", ("127.0.0.1", True)),
        ("tcp://127.0.0.1:2375", ("127.0.0.1", True)),
        ("tcp://build7:2376", ("build7", False)),
        ("https://10.1.2.3:2376", ("10.1.2.3", False)),
        ("ssh://me@build7", ("build7", False)),
        ("tcp://[2001:db8::7]:2376", ("2001:db8::7", False)),
    ],
)
def test_ports_are_on_the_engines_machine(url: str, wanted: tuple[str, bool]) -> None:
    assert discovery.reached_at(url) == wanted


def test_without_the_package_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(MissingExtraError) as caught:
        discovery.find_engine()
    assert "pip install 'memlift[docker]'" in str(caught.value.hint)
    assert "--embedded" in str(caught.value.hint)


def test_importing_us_loads_no_driver() -> None:
    code = (
        "import sys, provisioners.cli, provisioners.setup, provisioners.embedded\n"
        "print([m for m in ('docker', 'psycopg', 'qdrant_client', 'qdrant_edge', 'requests') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
