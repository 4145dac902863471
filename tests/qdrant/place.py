"""Where the contract is kept on Qdrant's embedded engine: folders with a sidecar beside each."""

from __future__ import annotations

import itertools
import sqlite3
from array import array
from contextlib import closing
from pathlib import Path

import qdrant_edge as edge

from migrate.backends import sidecar
from migrate.config import QdrantSettings, Settings


class EdgePlace:
    """Folders of a folder. `names` are collections and the tables of the sidecar."""

    kind = "qdrant"

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count(1)

    def fresh(self) -> Settings:
        return QdrantSettings(path=self._folder / f"target {next(self._numbers)}")

    def _side(self, at: Settings) -> Path:
        assert isinstance(at, QdrantSettings)
        assert at.path is not None
        return sidecar.default_beside(at.path, at.prefix)

    def names(self, at: Settings) -> set[str]:
        assert isinstance(at, QdrantSettings)
        assert at.path is not None
        found = {p.parent.name for p in at.path.glob("*/edge_config.json")}
        side = self._side(at)
        if side.exists():
            with closing(sqlite3.connect(side)) as db:
                found |= {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        return found

    def stranger(self, at: Settings, name: str) -> None:
        """Tables without vectors belong into the sidecar, so that is where one may be in the way."""
        with closing(sqlite3.connect(self._side(at))) as db:
            db.execute(f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, v TEXT)')
            db.execute(f"INSERT INTO \"{name}\" VALUES (1, 'theirs')")
            db.commit()


def foreign_shard(folder: Path, name: str) -> None:
    """Make a collection with one point, not by memlift."""
    folder.mkdir(parents=True, exist_ok=True)
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Dot))
    shard = edge.EdgeShard.create(str(folder / name), config)
    vector = memoryview(array("f", [1.0, 2.0]).tobytes()).cast("f")
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(1, vector, {"v": "theirs"})]))  # type: ignore[arg-type]
    shard.flush()
    shard.close()
