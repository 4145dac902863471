"""Queries in the form of the REST API as the embedded engine's own: what our searches ask, and no more.

Imported by the engine's process alone, which knows nothing of the rest of memlift.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

Json = dict[str, Any]


def _field(given: Json) -> Any:
    made: Json = {}
    match, bounds = given.get("match"), given.get("range")
    if match is not None:
        made["match"] = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
    if bounds is not None:
        made["range"] = edge.RangeFloat(**bounds)
    return edge.FieldCondition(given["key"], **made)


def _condition(given: Json) -> Any:
    if "key" in given:
        return _field(given)
    if "has_id" in given:
        return edge.HasIdCondition(set(given["has_id"]))
    if "has_vector" in given:
        return edge.HasVectorCondition(given["has_vector"])
    if "is_empty" in given:
        return edge.IsEmptyCondition(given["is_empty"]["key"])
    if "is_null" in given:
        return edge.IsNullCondition(given["is_null"]["key"])
    return filter_of(given)


def filter_of(given: Json | None) -> Any:
    """Return the engine's filter."""
    if given is None:
        return None
    parts: Any = {name: [_condition(one) for one in found] for name, found in given.items()}
    return edge.Filter(**parts)


def _query(given: Any, using: str) -> Any:
    if "rrf" in given:
        return edge.Fusion.Rrf(given["rrf"]["k"])
    near = given["nearest"]
    if isinstance(near, dict):
        near = edge.SparseVector(near["indices"], near["values"])
    return edge.Query.Nearest(near, using=using)


def _params(given: Json | None) -> Any:
    return edge.SearchParams(**given) if given else None


def request(given: Json) -> Any:
    """Return the engine's request; `nearest` and `rrf` queries, with prefetches, parameters and a filter."""
    prefetches = [
        edge.Prefetch(
            one["limit"],
            query=_query(one["query"], one["using"]),
            params=_params(one.get("params")),
            filter=filter_of(one.get("filter")),
        )
        for one in given.get("prefetch") or ()
    ]
    return edge.QueryRequest(
        limit=given["limit"],
        query=_query(given["query"], given.get("using") or ""),
        prefetches=prefetches or None,
        with_payload=given["with_payload"],
        with_vector=False,
        filter=filter_of(given.get("filter")),
        params=_params(given.get("params")),
    )
