"""Reads over one or several shards: scroll, retrieve, count, facet, query.

Records are dicts with `id`, `payload`, `vectors` (packed by name, or None),
`order_value`, `shard_key`; a scored point has `score` and `version` too.
"""

from __future__ import annotations

from typing import Any

from integration.qdrant_server import ids, settings, strict_mode, vectors
from integration.qdrant_server.collection import Collection
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.store import Store

Json = dict[str, Any]

# For these metrics a smaller score is a better one.
DISTANCE_METRICS = ("Euclid", "Manhattan")
DEFAULT_LIMIT = 10


def _at_least_one(ask: Json, name: str) -> None:
    if ask.get(name) is not None and ask[name] < 1:
        raise QdrantError("validation", f"[{name}: value {ask[name]} invalid, must be 1 or larger]")


def _marked(points: list[Json], key: Any) -> list[Json]:
    return [{**point, "shard_key": key} for point in points]


class Reads:
    """One method per read; `ask` is the REST body with canonical ids."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def retrieve(self, name: str, wanted: list[Any], ask: Json) -> list[Json]:
        """Found points in the order asked for; the others are left out."""
        found = self._store.get(name)
        strict_mode.check_rate(found, "read", len(wanted))
        by_id: dict[Any, Json] = {}
        for path, key in found.for_read(ask.get("shard_key")):
            got = found.call(path, "retrieve", wanted, _payload(ask, True), ask.get("with_vector") or False)
            by_id.update({point["id"]: point for point in _marked(got, key)})
        return [by_id[pid] for pid in dict.fromkeys(wanted) if pid in by_id]

    def scroll(self, name: str, ask: Json) -> tuple[list[Json], Any]:
        """One page and the id it goes on from (inclusive), None at the end or with `order_by`."""
        found = self._store.get(name)
        _at_least_one(ask, "limit")
        limit = ask.get("limit") or DEFAULT_LIMIT
        strict_mode.check_query(found, {**ask, "limit": limit})
        order = ask.get("order_by")
        if order and ask.get("offset") is not None:
            raise QdrantError(
                "bad_input",
                "Cannot use an `offset` when using `order_by`. The alternative for paging is to use "
                "`order_by.start_from` and a filter to exclude the IDs that you've already seen "
                "for the `order_by.start_from` value",
            )
        request = {
            **ask,
            "limit": limit if order else limit + 1,
            "with_payload": _payload(ask, True),
            "with_vector": ask.get("with_vector") or False,
        }
        points: list[Json] = []
        for path, key in found.for_read(ask.get("shard_key")):
            page, _ = found.call(path, "scroll", request)
            points += _marked(page, key)
        if order:
            falling = isinstance(order, dict) and order.get("direction") == "desc"
            points.sort(key=lambda point: point["order_value"], reverse=falling)
            return points[:limit], None
        # An id that several shards have is told once, as the server's `scroll_by` does.
        points = sorted({point["id"]: point for point in points}.values(), key=lambda p: ids.order(p["id"]))
        following = points[limit]["id"] if len(points) > limit else None
        return points[:limit], following

    def count(self, name: str, ask: Json) -> int:
        found = self._store.get(name)
        strict_mode.check_query(found, {"filter": ask.get("filter")})
        exact = ask.get("exact")
        return sum(
            found.call(path, "count", ask.get("filter"), True if exact is None else exact)
            for path, _ in found.for_read(ask.get("shard_key"))
        )

    def facet(self, name: str, ask: Json) -> list[tuple[Any, int]]:
        """Values by falling count, then by value."""
        found = self._store.get(name)
        _at_least_one(ask, "limit")
        strict_mode.check_query(found, {"filter": ask.get("filter")})
        limit = ask.get("limit") or DEFAULT_LIMIT
        hits: dict[tuple[str, Any], int] = {}
        for path, _ in found.for_read(ask.get("shard_key")):
            got = found.call(path, "facet", ask["key"], limit, bool(ask.get("exact")), ask.get("filter"))
            for value, count in got:
                hits[type(value).__name__, value] = hits.get((type(value).__name__, value), 0) + count
        ranked = sorted(hits.items(), key=lambda hit: (-hit[1], str(hit[0][1])))
        return [(value, count) for (_, value), count in ranked[:limit]]

    def query(self, name: str, asks: list[Json]) -> list[list[Json]]:
        """Every query of a batch; ids in them stand for their vectors."""
        found = self._store.get(name)
        strict_mode.check_batch(found, len(asks))
        return [self._query(found, ask) for ask in asks]

    def _query(self, found: Collection, ask: Json) -> list[Json]:
        _at_least_one(ask, "limit")
        limit = DEFAULT_LIMIT if ask.get("limit") is None else ask["limit"]
        offset = ask.get("offset") or 0
        strict_mode.check_query(found, {**ask, "limit": limit})
        shards = found.for_read(ask.get("shard_key"))
        resolved = self._resolved(found, ask)
        if resolved.get("prefetch") is None and _is_fusion(resolved.get("query")):
            raise QdrantError("bad_input", "cannot apply Fusion without prefetches")
        if len(shards) == 1:
            path, key = shards[0]
            return _marked(
                found.call(path, "query", [{**resolved, "limit": limit, "offset": offset}])[0], key
            )
        points: list[Json] = []
        for path, key in shards:
            points += _marked(
                found.call(path, "query", [{**resolved, "limit": limit + offset, "offset": 0}])[0], key
            )
        query = resolved.get("query")
        if query is None:
            points.sort(key=lambda point: ids.order(point["id"]))
        elif isinstance(query, dict) and "order_by" in query:
            order = query["order_by"]
            falling = isinstance(order, dict) and order.get("direction") == "desc"
            points.sort(key=lambda point: point["order_value"], reverse=falling)
        else:
            points.sort(key=lambda point: point["score"], reverse=not self._smaller_first(found, resolved))
        return points[offset : offset + limit]

    def _smaller_first(self, found: Collection, ask: Json) -> bool:
        query = ask.get("query")
        if isinstance(query, dict) and "nearest" not in query:
            return False
        dense = settings.dense_vectors(found.settings)
        return dense.get(ask.get("using") or "", {}).get("distance") in DISTANCE_METRICS

    # Ids and texts inside queries

    def _resolved(self, found: Collection, ask: Json) -> Json:
        """The query with vectors where it had ids or texts, and those ids kept out of the answer."""
        own: list[Any] = []
        made = {**ask, "query": self._resolve(found, ask, ask.get("query"), own)}
        if ask.get("prefetch"):
            given = ask["prefetch"]
            nested = given if isinstance(given, list) else [given]
            made["prefetch"] = [self._resolved(found, one) for one in nested]
        if own:
            exclude: Json = {"must_not": [{"has_id": own}]}
            made["filter"] = exclude if not ask.get("filter") else {"must": [ask["filter"]], **exclude}
        return made

    def _resolve(self, found: Collection, ask: Json, query: Any, own: list[Any]) -> Any:
        def one(given: Any) -> Any:
            return self._vector(found, ask, given, own)

        if query is None:
            return None
        if not isinstance(query, dict) or {"indices", "values"} <= query.keys() or "model" in query:
            return {"nearest": one(query)}
        if "nearest" in query:
            return {**query, "nearest": one(query["nearest"])}
        if "recommend" in query:
            given = query["recommend"]
            positive = [one(v) for v in given.get("positive") or []]
            negative = [one(v) for v in given.get("negative") or []]
            if (given.get("strategy") or "average_vector") == "average_vector":
                return {"nearest": _average(positive, negative)}
            return {"recommend": {**given, "positive": positive, "negative": negative}}
        if "discover" in query:
            given = query["discover"]
            return {"discover": {"target": one(given["target"]), "context": _pairs(given["context"], one)}}
        if "context" in query:
            return {"context": _pairs(query["context"], one)}
        if "formula" in query or "text" in query or "relevance_feedback" in query:
            raise QdrantError("unimplemented", f"query of kind {next(iter(query))}")
        return query

    def _vector(self, found: Collection, ask: Json, given: Any, own: list[Any]) -> Any:
        lookup = ask.get("lookup_from")
        using = ask.get("using") or ""
        if isinstance(given, (int, str)):
            given = ids.from_json(given)
            source = self._store.get(lookup["collection"]) if lookup else found
            name = (lookup or {}).get("vector") or using
            for path, _ in source.for_read((lookup or {}).get("shard_key")):
                for point in source.call(path, "retrieve", [given], False, True):
                    if name not in point["vectors"]:
                        raise QdrantError(
                            "bad_input", f"Vector with name {name!r} not found on point {given}"
                        )
                    if source is found:
                        own.append(given)
                    return vectors.one_to_json(point["vectors"][name])
            raise QdrantError("not_found", f"No point with id {given} found")
        packed = vectors.one_from_json(given)
        if packed[0] == "t":
            indices, values = self._store.engine.call("bm25", packed[1], True)
            packed = ("s", indices, values)
        vectors.check({using: packed}, found.settings)
        return vectors.one_to_json(packed)


def _payload(ask: Json, default: bool) -> Any:
    given = ask.get("with_payload")
    return default if given is None else given


def _is_fusion(query: Any) -> bool:
    return isinstance(query, dict) and ("fusion" in query or "rrf" in query)


def _pairs(context: Any, one: Any) -> list[Json]:
    pairs = context if isinstance(context, list) else [context]
    return [{"positive": one(p["positive"]), "negative": one(p["negative"])} for p in pairs if p]


def _average(positive: list[Any], negative: list[Any]) -> list[float]:
    """The server's `average_vector` strategy: 2 * avg(positive) - avg(negative)."""
    if not positive:
        raise QdrantError("bad_input", "At least one positive vector ID required")
    if not all(isinstance(v, list) and v and not isinstance(v[0], list) for v in positive + negative):
        raise QdrantError("unimplemented", "average of sparse or multi vectors")
    plus = [sum(column) / len(positive) for column in zip(*positive, strict=True)]
    if not negative:
        return plus
    minus = [sum(column) / len(negative) for column in zip(*negative, strict=True)]
    return [2 * p - m for p, m in zip(plus, minus, strict=True)]
