"""API keys on both protocols: 401 without or with a wrong one, 403 where it may only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version as version_of
from typing import Any

import httpx
import pytest
from grpc import RpcError, StatusCode  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from integration.qdrant_server import QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct

Connect = Callable[..., QdrantClient]

installed = version_of("qdrant-client")
VECTORS = models.VectorParams(size=2, distance=models.Distance.DOT)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    path = tmp_path_factory.mktemp("guarded")
    with QdrantTestServer(path, api_key="secret", read_only_api_key="reader") as running:
        yield running


def denied(call: Callable[[], object], status: int, code: StatusCode, text: str) -> None:
    with pytest.raises((UnexpectedResponse, RpcError)) as caught:
        call()
    error = caught.value
    if isinstance(error, UnexpectedResponse):
        assert error.status_code == status
        assert text in error.content.decode()
    else:
        assert (error.code(), text in error.details()) == (code, True)


def test_the_right_key_opens_and_no_or_a_wrong_key_is_401(
    guarded: QdrantTestServer, connect: Connect, name: str
) -> None:
    assert connect(guarded, api_key="secret").create_collection(name, vectors_config=VECTORS)
    missing = "Must provide an API key or an Authorization bearer token"
    denied(connect(guarded).get_collections, 401, StatusCode.UNAUTHENTICATED, missing)
    wrong = connect(guarded, api_key="wrong")
    denied(wrong.get_collections, 401, StatusCode.UNAUTHENTICATED, "Invalid API key or JWT")


def test_a_read_only_key_reads_and_is_403_to_write(
    guarded: QdrantTestServer, connect: Connect, name: str
) -> None:
    connect(guarded, api_key="secret").create_collection(name, vectors_config=VECTORS)
    reader = connect(guarded, api_key="reader")
    assert reader.count(name).count == 0
    assert reader.scroll(name)[0] == []
    points = [PointStruct(id=1, vector=[1, 2])]
    denied(lambda: reader.upsert(name, points), 403, StatusCode.PERMISSION_DENIED, "Forbidden")
    denied(lambda: reader.delete_collection(name), 403, StatusCode.PERMISSION_DENIED, "Forbidden")


def test_the_clients_version_check_is_content(guarded: QdrantTestServer, connect: Connect) -> None:
    info = connect(guarded, api_key="secret").info()
    assert info.title == "qdrant - vector search engine"
    ours, theirs = ([int(part) for part in version.split(".")[:2]] for version in (info.version, installed))
    assert ours[0] == theirs[0]
    assert abs(ours[1] - theirs[1]) <= 1


def test_bearer_works_and_the_health_paths_need_no_key(guarded: QdrantTestServer) -> None:
    def get(path: str, **headers: str) -> int:
        return httpx.get(guarded.url + path, headers=headers, trust_env=False).status_code

    assert get("/collections", authorization="Bearer secret") == 200
    assert get("/collections", authorization="Bearer wrong") == 401
    assert get("/collections") == 401
    assert [get(path) for path in ("/", "/healthz", "/readyz", "/livez")] == [200] * 4
