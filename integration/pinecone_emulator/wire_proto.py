"""Protobuf in and out of the messages of `wire`, by hand: no stubs of the service's proto file ship.

Format: "Protocol Buffers: Encoding" and "google/protobuf/struct.proto". Only what these messages need.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from integration.pinecone_emulator.wire import MESSAGES, Decoded, Field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProtoError(ValueError):
    """The bytes are no such message."""


def decode(message: str, data: bytes) -> Decoded:
    """The message in data; unknown fields are skipped, as proto3 parsers do."""
    known = MESSAGES[message].by_number
    out: Decoded = {}
    floats: dict[str, list[bytes]] = {}
    for number, wire, value in _fields(data):
        field = known.get(number)
        if field is None:
            continue
        if field.kind == "float" and field.repeated:
            floats.setdefault(field.name, []).append(value)  # packed, or four bytes each: the same bytes
        elif field.kind == "map":
            key, one = _map_entry(field, value)
            out.setdefault(field.name, {})[key] = one
        elif field.repeated:
            out.setdefault(field.name, []).extend(_repeated(field, wire, value))
        else:
            out[field.name] = _scalar(field, value)
    for name, parts in floats.items():
        out[name] = np.frombuffer(b"".join(parts), "<f4")
    return out


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ProtoError(f"wire type {wire}")
        if at + size > end:
            raise ProtoError("truncated message")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtoError("truncated or oversized varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _repeated(field: Field, wire: int, value: Any) -> list[Any]:
    if field.kind in ("uint32", "int32", "uint64") and wire == _BYTES:
        out, at = [], 0
        while at < len(value):
            one, at = _varint(value, at)
            out.append(one)
        return out
    return [_scalar(field, value)]


def _scalar(field: Field, value: Any) -> Any:
    if field.kind == "string":
        return _text(value)
    if field.kind == "bool":
        return bool(value)
    if field.kind == "float":
        return struct.unpack("<f", value)[0]
    if field.kind == "struct":
        return _struct(value)
    if field.kind == "message":
        return decode(field.of, value)
    if field.kind == "int32" and value >= 1 << 63:
        return value - (1 << 64)
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ProtoError(str(exc)) from exc


def _map_entry(field: Field, data: bytes) -> tuple[str, Decoded]:
    key, one = "", decode(field.of, b"")
    for number, _, value in _fields(data):
        if number == 1:
            key = _text(value)
        elif number == 2:
            one = decode(field.of, value)
    return key, one


def _struct(data: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number, _, entry in _fields(data):
        if number == 1:
            key, value = "", None
            for part, _, item in _fields(entry):
                if part == 1:
                    key = _text(item)
                elif part == 2:
                    value = _value(item)
            out[key] = value
    return out


def _value(data: bytes) -> Any:
    value: Any = None
    for number, _, item in _fields(data):
        if number == 1:
            value = None
        elif number == 2:
            value = struct.unpack("<d", item)[0]
        elif number == 3:
            value = _text(item)
        elif number == 4:
            value = bool(item)
        elif number == 5:
            value = _struct(item)
        elif number == 6:
            value = [_value(one) for part, _, one in _fields(item) if part == 1]
    return value


def encode(message: str, value: Decoded) -> bytes:
    """The bytes of a decoded message."""
    fields = {field.name: field for field in MESSAGES[message].fields}
    return b"".join(_encode_field(fields[name], item) for name, item in value.items())


def _encode_field(field: Field, item: Any) -> bytes:
    number = field.number
    if field.kind == "map":
        return b"".join(
            _chunk(number, _chunk(1, key.encode()) + _chunk(2, encode(field.of, one)))
            for key, one in item.items()
        )
    if field.kind == "float" and field.repeated:
        packed = np.asarray(item, "<f4").tobytes()
        return _chunk(number, packed) if packed else b""
    if field.kind == "uint32" and field.repeated:
        return _chunk(number, b"".join(_to_varint(one) for one in item)) if item else b""
    if field.repeated:
        return b"".join(_encode_one(field, one) for one in item)
    return _encode_one(field, item)


def _encode_one(field: Field, item: Any) -> bytes:
    number, kind = field.number, field.kind
    if kind == "string":
        return _chunk(number, item.encode())
    if kind == "message":
        return _chunk(number, encode(field.of, item))
    if kind == "struct":
        return _chunk(number, _encode_struct(item))
    if kind == "float":
        return _tag(number, _FIXED32) + struct.pack("<f", item)
    return _tag(number, _VARINT) + _to_varint(int(item) & (2**64 - 1))


def _encode_struct(items: dict[str, Any]) -> bytes:
    return b"".join(
        _chunk(1, _chunk(1, key.encode()) + _chunk(2, _encode_value(item))) for key, item in items.items()
    )


def _encode_value(item: Any) -> bytes:
    if isinstance(item, bool):
        return _tag(4, _VARINT) + _to_varint(int(item))
    if isinstance(item, float):
        return _tag(2, _FIXED64) + struct.pack("<d", item)
    if isinstance(item, str):
        return _chunk(3, item.encode())
    if isinstance(item, list):
        return _chunk(6, b"".join(_chunk(1, _encode_value(one)) for one in item))
    raise ProtoError(f"no metadata value: {type(item).__name__}")


def _tag(number: int, wire: int) -> bytes:
    return _to_varint(number << 3 | wire)


def _chunk(number: int, data: bytes) -> bytes:
    return _tag(number, _BYTES) + _to_varint(len(data)) + data


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
