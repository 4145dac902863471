"""A server that is killed and started again has everything it acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc import RpcError  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from integration.qdrant_server import Fault, QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct

Connect = Callable[..., QdrantClient]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[QdrantTestServer]:
    with QdrantTestServer(tmp_path / "data") as running:
        yield running


def test_kill_9_and_restart_keep_points_settings_and_aliases(own: QdrantTestServer, connect: Connect) -> None:
    client = connect(own)
    client.create_collection(
        "c",
        vectors_config={"v": models.VectorParams(size=2, distance=models.Distance.EUCLID)},
        sharding_method=models.ShardingMethod.CUSTOM,
        metadata={"by": "us"},
    )
    client.create_shard_key("c", "k")
    client.create_payload_index("c", "n", models.PayloadSchemaType.INTEGER)
    make = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name="c", alias_name="other")
    )
    client.update_collection_aliases([make])
    client.update_collection("c", hnsw_config=models.HnswConfigDiff(m=20))
    points = [PointStruct(id=n, vector={"v": [n, 0.5]}, payload={"n": n}) for n in range(50)]
    client.upsert("c", points, shard_key_selector="k")
    client.upsert("c", [PointStruct(id=50, vector={})], shard_key_selector="k", wait=False)
    own.kill()
    own.restart()
    client = connect(own)
    assert client.count("c").count == 51
    assert client.count("other").count == 51
    point = client.retrieve("c", [7], with_vectors=True)[0]
    assert (point.vector, point.payload, point.shard_key) == ({"v": [7, 0.5]}, {"n": 7}, "k")
    info = client.get_collection("c")
    assert info.config.hnsw_config.m == 20
    assert info.config.metadata == {"by": "us"}
    assert info.payload_schema["n"].points == 50


def test_a_crash_amid_an_upload_loses_nothing_that_was_acknowledged(
    own: QdrantTestServer, connect: Connect
) -> None:
    client = connect(own)
    client.create_collection("c", vectors_config=models.VectorParams(size=8, distance=models.Distance.DOT))
    own.add_fault(Fault("crash", path=r"/points$|/Upsert$", skip=5, after=True))
    acknowledged: list[int] = []

    def upload() -> None:
        for batch in range(10):
            ids = list(range(batch * 20, batch * 20 + 20))
            client.upsert("c", [PointStruct(id=n, vector=[float(n)] * 8) for n in ids])
            acknowledged.extend(ids)

    with pytest.raises((ResponseHandlingException, RpcError)):
        upload()
    assert own.wait() == -9
    assert len(acknowledged) == 100
    own.restart()
    client = connect(own)
    kept = [point.id for point in client.scroll("c", limit=1000)[0]]
    # The batch of the crash was carried out; only its answer was lost.
    assert kept == list(range(120))


def test_a_restarted_server_keeps_its_ports_and_waits_grey_for_an_update(
    own: QdrantTestServer, connect: Connect
) -> None:
    client = connect(own)
    client.create_collection(
        "c",
        vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
    )
    client.upsert("c", [PointStruct(id=n, vector=[n, 1, 2, 3]) for n in range(500)])
    ports = (own.http_port, own.grpc_port)
    own.set_optimizer_delay(60)
    client.update_collection("c", optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1))
    own.kill()
    own.restart()
    assert (own.http_port, own.grpc_port) == ports
    client = connect(own)
    status = client.get_collection("c").status
    if status == models.CollectionStatus.GREEN:  # the kill came after the index was built
        assert client.get_collection("c").indexed_vectors_count == 500
        return
    assert status == models.CollectionStatus.GREY
    client.update_collection("c", optimizers_config=models.OptimizersConfigDiff())
    until = time.monotonic() + 20
    while client.get_collection("c").status != models.CollectionStatus.GREEN:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_engine_ends_with_the_server(own: QdrantTestServer) -> None:
    children = psutil.Process(own.pid).children()
    assert len(children) == 1
    own.kill()
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert (len(gone), alive) == (1, [])


def test_a_second_server_on_the_same_ports_says_why_it_ended(own: QdrantTestServer, tmp_path: Path) -> None:
    second = QdrantTestServer(tmp_path / "second", http_port=own.http_port)
    with pytest.raises(RuntimeError, match="Address already in use"):
        second.start()
    assert second.pid == 0


def test_the_server_listens_on_the_loopback_alone(own: QdrantTestServer) -> None:
    listening = {
        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
        for one in psutil.Process(own.pid).net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", own.http_port), ("127.0.0.1", own.grpc_port)}


def test_the_launcher_starts_it_too(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [str(root / "scripts" / "qdrant_test_server"), "--path", str(tmp_path / "data"), "--api-key", "k"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        assert set(ports) == {"http_port", "grpc_port"}
        process.terminate()
        assert process.wait(20) == 0
