"""Shared by the tests on real engines."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from docker_kit import DockerKit, missing_reason, running_kit

from provisioners.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def kit() -> Iterator[DockerKit]:
    """A Docker daemon and a registry of our own for the whole run."""
    if (reason := missing_reason()) is not None:
        pytest.skip(f"these tests start a Docker daemon of their own: {reason}")
    with running_kit() as running:
        yield running


@pytest.fixture
def docker_home(kit: DockerKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own and the kit's engine for one test, and nothing of ours left after it."""
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_HOST", kit.url)
    for variable in ("DATABASE_URL", "QDRANT_URL", "QDRANT_API_KEY", "DOCKER_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path / "home"
    for container in kit.client.containers.list(all=True, filters={"label": "memlift.managed=1"}):
        container.remove(force=True, v=True)
    for volume in kit.client.volumes.list(filters={"label": "memlift.managed=1"}):
        volume.remove()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped server's folder with one table of 1,000 rows: copying it is faster than initdb."""
    folder = tmp_path_factory.mktemp("template") / "pg"
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.url) as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute(
            "CREATE TABLE chunk AS SELECT g AS id, 'row ' || g AS text FROM generate_series(1, 1000) g"
        )
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "pg"
    subprocess.run(["cp", "-a", template, copy], check=True)
    yield copy
    EmbeddedPostgres(copy).stop(force=True)
