"""Queries: metrics, inputs, order and what is included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pinecone import Index, Pinecone
from pinecone.errors import ApiError

POINTS = {"near": [1.0, 0.0, 0.0], "far": [0.0, 3.0, 0.0], "between": [2.0, 2.0, 0.0]}


def _seeded(index: Index, namespace: str = "") -> Index:
    index.upsert(
        vectors=[(name, values, {"name": name}) for name, values in POINTS.items()], namespace=namespace
    )
    return index


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [("near", 1.0), ("between", 0.5**0.5), ("far", 0.0)]),
        ("dotproduct", [("between", 2.0), ("near", 1.0), ("far", 0.0)]),
        ("euclidean", [("near", 0.0), ("between", 5.0), ("far", 10.0)]),  # squared, the smallest first
    ],
)
def test_matches_come_in_the_order_of_the_metric(
    new_index: Callable[..., Index], metric: str, expected: list[tuple[str, float]]
) -> None:
    found = _seeded(new_index(dimension=3, metric=metric)).query(vector=[1, 0, 0], top_k=3).matches
    assert [match.id for match in found] == [name for name, _ in expected]
    assert [match.score for match in found] == pytest.approx([score for _, score in expected])


def test_top_k_limits_and_nothing_is_included_unless_asked(index: Index) -> None:
    _seeded(index, "here")
    found = index.query(vector=[1, 0, 0], top_k=2, namespace="here")
    assert [match.id for match in found.matches] == ["near", "between"]
    assert all(match.values == [] and match.metadata is None for match in found.matches)
    assert found.namespace == "here"
    assert found.usage is not None
    assert found.usage.read_units is not None
    assert found.usage.read_units > 0
    full = index.query(
        vector=[1, 0, 0], top_k=1, namespace="here", include_values=True, include_metadata=True
    )
    assert (full.matches[0].values, full.matches[0].metadata) == ([1, 0, 0], {"name": "near"})


def test_a_stored_record_can_be_the_query(index: Index) -> None:
    _seeded(index)
    assert [match.id for match in index.query(id="far", top_k=1).matches] == ["far"]
    assert index.query(id="nowhere", top_k=1).matches == []
    assert index.query(vector=[1, 0, 0], top_k=1, namespace="empty").matches == []


def test_a_zero_query_is_answered(index: Index) -> None:
    assert {match.score for match in _seeded(index).query(vector=[0, 0, 0], top_k=3).matches} == {0.0}


def test_sparse_queries_score_by_dot_product(new_index: Callable[..., Index]) -> None:
    index = new_index(vector_type="sparse")
    index.upsert(
        vectors=[
            {"id": "both", "sparse_values": {"indices": [1, 2], "values": [0.5, 2.0]}},
            {"id": "one", "sparse_values": {"indices": [7, 1], "values": [9.0, 1.0]}},
            {"id": "none", "sparse_values": {"indices": [8], "values": [9.0]}},
        ]
    )
    found = index.query(
        sparse_vector={"indices": [2, 1], "values": [1.0, 1.0]}, top_k=2, include_values=True
    ).matches
    assert [(match.id, match.score) for match in found] == [("both", 2.5), ("one", 1.0)]
    assert found[1].sparse_values is not None
    assert found[1].sparse_values.indices == [7, 1]
    with pytest.raises(ApiError, match="sparse index"):
        index.query(vector=[1, 2], top_k=1)


def test_hybrid_queries_add_dense_and_sparse_scores(new_index: Callable[..., Index]) -> None:
    index = new_index(dimension=2, metric="dotproduct")
    index.upsert(
        vectors=[
            {"id": "plain", "values": [1, 1]},
            {"id": "mixed", "values": [1, 0], "sparse_values": {"indices": [5], "values": [4]}},
        ]
    )
    found = index.query(vector=[1, 1], sparse_vector={"indices": [5], "values": [0.5]}, top_k=2).matches
    assert [(match.id, match.score) for match in found] == [("mixed", 3.0), ("plain", 2.0)]


def test_the_sdk_can_ask_many_namespaces_at_once(index: Index) -> None:
    for name in ("a", "b"):
        _seeded(index, name)
    found = index.query_namespaces(vector=[1, 0, 0], namespaces=["a", "b"], metric="cosine", top_k=2)
    assert [match.id for match in found.matches] == ["near", "near"]


@pytest.mark.parametrize("model", ["multilingual-e5-large", "pinecone-sparse-english-v0"])
def test_an_index_may_embed_text_itself(client: Pinecone, model: str) -> None:
    name = f"embeds-{model[:8]}"
    embed = {"model": model, "field_map": {"text": "said"}}
    client.indexes.create_for_model(name=name, cloud="aws", region="us-east-1", embed=embed)
    texts = {"a": "a vector database", "b": "language models", "c": "embeddings of language"}
    records = [{"_id": one, "said": said, "n": len(said)} for one, said in texts.items()]
    with client.index(name=name) as index:
        assert index.upsert_records(namespace="here", records=records).record_count == 3
        found = index.search(namespace="here", top_k=1, inputs={"text": "database of vectors"})
        assert [(hit.id, hit.fields) for hit in found.result.hits] == [("a", {"said": texts["a"], "n": 17})]
        found = index.search(
            namespace="here", top_k=3, inputs={"text": "language"}, filter={"n": {"$lt": 16}}, fields=["n"]
        )
        assert [(hit.id, hit.fields) for hit in found.result.hits] == [("b", {"n": 15})]
        with pytest.raises(ApiError, match="must have a text in the field 'said'"):
            index.upsert_records(namespace="here", records=[{"_id": "d", "text": "another field"}])
        many = [{"_id": str(i), "said": "word"} for i in range(97)]
        with pytest.raises(ApiError, match="between 1 and 96"):
            index.upsert_records(namespace="here", records=many)
    client.indexes.delete(name)


def test_other_indexes_are_searched_by_vector_and_never_by_text(index: Index) -> None:
    _seeded(index, "here")
    found = index.search(namespace="here", top_k=1, vector=[1, 0, 0])
    assert [(hit.id, hit.fields) for hit in found.result.hits] == [("near", {"name": "near"})]
    with pytest.raises(ApiError, match="Integrated inference is not configured"):
        index.search(namespace="here", top_k=1, inputs={"text": "near"})
    with pytest.raises(ApiError, match="Integrated inference is not configured"):
        index.upsert_records(namespace="here", records=[{"_id": "a", "text": "b"}])
