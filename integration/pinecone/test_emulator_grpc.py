"""The same service over gRPC: plaintext, at the same host, with the SDK's native client."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pinecone import Index, Pinecone, RetryConfig, ServerlessSpec
from pinecone.errors import (
    ApiError,
    ConflictError,
    NotFoundError,
    PineconeConnectionError,
    PineconeTimeoutError,
    UnauthorizedError,
)
from pinecone.grpc import GrpcIndex

from integration.pinecone_emulator import PineconeEmulator

AWS = ServerlessSpec(cloud="aws", region="us-east-1")


def _open(host: str) -> GrpcIndex:
    """The SDK's client without its retries: here the setting exists."""
    return GrpcIndex(host=host, api_key="key", grpc_scheme="http", retry_config=RetryConfig(max_retries=0))


@pytest.fixture
def grpc_index(index: Index) -> Iterator[GrpcIndex]:
    opened = _open(index.host)
    yield opened
    opened.close()


def test_what_was_upserted_is_fetched_over_both_protocols(grpc_index: GrpcIndex, index: Index) -> None:
    metadata = {"genre": "drama", "year": 1994, "seen": False, "cast": ["ä", "🚀"]}
    answer = grpc_index.upsert(vectors=[("a", [0.1, 0.2, 0.3], metadata), ("b", [4, 5, 6])], namespace="ns")
    assert answer.upserted_count == 2
    for got in (
        grpc_index.fetch(ids=["a", "b", "c"], namespace="ns"),
        index.fetch(ids=["a", "b"], namespace="ns"),
    ):
        assert set(got.vectors) == {"a", "b"}
        assert got.namespace == "ns"
        assert got.vectors["a"].metadata == metadata
        assert (
            np.array(got.vectors["a"].values, np.float32).tolist()
            == np.array([0.1, 0.2, 0.3], np.float32).tolist()
        )


def test_float32_values_cross_bit_for_bit(new_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(2)
    sent = rng.standard_normal((20, 128)).astype(np.float32)
    client = _open(new_index(dimension=128).host)
    client.upsert(vectors=[(str(n), row.tolist()) for n, row in enumerate(sent)])
    got = client.fetch(ids=[str(n) for n in range(20)]).vectors
    assert all((np.array(got[str(n)].values, np.float32) == sent[n]).all() for n in range(20))
    client.close()


def test_sparse_and_hybrid_records_cross(new_index: Callable[..., Index]) -> None:
    sparse = {"indices": [9, 2**32 - 1, 3], "values": [0.5, 0.25, -1.0]}
    client = _open(new_index(vector_type="sparse").host)
    client.upsert(vectors=[{"id": "a", "sparse_values": sparse}])
    got = client.fetch(ids=["a"]).vectors["a"]
    assert got.sparse_values is not None
    assert (got.values, got.sparse_values.indices, got.sparse_values.values) == ([], *sparse.values())
    assert client.query(sparse_vector=sparse, top_k=1).matches[0].score == 1.3125
    client.close()
    hybrid = _open(new_index(dimension=2, metric="dotproduct").host)
    hybrid.upsert(vectors=[{"id": "a", "values": [1, 2], "sparse_values": sparse}])
    found = hybrid.query(vector=[1, 1], sparse_vector=sparse, top_k=1, include_values=True).matches[0]
    assert found.score == 4.3125
    assert found.sparse_values is not None
    hybrid.close()


def test_query_update_delete_list_and_stats(grpc_index: GrpcIndex) -> None:
    grpc_index.upsert(vectors=[(f"{n:03}", [1, n, 0], {"n": n}) for n in range(1, 251)])
    found = grpc_index.query(
        vector=[1, 1, 0], top_k=2, filter={"n": {"$lte": 5}}, include_values=True, include_metadata=True
    )
    assert [match.id for match in found.matches] == ["001", "002"]
    assert (found.matches[0].values, found.matches[0].metadata) == ([1, 1, 0], {"n": 1})
    assert [item.id for page in grpc_index.list(prefix="00") for item in page.vectors] == [
        f"{n:03}" for n in range(1, 10)
    ]
    assert len([item for page in grpc_index.list() for item in page.vectors]) == 250
    grpc_index.update(id="001", set_metadata={"new": "x"})
    assert grpc_index.update(filter={"n": {"$gt": 240}}, set_metadata={"late": True}).matched_records == 10
    assert set(grpc_index.fetch_by_metadata(filter={"new": "x"}).vectors) == {"001"}
    page = grpc_index.fetch_by_metadata(filter={"late": True}, limit=4)
    assert (len(page.vectors), page.pagination is not None) == (4, True)
    grpc_index.delete(filter={"late": True})
    grpc_index.delete(ids=["001", "002"])
    stats = grpc_index.describe_index_stats()
    assert (stats.dimension, stats.metric, stats.vector_type) == (3, "cosine", "dense")
    assert stats.namespaces["__default__"].vector_count == 238
    grpc_index.delete(delete_all=True)
    assert grpc_index.describe_index_stats().total_vector_count == 0


@pytest.mark.parametrize("grpc", [False, True])
def test_a_query_lasts_longer_than_a_deadline_of_a_microsecond(
    index: Index, grpc_index: GrpcIndex, grpc: bool
) -> None:
    one: Index | GrpcIndex = grpc_index if grpc else index
    one.upsert(vectors=[("a", [1, 2, 3])])
    late, tries = 0, 10 if grpc else 2  # over REST each waits for the SDK's own three retries
    for _ in range(tries):
        try:
            one.query(vector=[1, 2, 3], top_k=1, timeout=0.000001)
        except PineconeTimeoutError:
            late += 1
    assert late >= tries // 2  # a busy machine may wake the client when the answer is there
    assert len(one.query(vector=[1, 2, 3], top_k=1, timeout=30).matches) == 1


def test_namespaces(grpc_index: GrpcIndex) -> None:
    made = grpc_index.create_namespace(name="a", schema={"fields": {"f": {"filterable": True}}})
    assert (made.name, made.record_count) == ("a", 0)
    with pytest.raises(ConflictError):
        grpc_index.create_namespace(name="a")
    assert [one.name for page in grpc_index.list_namespaces() for one in page.namespaces] == ["a"]
    described = grpc_index.describe_namespace(name="a")
    assert described.schema is not None
    assert described.schema.fields["f"].filterable
    grpc_index.delete_namespace(name="a")
    with pytest.raises(NotFoundError):
        grpc_index.describe_namespace(name="a")


def test_refusals_arrive_as_the_sdks_own_errors(grpc_index: GrpcIndex) -> None:
    with pytest.raises(ApiError, match="Vector dimension 2 does not match the dimension of the index 3"):
        grpc_index.upsert(vectors=[("a", [1, 2])])
    with pytest.raises(ApiError, match="finite"):
        grpc_index.upsert(vectors=[("a", [1, 2, float("nan")])])
    with pytest.raises(ApiError, match="contains only zeros"):
        grpc_index.upsert(vectors=[("a", [0, 0, 0])])
    with pytest.raises(NotFoundError, match="Namespace not found"):
        grpc_index.delete(ids=["a"], namespace="never")
    with pytest.raises(ApiError, match="do not support describing index stats"):
        grpc_index.describe_index_stats(filter={"a": 1})


def test_a_request_holds_at_most_2_mb(grpc_index: GrpcIndex) -> None:
    with pytest.raises(ApiError, match="Request size 3MB exceeds the maximum supported size of 2MB"):
        grpc_index.upsert(vectors=[(str(n), [1, 2, 3], {"m": "x" * 40_000}) for n in range(60)])


def test_keys_are_checked() -> None:
    with PineconeEmulator(api_keys=["good"]) as emulator, Pinecone(api_key="good", host=emulator.url) as pc:
        host = pc.create_index(name="mine", dimension=2, spec=AWS).host
        assert host is not None
        with _open(host) as client, pytest.raises(UnauthorizedError):
            client.describe_index_stats()


def test_faults_and_counters_see_calls_as_their_rest_twins(
    grpc_index: GrpcIndex, emulator: PineconeEmulator
) -> None:
    emulator.faults.add(status=429, times=1, path="/vectors/upsert")
    with pytest.raises(ApiError, match="429 RESOURCE_EXHAUSTED"):
        grpc_index.upsert(vectors=[("a", [1, 2, 3])])
    emulator.faults.add(status=503, times=1, path="/vectors/upsert")
    with pytest.raises(PineconeConnectionError, match="unavailable"):  # what the SDK makes of UNAVAILABLE
        grpc_index.upsert(vectors=[("a", [1, 2, 3])])
    grpc_index.upsert(vectors=[("a", [1, 2, 3])])
    counted = {key: number for key, number in emulator.counters.by_path().items() if "upsert" in key[1]}
    assert counted == {("POST", "/vectors/upsert", status): 1 for status in (429, 503, 200)}
    emulator.faults.add(delay_s=0.5, times=1)
    with pytest.raises(PineconeTimeoutError):
        grpc_index.fetch(ids=["a"], timeout=0.1)


def test_batches_and_futures(grpc_index: GrpcIndex) -> None:
    vectors = [(str(n), [1.0, n + 1.0, 2.0]) for n in range(230)]
    answer = grpc_index.upsert(vectors=vectors, batch_size=50, show_progress=False)
    assert (answer.upserted_count, answer.successful_batch_count) == (230, 5)
    future = grpc_index.query_async(vector=[1, 2, 3], top_k=3)
    assert len(future.result(timeout=10).matches) == 3
