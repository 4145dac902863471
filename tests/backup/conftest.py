"""A clean environment and a scratch folder of one's own for every test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from backup_data import make


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    """A WAL database with a few hundred rows."""
    return make(tmp_path / "brain.sqlite")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder as a store; not made yet."""
    return f"file://{tmp_path}/store"
