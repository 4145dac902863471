"""Whether a collection answers what it will be asked."""

from __future__ import annotations

from migrate.backends.qdrant.engine import Info, dense_vectors
from migrate.schema import Metric
from migrate.search.base import Health

_SMALL = 10_000  # points that are compared one by one in some milliseconds
_PART = 0.5  # of the points: segments below the threshold are not indexed, and that is as it should be


def health_of(info: Info, vector: str, wanted: Metric) -> Health:
    """Return what stands ready for one vector of a collection."""
    here = dense_vectors(info.settings["params"].get("vectors")).get(vector) or {}
    distance, problems = str(here.get("distance") or ""), []
    metric = next((m for m in Metric if m.value == distance.lower()), None)
    if metric is not wanted:
        problems.append(
            f"{vector} is kept for {distance or 'nothing'}, the vectors are compared by {wanted.value}"
        )
    hnsw = {**(info.settings.get("hnsw_config") or {}), **(here.get("hnsw_config") or {})}
    threshold = (info.settings.get("optimizer_config") or {}).get("indexing_threshold")
    off = hnsw.get("m") == 0 or threshold == 0
    if off and info.points > _SMALL:
        problems.append(f"no vector index: each query compares all {info.points:,} vectors")
    if info.status != "green":
        problems.append(f"the collection is {info.status}: its index is not finished")
    elif not off and info.indexed < info.points * _PART and info.points > _SMALL:
        problems.append(f"{info.indexed:,} of {info.points:,} points are indexed")
    if info.trouble is not None:
        problems.append(info.trouble)
    return Health(None if off else "HNSW", metric, info.indexed, None, tuple(problems))
