"""gRPC messages <-> the REST form, by walking the descriptors.

Most messages have the same field names on both protocols; `_READ` and `_WRITE` hold
those that do not. Written against the `.proto` files that the client ships.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from qdrant_client import grpc

from integration.qdrant_server import ids
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.settings import is_unnamed

Json = dict[str, Any]

# Enums whose REST spelling is the name itself, or is not the snake case of it.
_KEPT = ("Distance", "CompressionRatio", "ReplicaState")
_NAMES = {"Scalar4Bits": "scalar4bits", "Scalar8Bits": "scalar8bits"}
# Fields that carry another name over REST.
_RENAMED = {
    "vectors_config": "vectors",
    "sparse_vectors_config": "sparse_vectors",
    "deprecated_max_optimization_threads": "max_optimization_threads",
    "with_vectors": "with_vector",
    "shard_key_selector": "shard_key",
    "datetime_range": "range",
}
_RENAMED_IN_LOOKUP = {"collection_name": "collection", "vector_name": "vector"}


def _enum(field: Any, number: int) -> Any:
    value = field.enum_type.values_by_number.get(number)
    if value is None:
        raise QdrantError("raw_argument", f"Unknown value {number} of {field.enum_type.name}")
    if field.enum_type.name in _KEPT:
        return value.name
    name = value.name.removeprefix("FieldType")
    return _NAMES.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def value(message: Any) -> Any:
    """A `Value` -> JSON. A `Value` without any kind is null, as the server takes it."""
    kind = message.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return payload(message.struct_value.fields)
    if kind == "list_value":
        return [value(one) for one in message.list_value.values]
    return getattr(message, kind)


def payload(fields: Any) -> Json:
    return {key: value(fields[key]) for key in fields}


def to_value(given: Any) -> Any:
    """JSON -> a `Value`. Unsigned integers beyond 2^63-1 go out as doubles."""
    if given is None:
        return grpc.Value(null_value=grpc.NullValue.NULL_VALUE)
    if isinstance(given, bool):
        return grpc.Value(bool_value=given)
    if isinstance(given, int):
        if -(2**63) <= given < 2**63:
            return grpc.Value(integer_value=given)
        return grpc.Value(double_value=float(given))
    if isinstance(given, float):
        return grpc.Value(double_value=given)
    if isinstance(given, str):
        return grpc.Value(string_value=given)
    if isinstance(given, list):
        return grpc.Value(list_value=grpc.ListValue(values=[to_value(one) for one in given]))
    return grpc.Value(struct_value=grpc.Struct(fields={k: to_value(v) for k, v in given.items()}))


def shard_key(message: Any) -> Any:
    which = message.WhichOneof("key")
    return getattr(message, which) if which else None


def to_shard_key(given: Any) -> Any:
    return grpc.ShardKey(keyword=given) if isinstance(given, str) else grpc.ShardKey(number=given)


def _oneof(message: Any, name: str) -> Any:
    """The set member of a oneof as `{its name: its value}`."""
    which = message.WhichOneof(name)
    return {which: _field(message, message.DESCRIPTOR.fields_by_name[which])} if which else {}


def _selector(message: Any) -> Any:
    keys = [shard_key(one) for one in message.shard_keys]
    if message.HasField("fallback"):
        return {"target": keys[0] if keys else None, "fallback": shard_key(message.fallback)}
    return keys or None


def _timestamp(message: Any) -> str:
    moment = datetime.fromtimestamp(message.seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{message.nanos:09d}Z"


def _match(message: Any) -> Json:
    which = message.WhichOneof("match_value")
    if which is None:
        raise QdrantError("raw_argument", "Malformed Match condition")
    given = getattr(message, which)
    if which in ("keyword", "integer", "boolean"):
        return {"value": given}
    if which in ("keywords", "except_keywords"):
        return {"any" if which == "keywords" else "except": list(given.strings)}
    if which in ("integers", "except_integers"):
        return {"any" if which == "integers" else "except": list(given.integers)}
    return {which: given}


def _condition(message: Any) -> Json:
    which = message.WhichOneof("condition_one_of")
    if which is None:
        raise QdrantError("raw_argument", "Malformed Condition type")
    if which in ("field", "filter"):
        made: Json = to_json(getattr(message, which))
        return made
    if which == "has_id":
        return {"has_id": [ids.from_grpc(one) for one in message.has_id.has_id]}
    if which == "has_vector":
        return {"has_vector": message.has_vector.has_vector}
    if which == "slice":
        raise QdrantError("unimplemented", "slice condition")
    return {which: to_json(getattr(message, which))}


def _vectors_config(message: Any) -> Any:
    which = message.WhichOneof("config")
    if which is None:
        return {}
    if which == "params":
        made = to_json(message.params)
        return {"": made} if message.DESCRIPTOR.name == "VectorsConfigDiff" else made
    return {name: to_json(one) for name, one in message.params_map.map.items()}


def _with_payload(message: Any) -> Any:
    which = message.WhichOneof("selector_options")
    if which in (None, "enable"):
        return message.enable
    return {which: list(getattr(message, which).fields)}


def _with_vectors(message: Any) -> Any:
    which = message.WhichOneof("selector_options")
    return list(message.include.names) if which == "include" else message.enable


def _input(message: Any) -> Any:
    """A `VectorInput` inside a query."""
    which = message.WhichOneof("variant")
    if which == "id":
        return ids.from_grpc(message.id)
    if which == "dense":
        return list(message.dense.data)
    if which == "sparse":
        return {"indices": list(message.sparse.indices), "values": list(message.sparse.values)}
    if which == "multi_dense":
        return [list(one.data) for one in message.multi_dense.vectors]
    if which == "document":
        return {"text": message.document.text, "model": message.document.model}
    return {"model": ""}


def _query(message: Any) -> Any:
    which = message.WhichOneof("variant")
    if which == "nearest_with_mmr":
        given = message.nearest_with_mmr
        return {"nearest": _input(given.nearest), "mmr": to_json(given.mmr)}
    if which == "context":
        return {"context": [to_json(pair) for pair in message.context.pairs]}
    if which == "discover":
        pairs = [to_json(pair) for pair in message.discover.context.pairs]
        return {"discover": {"target": _input(message.discover.target), "context": pairs}}
    return _oneof(message, "variant") or None


_READ: dict[str, Callable[[Any], Any]] = {
    "PointId": ids.from_grpc,
    "ShardKey": shard_key,
    "ShardKeySelector": _selector,
    "Value": value,
    "Timestamp": _timestamp,
    "Match": _match,
    "Condition": _condition,
    "VectorsConfig": _vectors_config,
    "VectorsConfigDiff": _vectors_config,
    "SparseVectorConfig": lambda m: {name: to_json(one) for name, one in m.map.items()},
    "MaxOptimizationThreads": lambda m: m.value if m.HasField("value") else "auto",
    "BinaryQuantizationQueryEncoding": lambda m: _oneof(m, "variant").get("setting"),
    "QuantizationConfig": lambda m: _oneof(m, "quantization") or None,
    "QuantizationConfigDiff": lambda m: (
        "Disabled" if m.HasField("disabled") else _oneof(m, "quantization") or None
    ),
    "WithPayloadSelector": _with_payload,
    "WithVectorsSelector": _with_vectors,
    "VectorInput": _input,
    "Query": _query,
    "StartFrom": lambda m: next(iter(_oneof(m, "value").values()), None),
    "StrictModeMultivectorConfig": lambda m: {k: to_json(v) for k, v in m.multivector_config.items()},
    "StrictModeSparseConfig": lambda m: {k: to_json(v) for k, v in m.sparse_config.items()},
}


def _single(field: Any, given: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json(given)
    return _enum(field, given) if field.type == FieldDescriptor.TYPE_ENUM else given


def _field(message: Any, field: Any) -> Any:
    given = getattr(message, field.name)
    if not field.is_repeated:
        return _single(field, given)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        kind = entry.fields_by_name["value"]
        return {key: _single(kind, given[key]) for key in given}
    return [_single(field, one) for one in given]


def to_json(message: Any) -> Any:
    """Any message -> the REST form; what is not set is absent."""
    name = message.DESCRIPTOR.name
    if name in _READ:
        return _READ[name](message)
    made: Json = {}
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            if not getattr(message, field.name):
                continue
        elif field.has_presence and not message.HasField(field.name):
            continue
        key = _RENAMED.get(field.name, field.name)
        if name == "LookupLocation":
            key = _RENAMED_IN_LOOKUP.get(field.name, key)
        made[key] = _field(message, field)
    return made


def _number(field: Any, given: str) -> int:
    for one in field.enum_type.values:
        if _enum(field, one.number) == given:
            return int(one.number)
    raise QdrantError("service", f"no {field.enum_type.name} is called {given}")


def _fill_vectors(message: Any, given: Json) -> None:
    if is_unnamed(given):
        fill(message.params, given)
        return
    message.params_map.SetInParent()
    for name, one in given.items():
        fill(message.params_map.map[name], one)


def _fill_sparse(message: Any, given: Json) -> None:
    message.SetInParent()
    for name, one in given.items():
        message.map[name].SetInParent()
        fill(message.map[name], one)


def _fill_index(message: Any, given: Json) -> None:
    member = getattr(message, f"{given['type']}_index_params")
    member.SetInParent()
    fill(member, {key: one for key, one in given.items() if key != "type"})


_WRITE: dict[str, Callable[[Any, Any], None]] = {
    "VectorsConfig": _fill_vectors,
    "SparseVectorConfig": _fill_sparse,
    "PayloadIndexParams": _fill_index,
    "MaxOptimizationThreads": lambda m, given: setattr(m, "value", given),
    "BinaryQuantizationQueryEncoding": lambda m, given: setattr(
        m, "setting", _number(m.DESCRIPTOR.fields_by_name["setting"], given)
    ),
    "Value": lambda m, given: m.CopyFrom(to_value(given)),
    "StrictModeMultivectorConfig": lambda m, given: _fill_map(m.multivector_config, given),
    "StrictModeSparseConfig": lambda m, given: _fill_map(m.sparse_config, given),
    "StopwordsSet": lambda m, given: fill_fields(
        m, given if isinstance(given, dict) else {"languages": [given]}
    ),
    "StemmingAlgorithm": lambda m, given: m.snowball.MergeFrom(
        grpc.SnowballParams(language=given["language"])
    ),
}


def _fill_map(target: Any, given: Json) -> None:
    for key, one in given.items():
        target[key].SetInParent()
        fill(target[key], one)


def fill(message: Any, given: Any) -> Any:
    """Set a message from the REST form; fields that it does not know are left out."""
    write = _WRITE.get(message.DESCRIPTOR.name)
    if write is not None:
        write(message, given)
    else:
        fill_fields(message, given)
    return message


def fill_fields(message: Any, given: Json) -> None:
    back = {rest: proto for proto, rest in _RENAMED.items() if proto in message.DESCRIPTOR.fields_by_name}
    for key, one in given.items():
        field = message.DESCRIPTOR.fields_by_name.get(key) or message.DESCRIPTOR.fields_by_name.get(
            back.get(key, "")
        )
        if field is None or one is None:
            continue
        target = getattr(message, field.name)
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(target, one)
        elif field.is_repeated:
            target.extend(one)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            target.SetInParent()
            fill(target, one)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            setattr(message, field.name, _number(field, one))
        else:
            setattr(message, field.name, one)
