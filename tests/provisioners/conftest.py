"""A home of our own for every test, a clean environment, and an engine in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngine

from provisioners import pgprobe, ready

VARIABLES = ("DATABASE_URL", "QDRANT_URL", "QDRANT_API_KEY", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")


@pytest.fixture(autouse=True)
def memlift_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home" / ".memlift"
    monkeypatch.setenv("MEMLIFT_HOME", str(home))
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return home


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(ready, "ask_postgres", fake.ask_postgres)
    monkeypatch.setattr(ready, "ask_qdrant", fake.ask_qdrant)
    monkeypatch.setattr(ready, "ensure_vector", fake.ensure_vector)
    monkeypatch.setattr(ready, "POLL_S", 0.001)
    monkeypatch.setattr(pgprobe, "set_password", fake.set_password)
    monkeypatch.setattr(pgprobe, "port_is_free", lambda port: not fake.in_use(port))
    return fake
