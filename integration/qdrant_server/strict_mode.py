"""Strict mode: the limits that a collection's `strict_mode_config` switches on.

Texts follow the server's `collection_verification` (public sources); they end in
`Help: ...` with what to do.
"""

from __future__ import annotations

import math
import time
from typing import Any

from integration.qdrant_server import paths
from integration.qdrant_server.collection import Collection
from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]

# Tokens left per (collection folder, kind), refilled over a minute.
_BUCKETS: dict[tuple[str, str], tuple[float, float]] = {}


def _config(found: Collection) -> Json:
    config: Json = found.settings.get("strict_mode_config") or {}
    return config if config.get("enabled") else {}


def _limit(value: int | None, most: int | None, name: str) -> None:
    if value is not None and most is not None and value > most:
        raise QdrantError(
            "bad_request",
            f'Limit exceeded {value} > {most} for "{name}". Help: Reduce the "{name}" parameter to {most}.',
        )


def check_upsert(found: Collection, points: int, where: Json | None) -> None:
    config = _config(found)
    _limit(points, config.get("upsert_max_batchsize"), "upsert limit")
    if config.get("max_points_count") is not None:
        have = found.info()["points_count"]
        if have + points > config["max_points_count"]:
            raise QdrantError(
                "bad_request",
                f"Max points count limit of {config['max_points_count']} reached! Help: Delete points or raise the limit.",
            )
    check_filter(found, where, update=True)
    check_rate(found, "write", points)


def check_batch(found: Collection, queries: int) -> None:
    """`search_max_batchsize`, since 1.18."""
    _limit(queries, _config(found).get("search_max_batchsize"), "search batch size")


def check_query(found: Collection, ask: Json) -> None:
    """Limits of one read: `limit`, `params`, `filter`."""
    config = _config(found)
    _limit(ask.get("limit"), config.get("max_query_limit"), "limit")
    params = ask.get("params") or {}
    _limit(params.get("hnsw_ef"), config.get("search_max_hnsw_ef"), "hnsw_ef")
    if params.get("exact") and config.get("search_allow_exact") is False:
        raise QdrantError("bad_request", 'Exact search disabled! Help: Set the "exact" parameter to false.')
    check_filter(found, ask.get("filter"), update=False)
    for one in _list(ask.get("prefetch")):
        _check_prefetch(found, config, one)
    check_rate(found, "read", 1)


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _check_prefetch(found: Collection, config: Json, ask: Json) -> None:
    _limit(ask.get("limit"), config.get("max_query_limit"), "limit")
    check_filter(found, ask.get("filter"), update=False)
    for one in _list(ask.get("prefetch")):
        _check_prefetch(found, config, one)


def check_index_count(found: Collection, field: str) -> None:
    most = _config(found).get("max_payload_index_count")
    if most is not None and field not in found.schema and len(found.schema) >= most:
        raise QdrantError(
            "bad_request",
            f"Collection already has the maximum number of payload indices ({most}). "
            "Help: Please delete an existing index before creating a new one.",
        )


def check_filter(found: Collection, where: Json | None, *, update: bool) -> None:
    config = _config(found)
    if not config or where is None:
        return
    fields = list(_fields(where))
    _limit(len(fields), config.get("filter_max_conditions"), "filter limit")
    allowed = config.get("unindexed_filtering_update" if update else "unindexed_filtering_retrieve")
    if allowed is not False:
        return
    for key, kinds in fields:
        if (found.schema.get(paths.canonical(key)) or {}).get("data_type") not in kinds:
            raise QdrantError(
                "bad_request",
                f'Index required but not found for "{key}" of one of the following types: [{", ".join(kinds)}]. '
                "Help: Create an index for this key or use a different filter.",
            )


def _fields(where: Any) -> Any:
    """Keys of a filter, and the types of index that each of them may have (`unindexed_field.rs`)."""
    if isinstance(where, list):
        for one in where:
            yield from _fields(one)
    elif isinstance(where, dict):
        if "key" in where and "filter" not in where:
            yield where["key"], _kinds(where)
            return
        for condition in ("is_empty", "is_null"):
            if condition in where:
                yield where[condition]["key"], _ANY_INDEX
        for clause in ("must", "should", "must_not"):
            yield from _fields(where.get(clause))
        yield from _fields((where.get("min_should") or {}).get("conditions"))


_ANY_INDEX = ("bool", "datetime", "float", "geo", "integer", "keyword", "text", "uuid")


def _kinds(condition: Json) -> tuple[str, ...]:
    match = condition.get("match") or {}
    value = match["any"][0] if match.get("any") else match.get("value")
    if isinstance(value, bool):
        return ("bool",)
    if isinstance(value, int):
        return ("integer",)
    if condition.get("range"):
        return ("float", "integer")
    return ("keyword", "uuid")


def check_rate(found: Collection, kind: str, cost: int) -> None:
    """`read_rate_limit` and `write_rate_limit`: operations a minute, refilled steadily.

    What costs more than a minute gives is refused without Retry-After (`RateLimitError::AlwaysOverBudget`).
    """
    per_minute = _config(found).get(f"{kind}_rate_limit")
    if per_minute is None:
        return
    if cost > per_minute:
        raise QdrantError(
            "rate_limit",
            f"{kind.capitalize()} rate limit exceeded, request larger than rate limiter capacity, "
            "please try to split your request",
        )
    key, now = (str(found.folder), kind), time.monotonic()
    left, then = _BUCKETS.get(key, (float(per_minute), now))
    left = min(float(per_minute), left + (now - then) * per_minute / 60)
    if cost > left:
        wait_s = math.ceil((cost - left) * 60 / per_minute)
        _BUCKETS[key] = (left, now)
        raise QdrantError(
            "rate_limit",
            f"{kind.capitalize()} rate limit exceeded: Operation requires {cost} tokens "
            f"but only {left:.1f} were available. Retry after {wait_s}s",
            retry_after_s=wait_s,
        )
    _BUCKETS[key] = (left - cost, now)
