"""The control plane through the SDK, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pinecone import Index, Pinecone, ServerlessSpec
from pinecone.errors import ApiError, ConflictError, ForbiddenError, NotFoundError, UnauthorizedError

from integration.pinecone_emulator import PineconeEmulator

AWS = ServerlessSpec(cloud="aws", region="us-east-1")

DENSE = {"fields": {"_values": {"type": "dense_vector", "dimension": 3, "metric": "cosine"}}}


def _create(
    http: httpx.Client, emulator: PineconeEmulator, body: Any, version: str = "2026-07"
) -> httpx.Response:
    headers = {"X-Pinecone-Api-Version": version}
    return http.post(f"{emulator.url}/indexes", json=body, headers=headers)


def test_a_dense_index_lives_from_create_to_delete(client: Pinecone, emulator: PineconeEmulator) -> None:
    made = client.create_index(name="life", dimension=8, metric="euclidean", spec=AWS, tags={"team": "a"})
    assert made.status.ready
    assert (made.dimension, made.metric, made.vector_type) == (8, "euclidean", "dense")
    assert made.host == emulator.index_host("life")
    assert made.host.startswith("http://127.0.0.1:")
    assert made.spec.serverless is not None
    assert (made.spec.serverless.cloud, made.spec.serverless.region) == ("aws", "us-east-1")
    assert made.tags == {"team": "a"}
    assert client.has_index("life")
    assert "life" in [one.name for one in client.list_indexes()]
    client.delete_index("life")
    assert not client.has_index("life")
    with pytest.raises(NotFoundError, match="life not found"):
        client.describe_index("life")


def test_a_sparse_index_has_no_dimension(new_index: Callable[..., Index], client: Pinecone) -> None:
    host = new_index(vector_type="sparse").host
    made = next(one for one in client.list_indexes() if one.host == host)
    assert (made.dimension, made.metric, made.vector_type) == (None, "dotproduct", "sparse")


def test_deletion_protection_holds_until_it_is_switched_off(client: Pinecone) -> None:
    client.create_index(name="safe", dimension=2, spec=AWS, deletion_protection="enabled")
    with pytest.raises(ForbiddenError, match="Deletion protection is enabled for this index"):
        client.delete_index("safe")
    client.configure_index("safe", deletion_protection="disabled")
    client.delete_index("safe")


def test_tags_are_merged_and_an_empty_value_removes_one(client: Pinecone) -> None:
    client.create_index(name="tagged", dimension=2, spec=AWS, tags={"a": "1", "b": "2"})
    client.configure_index("tagged", tags={"a": "", "c": "3"})
    assert client.describe_index("tagged").tags == {"b": "2", "c": "3"}
    client.delete_index("tagged")


def test_a_name_is_taken_once(client: Pinecone) -> None:
    client.create_index(name="twice", dimension=2, spec=AWS)
    with pytest.raises(ConflictError) as caught:
        client.create_index(name="twice", dimension=2, spec=AWS, timeout=-1)
    assert caught.value.body == {
        "error": {"code": "ALREADY_EXISTS", "message": "Resource already exists."},
        "status": 409,
    }
    client.delete_index("twice")


def test_a_new_index_under_an_old_name_is_empty(client: Pinecone) -> None:
    for _ in range(2):
        client.create_index(name="again", dimension=2, spec=AWS)
        with client.index(name="again") as index:
            assert index.describe_index_stats().total_vector_count == 0
            index.upsert(vectors=[("a", [1.0, 2.0])])
        client.delete_index("again")


def test_configuring_needs_an_existing_index(client: Pinecone) -> None:
    with pytest.raises(NotFoundError):
        client.configure_index("nowhere", deletion_protection="enabled")
    with pytest.raises(NotFoundError):
        client.delete_index("nowhere")


def test_an_unknown_region_is_not_found(client: Pinecone) -> None:
    with pytest.raises(NotFoundError, match="cloud: aws region: us-west1"):
        client.create_index(
            name="far", dimension=2, spec={"serverless": {"cloud": "aws", "region": "us-west1"}}
        )


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"schema": DENSE, "name": "Upper"}, 400, "lower case"),
        ({"schema": DENSE, "name": "-a"}, 400, "start and end"),
        ({"schema": DENSE, "name": "a" * 46}, 400, "45"),
        ({"schema": {"fields": {}}, "name": "a"}, 400, "searched field"),
        ({"name": "a"}, 422, "missing field `schema`"),
        ({"schema": DENSE, "name": "a", "dimension": 3}, 422, "unknown field `dimension`"),
        ({"schema": DENSE, "deployment": {"SERVERLESS": {}}}, 422, "deployment_type"),
        ({"schema": DENSE, "deployment": {"deployment_type": "serverless"}}, 422, "unknown variant"),
        ({"schema": {"fields": {"_values": {"type": "dense_vector", "dimension": 3}}}}, 422, "`metric`"),
        ({"schema": DENSE, "deletion_protection": "yes"}, 422, "deletion_protection"),
        ({"schema": {"fields": {"t": {"type": "string"}}}}, 422, "string field"),
        ({"schema": {"fields": {"t": {"type": "string", "filterable": True}}}}, 400, "used for search"),
    ],
)
def test_a_bad_create_request_is_refused(
    http: httpx.Client, emulator: PineconeEmulator, body: Any, status: int, part: str
) -> None:
    answer = _create(http, emulator, body)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert part in answer.json()["error"]["message"]


@pytest.mark.parametrize("dimension", [0, 20_001])
def test_a_dimension_is_between_1_and_20000(
    http: httpx.Client, emulator: PineconeEmulator, dimension: int
) -> None:
    field = {"type": "dense_vector", "dimension": dimension, "metric": "cosine"}
    answer = _create(http, emulator, {"name": "a", "schema": {"fields": {"_values": field}}})
    assert answer.status_code == 400
    assert "between 1 and 20000" in answer.json()["error"]["message"]


def test_older_versions_create_and_describe_in_their_own_shape(
    http: httpx.Client, emulator: PineconeEmulator, client: Pinecone
) -> None:
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    body = {"name": "older", "dimension": 3, "metric": "cosine", "vector_type": "dense", "spec": spec}
    answer = _create(http, emulator, body, version="2026-04")
    assert answer.status_code == 201
    described = http.get(
        f"{emulator.url}/indexes/older", headers={"X-Pinecone-Api-Version": "2026-04"}
    ).json()
    assert described["dimension"] == 3
    assert described["vector_type"] == "dense"
    assert described["spec"]["serverless"]["region"] == "us-east-1"
    assert set(client.describe_index("older").schema.fields) == {"_values"}
    assert _create(http, emulator, body).status_code == 422  # 2026-07 knows no such fields
    client.delete_index("older")


def test_kinds_that_hold_no_raw_vectors_are_described_as_what_they_are(client: Pinecone) -> None:
    embed = {"model": "multilingual-e5-large", "field_map": {"text": "chunk"}}
    made = client.indexes.create_for_model(name="embedding", cloud="aws", region="us-east-1", embed=embed)
    assert made.embed is not None
    assert made.embed.model == "multilingual-e5-large"
    field = {"type": "dense_vector", "dimension": 2, "metric": "cosine"}
    client.indexes.create(name="documents", schema={"fields": {"body": field}})
    with client.index(name="documents") as index:
        with pytest.raises(ApiError, match="documents API"):
            index.upsert(vectors=[("a", [0.1, 0.2])])
        assert index.fetch(ids=["a"]).vectors == {}
    for name in ("embedding", "documents"):
        client.delete_index(name)


def test_a_pod_index_of_an_older_version_cannot_list(
    client: Pinecone, http: httpx.Client, emulator: PineconeEmulator
) -> None:
    pods = {"pod": {"environment": "us-east1-gcp", "pod_type": "p1.x1", "replicas": 1, "shards": 1}}
    with pytest.raises(ApiError, match="Pod-based indexes cannot be created"):
        client.create_index(name="pods", dimension=2, spec=pods)
    body = {"name": "pods", "dimension": 2, "metric": "cosine", "spec": pods}
    assert _create(http, emulator, body, version="2026-04").status_code == 201
    made = client.describe_index("pods")
    assert made.spec.pod is not None
    with client.index(name="pods") as index:
        index.upsert(vectors=[("a", [0.1, 0.2], {"k": 1})])
        with pytest.raises(ApiError, match="serverless"):
            index.list_paginated()
        assert index.describe_index_stats(filter={"k": 1}).total_vector_count == 1
    client.configure_index("pods", replicas=2)
    assert client.describe_index("pods").spec.pod.replicas == 2  # type: ignore[union-attr]
    client.delete_index("pods")


def test_only_known_keys_are_let_in() -> None:
    with PineconeEmulator(api_keys=["good"]) as emulator:
        with Pinecone(api_key="good", host=emulator.url) as pc:
            pc.create_index(name="mine", dimension=2, spec=AWS)
        host = emulator.index_host("mine")
        for url in (f"{emulator.url}/indexes", f"{host}/vectors/list"):
            for headers in ({"Api-Key": "bad"}, {}):
                answer = httpx.get(url, headers=headers)
                assert (answer.status_code, answer.text) == (401, "Invalid API Key")
                assert answer.headers["content-type"] == "text/plain"
        with Pinecone(api_key="bad", host=emulator.url) as pc, pytest.raises(UnauthorizedError):
            pc.list_indexes()


def test_an_unknown_version_is_refused(http: httpx.Client, emulator: PineconeEmulator) -> None:
    answer = http.get(f"{emulator.url}/indexes", headers={"X-Pinecone-Api-Version": "2031-01"})
    assert answer.status_code == 400
    assert "2031-01" in answer.json()["error"]["message"]


def test_an_index_may_take_its_time_to_be_ready() -> None:
    with (
        PineconeEmulator(ready_after_s=0.3) as emulator,
        Pinecone(api_key="key", host=emulator.url) as pc,
    ):
        made = pc.create_index(name="slow", dimension=2, spec=AWS, timeout=-1)
        assert not made.status.ready
        assert made.status.state == "Initializing"
