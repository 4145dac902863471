"""Every kind of vector, in and out."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, grpc, models

from integration.qdrant_server import QdrantTestServer

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct


def params(size: int, distance: models.Distance = models.Distance.DOT, **more: object) -> models.VectorParams:
    return models.VectorParams(size=size, distance=distance, **more)  # type: ignore[arg-type]


def test_many_vectors_of_every_kind_on_one_point(client: QdrantClient, name: str) -> None:
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        name,
        vectors_config={"a": params(3), "b": params(2), "rows": params(2, multivector_config=multi)},
        sparse_vectors_config={"s": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    sparse = models.SparseVector(indices=[9, 2**32 - 1, 4], values=[0.5, -1.5, 2.0])
    full = {"a": [1, 2, 3], "b": [4, 5], "rows": [[1, 2], [3, 4], [5, 6]], "s": sparse}
    client.upsert(
        name,
        [
            PointStruct(id=1, vector=full),
            PointStruct(id=2, vector={"b": [6, 7]}),
            PointStruct(id=3, vector={}),
        ],
    )
    one, two, three = client.scroll(name, with_vectors=True)[0]
    assert isinstance(one.vector, dict)
    ordered = models.SparseVector(indices=[4, 9, 2**32 - 1], values=[2.0, 0.5, -1.5])  # sorted when stored
    assert one.vector == {**full, "s": ordered}
    assert (two.vector, three.vector) == ({"b": [6, 7]}, {})


def test_the_unnamed_vector_comes_back_bare(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=params(2))
    client.upsert(name, [PointStruct(id=1, vector=[0.1, -0.0]), PointStruct(id=2, vector={})])
    one, two = client.scroll(name, with_vectors=True)[0]
    assert isinstance(one.vector, list)
    assert struct.pack("<2f", *one.vector) == struct.pack("<2f", 0.1, -0.0)
    assert two.vector in (None, {})


def test_cosine_vectors_are_stored_normalised(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=params(2, models.Distance.COSINE))
    client.upsert(name, [PointStruct(id=1, vector=[3, 4])])
    vector = client.retrieve(name, [1], with_vectors=True)[0].vector
    assert vector == pytest.approx([0.6, 0.8], abs=1e-6)


def test_small_datatypes_round_as_the_engine_does(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={
            "half": params(2, datatype=models.Datatype.FLOAT16),
            "byte": params(3, datatype=models.Datatype.UINT8),
        },
    )
    client.upsert(name, [PointStruct(id=1, vector={"half": [0.1, 2], "byte": [0, 7, 255]})])
    vector = client.retrieve(name, [1], with_vectors=True)[0].vector
    assert vector == {"half": [float(np.float16(0.1)), 2.0], "byte": [0, 7, 255]}


@pytest.mark.parametrize(
    ("distance", "scores"),
    [
        (models.Distance.COSINE, {1: 1.0, 2: 0.0}),
        (models.Distance.DOT, {1: 2.0, 2: 0.0}),
        (models.Distance.EUCLID, {1: 1.0, 2: math.sqrt(10)}),
        (models.Distance.MANHATTAN, {1: 1.0, 2: 4.0}),
    ],
)
def test_every_metric_scores_and_orders(
    client: QdrantClient, name: str, distance: models.Distance, scores: dict[int, float]
) -> None:
    client.create_collection(name, vectors_config=params(2, distance))
    client.upsert(name, [PointStruct(id=1, vector=[2, 0]), PointStruct(id=2, vector=[0, 3])])
    found = client.query_points(name, query=[1.0, 0.0], search_params=models.SearchParams(exact=True)).points
    assert [point.id for point in found] == [1, 2]
    assert {point.id: point.score for point in found} == pytest.approx(scores, abs=1e-6)


def test_text_becomes_a_bm25_vector_on_the_server(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    texts = ["dark mode please", "light mode", "quarterly invoices"]
    points = [
        grpc.PointStruct(
            id=grpc.PointId(num=n),
            vectors=grpc.Vectors(
                vectors=grpc.NamedVectors(
                    vectors={"words": grpc.Vector(document=grpc.Document(text=text, model="Qdrant/bm25"))}
                )
            ),
        )
        for n, text in enumerate(texts)
    ]
    client.grpc_points.Upsert(grpc.UpsertPoints(collection_name=name, points=points, wait=True), timeout=10)
    words = client.retrieve(name, [0], with_vectors=True)[0].vector
    assert isinstance(words, dict)
    assert isinstance(words["words"], models.SparseVector)
    found = client.query_points(name, query=words["words"], using="words").points
    assert [point.id for point in found] == [0, 1]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_hand_built_packed_vectors_arrive_bit_for_bit(
    server: QdrantTestServer, client: QdrantClient, name: str
) -> None:
    size = 257
    client.create_collection(name, vectors_config={"v": params(size)})
    given = np.random.default_rng(1).standard_normal((20, size)).astype("<f4")
    given[0, :4] = [-0.0, 1e-45, np.float32(3.4e38), 0.1]
    points = []
    for n, row in enumerate(given):
        packed = row.tobytes()
        dense = grpc.DenseVector.FromString(b"\x0a" + _varint(len(packed)) + packed)
        named = grpc.NamedVectors(vectors={"v": grpc.Vector(dense=dense)})
        points.append(grpc.PointStruct(id=grpc.PointId(num=n), vectors=grpc.Vectors(vectors=named)))
    request = grpc.UpsertPoints(collection_name=name, wait=True, points=points)
    answer = client.grpc_points.Upsert(request, timeout=10)
    assert answer.result.status == grpc.UpdateStatus.Completed
    back = client.grpc_points.Scroll(
        grpc.ScrollPoints(collection_name=name, limit=20, with_vectors=grpc.WithVectorsSelector(enable=True))
    )
    for point in back.result:
        dense = point.vectors.vectors.vectors["v"].dense
        assert dense.SerializeToString()[-4 * size :] == given[point.id.num].tobytes()


def test_a_vector_in_the_old_field_counts_as_empty(client: QdrantClient, name: str) -> None:
    """Servers since 1.17 read only the `dense` member (microsoft/semantic-kernel#13587)."""
    client.create_collection(name, vectors_config=params(2))
    old = grpc.Vector.FromString(b"\x0a\x08" + struct.pack("<2f", 1, 2))
    point = grpc.PointStruct(id=grpc.PointId(num=1), vectors=grpc.Vectors(vector=old))
    with pytest.raises(Exception, match="expected dim: 2, got 0"):
        client.grpc_points.Upsert(
            grpc.UpsertPoints(collection_name=name, wait=True, points=[point]), timeout=10
        )
