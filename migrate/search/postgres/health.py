"""Whether the vector index of a table answers what it will be asked."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.backends.postgres import ddl
from migrate.schema import Metric
from migrate.search.base import Health
from migrate.search.postgres.catalog import VectorIndex
from migrate.search.postgres.where import Held

_SMALL = 10_000  # rows that are compared one by one in some milliseconds


def health_of(indexes: Sequence[VectorIndex], vectors: int, column: Held, metric: Metric) -> Health:
    """Return what stands ready: the index that a query would take, or else why there is none."""
    problems = [p for index in indexes for p in _problems(index, metric)]
    good = [i for i in indexes if not _problems(i, metric)]
    if good:
        return Health(good[0].name, good[0].metric, None, vectors, tuple(problems))
    if not indexes and vectors > _SMALL and _can_have_one(column):
        problems.append(f"no vector index: each query compares all {vectors:,} vectors")
    first = indexes[0] if indexes else None
    return Health(
        first.name if first else None, first.metric if first else None, None, vectors, tuple(problems)
    )


def _problems(index: VectorIndex, metric: Metric) -> list[str]:
    found = []
    if not index.valid:
        found.append(f"{index.name} is half built (an interrupted CREATE INDEX CONCURRENTLY): REINDEX it")
    if index.metric is not metric:
        built = index.metric.value if index.metric is not None else "something else"
        found.append(f"{index.name} is built for {built}, the vectors are compared by {metric.value}")
    if index.partial:
        found.append(f"{index.name} has only some of the rows")
    return found


def _can_have_one(column: Held) -> bool:
    dim = column.declared.rpartition("(")[2].rstrip(")")
    return dim.isdecimal() and int(dim) <= ddl.MAX_HNSW_HALF_DIM
