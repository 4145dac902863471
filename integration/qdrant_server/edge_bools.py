"""Matching booleans, which the engine's Python binding cannot ask for.

`MatchValue(True)` of qdrant-edge-py 0.9 reaches the engine as the integer 1. So a
condition on a boolean is replaced by the ids of the points that meet it, found by
reading that one field of every point: slow, and right at the sizes of a test.
"""

from __future__ import annotations

import re
from typing import Any

import qdrant_edge as edge

Json = dict[str, Any]

_PART = re.compile(r'("(?:[^"\\]|\\.)*"|[^.\[\]"]+)((?:\[\d*\])*)(?:\.|$)')
_PAGE = 1000


def _is_bool_match(node: Json) -> bool:
    match = node.get("match")
    return "key" in node and isinstance(match, dict) and isinstance(match.get("value"), bool)


def without(shard: Any, node: Any, *, nested: bool = False) -> Any:
    """The request with every condition on a boolean replaced by `has_id`."""
    if isinstance(node, list):
        return [without(shard, one, nested=nested) for one in node]
    if not isinstance(node, dict):
        return node
    if _is_bool_match(node):
        if nested:
            raise ValueError("Validation: boolean match inside a nested condition is not served here")
        return {"has_id": _matching(shard, node["key"], node["match"]["value"])}
    return {
        key: value
        if key in ("points", "payload", "query")
        else without(shard, value, nested=nested or key == "nested")
        for key, value in node.items()
    }


def _matching(shard: Any, path: str, wanted: bool) -> list[Any]:
    ids: list[Any] = []
    offset = None
    while True:
        request = edge.ScrollRequest(limit=_PAGE, offset=offset, with_payload=True, with_vector=False)
        points, offset = shard.scroll(request)
        ids += [
            point.id for point in points if any(one is wanted for one in values(point.payload or {}, path))
        ]
        if offset is None:
            return ids


def values(payload: Any, path: str) -> list[Any]:
    """The values at a path such as `a."b.c"[].d`; a list at its end counts by its items."""
    nodes = [payload]
    for name, brackets in _PART.findall(path):
        key = name[1:-1] if name.startswith('"') else name
        nodes = [node[key] for node in nodes if isinstance(node, dict) and key in node]
        for index in re.findall(r"\[(\d*)\]", brackets):
            lists = [node for node in nodes if isinstance(node, list)]
            if index:
                nodes = [one[int(index)] for one in lists if int(index) < len(one)]
            else:
                nodes = [item for one in lists for item in one]
    return [item for node in nodes for item in (node if isinstance(node, list) else [node])]
