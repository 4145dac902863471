"""What a collection in strict mode lets a filter ask for: on Qdrant Cloud, only payload that is indexed.

https://qdrant.tech/documentation/guides/administration/#strict-mode
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrate.backends.qdrant.engine import Info, Json

_CLAUSES = ("must", "should", "must_not")


def allowed(where: Json | None, info: Info) -> Json | None:
    """Return the part of a filter that the server takes: it lets through what the whole does, and perhaps more."""
    if where is None or info.strict.get("unindexed_filtering_retrieve") is not False:
        return where
    return _part(where, info.schema)


def _part(node: Json, schema: Json) -> Json | None:
    if all(_is_indexed(one, schema) for one in _conditions(node)):
        return node
    if set(node) != {"must"}:
        return None
    kept = [part for one in node["must"] if (part := _part(one, schema)) is not None]
    return {"must": kept} if kept else None


def _conditions(node: Json) -> Iterator[Json]:
    """Yield what a filter or a condition asks of single fields."""
    clauses = [clause for clause in _CLAUSES if clause in node]
    if not clauses:
        yield node
    for clause in clauses:
        for one in node[clause]:
            yield from _conditions(one)


def _is_indexed(condition: Json, schema: Json) -> bool:
    for always in ("is_empty", "is_null"):
        if always in condition:  # any index tells
            return condition[always]["key"] in schema
    if "key" not in condition:
        return True  # ids need none
    index: Json = schema.get(condition["key"]) or {}
    if "range" in condition:
        return index.get("type") == "float" or _whole(index, "range")
    match: Json = condition.get("match") or {}
    values: list[Any] = match["any"] if "any" in match else [match.get("value")]
    if all(isinstance(v, str) for v in values):
        return index.get("type") == "keyword"
    if all(isinstance(v, bool) for v in values):
        return index.get("type") == "bool"
    return _whole(index, "lookup")


def _whole(index: Json, use: str) -> bool:
    return index.get("type") == "integer" and index.get(use) is not False
