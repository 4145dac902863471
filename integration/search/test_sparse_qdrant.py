"""Sparse vectors on a Qdrant server: named ones of any collection, by gRPC and by REST, and words beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

import migrate
from integration.qdrant.backend_kit import CLOSED_PORT
from integration.qdrant_server import QdrantTestServer
from migrate import api
from migrate.config import QdrantSettings
from migrate.search.service import Search
from tests.search.sparse_rows import ASKED, CHECKS, DIM, ROWS, Check, Row, Stand, truth, weights


def _point(row: Row, dense: bool) -> models.PointStruct:
    vectors: dict[str, Any] = {"dense": row.dense} if dense else {}
    if row.sparse is not None:
        vectors["terms"] = models.SparseVector(indices=list(row.sparse), values=list(row.sparse.values()))
    return models.PointStruct(id=row.id, vector=vectors, payload=row.payload)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    with QdrantTestServer(tmp_path_factory.mktemp("qdrant")) as running:
        client = QdrantClient(url=running.url, check_compatibility=False)
        for name, dense in (("s_hybrid", True), ("s_alone", False)):
            size = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
            client.create_collection(
                name,
                vectors_config={"dense": size} if dense else {},
                sparse_vectors_config={"terms": models.SparseVectorParams()},
            )
            client.upsert(name, [_point(row, dense) for row in ROWS], wait=True)
        client.close()
        yield running


@pytest.fixture(scope="module", params=["grpc", "rest"])
def store(request: pytest.FixtureRequest, server: QdrantTestServer) -> Iterator[Search]:
    port = server.grpc_port if request.param == "grpc" else CLOSED_PORT
    with migrate.open_search(QdrantSettings(url=server.url, grpc_port=port, prefix="s_")) as opened:
        yield opened


@pytest.mark.parametrize("table", ["hybrid", "alone"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_server(store: Search, table: str, check: Check) -> None:
    check(Stand(store, table, lambda i: (i,), dense=table == "hybrid"))


def test_a_collection_made_by_memlift_is_asked_the_same(server: QdrantTestServer, tmp_path: Path) -> None:
    theirs = QdrantSettings(url=server.url, grpc_port=server.grpc_port, prefix="s_")
    ours = QdrantSettings(
        url=server.url, grpc_port=server.grpc_port, prefix="ours_", sidecar=str(tmp_path / "side.sqlite")
    )
    assert api.migrate(theirs, ours).verified
    with migrate.open_search(ours) as opened:
        for table in ("hybrid", "alone"):
            hits = opened.search(vector=ASKED, k=5, table=table).hits
            assert [h.key for h in hits] == [(i,) for i, _ in truth(weights(ASKED), ROWS)[:5]]
