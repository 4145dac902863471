"""One sidecar belongs to one store: another store that names it is refused, a store that was moved is not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from integration.pairs.test_pairs import mixed
from integration.pinecone.backend_kit import address as pinecone_address
from integration.pinecone_emulator import PineconeEmulator
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing
from integration.support.comparing import same
from migrate import api
from migrate.config import QdrantSettings
from migrate.errors import ConfigError

Named = Callable[[str, Path], Any]


@pytest.fixture
def named(tmp_path: Path, qdrant: QdrantTestServer, pinecone: PineconeEmulator) -> Named:
    """Return what makes the address of a kind of store with a sidecar of that name."""
    index = pinecone_address(pinecone, tmp_path)

    def store(kind: str, side: Path) -> Any:
        if kind.startswith("folder"):
            return QdrantSettings(path=tmp_path / kind, sidecar=str(side))
        if kind.startswith("server"):
            prefix = f"{tmp_path.name}{kind}_"
            return QdrantSettings(
                url=qdrant.url, grpc_port=qdrant.grpc_port, prefix=prefix, sidecar=str(side)
            )
        return replace(index, namespace=kind, sidecar=str(side))

    return store


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("folder", "folder2"),
        ("server", "server2"),
        ("namespace", "namespace2"),
        ("folder", "namespace"),
        ("namespace", "server"),
    ],
)
def test_a_sidecar_of_another_store_is_refused(one: str, other: str, named: Named, tmp_path: Path) -> None:
    source, side, home = mixed(tmp_path / "a.sqlite"), tmp_path / "side.sqlite", tmp_path / "home.sqlite"
    mine, theirs = named(one, side), named(other, side)
    assert api.migrate(source, mine).verified
    for refused in (
        lambda: api.audit(mixed(tmp_path / "b.sqlite"), theirs),
        lambda: api.migrate(source, theirs),
        lambda: api.migrate(theirs, home),
        lambda: api.undo(theirs),
    ):
        with pytest.raises(ConfigError, match="is the sidecar of another store"):
            refused()
    assert api.migrate(mine, home).verified
    same(comparing.sqlite_rows(home, json_values=True), comparing.sqlite_rows(source, json_values=True))
    assert api.migrate(source, named(other, tmp_path / "side2.sqlite")).verified


def test_a_folder_that_was_moved_keeps_its_sidecar(
    named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, side = mixed(tmp_path / "a.sqlite"), tmp_path / "side.sqlite"
    assert api.migrate(source, named("folder", side)).verified
    shutil.move(tmp_path / "folder", tmp_path / "folder2")
    moved = named("folder2", side)
    assert api.migrate(moved, tmp_path / "home.sqlite").verified
    assert api.migrate(source, moved).verified
    monkeypatch.chdir(tmp_path)
    assert api.verify(source, f"qdrant:folder2?sidecar={side}").verified
    assert api.undo("qdrant:./folder2?sidecar=side.sqlite") == ["link", "note", "plain", "seen"]


def test_a_store_that_was_lost_is_written_again_under_its_own_address(named: Named, tmp_path: Path) -> None:
    source, mine = mixed(tmp_path / "a.sqlite"), named("folder", tmp_path / "side.sqlite")
    assert api.migrate(source, mine).verified
    shutil.rmtree(tmp_path / "folder")
    assert api.migrate(source, mine).verified
    assert api.verify(source, mine, mode="full").verified
