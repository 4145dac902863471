"""The Points service: messages in, messages out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import grpc

from integration.qdrant_server import ids, proto_json, vectors
from integration.qdrant_server.app import UPDATE_MODE_SINCE, App
from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]
Handler = Callable[[App, Any], Any]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _packed(dense: Any) -> bytes:
    """A `DenseVector` as little-endian float32: the tail of its own wire bytes."""
    count = len(dense.data)
    return bytes(dense.SerializeToString()[-4 * count :]) if count else b""


def _dense(packed: bytes) -> Any:
    return grpc.DenseVector.FromString(b"\x0a" + _varint(len(packed)) + packed if packed else b"")


def _vector(message: Any) -> vectors.Packed:
    """One `Vector`. Servers since 1.17 no longer read the deprecated `data`: it counts as empty."""
    which = message.WhichOneof("vector")
    if which == "sparse":
        indices, values = list(message.sparse.indices), list(message.sparse.values)
        vectors.check_sparse(indices, values)
        return ("s", indices, values)
    if which == "multi_dense":
        rows = message.multi_dense.vectors
        vectors.check_multi([len(row.data) for row in rows])
        return ("m", len(rows[0].data), b"".join(_packed(row) for row in rows))
    if which == "document":
        return vectors.document(message.document.text, message.document.model)
    if which in ("image", "object"):
        raise QdrantError("inference", vectors.NO_INFERENCE)
    return ("d", _packed(message.dense))


def _named(message: Any) -> dict[str, vectors.Packed]:
    """`Vectors`: one unnamed, or by name; no vector at all is an empty map, not an absent field."""
    which = message.WhichOneof("vectors_options")
    if which is None:
        raise QdrantError("raw_argument", "Expected some vectors")
    if which == "vectors":
        return {name: _vector(one) for name, one in message.vectors.vectors.items()}
    return {"": _vector(message.vector)}


def _points(messages: Any) -> list[Any]:
    """`PointStruct`s -> (id, packed vectors, payload)."""
    return [
        (
            ids.from_grpc(one.id),
            _named(one.vectors),
            proto_json.payload(one.payload),
        )
        for one in messages
    ]


def _output(packed: vectors.Packed) -> Any:
    if packed[0] == "s":
        return grpc.VectorOutput(sparse=grpc.SparseVector(indices=packed[1], values=packed[2]))
    if packed[0] == "m":
        step = 4 * packed[1]
        rows = [_dense(packed[2][i : i + step]) for i in range(0, len(packed[2]), step)]
        return grpc.VectorOutput(multi_dense=grpc.MultiDenseVector(vectors=rows))
    return grpc.VectorOutput(dense=_dense(packed[1]))


def _vectors_output(named: dict[str, vectors.Packed]) -> Any:
    if list(named) == [""]:
        return grpc.VectorsOutput(vector=_output(named[""]))
    return grpc.VectorsOutput(
        vectors=grpc.NamedVectorsOutput(vectors={name: _output(one) for name, one in named.items()})
    )


def point_id(given: int | str) -> Any:
    return grpc.PointId(num=given) if isinstance(given, int) else grpc.PointId(uuid=given)


def _record(point: Json) -> Any:
    """A `RetrievedPoint`, or a `ScoredPoint` when it has a score."""
    if "score" in point:
        made: Any = grpc.ScoredPoint(id=point_id(point["id"]), score=point["score"], version=point["version"])
    else:
        made = grpc.RetrievedPoint(id=point_id(point["id"]))
    for key, one in (point["payload"] or {}).items():
        made.payload[key].CopyFrom(proto_json.to_value(one))
    if point["vectors"] is not None:
        made.vectors.CopyFrom(_vectors_output(point["vectors"]))
    if point["shard_key"] is not None:
        made.shard_key.CopyFrom(proto_json.to_shard_key(point["shard_key"]))
    if isinstance(point["order_value"], float):
        made.order_value.float = point["order_value"]
    elif point["order_value"] is not None:
        made.order_value.int = point["order_value"]
    return made


_STATUS = {"acknowledged": 1, "completed": 2}  # UpdateStatus


def _done(result: Json) -> Any:
    status: Any = _STATUS[result["status"]]
    return grpc.PointsOperationResponse(
        result=grpc.UpdateResult(operation_id=result["operation_id"], status=status)
    )


def _where(message: Any, field: str) -> Json:
    """A `PointsSelector` and the shard keys of an update."""
    ask: Json = {}
    if message.HasField("shard_key_selector"):
        ask["shard_key"] = proto_json.to_json(message.shard_key_selector)
    if message.HasField(field):
        selector = getattr(message, field)
        if selector.HasField("points"):
            ask["points"] = [ids.from_grpc(one) for one in selector.points.ids]
        elif selector.HasField("filter"):
            ask["filter"] = proto_json.to_json(selector.filter)
    return ask


def _upsert_request(message: Any) -> Json:
    ask: Json = {}
    for name in ("shard_key_selector", "update_filter"):
        if message.HasField(name):
            ask[name.removesuffix("_selector")] = proto_json.to_json(getattr(message, name))
    if "update_mode" in message.DESCRIPTOR.fields_by_name and message.HasField("update_mode"):
        ask["update_mode"] = ("upsert", "insert_only", "update_only")[message.update_mode]
    return ask


def upsert(app: App, message: Any) -> Any:
    name, ask = message.collection_name, _upsert_request(message)
    if not app.since(UPDATE_MODE_SINCE):
        ask.pop("update_mode", None)
    return _done(app.writes.upsert(name, _points(message.points), ask, wait=message.wait))


def update_vectors(app: App, message: Any) -> Any:
    points: list[Any] = [(ids.from_grpc(one.id), _named(one.vectors), None) for one in message.points]
    return _done(
        app.writes.update_vectors(
            message.collection_name, points, _upsert_request(message), wait=message.wait
        )
    )


def _by_selector(kind: str, field: str, extra: Callable[[Any], Json]) -> Handler:
    def handle(app: App, message: Any) -> Any:
        ask = _where(message, field)
        return _done(
            app.writes.by_selector(message.collection_name, kind, ask, extra(message), wait=message.wait)
        )

    return handle


def _payload_and_key(message: Any) -> Json:
    key = message.key if message.HasField("key") else None
    return {"payload": proto_json.payload(message.payload), "key": key}


def update_batch(app: App, message: Any) -> Any:
    """Operations one after another, each by the handler of its own method."""
    results = []
    for operation in message.operations:
        which = operation.WhichOneof("operation")
        if which not in _BATCHED:
            raise QdrantError("unimplemented", f"operation {which} in a batch")
        kind, handle = METHODS[_BATCHED[which]]
        one = getattr(operation, which)
        # The operations have the fields of the requests under other numbers.
        request = kind(collection_name=message.collection_name, wait=message.wait)
        for field, given in one.ListFields():
            target = field.name
            if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
                for key in given:
                    getattr(request, target)[key].CopyFrom(given[key])
            elif field.is_repeated:
                getattr(request, target).extend(given)
            elif field.message_type:
                getattr(request, target).CopyFrom(given)
            else:
                setattr(request, target, given)
        results.append(handle(app, request).result)
    return grpc.UpdateBatchResponse(result=results)


_BATCHED = {
    "upsert": "Upsert",
    "set_payload": "SetPayload",
    "overwrite_payload": "OverwritePayload",
    "delete_payload": "DeletePayload",
    "update_vectors": "UpdateVectors",
    "delete_vectors": "DeleteVectors",
    "delete_points": "Delete",
    "clear_payload": "ClearPayload",
}


def create_index(app: App, message: Any) -> Any:
    schema: Any = None
    if message.HasField("field_index_params"):
        params = message.field_index_params
        which = params.WhichOneof("index_params")
        if which is not None:
            schema = {
                "type": which.removesuffix("_index_params"),
                **proto_json.to_json(getattr(params, which)),
            }
    if schema is None and message.HasField("field_type"):
        schema = grpc.FieldType.Name(message.field_type).removeprefix("FieldType").lower()
    return _done(
        app.writes.create_index(message.collection_name, message.field_name, schema, wait=message.wait)
    )


def delete_index(app: App, message: Any) -> Any:
    return _done(app.writes.delete_index(message.collection_name, message.field_name, wait=message.wait))


def get(app: App, message: Any) -> Any:
    ask = proto_json.to_json(message)
    points = app.reads.retrieve(message.collection_name, ask.get("ids", []), ask)
    return grpc.GetResponse(result=[_record(point) for point in points])


def scroll(app: App, message: Any) -> Any:
    points, following = app.reads.scroll(message.collection_name, proto_json.to_json(message))
    made = grpc.ScrollResponse(result=[_record(point) for point in points])
    if following is not None:
        made.next_page_offset.CopyFrom(point_id(following))
    return made


def count(app: App, message: Any) -> Any:
    number = app.reads.count(message.collection_name, proto_json.to_json(message))
    return grpc.CountResponse(result=grpc.CountResult(count=number))


def query(app: App, message: Any) -> Any:
    points = app.reads.query(message.collection_name, [proto_json.to_json(message)])[0]
    return grpc.QueryResponse(result=[_record(point) for point in points])


def query_batch(app: App, message: Any) -> Any:
    asks = [proto_json.to_json(one) for one in message.query_points]
    answers = app.reads.query(message.collection_name, asks)
    return grpc.QueryBatchResponse(
        result=[grpc.BatchResult(result=[_record(point) for point in points]) for points in answers]
    )


def facet(app: App, message: Any) -> Any:
    hits = []
    for one, number in app.reads.facet(message.collection_name, proto_json.to_json(message)):
        if isinstance(one, bool):
            shown = grpc.FacetValue(bool_value=one)
        elif isinstance(one, int):
            shown = grpc.FacetValue(integer_value=one)
        else:
            shown = grpc.FacetValue(string_value=one)
        hits.append(grpc.FacetHit(value=shown, count=number))
    return grpc.FacetResponse(hits=hits)


METHODS: dict[str, tuple[Any, Handler]] = {
    "Upsert": (grpc.UpsertPoints, upsert),
    "UpdateVectors": (grpc.UpdatePointVectors, update_vectors),
    "Delete": (grpc.DeletePoints, _by_selector("delete", "points", lambda m: {})),
    "DeleteVectors": (
        grpc.DeletePointVectors,
        _by_selector("delete_vectors", "points_selector", lambda m: {"names": list(m.vectors.names)}),
    ),
    "SetPayload": (grpc.SetPayloadPoints, _by_selector("set_payload", "points_selector", _payload_and_key)),
    "OverwritePayload": (
        grpc.SetPayloadPoints,
        _by_selector("overwrite_payload", "points_selector", _payload_and_key),
    ),
    "DeletePayload": (
        grpc.DeletePayloadPoints,
        _by_selector("delete_payload", "points_selector", lambda m: {"keys": list(m.keys)}),
    ),
    "ClearPayload": (grpc.ClearPayloadPoints, _by_selector("clear_payload", "points", lambda m: {})),
    "CreateFieldIndex": (grpc.CreateFieldIndexCollection, create_index),
    "DeleteFieldIndex": (grpc.DeleteFieldIndexCollection, delete_index),
    "Get": (grpc.GetPoints, get),
    "Scroll": (grpc.ScrollPoints, scroll),
    "Count": (grpc.CountPoints, count),
    "Query": (grpc.QueryPoints, query),
    "QueryBatch": (grpc.QueryBatchPoints, query_batch),
    "Facet": (grpc.FacetCounts, facet),
    "UpdateBatch": (grpc.UpdateBatchPoints, update_batch),
}
