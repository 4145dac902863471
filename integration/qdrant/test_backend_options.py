"""How new collections are kept: quantization, vectors on disk, shards, replicas, BM25 for hybrid search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient

from integration.qdrant.backend_kit import (
    address,
    impatient,  # noqa: F401 - a fixture
)
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing, stores
from integration.support.comparing import same
from migrate import api
from migrate.backends.qdrant import server as server_module
from migrate.config import QdrantSettings

DDL = "CREATE TABLE t (id INTEGER PRIMARY KEY, brain_id TEXT, body TEXT, embedding BLOB)"
ROWS = [
    (1, "a", "the cat sat on the mat", stores.vector(1, 0, 0)),
    (2, "a", "dogs chase zebras", stores.vector(0, 1, 0)),
    (3, "b", None, stores.vector(0, 0, 1)),
    (4, "b", "a zebra", None),
]


def test_options_reach_the_server(server: QdrantTestServer, tmp_path: Path) -> None:
    source = stores.filled(tmp_path / "a.sqlite", DDL, ROWS)
    there = address(
        server, tmp_path, quantization="scalar", on_disk=True, shards=2, replication=1, bm25="body"
    )
    assert api.migrate(source, there).verified
    client = QdrantClient(url=server.url, check_compatibility=False)
    info: Any = client.get_collection(f"{there.prefix}t")
    points, _ = client.scroll(f"{there.prefix}t", with_vectors=True)
    client.close()
    assert info.config.quantization_config.scalar.type.value == "int8"
    assert info.config.params.vectors["embedding"].on_disk is True
    assert (info.config.params.shard_number, info.config.params.on_disk_payload) == (2, True)
    assert info.config.params.sparse_vectors["bm25"].modifier.value == "idf"
    assert info.payload_schema["brain_id"].params.is_tenant is True
    assert [sorted(p.vector or {}) for p in points] == [
        ["bm25", "embedding"],
        ["bm25", "embedding"],
        ["embedding"],
        ["bm25"],
    ]
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_words_are_found_in_an_embedded_store(tmp_path: Path) -> None:
    source = stores.filled(tmp_path / "a.sqlite", DDL, ROWS)
    there = QdrantSettings(path=tmp_path / "store", quantization="binary", bm25="body")
    assert api.migrate(source, there).verified
    shard = edge.EdgeShard.load(str(tmp_path / "store" / "t"))
    query = edge.Query.Nearest(edge.Bm25().embed_query("zebras"), using="bm25")
    found = shard.query(edge.QueryRequest(limit=3, query=query))
    shard.close()
    assert {p.id for p in found} == {2, 4}


def test_payload_indexes_that_strict_mode_does_not_take_are_left_out_and_told(
    server: QdrantTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = server_module.ServerEngine.create

    def in_strict_mode(self: server_module.ServerEngine, name: str, settings: Any, metadata: Any) -> None:
        strict = {"enabled": True, "max_payload_index_count": 2}  # as a cloud has it by itself
        create(self, name, {**settings, "strict_mode_config": strict}, metadata)

    monkeypatch.setattr(server_module.ServerEngine, "create", in_strict_mode)
    source = stores.filled(tmp_path / "a.sqlite", DDL, ROWS)
    stores.made(source, "CREATE INDEX of_body ON t (body)")
    there = address(server, tmp_path)
    report = api.migrate(source, there)
    assert report.verified
    assert [w for w in report.warnings if "payload indexes" in w] == [
        "t: the collection is in strict mode and takes 2 payload indexes; there is none of body, so filters over"
        " them are slow"
    ]
    client = QdrantClient(url=server.url, check_compatibility=False)
    assert set(client.get_collection(f"{there.prefix}t").payload_schema) == {"id", "brain_id"}
    client.close()
