"""Small stores with vectors, and questions to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.schema import Metric
from migrate.search.base import Means, Searched
from migrate.search.sqlite.nearest import Nearby, Nearest
from migrate.search.sqlite.reading import SqliteFile
from migrate.search.sqlite.where import Allowed

Rows = npt.NDArray[np.float32]
INDEX, EVERY = "HNSW sidecar", "every vector"
N = 1200
TABLE = "CREATE TABLE memories (id TEXT PRIMARY KEY, kind TEXT, embedding BLOB)"


def vectors(n: int, dim: int = 16, seed: int = 0) -> Rows:
    """Return (n, dim) numbers in clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 50), dim))
    return (centres[rng.integers(0, len(centres), n)] + 0.5 * rng.standard_normal((n, dim))).astype(
        np.float32
    )


def fill(path: Path, rows: Iterable[Sequence[float] | Rows | bytes | None], table: str = TABLE) -> None:
    """Make a store whose row i has the key `m<i>` and the kind "even" or "odd"."""
    connection = sqlite3.connect(path)
    connection.execute(table)
    cells = (r if r is None or isinstance(r, bytes) else np.asarray(r, np.float32).tobytes() for r in rows)
    connection.executemany(
        "INSERT INTO memories VALUES (?, ?, ?)",
        ((f"m{i:06}", ("even", "odd")[i % 2], cell) for i, cell in enumerate(cells)),
    )
    connection.commit()
    connection.close()


def change(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Run statements on a store, each committed by itself."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        sql, cells = (statement, ()) if isinstance(statement, str) else statement
        connection.execute(sql, cells)
    connection.close()


@dataclass
class Asking:
    """A store that questions are put to."""

    path: Path
    means: Means = field(default_factory=Means)

    def __post_init__(self) -> None:
        self.file = SqliteFile(self.path)
        self.nearest = Nearest(self.path, self.means)
        self._first: Searched | None = None

    def searched(self, metric: Metric | None = None) -> Searched:
        """Return the table with vectors, compared by another metric where one is given."""
        if self._first is None:
            (self._first,) = (s for s in self.file.tables() if s.vector is not None)
        found = self._first
        if metric is None or found.vector is None:
            return found
        return replace(found, vector=replace(found.vector, metric=metric))

    def near(
        self,
        vector: Any,
        k: int = 10,
        *,
        metric: Metric | None = None,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> Nearby:
        """Ask one question."""
        searched = self.searched(metric)
        with self.file.reading() as reading:
            return self.nearest.search(
                reading, searched, np.asarray(vector, np.float32), k, allowed=allowed, exact=exact
            )

    def settled(self, metric: Metric | None = None) -> None:
        """Have the sidecar made or brought up to date, and wait for that."""
        searched = self.searched(metric)
        dim = searched.vector.dim if searched.vector is not None else None
        self.near(np.ones(dim or 1), metric=metric)
        for sidecar in self.nearest._sidecars.values():
            if sidecar._thread is not None:
                sidecar._thread.join()

    def close(self) -> None:
        """Close it."""
        self.nearest.close()
        self.file.close()


def truth(rows: Rows, vector: Any, k: int, metric: Metric = Metric.COSINE) -> list[tuple[int, float]]:
    """Return (row number, score) of the nearest, computed in the plainest way."""
    wide, asked = np.asarray(rows, np.float64), np.asarray(vector, np.float32).astype(np.float64)
    if metric is Metric.COSINE:
        scores = wide @ asked / (np.linalg.norm(wide, axis=1) * np.linalg.norm(asked))
    elif metric is Metric.DOT:
        scores = wide @ asked
    elif metric is Metric.EUCLID:
        scores = -np.linalg.norm(wide - asked, axis=1)
    else:
        scores = -np.abs(wide - asked).sum(axis=1)
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], i))[:k]
    return [(i, float(scores[i])) for i in order]


def both(asking: Asking, query: object, k: int = 10) -> str:
    """Ask with and without the index, and say which answered the first."""
    near, exact = asking.near(query, k), asking.near(query, k, exact=True)
    assert near.found == exact.found
    return near.how
