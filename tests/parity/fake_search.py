"""A searchable store in this process: exact by default, and spoiled in the ways a real one can be."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Metric, Table
from migrate.search.base import Answer, Health, Hit, Key, Mode, Query, Searched, Vector
from migrate.search.filters import Filter, holds
from migrate.search.parity import measures

DIM = 8
COLUMNS = (
    Column("id", Kind.INTEGER),
    Column("body", Kind.TEXT),
    Column("kind", Kind.TEXT),
    Column("strength", Kind.REAL),
    Column("pinned", Kind.BOOL),
    Column("agent_id", Kind.TEXT),
    Column("metadata", Kind.JSON),
    Column("embedding", Kind.VECTOR, dim=DIM, metric=Metric.COSINE),
)
WORDS = [
    "river",
    "stone",
    "cloud",
    "amber",
    "violet",
    "harbour",
    "lantern",
    "meadow",
    "copper",
    "thunder",
    "orchard",
    "winter",
]


def notes(*, metric: Metric = Metric.COSINE, key: tuple[str, ...] = ("id",), name: str = "notes") -> Searched:
    """Return a table of notes as a search sees it."""
    columns = tuple(replace(c, metric=metric) if c.kind is Kind.VECTOR else c for c in COLUMNS)
    return Searched(Table(name, columns, key), columns[-1], ("body",), "agent_id")


def rows(n: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return n notes, cells by column; `embedding` is (8,) float32, of different lengths."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    made = []
    for i in range(n):
        vector = noise.standard_normal(DIM) * rng.uniform(0.2, 3)
        made.append(
            {
                "id": i,
                "body": " ".join(rng.sample(WORDS, 5)),
                "kind": rng.choice(["episodic", "semantic", "procedural"]),
                "strength": round(rng.random(), 6),
                "pinned": rng.random() < 0.2,
                "agent_id": rng.choice(["ada", "bob"]),
                "metadata": {
                    "user": {"name": rng.choice(["Ada", "Bob", "Cy"])},
                    "tags": rng.sample(WORDS, 2),
                },
                "embedding": vector.astype(np.float32),
            }
        )
    return made


@dataclass
class FakeStore:
    """Keeps rows of one table or several.

    by:      the metric that it really compares by, where that is not the table's.
    indexed: whether a row is found by a query that is not exact.
    through: what a filter lets through, instead of what it should.
    slow:    called for each query.
    """

    searched: Searched
    rows: list[dict[str, Any]]
    by: Metric | None = None
    indexed: Callable[[dict[str, Any]], bool] = lambda row: True
    through: Callable[[Filter, dict[str, Any]], bool] = holds
    state: Health | None = None
    slow: Callable[[Query], None] = lambda query: None
    refuses: str | None = None
    asked: list[Query] = field(default_factory=list)
    closed: bool = False

    def describe(self) -> str:
        return "fake:"

    def tables(self) -> Sequence[Searched]:
        return [self.searched]

    def search(self, searched: Searched, query: Query) -> Answer:
        self.asked.append(query)
        self.slow(query)
        if self.refuses is not None and query.where is not None:
            raise ConfigError(self.refuses)
        found = [(self._score(row, query), row) for row in self._standing(query)]
        found = [(s, row) for s, row in found if s > -np.inf]
        found.sort(key=lambda pair: (-pair[0], pair[1]["id"]))
        hits = tuple(self._hit(row, s, query.rows) for s, row in found[: query.k])
        return Answer(hits, "every vector" if query.exact else "an index")

    def _standing(self, query: Query) -> list[dict[str, Any]]:
        standing = [row for row in self.rows if row["embedding"] is not None]
        if query.mode is Mode.KEYWORD:
            standing = [row for row in self.rows if query.text in row["body"].split()]
        elif not query.exact:
            standing = [row for row in standing if self.indexed(row)]
        if query.where is not None:
            standing = [row for row in standing if self.through(query.where, row)]
        if query.tenant is not None:
            standing = [row for row in standing if row["agent_id"] == query.tenant]
        return standing

    def _score(self, row: dict[str, Any], query: Query) -> float:
        if query.mode is Mode.KEYWORD:
            return 1.0 / (1 + str(row["body"]).split().index(query.text or ""))
        assert query.vector is not None
        return measures.score(self.by or self.searched.metric, query.vector, row["embedding"])

    def _hit(self, row: dict[str, Any], score: float, whole: bool) -> Hit:
        key = tuple(row[name] for name in self.searched.table.key) or (id(row),)
        hidden = {"embedding", "body", *self.searched.table.key}
        shown = {name: cell for name, cell in row.items() if name not in hidden} if whole else {}
        return Hit(self.searched.name, key, score, row["body"] if whole else None, shown)

    def vector_of(self, searched: Searched, key: Key) -> Vector | None:
        for row in self.rows:
            if (row["id"],) == key:
                vector: Vector | None = row["embedding"]
                return vector
        raise KeyError(key)

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        having = [row for row in self.rows if row["embedding"] is not None]
        picked = random.Random(seed).sample(having, min(n, len(having)))
        return [((row["id"],), row["embedding"]) for row in picked]

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        picked = random.Random(seed).sample(self.rows, min(n, len(self.rows)))
        return [((row["id"],), row["body"]) for row in picked]

    def health(self, searched: Searched) -> Health:
        there = sum(row["embedding"] is not None for row in self.rows)
        return self.state or Health("fake index", self.searched.metric, there, there)

    def close(self) -> None:
        self.closed = True
