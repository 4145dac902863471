"""Which index of pgvector's a query takes, and the settings under which it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from migrate.backends.postgres.connect import Server
from migrate.schema import Metric
from migrate.search.base import Query, Vector
from migrate.search.postgres.catalog import Relation
from migrate.search.postgres.where import Held

_LEAST_EF, _MOST_EF = 100, 1000  # candidates that an HNSW index looks at; 1,000 is pgvector's limit
_ITERATIVE = (0, 8)  # of pgvector: an index goes on looking where a filter takes candidates away
_HALF_MAX = 65504.0  # of float16
_MANY = 10_000  # rows; fewer are compared one by one in some milliseconds
EVERY = "pgvector, every vector"


@dataclass(frozen=True, slots=True)
class Way:
    """How the nearest are found. by: as in `queries.nearest`; how, notes: as in `Answer`."""

    by: str
    how: str = EVERY
    notes: tuple[str, ...] = ()


EXACT = Way("exact")


def choose(relation: Relation, held: Held, metric: Metric, vector: Vector, query: Query) -> Way:
    """Return the way of a query: by an index that is whole and built for the metric, or by every vector."""
    if query.exact:
        return EXACT
    usable = [i for i in relation.indexes_of(held) if i.valid and not i.partial and i.metric is metric]
    for index in sorted(usable, key=lambda i: (i.half, i.method != "hnsw")):
        if (index.half or held.type == "halfvec") and bool((np.abs(vector) > _HALF_MAX).any()):
            continue
        name = "HNSW" if index.method == "hnsw" else "IVFFlat"
        return Way("half" if index.half else "column", f"pgvector {name}")
    if relation.rows is not None and relation.rows < _MANY:
        return EXACT
    return Way("exact", EVERY, (f"no vector index for {metric.value}: every vector was compared",))


def settings(
    server: Server, relation: Relation, held: Held, way: Way, n: int, query: Query
) -> dict[str, str]:
    """Return the settings for a statement that looks for the n nearest."""
    if way.by == "exact":
        return {"enable_indexscan": "off"}  # an index of pgvector's is used in no other way
    wanted = 4 * n if way.by == "half" or held.type == "halfvec" else n
    found = {"hnsw.ef_search": str(min(_MOST_EF, max(_LEAST_EF, 2 * wanted)))}
    if query.where is None and query.tenant is None:
        # The planner takes a distance for one addition, and vectors of over 2 kB lie elsewhere:
        # it would rather read 400 of 2,200 dimensions than their index.
        found["enable_seqscan"] = "off"
    lists = max((i.lists or 0 for i in relation.indexes_of(held)), default=0)
    if lists:
        found["ivfflat.probes"] = str(max(1, round(lists**0.5)))
    if server.vector_version >= _ITERATIVE:
        found["hnsw.iterative_scan"] = "strict_order"
    return found
