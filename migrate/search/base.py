"""What a store must offer to be searched: the contract every tier keeps.

A tier is a module with one function and one line in `migrate.search.REGISTRY`:

    searchable(settings, means: Means) -> Searchable

It translates a `Query` into its store's own means (numpy and FTS5, pgvector and
tsvector, Qdrant's universal query, ...) and its driver's errors into
`migrate.errors`. Scores mean the same on every tier, so that answers can be
compared: see `Hit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from migrate.schema import Column, Kind, Metric, Table
from migrate.search.filters import Filter

Vector = npt.NDArray[np.float32]
Key = tuple[Any, ...]


class Sparse(NamedTuple):
    """A sparse vector: ascending indices, each once, and a finite value for each; at least one."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


RRF_K = 60
"""The constant of reciprocal rank fusion: a hit of rank r (from 1) in a list adds 1 / (RRF_K + r).

From the paper that proposes it (Cormack, Clarke, Buettcher, SIGIR 2009). A tier whose store counts
otherwise is given the difference, so that hybrid scores are the same everywhere.
"""


MOST_HITS = 2**31 - 1
"""Of one answer; who asks for more gets as many. Several times this still fits the 64 bits of a store's limit."""


class Mode(StrEnum):
    """How a query is answered."""

    VECTOR = "vector"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Searched:
    """One table as a search sees it.

    table:   as the source backend reads it and a layout understands it.
    vector:  the column that is compared, or None where there is none.
    text:    the columns that hold words, best first; the first is the text of a hit.
    tenant:  the column that tells tenants apart, or None.
    rows:    how many rows it has, where the store knows without counting.
    live:    what an agent still remembers of it (AgentOS marks traces as deleted and keeps them). A
             caller puts it into `Query.where`, unless that names the same column; a tier does nothing.
    sparse:  the column of sparse vectors that the store compares, by inner product; None where it has
             none, or cannot compare them.
    tenants: those tenants whose ids the store knows without reading rows (Pinecone's namespaces).
    """

    table: Table
    vector: Column | None = None
    text: tuple[str, ...] = ()
    tenant: str | None = None
    rows: int | None = None
    live: Filter | None = None
    sparse: Column | None = None
    tenants: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the table's name."""
        return self.table.name

    @property
    def has_sparse(self) -> bool:
        """Whether it has a column of sparse vectors, which its store may not be able to compare."""
        return any(c.kind is Kind.SPARSE for c in self.table.columns)

    @property
    def metric(self) -> Metric:
        """Return how vectors are compared; cosine where nothing says otherwise."""
        if self.vector is None and self.sparse is not None:
            return Metric.DOT
        return (self.vector.metric if self.vector is not None else None) or Metric.COSINE


@dataclass(frozen=True, slots=True)
class Query:
    """One question to one table.

    vector: (dim,) float32, for vector and hybrid mode.
    text:   words, for keyword and hybrid mode.
    k:      how many hits at most.
    where:  what a hit must satisfy.
    tenant: only rows whose tenant column holds this.
    exact:  look at every vector instead of asking an index: the truth that indexes are measured by.
    rows:   hits carry text and metadata; without it only keys and scores (what measuring needs).
    sparse: asked instead of `vector`, of a table with `Searched.sparse`.
    """

    mode: Mode
    vector: Vector | None = None
    text: str | None = None
    k: int = 10
    where: Filter | None = None
    tenant: str | None = None
    exact: bool = False
    rows: bool = True
    sparse: Sparse | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One row that was found; hits come best first, equal scores in the order of their keys.

    key:   cells of the table's primary key; of a table without one, what the store numbers rows by.
    score: higher is better, on every tier. Vector mode: cosine similarity, inner product, or minus
           the Euclidean or Manhattan distance; of sparse vectors the inner product, and rows where it
           is 0 have nothing in common with the question and are no hits. Keyword mode: what the store ranks by, as a positive
           number that only compares within one answer. Hybrid mode: the sum of 1 / (RRF_K + rank).
    text:  the first text column, or None.
    metadata: the other cells that are no vectors, by column, ready for JSON.
    """

    table: str
    key: Key
    score: float
    text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query found.

    how:   what answered, in a few words: "every vector", "HNSW sidecar", "pgvector HNSW", "FTS5", ...
    notes: what a user must know: an index that is not there yet, one that was rebuilt, ...
    """

    hits: tuple[Hit, ...]
    how: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What stands ready to answer queries over one table, for a check of a migrated store.

    index:   the vector index as its store calls it, or None.
    metric:  what that index compares by, or None where nothing says.
    covered: vectors that the index holds, or None where the store does not tell.
    vectors: vectors that there are, or None.
    problems: what is wrong, in words: "built for l2, the vectors are compared by cosine".
    """

    index: str | None
    metric: Metric | None = None
    covered: int | None = None
    vectors: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Means:
    """What a search may use.

    cache_bytes: how much of a store's vectors may be kept in memory between queries; 0 keeps none.
    hnsw:        whether an HNSW sidecar beside a SQLite file may be made, brought up to date and used.
    say:         is told, in a line, of anything a person waits for.
    """

    cache_bytes: int = 512 * 2**20
    hnsw: bool = True
    say: Callable[[str], None] = lambda line: None


class Searchable(Protocol):
    """An open store that answers queries. Changes nothing that the store holds."""

    def describe(self) -> str:
        """Return its address without secrets."""
        ...

    def tables(self) -> Sequence[Searched]:
        """Return what can be searched: every table with a vector or with words.

        Tables whose only vectors are sparse are told, too, also where the store cannot compare them.
        """
        ...

    def search(self, searched: Searched, query: Query) -> Answer:
        """Answer one query. `query.vector` has the column's dimension.

        Raises ConfigError where the store cannot do what the query asks (a range over text in a
        store that only ranks numbers), BackendError where it fails.
        """
        ...

    def vector_of(self, searched: Searched, key: Key) -> Vector | Sparse | None:
        """Return the vector of one row, (dim,) float32; None where it has none. KeyError: no such row.

        Of a table with `Searched.sparse` alone it is the sparse one.
        """
        ...

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """Return up to n rows' keys and vectors, spread over the table, the same for the same seed."""
        ...

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """Return up to n rows' keys and texts, spread over the table, the same for the same seed."""
        ...

    def health(self, searched: Searched) -> Health:
        """Return what stands ready to answer queries over a table."""
        ...

    def close(self) -> None:
        """Let go of every handle. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge that a walk over the knowledge graph crossed, and how far from its start (from 1)."""

    source: str
    target: str
    kind: str
    depth: int
    weight: float | None = None


class Direction(StrEnum):
    """Which way edges are crossed; one that its row calls bidirectional is crossed both ways in any case."""

    BOTH = "both"
    OUT = "out"
    IN = "in"


@runtime_checkable
class Graph(Protocol):
    """A store whose knowledge graph can be walked (in its sidecar, where it has one).

    Edges are as the store has them, also where they were crossed backwards. Both raise
    ConfigError where there is no graph.
    """

    def neighbours(
        self,
        node: str,
        *,
        depth: int = 1,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[Edge]:
        """Yield the edges within `depth` steps of a node, nearest first, each once."""
        ...

    def paths(
        self,
        start: str,
        goal: str,
        *,
        depth: int = 4,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[tuple[Edge, ...]]:
        """Yield the paths from one node to another of at most `depth` edges, shortest first, without loops."""
        ...
