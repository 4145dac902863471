"""Faults on demand, counters and limits of a running server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from grpc import RpcError, StatusCode  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from integration.qdrant_server import Fault, QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct

WRITES = r"/points$|/Upsert$"  # PUT /collections/c/points, /qdrant.Points/Upsert


@pytest.fixture
def there(client: QdrantClient, name: str) -> str:
    client.create_collection(name, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    return name


def write(client: QdrantClient, name: str, pid: int = 1) -> Callable[[], Any]:
    return lambda: client.upsert(name, [PointStruct(id=pid, vector=[1, 2])])


def test_429_with_retry_after_is_the_clients_own_error(
    server: QdrantTestServer, client: QdrantClient, there: str
) -> None:
    server.add_fault(Fault(path=WRITES, status=429, retry_after="3", times=2, message="slow down"))
    for _ in range(2):
        with pytest.raises(ResourceExhaustedResponse) as caught:
            write(client, there)()
        assert caught.value.retry_after_s == 3
    write(client, there)()
    assert client.count(there).count == 1


def test_429_without_retry_after_is_a_plain_error(
    server: QdrantTestServer, client: QdrantClient, there: str
) -> None:
    server.add_fault(Fault(path=WRITES, status=429))
    with pytest.raises((UnexpectedResponse, RpcError)) as caught:
        write(client, there)()
    if isinstance(caught.value, UnexpectedResponse):
        assert caught.value.status_code == 429
    else:
        assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED


def test_strict_modes_own_rate_limit_answers_429(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={},
        strict_mode_config=models.StrictModeConfig(enabled=True, write_rate_limit=2),
    )
    points = [PointStruct(id=n, vector={}) for n in range(2)]
    client.upsert(name, points)
    with pytest.raises(ResourceExhaustedResponse, match="Write rate limit exceeded") as caught:
        client.upsert(name, points)
    assert 50 <= caught.value.retry_after_s <= 60


def test_what_costs_more_than_a_minute_gives_is_never_taken(client: QdrantClient, name: str) -> None:
    strict = models.StrictModeConfig(enabled=True, write_rate_limit=2, read_rate_limit=2)
    client.create_collection(name, vectors_config={}, strict_mode_config=strict)
    for ask in (
        lambda: client.delete(name, [1, 2, 3]),
        lambda: client.retrieve(name, [1, 2, 3]),
    ):
        with pytest.raises((UnexpectedResponse, RpcError), match="larger than rate limiter capacity"):
            ask()


def test_a_full_disk_is_a_500_until_it_is_cleared(
    server: QdrantTestServer, client: QdrantClient, there: str
) -> None:
    text = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
    server.add_fault(Fault(path=WRITES, status=500, message=text, times=None))
    for _ in range(3):
        with pytest.raises((UnexpectedResponse, RpcError), match="No space left on device"):
            write(client, there)()
    assert client.count(there).count == 0
    server.clear_faults()
    write(client, there)()
    assert client.count(there).count == 1


def test_a_reset_before_loses_the_write_and_after_only_the_answer(
    server: QdrantTestServer, client: QdrantClient, there: str
) -> None:
    server.add_fault(Fault("reset", path=WRITES))
    with pytest.raises((ResponseHandlingException, RpcError)):
        write(client, there)()
    assert client.count(there).count == 0
    server.add_fault(Fault("reset", path=WRITES, after=True))
    with pytest.raises((ResponseHandlingException, RpcError)) as caught:
        write(client, there)()
    if isinstance(caught.value, RpcError):
        assert caught.value.code() == StatusCode.UNAVAILABLE
    assert client.count(there).count == 1


def test_a_slow_answer_runs_into_the_clients_timeout(
    server: QdrantTestServer, client: QdrantClient, there: str, protocol: str
) -> None:
    server.add_fault(Fault("delay", path=r"/count$|/Count$", delay_s=1.5))
    began = time.monotonic()
    with pytest.raises((ResponseHandlingException, RpcError)) as caught:
        client.count(there, timeout=1)
    assert time.monotonic() - began < 2.9
    if isinstance(caught.value, RpcError):
        assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
    server.add_fault(Fault("delay", path=r"/count$|/Count$", delay_s=0.2))
    began = time.monotonic()
    client.count(there)
    assert time.monotonic() - began >= 0.2


def test_faults_choose_by_protocol_path_method_and_number(
    server: QdrantTestServer, client: QdrantClient, there: str, protocol: str
) -> None:
    other = "grpc" if protocol == "rest" else "rest"
    server.add_fault(Fault(protocol=other, times=None))
    server.add_fault(Fault(path="/nowhere", times=None))
    server.add_fault(Fault(method="PATCH", times=None))
    server.add_fault(Fault(path=WRITES, protocol=protocol, skip=1, status=503))
    write(client, there, 1)()
    with pytest.raises((UnexpectedResponse, RpcError)):
        write(client, there, 2)()
    write(client, there, 3)()
    assert [p.id for p in client.scroll(there)[0]] == [1, 3]


def test_requests_and_bytes_are_counted(server: QdrantTestServer, client: QdrantClient, there: str) -> None:
    server.reset_counters()
    server.add_fault(Fault(path=WRITES))
    with pytest.raises((UnexpectedResponse, RpcError)):
        write(client, there)()
    write(client, there)()
    paths = server.counters()["paths"]  # the client may still ask for the server's version meanwhile
    (one,) = [counted for path, counted in paths.items() if re.search(WRITES, path)]
    assert one["requests"] == 2
    assert one["bytes_in"] > 0
    assert one["largest_in"] * 2 == one["bytes_in"]
    assert sorted(one["statuses"].values()) == [1, 1]


def test_the_largest_request_can_be_set(
    server: QdrantTestServer, client: QdrantClient, there: str, protocol: str
) -> None:
    server.set_max_request_bytes(10)
    if protocol == "grpc":
        write(client, there)()  # the limit is REST's alone
        return
    with pytest.raises(UnexpectedResponse, match="larger than allowed"):
        write(client, there)()


def test_the_server_stays_responsive_while_it_optimizes(
    server: QdrantTestServer, client: QdrantClient, name: str
) -> None:
    size = 64
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
    )
    for start in range(0, 6000, 1000):
        points = [
            PointStruct(id=n, vector=[float(n * (k + 3) % 97) for k in range(size)])
            for n in range(start, start + 1000)
        ]
        client.upsert(name, points, wait=False)
    client.update_collection(name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1))
    slowest, polls, statuses = 0.0, 0, set()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        began = time.monotonic()
        info = client.get_collection(name)
        slowest, polls = max(slowest, time.monotonic() - began), polls + 1
        statuses.add(info.status)
        assert info.points_count == 6000
        if info.status == models.CollectionStatus.GREEN:
            break
    assert statuses == {models.CollectionStatus.YELLOW, models.CollectionStatus.GREEN}
    assert polls > 1
    assert slowest < 1.0
    assert client.get_collection(name).indexed_vectors_count == 6000


def test_many_threads_write_at_once(server: QdrantTestServer, client: QdrantClient, there: str) -> None:
    threads = [threading.Thread(target=write(client, there, pid)) for pid in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert client.count(there).count == 12
