"""Faults planted in a Qdrant are found by a check of search: another metric, no index, payloads that filters miss."""

from __future__ import annotations

import json
import random
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from qdrant_client import QdrantClient, models

from integration.qdrant.backend_kit import address, impatient  # noqa: F401 - a fixture
from integration.qdrant_server import QdrantTestServer
from migrate import api
from migrate.config import QdrantSettings
from migrate.errors import VerifyError
from migrate.report import Report
from migrate.search.parity import Wanted

SMALL = Wanted(queries=10, k=5)
DIM = 12


def agent(path: Path) -> Path:
    """Make a store with vectors of one length: there cosine and Euclid agree on every order."""
    rng = random.Random(9)
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, kind TEXT, strength REAL, metadata JSON, embedding BLOB)"
        )
        for i in range(150):
            raw = [rng.gauss(0, 1) for _ in range(DIM)]
            length = sum(x * x for x in raw) ** 0.5
            db.execute(
                "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)",
                (
                    i,
                    f"fact {i} of {rng.choice(['river', 'stone'])}",
                    rng.choice(["episodic", "semantic"]),
                    round(rng.random(), 3),
                    json.dumps({"user": rng.choice(["Ada", "Cy"]), "ok": i % 3 == 0}),
                    struct.pack(f"<{DIM}f", *(x / length for x in raw)),
                ),
            )
        db.commit()
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    with QdrantTestServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent(tmp_path_factory.mktemp("agent") / "agent.sqlite")


@pytest.fixture
def moved(server: QdrantTestServer, source: Path, tmp_path: Path) -> QdrantSettings:
    settings = address(server, tmp_path)
    report = api.migrate(source, settings, check_search=SMALL)
    assert report.search is not None
    assert report.search["passed"]
    assert report.search["filter_parity"] == 1
    return settings


@pytest.fixture
def client(server: QdrantTestServer) -> Iterator[QdrantClient]:
    made = QdrantClient(url=server.url, grpc_port=server.grpc_port, check_compatibility=False)
    yield made
    made.close()


def checked(source: Path, settings: QdrantSettings) -> dict[str, Any]:
    """Return the `search` of a verification, whether it passed or not."""
    try:
        report: Report | None = api.verify(source, settings, mode="none", search=SMALL)
    except VerifyError as exc:
        report = exc.report
    assert report is not None
    assert report.search is not None
    return report.search


def test_a_collection_for_another_metric_is_found_by_its_settings_and_by_its_scores(
    source: Path, moved: QdrantSettings, client: QdrantClient
) -> None:
    name = f"{moved.prefix}facts"
    points, _ = client.scroll(name, limit=1000, with_payload=True, with_vectors=True)
    vectors = client.get_collection(name).config.params.vectors
    assert isinstance(vectors, dict)
    client.delete_collection(name)
    client.create_collection(
        name,
        vectors_config={
            vector: models.VectorParams(size=DIM, distance=models.Distance.EUCLID) for vector in vectors
        },
    )
    client.upsert(
        name,
        [models.PointStruct(id=p.id, payload=p.payload, vector=p.vector or {}) for p in points],  # type: ignore[arg-type]
        wait=True,
    )
    found = checked(source, moved)
    assert any("Euclid" in failure for failure in found["failures"]), found["failures"]
    assert any("scores drift" in failure for failure in found["failures"])
    assert found["recall_at_k"] == 1  # of unit vectors the order is the same


def test_a_collection_whose_index_is_switched_off_is_found(
    source: Path, moved: QdrantSettings, client: QdrantClient
) -> None:
    client.update_collection(f"{moved.prefix}facts", hnsw_config=models.HnswConfigDiff(m=0))
    found = checked(source, moved)
    assert "facts: there is no vector index" in found["failures"]


def test_payloads_that_filters_miss_are_found(
    source: Path, moved: QdrantSettings, client: QdrantClient
) -> None:
    name = f"{moved.prefix}facts"
    points, _ = client.scroll(name, limit=1000, with_payload=True)
    for point in points:
        payload = dict(point.payload or {})
        if payload.get("kind") == "episodic":
            client.set_payload(name, {"kind": "Episodic"}, points=[point.id], wait=True)
    found = checked(source, moved)
    assert found["filter_parity"] < 1
    assert any("kind" in d["filter"] for d in found["tables"][0]["filters"]["different"])


def test_points_that_are_gone_are_found(source: Path, moved: QdrantSettings, client: QdrantClient) -> None:
    client.delete(f"{moved.prefix}facts", list(range(0, 150, 2)), wait=True)
    found = checked(source, moved)
    assert found["recall_at_k"] < 0.9
    assert not found["passed"]
