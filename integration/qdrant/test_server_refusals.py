"""What the server refuses, with its status, its code and its words, over both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from grpc import RpcError  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.http.exceptions import UnexpectedResponse

from integration.qdrant_server import QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct
PointVectors: Any = models.PointVectors

VECTORS = models.VectorParams(size=2, distance=models.Distance.COSINE)
GRPC = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "ALREADY_EXISTS", 422: "INVALID_ARGUMENT"}


def refused(call: Callable[[], Any], status: int, text: str) -> None:
    """The call fails with the HTTP status, or with the gRPC code that goes with it."""
    with pytest.raises((UnexpectedResponse, RpcError)) as caught:
        call()
    error = caught.value
    if isinstance(error, UnexpectedResponse):
        assert error.status_code == status
        body = json.loads(error.content)
        assert text in body["status"]["error"]
        assert isinstance(body["time"], float)
    else:
        assert error.code().name == GRPC[status]
        assert text in error.details()


@pytest.fixture
def there(client: QdrantClient, name: str) -> str:
    client.create_collection(
        name,
        vectors_config={
            "d": VECTORS,
            "rows": VECTORS.model_copy(
                update={
                    "multivector_config": models.MultiVectorConfig(
                        comparator=models.MultiVectorComparator.MAX_SIM
                    )
                }
            ),
        },
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    return name


def upsert(client: QdrantClient, name: str, vector: Any, pid: Any = 1) -> Callable[[], Any]:
    return lambda: client.upsert(name, [PointStruct(id=pid, vector=vector)])


def test_a_missing_collection_is_404(client: QdrantClient, name: str) -> None:
    text = f"Not found: Collection `{name}` doesn't exist!"
    refused(lambda: client.get_collection(name), 404, text)
    refused(lambda: client.scroll(name), 404, text)
    refused(lambda: client.count(name), 404, text)
    refused(lambda: client.retrieve(name, [1]), 404, text)
    refused(upsert(client, name, [1, 2]), 404, text)
    refused(lambda: client.update_collection(name, hnsw_config=models.HnswConfigDiff(m=1)), 404, text)
    make = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name="x"))
    refused(lambda: client.update_collection_aliases([make]), 404, text)


def test_a_collection_that_exists_is_409(client: QdrantClient, there: str) -> None:
    refused(
        lambda: client.create_collection(there, vectors_config=VECTORS),
        409,
        f"Wrong input: Collection `{there}` already exists!",
    )


def test_bad_settings_are_422(client: QdrantClient, name: str) -> None:
    empty = models.VectorParams(size=0, distance=models.Distance.DOT)
    refused(
        lambda: client.create_collection(name, vectors_config=empty),
        422,
        "value 0 invalid, must be from 1 to 65536",
    )
    refused(
        lambda: client.create_collection(
            name, vectors_config=VECTORS, hnsw_config=models.HnswConfigDiff(ef_construct=1)
        ),
        422,
        "hnsw_config.ef_construct: value 1 invalid, must be 4 or larger",
    )
    assert not client.collection_exists(name)


def test_wrong_vectors_are_400(client: QdrantClient, there: str) -> None:
    refused(
        upsert(client, there, {"d": [1, 2, 3]}),
        400,
        "Wrong input: Vector dimension error: expected dim: 2, got 3",
    )
    refused(
        upsert(client, there, {"rows": [[1, 2, 3]]}), 400, "Vector dimension error: expected dim: 2, got 3"
    )
    refused(upsert(client, there, {"zz": [1, 2]}), 400, "Wrong input: Not existing vector name error: zz")
    refused(upsert(client, there, [1, 2]), 400, "Wrong input: Not existing vector name error: ")
    refused(upsert(client, there, {"s": [1, 2]}), 400, "Wrong usage of sparse vectors")
    refused(upsert(client, there, {"d": [[1, 2]]}), 400, "Wrong usage of multi vectors")
    assert client.count(there).count == 0


def test_malformed_vectors_are_422_even_without_wait(client: QdrantClient, there: str) -> None:
    twice = models.SparseVector(indices=[1, 1], values=[1, 2])
    ragged = models.SparseVector(indices=[1, 2], values=[1])
    for vector, text in (
        ({"s": twice}, "must be unique"),
        ({"s": ragged}, "must be the same length"),
        ({"rows": [[1, 2], [1]]}, "all vectors must have the same dimension"),
    ):
        points = [PointStruct(id=1, vector=vector)]
        refused(lambda points=points: client.upsert(there, points, wait=False), 422, text)  # type: ignore[misc]


def test_ids_are_unsigned_64_bit_integers_or_uuids(client: QdrantClient, there: str, protocol: str) -> None:
    for bad in ("abc", "mt_4b884bfa-3fe0-4024-a74a-000000000000", "5", ""):
        text = {
            "rest": f"Format error in JSON body: value {bad} is not a valid point ID, valid values are either an unsigned integer or a UUID",
            "grpc": f"Unable to parse UUID: {bad}",
        }[protocol]
        refused(upsert(client, there, {"d": [1, 2]}, bad), 400, text)
    for good in (
        "0B1D67E6-5E2E-4B67-9B4B-0D0A6B9F2E53",
        "0b1d67e65e2e4b679b4b0d0a6b9f2e53",
        "urn:uuid:0b1d67e6-5e2e-4b67-9b4b-0d0a6b9f2e53",
    ):
        upsert(client, there, {"d": [1, 2]}, good)()
    assert [p.id for p in client.scroll(there)[0]] == ["0b1d67e6-5e2e-4b67-9b4b-0d0a6b9f2e53"]


def test_updates_of_points_that_are_not_there_are_404(client: QdrantClient, there: str) -> None:
    refused(lambda: client.set_payload(there, {"a": 1}, points=[404]), 404, "No point with id 404")
    vectors = [PointVectors(id=404, vector={"d": [1, 2]})]
    refused(lambda: client.update_vectors(there, vectors), 404, "No point with id 404")
    refused(lambda: client.query_points(there, query=404, using="d"), 404, "No point with id 404 found")


def test_an_update_of_nothing_is_400(client: QdrantClient, there: str) -> None:
    text = "Bad request: Empty update request"
    refused(lambda: client.upsert(there, []), 400, text)
    refused(lambda: client.update_vectors(there, []), 400, text)
    refused(lambda: client.delete(there, []), 400, text)


def test_grpc_points_without_the_vectors_field_or_an_id_are_refused(
    server: QdrantTestServer, there: str
) -> None:
    client = QdrantClient(
        url=server.url, grpc_port=server.grpc_port, prefer_grpc=True, check_compatibility=False
    )
    none = grpc.Vectors(vectors=grpc.NamedVectors())
    for point, text in (
        (grpc.PointStruct(id=grpc.PointId(num=1)), "Expected some vectors"),
        (grpc.PointStruct(vectors=none), "Empty ID is not allowed"),
    ):
        request = grpc.UpsertPoints(collection_name=there, points=[point], wait=True)
        refused(lambda request=request: client.grpc_points.Upsert(request, timeout=10), 400, text)  # type: ignore[misc]
    client.close()


def test_bad_reads_are_refused(client: QdrantClient, there: str) -> None:
    refused(lambda: client.query_points(there, query=[1.0], using="d"), 400, "expected dim: 2, got 1")
    refused(
        lambda: client.query_points(there, query=[1.0], using="no"), 400, "Not existing vector name error: no"
    )
    refused(lambda: client.scroll(there, limit=0), 422, "[limit: value 0 invalid, must be 1 or larger]")
    key = models.Filter(must=[models.FieldCondition(key="a..b[", match=models.MatchValue(value=1))])
    refused(lambda: client.scroll(there, scroll_filter=key), 400, "invalid JSON path")


def test_payloads_that_would_poison_the_shard_are_refused(
    client: QdrantClient, there: str, protocol: str
) -> None:
    """Over gRPC a value nested 32 deep is already beyond the parser's 100 messages."""
    deep: Any = 1
    for _ in range(130):
        deep = {"a": deep}
    with pytest.raises((UnexpectedResponse, RpcError, Exception), match=r"(?i)recursion|decode|INTERNAL"):
        client.upsert(there, [PointStruct(id=1, vector={"d": [1, 2]}, payload={"deep": deep})])
    assert client.count(there).count == 0


def test_custom_sharding_needs_a_key_that_exists(client: QdrantClient, name: str, there: str) -> None:
    custom = f"{name}-custom"
    client.create_collection(custom, vectors_config=VECTORS, sharding_method=models.ShardingMethod.CUSTOM)
    refused(upsert(client, custom, [1, 2]), 400, "Wrong input: Shard key not specified")
    points = [PointStruct(id=1, vector=[1, 2])]
    refused(lambda: client.upsert(custom, points, shard_key_selector="k"), 400, "Shard key k not found")
    client.create_shard_key(custom, "k")
    refused(lambda: client.create_shard_key(custom, "k"), 400, "Shard key k already exists")
    refused(lambda: client.create_shard_key(there, "k"), 400, "cannot be created with Auto sharding method")


def test_strict_mode_limits_hold(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config=VECTORS,
        strict_mode_config=models.StrictModeConfig(
            enabled=True, upsert_max_batchsize=2, max_query_limit=5, unindexed_filtering_retrieve=False
        ),
    )
    points = [PointStruct(id=n, vector=[1, 2], payload={"city": "x"}) for n in range(3)]
    refused(lambda: client.upsert(name, points), 400, 'Limit exceeded 3 > 2 for "upsert limit"')
    client.upsert(name, points[:2])
    refused(lambda: client.scroll(name, limit=6), 400, 'Limit exceeded 6 > 5 for "limit"')
    city = models.Filter(must=[models.FieldCondition(key="city", match=models.MatchValue(value="x"))])
    refused(lambda: client.count(name, count_filter=city), 400, 'Index required but not found for "city"')
    client.create_payload_index(name, "city", models.PayloadSchemaType.KEYWORD)
    assert client.count(name, count_filter=city).count == 2


def raw(
    server: QdrantTestServer, method: str, path: str, body: bytes = b"", **headers: str
) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    return httpx.request(method, server.url + path, content=body, headers=sent, timeout=30, trust_env=False)


BAD_BODIES = {
    b"{": "Format error in JSON body",
    b"[]": "PointInsertOperations",
    b"{}": "missing field `points`",
    b'{"points":[{"id":1}]}': "missing field `vector`",
    b'{"points":[{"vector":[1,2]}]}': "missing field `id`",
    b'{"points":[{"id":1,"vector":[1,NaN]}]}': "Format error in JSON body",
    b'{"points":[{"id":1,"vector":null}]}': "did not match any variant",
    b'{"points":[{"id":1,"vector":[1,"2"]}]}': "did not match any variant",
    b'{"points":[{"id":1,"vector":[1,true]}]}': "did not match any variant",
    b'{"points":[{"id":1,"vector":[1,2],"payload":"text"}]}': "did not match any variant",
    b'{"points":[{"id":1,"vector":[1,2],"payload":{"a":NaN}}]}': "Format error in JSON body",
    b'{"points":[{"id":-1,"vector":[1,2]}]}': "value -1 is not a valid point ID",
    b'{"points":[{"id":18446744073709551616,"vector":[1,2]}]}': "is not a valid point ID",
    b'{"points":[{"id":1.5,"vector":[1,2]}]}': "value 1.5 is not a valid point ID",
    b'{"points":[{"id":true,"vector":[1,2]}]}': "value true is not a valid point ID",
    b'{"points":[{"id":1,"vector":{"text":"x","model":"some/other"}}]}': "InferenceService is not initialized",
}


def test_bad_bodies_are_400_in_the_servers_envelope(server: QdrantTestServer) -> None:
    made = raw(server, "PUT", "/collections/raw", b'{"vectors":{"size":2,"distance":"Dot"}}')
    assert made.json() == {"result": True, "status": "ok", "time": made.json()["time"]}
    for body, text in BAD_BODIES.items():
        answer = raw(server, "PUT", "/collections/raw/points?wait=true", body)
        assert answer.status_code == 400, body
        assert text in answer.json()["status"]["error"], body
    assert raw(server, "POST", "/collections/raw/points/count", b"{}").json()["result"] == {"count": 0}
    bad_distance = raw(server, "PUT", "/collections/x", b'{"vectors":{"size":2,"distance":"Cos"}}')
    assert "untagged enum VectorsConfig" in bad_distance.json()["status"]["error"]


def test_bad_paths_and_parameters_are_refused(server: QdrantTestServer) -> None:
    assert raw(server, "GET", "/nowhere").status_code == 404
    assert raw(server, "POST", "/telemetry").status_code == 404
    slash = raw(server, "PUT", "/collections/a%2Fb", b'{"vectors":{}}')
    assert slash.status_code == 422
    assert 'collection name cannot contain "/" char' in slash.json()["status"]["error"]
    bad = raw(server, "PUT", "/collections/raw/points?wait=yes", b'{"points":[]}')
    assert bad.json()["status"]["error"].startswith("Deserialize error in query parameters")
    bad = raw(server, "PUT", "/collections/raw/points?ordering=odd", b'{"points":[]}')
    assert "unknown variant `odd`" in bad.json()["status"]["error"]
    plain = raw(server, "PUT", "/collections/raw/points", b'{"points":[]}', **{"content-type": "text/plain"})
    assert (plain.status_code, plain.json()["status"]["error"]) == (400, "Payload error: Content type error")


def test_one_point_by_its_path(server: QdrantTestServer) -> None:
    raw(server, "PUT", "/collections/one", b'{"vectors":{"size":2,"distance":"Dot"}}')
    body = b'{"points":[{"id":7,"vector":[1,2],"payload":{"big":18446744073709551615,"over":18446744073709551616}}]}'
    assert (
        raw(server, "PUT", "/collections/one/points?wait=true", body).json()["result"]["status"]
        == "completed"
    )
    found = raw(server, "GET", "/collections/one/points/7").json()["result"]
    # An integer beyond 64 bits becomes a double, as the server's JSON parser takes it.
    assert found == {"id": 7, "vector": [1.0, 2.0], "payload": {"big": 2**64 - 1, "over": float(2**64)}}
    missing = raw(server, "GET", "/collections/one/points/8")
    assert (missing.status_code, missing.json()["status"]["error"]) == (
        404,
        "Not found: Point with id 8 does not exists!",
    )
    odd = raw(server, "GET", "/collections/one/points/x")
    assert odd.status_code == 400


def test_a_rest_body_over_32_mib_is_refused_and_grpc_takes_it(server: QdrantTestServer) -> None:
    raw(server, "PUT", "/collections/large", b'{"vectors":{}}')
    size = 32 * 1024 * 1024
    body = b'{"points":[{"id":1,"vector":{},"payload":{"x":"' + b"y" * size + b'"}}]}'
    answer = raw(server, "PUT", "/collections/large/points?wait=true", body)
    assert answer.status_code == 400
    text = f"Payload error: JSON payload ({len(body)} bytes) is larger than allowed (limit: {size} bytes)."
    assert answer.json()["status"]["error"] == text
    client = QdrantClient(
        url=server.url, grpc_port=server.grpc_port, prefer_grpc=True, check_compatibility=False
    )
    point = grpc.PointStruct(
        id=grpc.PointId(num=1),
        vectors=grpc.Vectors(vectors=grpc.NamedVectors()),
        payload={"x": grpc.Value(string_value="y" * size)},
    )
    client.grpc_points.Upsert(
        grpc.UpsertPoints(collection_name="large", points=[point], wait=True), timeout=60
    )
    assert client.count("large").count == 1
    client.close()


def test_methods_that_are_not_served_are_unimplemented(server: QdrantTestServer) -> None:
    client = QdrantClient(
        url=server.url, grpc_port=server.grpc_port, prefer_grpc=True, check_compatibility=False
    )
    request = grpc.SearchMatrixPoints(collection_name="c")
    with pytest.raises(RpcError) as caught:
        client.grpc_points.SearchMatrixPairs(request, timeout=10)
    assert caught.value.code().name == "UNIMPLEMENTED"
    client.close()


def test_the_service_paths_answer(server: QdrantTestServer) -> None:
    version = raw(server, "GET", "/").json()
    assert set(version) == {"title", "version", "commit"}
    for path, text in (
        ("/healthz", "healthz check passed"),
        ("/livez", "healthz check passed"),
        ("/readyz", "all shards are ready"),
    ):
        assert (raw(server, "GET", path).status_code, raw(server, "GET", path).text) == (200, text)
