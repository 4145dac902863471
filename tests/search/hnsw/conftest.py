"""A store and its vectors; sidecars remember what they proved in a home of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.hnsw.stores import N, Rows, fill, vectors


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MEMLIFT_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def rows() -> Rows:
    return vectors(N)


@pytest.fixture
def store(rows: Rows, tmp_path: Path) -> Path:
    path = tmp_path / "brain.sqlite"
    fill(path, rows)
    return path
