"""Points and payloads: what is written is read back, over both protocols."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

# The client types these too narrowly for literals such as [1, 2].
PointStruct: Any = models.PointStruct
PointVectors: Any = models.PointVectors

VECTORS = models.VectorParams(size=2, distance=models.Distance.DOT)
UUIDS = [str(uuid.UUID(int=n)) for n in (7, 2**127)]


@pytest.fixture
def filled(client: QdrantClient, name: str) -> str:
    """A collection with points 1, 2, 3 and two UUIDs."""
    client.create_collection(name, vectors_config=VECTORS)
    ids: list[int | str] = [3, 1, 2, *UUIDS]
    client.upsert(
        name,
        [PointStruct(id=pid, vector=[n, 1], payload={"n": n, "keep": "me"}) for n, pid in enumerate(ids)],
    )
    return name


def payloads(client: QdrantClient, name: str) -> dict[Any, models.Payload | None]:
    return {point.id: point.payload for point in client.scroll(name, limit=100)[0]}


def test_payload_values_keep_their_types(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=VECTORS)
    payload = {
        "int": 2**63 - 1,
        "low": -(2**63),
        "float": 5.0,
        "tiny": 5e-324,
        "true": True,
        "null": None,
        "text": 'grün "\\ 🦀 \0',
        "list": [1, [2.5, "x", None], {}],
        "nested": {"a": {"b": [{"c": False}]}},
        "": "empty key",
        "a.b": 1,
    }
    client.upsert(name, [PointStruct(id=2**64 - 1, vector=[1, 2], payload=payload)])
    point = client.retrieve(name, [2**64 - 1], with_vectors=True)[0]
    assert point.payload == payload
    assert isinstance(point.payload["float"], float)
    assert (point.id, point.vector) == (2**64 - 1, [1.0, 2.0])


def test_scroll_pages_by_id_integers_first_and_ends_with_none(client: QdrantClient, filled: str) -> None:
    seen, offset = [], None
    while True:
        page, offset = client.scroll(filled, limit=2, offset=offset)
        seen.append([point.id for point in page])
        if offset is None:
            break
    assert seen == [[1, 2], [3, UUIDS[0]], [UUIDS[1]]]


def test_upsert_replaces_the_whole_point(client: QdrantClient, filled: str) -> None:
    client.upsert(filled, [PointStruct(id=1, vector=[9, 9], payload={"new": 1})])
    point = client.retrieve(filled, [1], with_vectors=True)[0]
    assert (point.payload, point.vector) == ({"new": 1}, [9.0, 9.0])
    assert client.count(filled).count == 5


def test_upsert_takes_the_batch_form(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config={"a": VECTORS, "b": VECTORS})
    batch = models.Batch(
        ids=[1, UUIDS[0]],
        vectors={"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[5.0, 6.0], [7.0, 8.0]]},
        payloads=[{"n": 1}, {}],
    )
    client.upsert(name, batch)
    points = client.scroll(name, with_vectors=True)[0]
    assert [(p.id, p.vector, p.payload) for p in points] == [
        (1, {"a": [1, 2], "b": [5, 6]}, {"n": 1}),
        (UUIDS[0], {"a": [3, 4], "b": [7, 8]}, {}),
    ]


def test_upsert_modes_and_filters_decide_what_is_written(client: QdrantClient, filled: str) -> None:
    new = [PointStruct(id=pid, vector=[0, 0], payload={"new": True}) for pid in (1, 10)]
    client.upsert(filled, new, update_mode=models.UpdateMode.INSERT_ONLY)
    assert payloads(client, filled)[1] == {"n": 1, "keep": "me"}
    assert payloads(client, filled)[10] == {"new": True}
    other = [PointStruct(id=pid, vector=[0, 0], payload={}) for pid in (1, 11)]
    client.upsert(filled, other, update_mode=models.UpdateMode.UPDATE_ONLY)
    assert payloads(client, filled)[1] == {}
    assert 11 not in payloads(client, filled)
    only_two = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=2))])
    again = [PointStruct(id=pid, vector=[0, 0], payload={"z": 1}) for pid in (2, 3)]
    client.upsert(filled, again, update_filter=only_two)
    assert payloads(client, filled)[2] == {"z": 1}
    assert payloads(client, filled)[3] == {"n": 0, "keep": "me"}


def test_retrieve_keeps_the_order_and_leaves_out_what_is_missing(client: QdrantClient, filled: str) -> None:
    points = client.retrieve(filled, [UUIDS[1].upper(), 99, 2], with_payload=["n"])
    assert [(point.id, point.payload, point.vector) for point in points] == [
        (UUIDS[1], {"n": 4}, None),
        (2, {"n": 2}, None),
    ]
    assert client.retrieve(filled, [1], with_payload=False)[0].payload in (None, {})
    exclude = models.PayloadSelectorExclude(exclude=["n"])
    assert client.retrieve(filled, [1], with_payload=exclude)[0].payload == {"keep": "me"}


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient, filled: str) -> None:
    client.delete(filled, [1, UUIDS[0], 12345])
    assert set(payloads(client, filled)) == {2, 3, UUIDS[1]}
    small = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(lt=3))])
    done = client.delete(filled, models.FilterSelector(filter=small))
    assert done.status == models.UpdateStatus.COMPLETED
    assert set(payloads(client, filled)) == {UUIDS[1]}


def test_payloads_are_set_overwritten_deleted_and_cleared(client: QdrantClient, filled: str) -> None:
    client.set_payload(filled, {"x": {"y": 1}}, points=[1])
    client.set_payload(filled, {"z": 2}, points=[1], key="x")
    assert payloads(client, filled)[1] == {"n": 1, "keep": "me", "x": {"y": 1, "z": 2}}
    client.overwrite_payload(filled, {"only": 1}, points=[1])
    assert payloads(client, filled)[1] == {"only": 1}
    big = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=3))])
    client.set_payload(filled, {"big": True}, points=big)
    assert payloads(client, filled)[UUIDS[0]] == {"n": 3, "keep": "me", "big": True}
    client.delete_payload(filled, keys=["keep", "absent"], points=[2, 3])
    assert payloads(client, filled)[2] == {"n": 2}
    client.clear_payload(filled, points_selector=big)
    assert payloads(client, filled)[UUIDS[1]] == {}


def test_vectors_are_updated_and_deleted(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config={"a": VECTORS, "b": VECTORS})
    client.upsert(name, [PointStruct(id=1, vector={"a": [1, 2]}, payload={"p": 1})])
    client.update_vectors(name, [PointVectors(id=1, vector={"b": [3, 4]})])
    assert client.retrieve(name, [1], with_vectors=True)[0].vector == {"a": [1, 2], "b": [3, 4]}
    assert client.retrieve(name, [1], with_vectors=["b"])[0].vector == {"b": [3, 4]}
    client.delete_vectors(name, vectors=["a"], points=[1])
    point = client.retrieve(name, [1], with_vectors=True)[0]
    assert (point.vector, point.payload) == ({"b": [3, 4]}, {"p": 1})


def test_a_batch_of_updates_runs_in_order(client: QdrantClient, filled: str) -> None:
    results = client.batch_update_points(
        filled,
        [
            models.UpsertOperation(
                upsert=models.PointsList(points=[PointStruct(id=50, vector=[1, 1], payload={"a": 1})])
            ),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"b": 2}, points=[50])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["a"], points=[50])),
            models.DeleteOperation(delete=models.PointIdsList(points=[1, 2])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[3])),
        ],
    )
    assert [one.status for one in results] == [models.UpdateStatus.COMPLETED] * 5
    assert payloads(client, filled)[50] == {"b": 2}
    assert payloads(client, filled)[3] == {}
    assert not {1, 2} & set(payloads(client, filled))


def test_without_wait_an_update_is_acknowledged_even_if_it_is_declined(
    client: QdrantClient, filled: str
) -> None:
    good = [PointStruct(id=60, vector=[1, 1])]
    done = client.upsert(filled, good, wait=False, ordering=models.WriteOrdering.STRONG)
    assert done.status == models.UpdateStatus.ACKNOWLEDGED
    bad = [PointStruct(id=61, vector=[1, 1, 1])]
    assert client.upsert(filled, bad, wait=False).status == models.UpdateStatus.ACKNOWLEDGED
    assert {60, 61} & set(payloads(client, filled)) == {60}


def test_the_clients_own_upload_works(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=VECTORS)
    client.upload_points(
        name, [PointStruct(id=n, vector=[n, 1]) for n in range(150)], batch_size=40, wait=True
    )
    assert client.count(name).count == 150
