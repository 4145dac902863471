"""Writing and reading records through the SDK."""

from __future__ import annotations

import math
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from pinecone import Index, Vector
from pinecone.errors import ApiError, NotFoundError


def test_what_was_upserted_is_fetched(index: Index) -> None:
    metadata = {
        "genre": "drama",
        "year": 1994,
        "rate": 7.5,
        "seen": True,
        "cast": ["ä", "b"],
        "": "empty name",
    }
    answer = index.upsert(
        vectors=[
            Vector(id="a", values=[0.1, 0.2, 0.3], metadata=metadata),
            ("b", [0.4, 0.5, 0.6]),
            {"id": "c d/é".replace("é", "e"), "values": [0.7, 0.8, 0.9], "metadata": {"k": "🚀"}},
        ]
    )
    assert answer.upserted_count == 3
    fetched = index.fetch(ids=["a", "b", "c d/e", "nowhere"])
    assert set(fetched.vectors) == {"a", "b", "c d/e"}
    assert fetched.namespace == ""
    assert fetched.usage is not None
    assert fetched.usage.read_units == 1
    assert fetched.vectors["a"].metadata == metadata
    assert fetched.vectors["b"].metadata is None
    assert fetched.vectors["c d/e"].metadata == {"k": "🚀"}
    assert fetched.vectors["a"].values == [0.1, 0.2, 0.3]
    assert fetched.vectors["b"].values == [0.4, 0.5, 0.6]


def test_numbers_in_metadata_come_back_as_doubles(index: Index) -> None:
    numbers = {"one": 1, "big": 2**53 + 1, "bigger": 2**64 - 1, "tiny": -0.0, "flag": True}
    index.upsert(vectors=[("a", [1, 2, 3], numbers)])
    got = index.fetch(ids=["a"]).vectors["a"].metadata
    assert got is not None
    assert got == {"one": 1.0, "big": 2.0**53, "bigger": 2.0**64, "tiny": 0.0, "flag": True}
    assert {name: type(value) for name, value in got.items()} == {
        "one": float, "big": float, "bigger": float, "tiny": float, "flag": bool,
    }  # fmt: skip
    assert math.copysign(1, got["tiny"]) == -1


def test_values_are_float32_and_come_back_bit_for_bit(new_index: Callable[..., Index]) -> None:
    index = new_index(dimension=64)
    rng = np.random.default_rng(1)
    sent = (rng.standard_normal((50, 64)) * 10.0 ** rng.integers(-30, 30, (50, 1))).astype(np.float32)
    sent[:, 0] = 1.0
    index.upsert(vectors=[(str(n), row.tolist()) for n, row in enumerate(sent)])
    got = index.fetch(ids=[str(n) for n in range(50)]).vectors
    assert all((np.array(got[str(n)].values, np.float32) == sent[n]).all() for n in range(50))


def test_an_upsert_replaces_the_whole_record_and_the_last_of_equal_ids_wins(index: Index) -> None:
    index.upsert(vectors=[("a", [1, 2, 3], {"old": 1})])
    assert index.upsert(vectors=[("a", [4, 5, 6]), ("a", [7, 8, 9])]).upserted_count == 2
    got = index.fetch(ids=["a"]).vectors["a"]
    assert (got.values, got.metadata) == ([7, 8, 9], None)


def test_batches_arrive_whole(index: Index) -> None:
    vectors = [(f"v{n}", [1.0, n + 1.0, 0.5]) for n in range(230)]
    answer = index.upsert(vectors=vectors, batch_size=100, show_progress=False)
    assert (answer.upserted_count, answer.successful_batch_count) == (230, 3)
    assert index.describe_index_stats().total_vector_count == 230


def test_a_sparse_index_holds_sparse_vectors_only(new_index: Callable[..., Index]) -> None:
    index = new_index(vector_type="sparse")
    index.upsert(
        vectors=[{"id": "a", "sparse_values": {"indices": [9, 2**32 - 1, 3], "values": [0.5, 0.25, -1]}}]
    )
    got = index.fetch(ids=["a"]).vectors["a"]
    assert got.values == []
    assert got.sparse_values is not None
    assert got.sparse_values.indices == [9, 2**32 - 1, 3]
    assert got.sparse_values.values == [0.5, 0.25, -1]
    stats = index.describe_index_stats()
    assert (stats.dimension, stats.metric, stats.vector_type) == (None, "dotproduct", "sparse")
    with pytest.raises(ApiError, match="sparse"):
        index.upsert(vectors=[("b", [0.1, 0.2])])


def test_hybrid_records_need_dense_values_and_for_queries_the_dot_product(
    new_index: Callable[..., Index], index: Index
) -> None:
    record = {"id": "a", "values": [1, 2, 3], "sparse_values": {"indices": [1], "values": [0.5]}}
    hybrid = new_index(dimension=3, metric="dotproduct")
    hybrid.upsert(vectors=[record])
    got = hybrid.fetch(ids=["a"]).vectors["a"]
    assert got.values == [1, 2, 3]
    assert got.sparse_values is not None
    assert got.sparse_values.indices == [1]
    index.upsert(vectors=[record])  # cosine: written and read back, but not queried with sparse values
    assert index.fetch(ids=["a"]).vectors["a"].sparse_values == got.sparse_values
    with pytest.raises(ApiError, match="does not support sparse values"):
        index.query(vector=[1, 2, 3], sparse_vector={"indices": [1], "values": [0.5]}, top_k=1)
    with pytest.raises(ApiError, match="dimension 0"):
        hybrid.upsert(vectors=[{"id": "b", "sparse_values": {"indices": [1], "values": [0.5]}}])


def test_updating_by_id_changes_only_what_is_named(index: Index) -> None:
    index.upsert(vectors=[("a", [1, 2, 3], {"kept": "x", "changed": 1}), ("b", [1, 2, 3])])
    assert index.update(id="a", set_metadata={"changed": 2, "new": ["y"]}).matched_records is None
    assert index.fetch(ids=["a"]).vectors["a"].metadata == {"kept": "x", "changed": 2, "new": ["y"]}
    index.update(id="a", values=[7, 8, 9])
    got = index.fetch(ids=["a", "b"]).vectors
    assert got["a"].values == [7, 8, 9]
    assert got["a"].metadata == {"kept": "x", "changed": 2, "new": ["y"]}
    assert got["b"].values == [1, 2, 3]
    index.update(id="nowhere", values=[7, 8, 9])  # no record is made, no error given
    assert index.fetch(ids=["nowhere"]).vectors == {}


def test_updating_by_filter_counts_and_can_be_tried_dry(index: Index) -> None:
    index.upsert(vectors=[(str(n), [1, 2, 3], {"even": n % 2 == 0}) for n in range(5)])
    even = {"even": {"$eq": True}}
    assert index.update(filter=even, set_metadata={"seen": 1}, dry_run=True).matched_records == 3
    assert index.fetch(ids=["0"]).vectors["0"].metadata == {"even": True}
    assert index.update(filter=even, set_metadata={"seen": 1}).matched_records == 3
    assert index.fetch(ids=["0"]).vectors["0"].metadata == {"even": True, "seen": 1}


def test_deleting_by_id_by_filter_and_altogether(index: Index) -> None:
    index.upsert(vectors=[(str(n), [1, 2, 3], {"n": n}) for n in range(6)], namespace="x")
    index.delete(ids=["0", "nowhere"], namespace="x")
    index.delete(filter={"n": {"$gte": 4}}, namespace="x")
    assert [item.id for item in index.list_paginated(namespace="x").vectors] == ["1", "2", "3"]
    index.delete(delete_all=True, namespace="x")
    assert index.describe_index_stats().namespaces["x"].vector_count == 0
    index.delete(ids=["1"], namespace="x")


def test_deleting_in_a_namespace_that_does_not_exist_is_not_found(index: Index) -> None:
    with pytest.raises(NotFoundError) as caught:
        index.delete(ids=["a"], namespace="never")
    assert caught.value.body == {"code": 5, "message": "Namespace not found", "details": []}
    index.delete(ids=["a"])  # the default namespace always exists


def test_fetching_by_metadata_pages_to_the_end(index: Index) -> None:
    index.upsert(vectors=[(f"{n:02}", [1, 2, 3], {"third": n % 3 == 0}) for n in range(30)])
    seen: list[str] = []
    token = None
    while True:
        page = index.fetch_by_metadata(filter={"third": True}, limit=4, pagination_token=token)
        assert len(page.vectors) <= 4
        seen += page.vectors
        if page.pagination is None:
            break
        token = page.pagination.next
    assert seen == [f"{n:02}" for n in range(0, 30, 3)]
    assert page.vectors["27"].values == [1, 2, 3]


def test_writes_and_reads_carry_log_sequence_numbers(index: Index) -> None:
    written = index.upsert(vectors=[("a", [1, 2, 3])]).response_info
    assert written is not None
    assert written.lsn_committed == 1
    read = index.fetch(ids=["a"]).response_info
    assert read is not None
    assert read.is_reconciled(1)
    assert read.request_id


def test_reads_of_a_sparse_index_tell_no_log_sequence_number(new_index: Callable[..., Index]) -> None:
    index = new_index(vector_type="sparse")
    written = index.upsert(
        vectors=[{"id": "a", "sparse_values": {"indices": [1], "values": [0.5]}}]
    ).response_info
    assert written is not None
    assert written.lsn_committed == 1
    read = index.fetch(ids=["a"]).response_info
    assert read is not None
    assert read.lsn_reconciled is None


def test_sparse_values_may_be_spelled_as_in_the_proto_file(
    new_index: Callable[..., Index], http: httpx.Client
) -> None:
    index = new_index(vector_type="sparse")
    record = {"id": "a", "sparse_values": {"indices": [1], "values": [0.5]}}
    assert http.post(f"{index.host}/vectors/upsert", json={"vectors": [record]}).json() == {
        "upsertedCount": 1
    }
    answer = http.get(f"{index.host}/vectors/fetch", params={"ids": "a"}).json()
    assert answer["vectors"] == {
        "a": {"id": "a", "values": [], "sparseValues": {"indices": [1], "values": [0.5]}}
    }
