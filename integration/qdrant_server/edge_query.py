"""Filters and queries (as REST JSON) -> the engine's objects.

The JSON follows the public OpenAPI description (`Filter`, `Condition`, `QueryRequest`);
point ids inside queries were replaced by vectors before they come here.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

Json = dict[str, Any]


def _match(given: Json) -> Any:
    kinds = {
        "value": edge.MatchValue,
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
        "prefix": edge.MatchPrefix,
        "substring": edge.MatchSubstring,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
    }
    for name, make in kinds.items():
        if name in given:
            return make(given[name])
    raise ValueError("unknown match condition")


def _bounds(given: Json) -> Json:
    return {k: given[k] for k in ("lt", "gt", "lte", "gte") if given.get(k) is not None}


def _range(given: Json) -> Any:
    bounds = _bounds(given)
    if any(isinstance(value, str) for value in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**bounds)


def _geo(point: Json) -> Any:
    return edge.GeoPoint(point["lon"], point["lat"])


def _line(line: Json) -> list[Any]:
    return [_geo(point) for point in line["points"]]


def _field(given: Json) -> Any:
    made: Json = {}
    for name in ("is_empty", "is_null"):
        if given.get(name) is not None:
            made[name] = given[name]
    if given.get("match") is not None:
        made["match"] = _match(given["match"])
    if given.get("range") is not None:
        made["range"] = _range(given["range"])
    if given.get("values_count") is not None:
        made["values_count"] = edge.ValuesCount(**_bounds(given["values_count"]))
    if given.get("geo_bounding_box") is not None:
        box = given["geo_bounding_box"]
        made["geo_bounding_box"] = edge.GeoBoundingBox(_geo(box["top_left"]), _geo(box["bottom_right"]))
    if given.get("geo_radius") is not None:
        made["geo_radius"] = edge.GeoRadius(
            _geo(given["geo_radius"]["center"]), given["geo_radius"]["radius"]
        )
    if given.get("geo_polygon") is not None:
        polygon = given["geo_polygon"]
        inner = [_line(line) for line in polygon.get("interiors") or []]
        made["geo_polygon"] = edge.GeoPolygon(_line(polygon["exterior"]), inner or None)
    return edge.FieldCondition(given["key"], **made)


def condition(given: Json) -> Any:
    if "key" in given:
        return _field(given)
    if "has_id" in given:
        return edge.HasIdCondition(set(given["has_id"]))
    if "has_vector" in given:
        return edge.HasVectorCondition(given["has_vector"])
    if "nested" in given:
        return edge.NestedCondition(given["nested"]["key"], filter_of(given["nested"]["filter"]))
    if isinstance(given.get("is_empty"), dict):
        return edge.IsEmptyCondition(given["is_empty"]["key"])
    if isinstance(given.get("is_null"), dict):
        return edge.IsNullCondition(given["is_null"]["key"])
    return filter_of(given)


def _conditions(given: Any) -> list[Any] | None:
    if given is None:
        return None
    # `must: {...}` is accepted for a list of one (OpenAPI: anyOf array, Condition).
    return [condition(one) for one in (given if isinstance(given, list) else [given])]


def filter_of(given: Json | None) -> Any:
    if given is None:
        return None
    least = given.get("min_should")
    return edge.Filter(
        must=_conditions(given.get("must")),
        should=_conditions(given.get("should")),
        must_not=_conditions(given.get("must_not")),
        min_should=edge.MinShould(_conditions(least["conditions"]) or [], least["min_count"])
        if least
        else None,
    )


def vector(given: Any) -> Any:
    """A vector inside a query: a list, a list of lists, or `{"indices", "values"}`."""
    if isinstance(given, dict):
        return edge.SparseVector(given["indices"], given["values"])
    return given


def order_by(given: Any) -> Any:
    if isinstance(given, str):
        return edge.OrderBy(given)
    direction = edge.Direction.Desc if given.get("direction") == "desc" else edge.Direction.Asc
    return edge.OrderBy(given["key"], direction, given.get("start_from"))


def _pairs(context: Any) -> list[Any]:
    pairs = context if isinstance(context, list) else [context]
    return [edge.ContextPair(vector(p["positive"]), vector(p["negative"])) for p in pairs if p]


def query_of(given: Any, using: str) -> Any:
    """One query. A bare list or sparse vector means nearest."""
    if given is None:
        return None
    if isinstance(given, list) or "indices" in given:
        return edge.Query.Nearest(vector(given), using=using)
    if "nearest" in given:
        if given.get("mmr"):
            mmr = given["mmr"]
            diversity = mmr.get("diversity")
            return edge.Mmr(
                vector(given["nearest"]),
                1.0 - (0.5 if diversity is None else diversity),
                mmr.get("candidates_limit") or 100,
                using=using,
            )
        return edge.Query.Nearest(vector(given["nearest"]), using=using)
    if "recommend" in given:
        ask = given["recommend"]
        query = edge.RecommendQuery(
            [vector(v) for v in ask.get("positive") or []], [vector(v) for v in ask.get("negative") or []]
        )
        if ask.get("strategy") == "sum_scores":
            return edge.Query.RecommendSumScores(query, using=using)
        return edge.Query.RecommendBestScore(query, using=using)
    if "discover" in given:
        ask = given["discover"]
        return edge.Query.Discover(
            edge.DiscoverQuery(vector(ask["target"]), _pairs(ask["context"])), using=using
        )
    if "context" in given:
        return edge.Query.Context(edge.ContextQuery(_pairs(given["context"])), using=using)
    if "order_by" in given:
        return order_by(given["order_by"])
    if "fusion" in given:
        # The server's default k of reciprocal rank fusion is 2, its ranks start at 0.
        return edge.Fusion.Rrf(2) if given["fusion"] == "rrf" else edge.Fusion.Dbsf()
    if "rrf" in given:
        return edge.Fusion.Rrf(given["rrf"].get("k") or 2, given["rrf"].get("weights") or None)
    if "sample" in given:
        return edge.Sample.Random
    raise ValueError("unknown query")


def search_params(given: Json | None) -> Any:
    if not given:
        return None
    quantization = given.get("quantization")
    made: Json = {
        "exact": bool(given.get("exact")),
        "indexed_only": bool(given.get("indexed_only")),
    }
    if given.get("hnsw_ef") is not None:
        made["hnsw_ef"] = given["hnsw_ef"]
    if quantization:
        made["quantization"] = edge.QuantizationSearchParams(
            bool(quantization.get("ignore")), quantization.get("rescore"), quantization.get("oversampling")
        )
    return edge.SearchParams(**made)


def selector(given: Any) -> Any:
    """`with_payload`: a bool, a list of keys, `{"include": [...]}` or `{"exclude": [...]}`."""
    if isinstance(given, dict):
        if given.get("exclude") is not None:
            return edge.PayloadSelector.Exclude(given["exclude"])
        return edge.PayloadSelector.Include(given.get("include") or [])
    return given


def _prefetch(given: Json) -> Any:
    return edge.Prefetch(
        given.get("limit") or 10,
        query=query_of(given.get("query"), given.get("using") or ""),
        prefetches=prefetches(given.get("prefetch")),
        params=search_params(given.get("params")),
        filter=filter_of(given.get("filter")),
        score_threshold=given.get("score_threshold"),
    )


def prefetches(given: Any) -> list[Any] | None:
    if not given:
        return None
    return [_prefetch(one) for one in (given if isinstance(given, list) else [given])]


def request(given: Json) -> Any:
    """A whole query request. `limit` defaults to 10, `with_payload` to nothing, as on the server."""
    return edge.QueryRequest(
        limit=10 if given.get("limit") is None else given["limit"],
        offset=given.get("offset") or 0,
        query=query_of(given.get("query"), given.get("using") or ""),
        prefetches=prefetches(given.get("prefetch")),
        with_vector=given.get("with_vector") or False,
        with_payload=selector(given.get("with_payload") or False),
        filter=filter_of(given.get("filter")),
        score_threshold=given.get("score_threshold"),
        params=search_params(given.get("params")),
    )
