"""Query: the nearest records of a namespace, exactly (the service approximates; an emulator need not).

Rules: QueryRequest in the 2026-07 OpenAPI file, "Search overview" and "Operation limits" (topK, the 4 MB
answer), "Create an index" (metrics: euclidean scores are squared distances, smaller is nearer).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from integration.pinecone_emulator import filters, vectors
from integration.pinecone_emulator.errors import invalid
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.metadata import size
from integration.pinecone_emulator.namespace import Record, View
from integration.pinecone_emulator.wire import Decoded

# No service over a network answers sooner, and the SDK's integration tests count on it: a deadline of a
# microsecond must pass, which a socket rounds up to a millisecond.
_LEAST_S = 0.01


def query(index: Index, request: Decoded) -> Decoded:
    """The QueryResponse for a QueryRequest."""
    time.sleep(_LEAST_S)
    top_k = request.get("top_k", 0)
    if not 1 <= top_k <= index.limits.top_k:
        raise invalid(f"topK must be between 1 and {index.limits.top_k}, got {top_k}")
    for name in ("scan_factor", "max_candidates"):
        if name in request:
            raise invalid(f"{name} is supported only for dedicated read node dense indexes")
    holds = filters.compiled(request.get("filter") or {}, index.limits)
    with index.lock:
        view = index.view(request)
        dense, sparse = _query_vectors(index, view, request)
        if dense is None and sparse is None:
            found = []  # a query by the id of no record matches nothing
        else:
            found = [one for one in _scored(index, view, dense, sparse) if holds(one[0].metadata or {})]
    nearest_first = index.definition.metric != "euclidean"
    found.sort(key=lambda one: (-one[1] if nearest_first else one[1], one[0].id))
    values, metadata = request.get("include_values", False), request.get("include_metadata", False)
    best = found[:top_k]
    _check_result_size(index, best, values, metadata)
    return {
        "matches": [
            {"id": record.id, "score": score, **_rest(record.message(values=values, metadata=metadata))}
            for record, score in best
        ],
        "namespace": request.get("namespace", ""),
        "usage": {"read_units": 1 + len(view.records) // 100_000},
    }


def _rest(message: Decoded) -> Decoded:
    return {name: item for name, item in message.items() if name != "id"}


def _query_vectors(
    index: Index, view: View, request: Decoded
) -> tuple[vectors.Floats | None, vectors.Sparse | None]:
    """The dense and sparse query vectors a request names, itself or by the id of a record."""
    values, sparse, one = request.get("vector"), request.get("sparse_vector"), request.get("id", "")
    values = None if values is not None and len(values) == 0 else values
    if one and (values is not None or sparse is not None):
        other = "vector" if values is not None else "sparse_vector"
        raise invalid(f"Cannot provide both 'ID' and '{other}' at the same time")
    if one:
        record = view.records.get(index.check_id(one))
        return (None, None) if record is None else (record.values, record.sparse)
    if values is None and sparse is None:
        raise invalid("Must provide either 'ID' or 'vector' or 'sparse_vector'")
    dimension = index.definition.dimension
    if values is None and dimension is not None:
        raise invalid(f"Vector dimension 0 does not match the dimension of the index {dimension}")
    dense = None if values is None else vectors.dense(values, dimension, index.limits)
    if sparse is None:
        return dense, None
    index.check_sparse_query()
    return dense, vectors.sparse(sparse, index.limits)


def _scored(
    index: Index, view: View, dense: vectors.Floats | None, sparse: vectors.Sparse | None
) -> list[tuple[Record, float]]:
    weights = sparse.weights() if sparse is not None else {}
    if dense is None:
        rows = list(view.records.values())
        return [(row, row.sparse.dot(weights)) for row in rows if row.sparse is not None]
    rows, matrix = view.matrix()
    if not rows:
        return []
    totals: np.ndarray[Any, np.dtype[np.float32]] = vectors.scores(index.definition.metric, matrix, dense)
    out = []
    for row, score in zip(rows, totals.tolist(), strict=True):
        extra = row.sparse.dot(weights) if weights and row.sparse is not None else 0.0
        out.append((row, score + extra))
    return out


def _check_result_size(index: Index, best: list[tuple[Record, float]], values: bool, metadata: bool) -> None:
    """Refuse an answer over the documented size, counting 4 bytes a value as gRPC would send it."""
    total = 0
    for record, _ in best:
        total += len(record.id) + 16
        if values:
            total += 0 if record.values is None else record.values.nbytes
            total += 0 if record.sparse is None else 8 * len(record.sparse.indices)
        if metadata and record.metadata:
            total += size(record.metadata)
    if total > index.limits.query_result_bytes:
        raise invalid(
            "Query result size exceeds the maximum of 4 MB: use a lower top_k, or exclude values or metadata"
        )
