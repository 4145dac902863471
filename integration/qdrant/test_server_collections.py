"""Collections: settings come back as set, over both protocols."""

from __future__ import annotations

import time
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from integration.qdrant_server import QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct

VECTORS = models.VectorParams(size=4, distance=models.Distance.COSINE)


def wait_for(client: QdrantClient, name: str, status: models.CollectionStatus) -> models.CollectionInfo:
    until = time.monotonic() + 20
    while (info := client.get_collection(name)).status != status:
        assert time.monotonic() < until, info.status
        time.sleep(0.02)
    return info


def test_a_collection_is_created_listed_described_and_deleted(client: QdrantClient, name: str) -> None:
    assert not client.collection_exists(name)
    assert client.create_collection(name, vectors_config=VECTORS)
    assert client.collection_exists(name)
    assert name in [one.name for one in client.get_collections().collections]
    info = client.get_collection(name)
    assert info.status == models.CollectionStatus.GREEN
    assert info.optimizer_status == models.OptimizersStatusOneOf.OK
    assert (info.points_count, info.indexed_vectors_count) == (0, 0)
    assert info.config.params.vectors == VECTORS
    assert info.config.params.shard_number == 1
    assert info.config.hnsw_config.m == 16
    assert info.config.optimizer_config.indexing_threshold == 10000
    assert info.config.quantization_config is None
    assert client.delete_collection(name)
    assert not client.collection_exists(name)
    assert not client.delete_collection(name)


def test_every_setting_comes_back_as_it_was_set(client: QdrantClient, name: str) -> None:
    vectors = {
        "plain": models.VectorParams(size=3, distance=models.Distance.EUCLID, on_disk=True),
        "half": models.VectorParams(
            size=5,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            hnsw_config=models.HnswConfigDiff(m=8),
            quantization_config=models.BinaryQuantization(
                binary=models.BinaryQuantizationConfig(always_ram=True)
            ),
        ),
        "rows": models.VectorParams(
            size=2,
            distance=models.Distance.MANHATTAN,
            datatype=models.Datatype.UINT8,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        ),
    }
    sparse = {
        "words": models.SparseVectorParams(modifier=models.Modifier.IDF),
        "other": models.SparseVectorParams(index=models.SparseIndexParams(on_disk=True)),
    }
    quantization = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.5, always_ram=True)
    )
    client.create_collection(
        name,
        vectors_config=vectors,
        sparse_vectors_config=sparse,
        shard_number=3,
        replication_factor=2,
        write_consistency_factor=2,
        on_disk_payload=False,
        hnsw_config=models.HnswConfigDiff(m=4, ef_construct=64, payload_m=6),
        optimizers_config=models.OptimizersConfigDiff(
            indexing_threshold=77, deleted_threshold=0.5, max_optimization_threads=1
        ),
        wal_config=models.WalConfigDiff(wal_capacity_mb=16),
        quantization_config=quantization,
        strict_mode_config=models.StrictModeConfig(enabled=True, max_query_limit=50),
        metadata={"owner": "tests", "n": [1, {"deep": None}]},
    )
    config = client.get_collection(name).config
    assert config.params.vectors == vectors
    assert config.params.sparse_vectors is not None
    assert config.params.sparse_vectors["words"].modifier == models.Modifier.IDF
    other = config.params.sparse_vectors["other"].index
    assert other is not None
    assert other.on_disk is True
    assert (config.params.shard_number, config.params.replication_factor) == (3, 2)
    assert config.params.write_consistency_factor == 2
    assert config.params.on_disk_payload is False
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct, config.hnsw_config.payload_m) == (4, 64, 6)
    assert config.optimizer_config.indexing_threshold == 77
    assert config.optimizer_config.deleted_threshold == 0.5
    assert config.optimizer_config.max_optimization_threads == 1
    assert config.wal_config is not None
    assert config.wal_config.wal_capacity_mb == 16
    assert config.quantization_config == quantization
    assert config.strict_mode_config is not None
    assert config.strict_mode_config.max_query_limit == 50
    assert config.metadata == {"owner": "tests", "n": [1, {"deep": None}]}


def test_patch_changes_what_it_names_and_nothing_else(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config={"v": VECTORS}, hnsw_config=models.HnswConfigDiff(m=0))
    before = client.get_collection(name).config
    assert client.update_collection(
        name,
        hnsw_config=models.HnswConfigDiff(m=24),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5),
        collection_params=models.CollectionParamsDiff(replication_factor=2),
        vectors_config={"v": models.VectorParamsDiff(on_disk=True)},
        quantization_config=models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16)
        ),
    )
    after = wait_for(client, name, models.CollectionStatus.GREEN).config
    assert after.hnsw_config.m == 24
    assert after.hnsw_config.ef_construct == before.hnsw_config.ef_construct
    assert after.optimizer_config.indexing_threshold == 5
    assert after.params.replication_factor == 2
    assert after.params.vectors == {"v": VECTORS.model_copy(update={"on_disk": True})}
    assert isinstance(after.quantization_config, models.ProductQuantization)
    client.update_collection(name, quantization_config=models.Disabled.DISABLED)
    assert wait_for(client, name, models.CollectionStatus.GREEN).config.quantization_config is None


def test_a_collection_may_have_no_vectors_at_all(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config={})
    client.upsert(name, [PointStruct(id=1, vector={}, payload={"a": 1})])
    points, _ = client.scroll(name, with_vectors=True)
    assert [(point.id, point.payload, point.vector) for point in points] == [(1, {"a": 1}, {})]
    assert client.get_collection(name).config.params.sparse_vectors is None


def test_aliases_are_made_renamed_followed_and_removed(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=VECTORS)
    make = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=name, alias_name=f"{name}-old")
    )
    assert client.update_collection_aliases([make])
    rename = models.RenameAliasOperation(
        rename_alias=models.RenameAlias(old_alias_name=f"{name}-old", new_alias_name=f"{name}-new")
    )
    assert client.update_collection_aliases([rename])
    expected = [models.AliasDescription(alias_name=f"{name}-new", collection_name=name)]
    assert client.get_collection_aliases(name).aliases == expected
    assert expected[0] in client.get_aliases().aliases
    client.upsert(f"{name}-new", [PointStruct(id=1, vector=[1, 0, 0, 0])])
    assert client.count(name).count == 1
    assert client.collection_exists(f"{name}-new")
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=f"{name}-new"))
    assert client.update_collection_aliases([drop])
    assert client.get_collection_aliases(name).aliases == []


def test_deferred_indexing_is_yellow_after_patch_and_then_green(
    server: QdrantTestServer, client: QdrantClient, name: str
) -> None:
    client.create_collection(
        name,
        vectors_config=VECTORS,
        hnsw_config=models.HnswConfigDiff(m=0),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
    )
    points = [PointStruct(id=i, vector=[i % 7 + 1.0, i % 5, i % 3, 1]) for i in range(1200)]
    client.upsert(name, points)
    info = client.get_collection(name)
    assert (info.status, info.points_count) == (models.CollectionStatus.GREEN, 1200)
    assert info.indexed_vectors_count == 0
    server.set_optimizer_delay(0.3)
    client.update_collection(
        name,
        hnsw_config=models.HnswConfigDiff(m=16),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )
    assert client.get_collection(name).status == models.CollectionStatus.YELLOW
    info = wait_for(client, name, models.CollectionStatus.GREEN)
    assert (info.points_count, info.indexed_vectors_count) == (1200, 1200)


def test_a_load_over_the_threshold_is_indexed_by_itself(
    server: QdrantTestServer, client: QdrantClient, name: str
) -> None:
    server.set_optimizer_delay(0.2)
    client.create_collection(
        name,
        vectors_config=VECTORS,
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )
    client.upsert(name, [PointStruct(id=i, vector=[i + 1.0, 1, 2, 3]) for i in range(600)])
    assert client.get_collection(name).status == models.CollectionStatus.YELLOW
    assert wait_for(client, name, models.CollectionStatus.GREEN).indexed_vectors_count == 600


def test_payload_indexes_are_described_with_their_parameters(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=VECTORS)
    client.upsert(name, [PointStruct(id=1, vector=[1, 0, 0, 0], payload={"tenant": "a", "n": 5})])
    client.create_payload_index(
        name, "tenant", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    )
    client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER)
    client.create_payload_index(
        name,
        "text",
        models.TextIndexParams(
            type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WHITESPACE, lowercase=True
        ),
    )
    schema = client.get_collection(name).payload_schema
    assert schema["tenant"].data_type == models.PayloadSchemaType.KEYWORD
    assert isinstance(schema["tenant"].params, models.KeywordIndexParams)
    assert schema["tenant"].params.is_tenant is True
    assert schema["tenant"].points == 1
    assert (schema["n"].data_type, schema["n"].params) == (models.PayloadSchemaType.INTEGER, None)
    assert isinstance(schema["text"].params, models.TextIndexParams)
    assert schema["text"].params.tokenizer == models.TokenizerType.WHITESPACE
    client.delete_payload_index(name, "n")
    assert sorted(client.get_collection(name).payload_schema) == ["tenant", "text"]


def test_custom_sharding_keeps_keys_apart(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=VECTORS, sharding_method=models.ShardingMethod.CUSTOM)
    assert client.create_shard_key(name, "one")
    assert client.create_shard_key(name, 2)
    keys = client.list_shard_keys(name).shard_keys
    assert keys is not None
    assert [one.key for one in keys] == ["one", 2]
    client.upsert(name, [PointStruct(id=i, vector=[1, i, 0, 0]) for i in (3, 1)], shard_key_selector="one")
    client.upsert(name, [PointStruct(id=2, vector=[1, 2, 0, 0])], shard_key_selector=2)
    points, following = client.scroll(name, limit=2)
    assert ([(p.id, p.shard_key) for p in points], following) == ([(1, "one"), (2, 2)], 3)
    points, following = client.scroll(name, limit=2, offset=following)
    assert ([p.id for p in points], following) == ([3], None)
    client.upsert(name, [PointStruct(id=3, vector=[1, 3, 0, 0])], shard_key_selector=2)
    assert len(client.scroll(name, limit=10)[0]) == 3  # an id in two shards is told once
    client.delete(name, [3], shard_key_selector=2)
    assert client.count(name).count == 3
    assert client.count(name, shard_key_selector="one").count == 2
    assert [p.id for p in client.scroll(name, shard_key_selector=[2])[0]] == [2]
    found = client.query_points(name, query=[1.0, 3.0, 0.0, 0.0], limit=2).points
    assert [point.id for point in found] == [3, 2]
    assert client.collection_cluster_info(name).shard_count == 2
    with pytest.raises(Exception, match="Shard key not specified"):
        client.set_payload(name, {"seen": True}, points=[1, 2])
    client.set_payload(name, {"seen": True}, points=[1], shard_key_selector="one")
    client.set_payload(name, {"seen": True}, points=[2], shard_key_selector=2)
    assert all(p.payload == {"seen": True} for p in client.retrieve(name, [1, 2]))
    assert client.delete_shard_key(name, "one")
    assert client.count(name).count == 1
