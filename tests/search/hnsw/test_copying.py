"""A copy into SQLite builds the sidecar, as a step with progress."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate import api, migrate
from migrate.errors import ConfigError
from migrate.report import Observer
from tests.search.hnsw.stores import Asking, change, fill, vectors

ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "from" / "agent.sqlite"
    path.parent.mkdir()
    fill(path, vectors(1500, 32))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "to" / "brain.sqlite"
    path.parent.mkdir()
    return path


def beside(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir())


class Steps(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def say(self, line: str) -> None:
        return None

    def step(self, phase: str, name: str, done: int, total: int) -> None:
        self.seen.append((name, done, total))


def test_the_first_search_after_a_copy_is_by_the_index(source: Path, target: Path) -> None:
    steps = Steps()
    report = api.run(str(source), str(target), api.Request(), observer=steps)
    assert report.verified
    assert report.warnings == ()
    assert beside(target) == ["brain.hnsw", "brain.sqlite"]
    told = [(done, total) for name, done, total in steps.seen if name == "memories: HNSW sidecar"]
    assert (1500, 1500) in told
    near = Asking(target).near(np.ones(32))
    assert (near.how, near.notes) == ("HNSW sidecar", ())


def test_none_is_built_where_none_is_wanted(source: Path, target: Path) -> None:
    migrate(str(source), str(target), index="none")
    assert beside(target) == ["brain.sqlite"]


def test_none_is_built_of_few_vectors(source: Path, target: Path) -> None:
    change(source, "DELETE FROM memories WHERE rowid > 999")
    migrate(str(source), str(target))
    assert beside(target) == ["brain.sqlite"]


@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_without_hnswlib_the_copy_is_whole(
    index: Any, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    report = migrate(str(source), str(target), index=index)
    assert report.verified
    said = "memories: no HNSW sidecar, as hnswlib is not installed: pip install 'memlift[hnsw]'"
    assert report.warnings == ((said,) if index == "hnsw" else ())
    assert beside(target) == ["brain.sqlite"]


def test_undo_takes_ours_away_and_leaves_what_others_made(source: Path, target: Path) -> None:
    for name in ("brain.hnsw", "brain.hnsw.map.json", "other.hnsw"):
        (target.parent / name).write_bytes(b"of the framework")
    migrate(str(source), str(target))
    assert "brain.sqlite.memories-embedding.hnsw" in beside(target)
    (target.parent / "brain.sqlite.memories-embedding.hnsw.building").write_bytes(b"of a killed run")
    api.undo(str(target))
    assert beside(target) == ["brain.hnsw", "brain.hnsw.map.json", "brain.sqlite", "other.hnsw"]


def test_a_second_run_brings_the_sidecar_up_to_date(source: Path, target: Path) -> None:
    migrate(str(source), str(target))
    change(source, ("INSERT INTO memories VALUES ('new', '', ?)", (np.full(32, 9, np.float32).tobytes(),)))
    migrate(str(source), str(target))
    near = Asking(target).near(np.ones(32), 1)
    assert (near.how, near.found) == ("HNSW sidecar", [(1501, 1.0)])


@pytest.mark.parametrize("point", ["sidecar.writing", "sidecar.written", "sidecar.published"])
def test_a_copy_killed_while_it_builds_goes_on(point: str, source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "migrate", "migrate", str(source), str(target), "--quiet"]
    killed = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MEMLIFT_FAILPOINT": f"{point}:1"}, check=False
    )
    assert killed.returncode == -9
    assert migrate(str(source), str(target)).resumed
    assert beside(target) == ["brain.hnsw", "brain.sqlite"]
    assert Asking(target).near(np.ones(32)).how == "HNSW sidecar"


def test_the_guard_of_the_option_stays(source: Path, target: Path) -> None:
    with pytest.raises(ConfigError):
        migrate(str(source), str(target), index="flat")
