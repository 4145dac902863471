"""Collections that memlift did not make: carried to other stores, to other Qdrants, and back."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from integration.qdrant.backend_kit import (
    address,
    impatient,  # noqa: F401 - a fixture
)
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing
from integration.support.comparing import same
from migrate import api, retry
from migrate.backends import pacing
from migrate.config import QdrantSettings
from migrate.errors import MisfitError, TransientError
from migrate.reach import opened_source
from migrate.schema import Kind

UUID = "550e8400-e29b-41d4-a716-446655440000"
# The client types vectors too narrowly for literals.
PointStruct: Any = models.PointStruct
PAYLOADS: list[dict[str, Any]] = [
    {
        "city": "Berlin",
        "n": 2**60 + 1,
        "u": 2**64 - 1,
        "x": 0.1,
        "gone": None,
        "tags": ["a", {"b": [1, 2.5]}],
        "ok": True,
    },
    {},
    {"memlift": "a key of theirs", "": 1, 'od"d.key': {"deep": {"er": None}}, "text": "é😀\x00"},
]


@pytest.fixture
def client(server: QdrantTestServer) -> Any:
    made = QdrantClient(url=server.url, check_compatibility=False, timeout=30)
    yield made
    made.close()


def everything(client: QdrantClient, name: str) -> Any:
    """Return what a user can see of a collection."""
    info = client.get_collection(name)
    keys: list[Any] = [None]
    if info.config.params.sharding_method == models.ShardingMethod.CUSTOM:
        keys = [one.key for one in client.list_shard_keys(name).shard_keys or ()]  # an id may be in two
    records = [r for key in keys for r in _all(client, name, key)]
    config = info.config.model_dump(exclude_none=True, mode="json")
    config.pop("metadata", None)
    return {
        "points": sorted(
            ((str(r.id), r.payload, _plain(r.vector), r.shard_key) for r in records),
            key=lambda p: (p[0], str(p[3])),
        ),
        "config": config,
        "schema": {k: (v.data_type.value, v.params) for k, v in info.payload_schema.items()},
    }


def _all(client: QdrantClient, name: str, key: Any) -> list[Any]:
    """All points of a shard key, by pages as strict mode allows them."""
    found: list[Any] = []
    offset: Any = None
    while True:
        page, offset = client.scroll(name, limit=2, offset=offset, with_vectors=True, shard_key_selector=key)
        found += page
        if offset is None:
            return found


def _plain(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {k: _plain(v) for k, v in sorted(vector.items())}
    if isinstance(vector, models.SparseVector):
        return ("sparse", *sorted(zip(vector.indices, vector.values, strict=True)))
    return vector


def named(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={
            "text": models.VectorParams(size=4, distance=models.Distance.COSINE, on_disk=True),
            "image": models.VectorParams(
                size=3, distance=models.Distance.EUCLID, datatype=models.Datatype.UINT8
            ),
            "half": models.VectorParams(
                size=3, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16
            ),
            "colbert": models.VectorParams(
                size=2,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
            "payload": models.VectorParams(size=2, distance=models.Distance.MANHATTAN),
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=models.HnswConfigDiff(m=24, ef_construct=77),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=12345, max_optimization_threads=2),
        wal_config=models.WalConfigDiff(wal_capacity_mb=48),
        strict_mode_config=models.StrictModeConfig(enabled=True, upsert_max_batchsize=3, max_query_limit=2),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.95)
        ),
    )
    client.upsert(
        name,
        [
            PointStruct(
                id=7,
                payload=PAYLOADS[0],
                vector={
                    "text": [3.0, 4.0, 0.0, 1.0],
                    "image": [1, 2, 255],
                    "half": [0.1, 0.7, -0.3],
                    "colbert": [[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]],
                    "payload": [1.5, 1e-30],
                    "bm25": models.SparseVector(indices=[9, 2, 4000000000], values=[0.5, 1.5, 2.5]),
                },
            ),
            PointStruct(id=UUID, payload=PAYLOADS[1], vector={"text": [0.0, 0.0, 0.0, 0.0]}),
            PointStruct(id=2**63 + 5, payload=PAYLOADS[2], vector={}),
        ],
    )
    client.create_payload_index(
        name, "city", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    )
    client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER)
    make = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=name, alias_name=f"{name}_live")
    )
    client.update_collection_aliases([make])


def unnamed(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert(name, [PointStruct(id=n, vector=[n / 3, -0.0], payload={"n": n}) for n in range(300)])


def sharded(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT),
        sharding_method=models.ShardingMethod.CUSTOM,
    )
    for key in ("a", 5):
        client.create_shard_key(name, key)
        client.upsert(name, [PointStruct(id=1, vector=[1, 2], payload={"of": key})], shard_key_selector=key)


MAKERS = {"named": named, "unnamed": unnamed, "sharded": sharded}


def at(server: QdrantTestServer, prefix: str) -> QdrantSettings:
    return QdrantSettings(url=server.url, grpc_port=server.grpc_port, prefix=prefix)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("way", ["server", "sqlite", "edge", "rest"])
def test_a_foreign_collection_comes_back_whole(
    kind: str, way: str, server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    prefix = f"f{way}{kind}_"
    MAKERS[kind](client, f"{prefix}c")
    wanted = everything(client, f"{prefix}c")
    origin, end = at(server, prefix), address(server, tmp_path, rest=way == "rest")
    if way in ("server", "rest"):
        report = api.migrate(origin, end)
    else:
        middle: Any = tmp_path / "m.sqlite" if way == "sqlite" else QdrantSettings(path=tmp_path / "edge")
        assert api.migrate(origin, middle, on_misfit="quarantine").verified
        report = api.migrate(middle, end)
    assert report.verified
    assert everything(client, f"{end.prefix}c") == wanted
    assert everything(client, f"{prefix}c") == wanted
    assert api.verify(origin, end).verified


def test_doubles_of_a_foreign_payload_are_kept_that_the_engine_gives_back_a_little_off(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    client.create_collection(
        "off_c", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT)
    )
    draw = random.Random(4)
    points = [
        PointStruct(
            id=n, vector=[1], payload={"score": draw.random(), "in": {"list": [draw.random() * 1e-9]}}
        )
        for n in range(400)
    ]
    client.upsert("off_c", points)
    origin, ends = at(server, "off_"), [QdrantSettings(path=tmp_path / "edge"), address(server, tmp_path)]
    read = {p.id: p.payload for p in client.scroll("off_c", limit=1000)[0]}
    for end in ends:
        assert api.migrate(origin, end).verified
        assert api.migrate(origin, end).tables[0].rows_written == 0
        assert api.migrate(end, tmp_path / f"{end.type}{end.prefix}.sqlite").verified
        with closing(sqlite3.connect(tmp_path / f"{end.type}{end.prefix}.sqlite")) as db:
            rows = dict(db.execute("SELECT id, payload FROM c"))
        assert {key: json.loads(text) for key, text in rows.items()} == read
    far = {p.id: p.payload for p in client.scroll(f"{ends[1].prefix}c", limit=1000)[0]}
    assert far != read
    assert all(far[n]["score"] == pytest.approx(p["score"], rel=1e-15) for n, p in read.items() if p)


def test_shard_keys_are_a_column_where_a_server_runs_alone(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    sharded(client, "alone_c")
    wanted = everything(client, "alone_c")
    server.set_distributed(False)
    alone = address(server, tmp_path)
    assert api.migrate(at(server, "alone_"), alone).verified
    assert client.get_collection(f"{alone.prefix}c").config.params.sharding_method is None
    assert sorted((p.payload or {})["shard_key"] for p in _all(client, f"{alone.prefix}c", None)) == [
        '"a"',
        "5",
    ]
    server.set_distributed(True)
    again = address(server, tmp_path)
    assert api.migrate(alone, again).verified
    assert everything(client, f"{again.prefix}c") == wanted


def test_points_of_one_shard_key_are_removed_and_those_of_another_stay(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    sharded(client, "mirror_c")
    there = address(server, tmp_path)
    assert api.migrate(at(server, "mirror_"), there).verified
    client.delete("mirror_c", [1], shard_key_selector="a")
    report = api.migrate(at(server, "mirror_"), there, mirror=True)
    assert report.verified
    assert [(p.id, p.shard_key) for p in _all(client, f"{there.prefix}c", None)] == [(1, 5)]


def test_turbo_quantization_is_carried_into_a_folder_and_back(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    turbo = models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS2, always_ram=True)
    )
    client.create_collection(
        "turbo_c",
        vectors_config=models.VectorParams(size=8, distance=models.Distance.DOT),
        quantization_config=turbo,
    )
    client.upsert("turbo_c", [PointStruct(id=n, vector=[n, *[1] * 7], payload={}) for n in range(50)])
    wanted = everything(client, "turbo_c")
    folder, end = QdrantSettings(path=tmp_path / "edge"), address(server, tmp_path)
    assert api.migrate(at(server, "turbo_"), folder).verified
    assert '"bits":"bits2"' in (tmp_path / "edge" / "c" / "edge_config.json").read_text().replace(" ", "")
    assert api.migrate(folder, end).verified
    assert everything(client, f"{end.prefix}c") == wanted


def test_a_foreign_collection_is_told_as_a_table(server: QdrantTestServer, client: QdrantClient) -> None:
    named(client, "told_c")
    with opened_source(at(server, "told_")) as source:
        (table,) = source.tables()
        assert [(c.name, c.kind, c.dim) for c in table.columns] == [
            ("id", Kind.TEXT, None),
            ("payload", Kind.JSON, None),
            *sorted(
                [
                    ("text", Kind.VECTOR, 4),
                    ("image", Kind.U8, 3),
                    ("half", Kind.HALF, 3),
                    ("colbert", Kind.MULTI, 2),
                    ("vector_payload", Kind.VECTOR, 2),
                ],
                key=lambda c: [c.name for c in table.columns].index(c[0]),
            ),
            ("bm25", Kind.SPARSE, None),
        ]
        assert source.count(table) == 3
        assert any(n.name == "told_c_live" for n in source.not_carried())


def test_a_collection_that_may_never_be_optimized_is_not_waited_for(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    never = models.OptimizersConfigDiff(max_optimization_threads=0, indexing_threshold=1)
    params = models.VectorParams(size=64, distance=models.Distance.DOT)
    client.create_collection("never_c", vectors_config=params, optimizers_config=never)
    client.upsert("never_c", [PointStruct(id=n, vector=[n] * 64, payload={}) for n in range(50)])
    assert client.get_collection("never_c").status == models.CollectionStatus.GREY
    end = address(server, tmp_path)
    assert api.migrate(at(server, "never_"), end).verified
    assert client.get_collection(f"{end.prefix}c").config.optimizer_config.max_optimization_threads == 0


def test_a_collection_that_hides_points_is_not_read_until_it_shows_them(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.3)
    defaults = {**(retry.call.__kwdefaults__ or {}), "patience_s": 0.3}
    monkeypatch.setattr(retry.call, "__kwdefaults__", defaults)
    hides = models.OptimizersConfigDiff(prevent_unoptimized=True)
    params = models.VectorParams(size=1, distance=models.Distance.DOT)
    client.create_collection("hides_c", vectors_config=params, optimizers_config=hides)
    client.upsert("hides_c", [PointStruct(id=1, vector=[1], payload={})])
    server.set_deferred(1_234)
    with pytest.raises(TransientError, match="hides 1,234 points"):
        api.migrate(at(server, "hides_"), tmp_path / "a.sqlite")
    server.set_deferred(0)
    assert api.migrate(at(server, "hides_"), tmp_path / "a.sqlite").verified


def test_rows_whose_key_is_no_id_of_a_point_are_misfits(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    client.create_collection(
        "ids_c", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT)
    )
    client.upsert("ids_c", [PointStruct(id=3, vector=[1], payload={}), PointStruct(id=UUID, vector=[2])])
    local = tmp_path / "local.sqlite"
    assert api.migrate(at(server, "ids_"), local).verified
    with closing(sqlite3.connect(local)) as db:
        for odd in ("note-1", "03", "٣", UUID.upper(), "x" * 36, str(2**64)):
            db.execute("INSERT INTO c SELECT ?, payload, vector FROM c WHERE id = '3'", (odd,))
        db.commit()
    with pytest.raises(MisfitError, match="6 cells do not fit"):
        api.migrate(local, address(server, tmp_path))
    end = address(server, tmp_path)
    assert api.migrate(local, end, on_misfit="quarantine").verified
    assert {p.id for p in client.scroll(f"{end.prefix}c")[0]} == {3, UUID}
    assert api.migrate(end, tmp_path / "back.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "back.sqlite"), comparing.sqlite_rows(local))


def test_aliases_are_made_again_on_another_server(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    named(client, "aliased_c")
    with QdrantTestServer(tmp_path / "other") as other:
        end = address(other, tmp_path)
        assert api.migrate(at(server, "aliased_"), end).verified
        there = QdrantClient(url=other.url, check_compatibility=False)
        assert there.count("aliased_c_live").count == 3
        there.close()


def test_an_embedded_folder_of_another_program_is_a_source(tmp_path: Path) -> None:
    from tests.qdrant.place import foreign_shard

    foreign_shard(tmp_path / "many", "one")
    foreign_shard(tmp_path, "single")
    for address_, name in ((tmp_path / "many", "one"), (tmp_path / "single", "single")):
        back = tmp_path / f"{name}.sqlite"
        assert api.migrate(QdrantSettings(path=address_), back).verified
        with opened_source(back) as source:
            (table,) = source.tables()
            rows = [row for batch in source.batches(table, size=10) for row in batch.rows]
        assert (table.name, len(rows), rows[0][1]) == (name, 1, '{"v":"theirs"}')
