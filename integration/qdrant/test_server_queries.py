"""Filters, queries, counts, facets and order, over both protocols."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct

DENSE = {
    1: [1.0, 0.0],
    2: [0.9, 0.1],
    3: [0.5, 0.5],
    4: [0.1, 0.9],
    5: [0.0, 1.0],
}
PAYLOADS: dict[int, dict[str, Any]] = {
    1: {"city": "Köln", "n": 1, "tags": ["a", "b"], "text": "dark mode", "at": "2024-01-01T00:00:00Z"},
    2: {"city": "Bonn", "n": 2, "tags": ["b"], "text": "light mode", "at": "2024-06-01T00:00:00Z"},
    3: {"city": "Köln", "n": 3, "f": 0.5, "tags": [], "ok": True, "where": {"lon": 6.96, "lat": 50.94}},
    4: {"city": None, "n": 2**53 + 1, "items": [{"k": 1, "v": "x"}, {"k": 2, "v": "y"}]},
    5: {"n": -5, "ok": False, "items": [{"k": 1, "v": "y"}]},
}


@pytest.fixture
def data(client: QdrantClient, name: str) -> str:
    client.create_collection(
        name,
        vectors_config={"d": models.VectorParams(size=2, distance=models.Distance.DOT)},
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    points = [
        PointStruct(
            id=n,
            vector={"d": DENSE[n], "s": models.SparseVector(indices=[n], values=[1.0])}
            if n < 5
            else {"d": DENSE[n]},
            payload=PAYLOADS[n],
        )
        for n in DENSE
    ]
    client.upsert(name, points)
    return name


def field(key: str, **how: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **how)


KOELN = field("city", match=models.MatchValue(value="Köln"))
BIG = field("n", range=models.Range(gt=1))
CASES: dict[str, tuple[models.Filter, list[int]]] = {
    "value": (models.Filter(must=[KOELN]), [1, 3]),
    "integer beyond a double": (
        models.Filter(must=[field("n", match=models.MatchValue(value=2**53 + 1))]),
        [4],
    ),
    "bool": (models.Filter(must=[field("ok", match=models.MatchValue(value=False))]), [5]),
    "any": (models.Filter(must=[field("tags", match=models.MatchAny(any=["a", "z"]))]), [1]),
    "any integer": (models.Filter(must=[field("n", match=models.MatchAny(any=[1, 3]))]), [1, 3]),
    "except": (
        models.Filter(must=[field("city", match=models.MatchExcept(**{"except": ["Köln"]}))]),
        [2],
    ),
    "text": (models.Filter(must=[field("text", match=models.MatchText(text="dark"))]), [1]),
    "range": (models.Filter(must=[field("n", range=models.Range(gte=1, lt=3))]), [1, 2]),
    "datetime": (
        models.Filter(must=[field("at", range=models.DatetimeRange(gt=datetime(2024, 3, 1, tzinfo=UTC)))]),
        [2],
    ),
    "should": (models.Filter(should=[KOELN, field("n", match=models.MatchValue(value=2))]), [1, 2, 3]),
    "must and must_not": (models.Filter(must=[KOELN], must_not=[BIG]), [1]),
    "min_should": (
        models.Filter(
            min_should=models.MinShould(
                conditions=[KOELN, BIG, field("f", range=models.Range(gt=0))], min_count=2
            )
        ),
        [3],
    ),
    "is_empty": (
        models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))]),
        [3, 4, 5],
    ),
    "is_null": (models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="city"))]), [4]),
    "has_id": (models.Filter(must=[models.HasIdCondition(has_id=[2, 5, 77])]), [2, 5]),
    "has_vector": (models.Filter(must_not=[models.HasVectorCondition(has_vector="s")]), [5]),
    "values_count": (models.Filter(must=[field("tags", values_count=models.ValuesCount(gte=1))]), [1, 2]),
    "geo": (
        models.Filter(
            must=[
                field(
                    "where",
                    geo_radius=models.GeoRadius(center=models.GeoPoint(lon=6.95, lat=50.94), radius=2000.0),
                )
            ]
        ),
        [3],
    ),
    "nested": (
        models.Filter(
            must=[
                models.NestedCondition(
                    nested=models.Nested(
                        key="items",
                        filter=models.Filter(
                            must=[
                                field("k", match=models.MatchValue(value=1)),
                                field("v", match=models.MatchValue(value="y")),
                            ]
                        ),
                    )
                )
            ]
        ),
        [5],
    ),
    "filter in filter": (models.Filter(must=[models.Filter(should=[KOELN, BIG]), BIG]), [2, 3, 4]),
}


def test_every_filter_selects_its_points(client: QdrantClient, data: str) -> None:
    got = {
        title: [p.id for p in client.scroll(data, scroll_filter=one)[0]] for title, (one, _) in CASES.items()
    }
    assert got == {title: ids for title, (_, ids) in CASES.items()}
    assert client.count(data, count_filter=CASES["value"][0]).count == 2


def test_nearest_takes_filter_offset_threshold_and_vectors(client: QdrantClient, data: str) -> None:
    found = client.query_points(
        data, query=[1.0, 0.0], using="d", limit=2, offset=1, with_vectors=["d"]
    ).points
    assert [(p.id, p.vector) for p in found] == [
        (2, {"d": [pytest.approx(0.9), pytest.approx(0.1)]}),
        (3, {"d": [0.5, 0.5]}),
    ]
    assert found[0].payload == PAYLOADS[2]
    found = client.query_points(
        data, query=[1.0, 0.0], using="d", score_threshold=0.4, with_payload=False
    ).points
    assert [p.id for p in found] == [1, 2, 3]
    assert found[0].payload in (None, {})
    found = client.query_points(data, query=[1.0, 0.0], using="d", query_filter=CASES["value"][0]).points
    assert [p.id for p in found] == [1, 3]


def test_a_point_id_stands_for_its_vector_and_is_left_out(client: QdrantClient, data: str) -> None:
    found = client.query_points(data, query=1, using="d", limit=2).points
    assert [p.id for p in found] == [2, 3]
    recommended = models.RecommendQuery(recommend=models.RecommendInput(positive=[5], negative=[1]))
    assert client.query_points(data, query=recommended, using="d", limit=1).points[0].id == 4
    best = models.RecommendInput(positive=[5], strategy=models.RecommendStrategy.BEST_SCORE)
    found = client.query_points(data, query=models.RecommendQuery(recommend=best), using="d", limit=1).points
    assert found[0].id == 4


def test_hybrid_queries_fuse_by_reciprocal_rank(client: QdrantClient, data: str) -> None:
    prefetch = [
        models.Prefetch(query=[1.0, 0.0], using="d", limit=3),
        models.Prefetch(query=models.SparseVector(indices=[3], values=[1.0]), using="s", limit=3),
    ]
    found = client.query_points(
        data, prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.RRF)
    ).points
    # k is 2 and ranks start at 0: point 3 is third of the dense and first of the sparse search.
    assert {p.id: p.score for p in found} == pytest.approx({3: 1 / 4 + 1 / 2, 1: 1 / 2, 2: 1 / 3})
    assert [p.id for p in found] == [3, 1, 2]
    found = client.query_points(data, prefetch=prefetch, query=models.RrfQuery(rrf=models.Rrf(k=60))).points
    assert {p.id: p.score for p in found} == pytest.approx({3: 1 / 62 + 1 / 60, 1: 1 / 60, 2: 1 / 61})
    rescored = client.query_points(data, prefetch=prefetch[:1], query=[0.0, 1.0], using="d").points
    assert [p.id for p in rescored] == [3, 2, 1]


def test_a_batch_answers_every_query(client: QdrantClient, data: str) -> None:
    answers = client.query_batch_points(
        data,
        [
            models.QueryRequest(query=[1.0, 0.0], using="d", limit=1, with_payload=True),
            models.QueryRequest(query=models.SparseVector(indices=[4], values=[1.0]), using="s"),
            models.QueryRequest(filter=CASES["value"][0]),
        ],
    )
    assert [[p.id for p in one.points] for one in answers] == [[1], [4], [1, 3]]
    assert answers[0].points[0].payload == PAYLOADS[1]


def test_scroll_orders_by_an_indexed_field(client: QdrantClient, data: str) -> None:
    with pytest.raises(Exception, match="No range index for `order_by` key: `n`"):
        client.scroll(data, order_by="n")
    client.create_payload_index(data, "n", models.PayloadSchemaType.INTEGER)
    points, following = client.scroll(data, order_by="n", limit=3)
    assert ([p.id for p in points], following) == ([5, 1, 2], None)
    down = models.OrderBy(key="n", direction=models.Direction.DESC, start_from=3)
    points, _ = client.scroll(data, order_by=down)
    assert [p.id for p in points] == [3, 2, 1, 5]
    assert points[0].order_value == 3


def test_facets_count_values_of_an_indexed_field(client: QdrantClient, data: str) -> None:
    with pytest.raises(Exception, match="No appropriate index for faceting: `city`"):
        client.facet(data, key="city")
    client.create_payload_index(data, "city", models.PayloadSchemaType.KEYWORD)
    hits = client.facet(data, key="city", exact=True).hits
    assert [(hit.value, hit.count) for hit in hits] == [("Köln", 2), ("Bonn", 1)]


def test_quantized_collections_answer(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
    )
    points = [PointStruct(id=n, vector=[float(n == k) for k in range(8)]) for n in range(8)]
    client.upsert(name, points)
    params = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0))
    found = client.query_points(name, query=[0, 0, 0, 1, 0, 0, 0, 0.5], limit=2, search_params=params).points
    assert [p.id for p in found] == [3, 7]
