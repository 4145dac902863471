"""JSON in and out of the messages of `wire`, as strict as the transcoder in front of the service.

Unknown fields, wrong types and null where a number belongs are refused with 400. The sentences are in
the transcoder's manner; the public documentation does not list them.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np

from integration.pinecone_emulator.errors import malformed
from integration.pinecone_emulator.wire import MESSAGES, Decoded, Field

_UINT32 = 2**32 - 1
_BOUNDS = {"uint32": (0, _UINT32), "int32": (-(2**31), 2**31 - 1), "uint64": (0, 2**64 - 1)}


def parse(raw: bytes) -> Any:
    """The JSON value in raw. NaN and Infinity are not JSON; lone surrogates are not UTF-8."""
    try:
        value = json.loads(raw.decode("utf-8") or "{}", parse_constant=_no_constant)
        if rb"\u" in raw:  # only an escape can smuggle a lone surrogate past the decoding above
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise malformed(f"Unexpected token or invalid UTF-8 in JSON body: {exc}") from exc
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def decode(message: str, value: Any, at: str = "") -> Decoded:
    """The message in a JSON value; null fields count as absent (proto3 JSON)."""
    if not isinstance(value, dict):
        raise malformed(f"{at or message}: expected an object")
    known = MESSAGES[message].by_json
    out: Decoded = {}
    for key, item in value.items():
        field = known.get(key)
        where = f"{at}.{key}" if at else key
        if field is None:
            raise malformed(f"{where}: Cannot find field.")
        if item is not None:
            out[field.name] = _decode_field(field, item, where)
    return out


def _decode_field(field: Field, item: Any, where: str) -> Any:
    if field.kind == "map":
        if not isinstance(item, dict):
            raise malformed(f"{where}: expected an object")
        return {key: decode(field.of, one, f"{where}.{key}") for key, one in item.items()}
    if not field.repeated:
        if isinstance(item, list):
            raise malformed(f"{where}: Proto field is not repeating, cannot start list.")
        return _decode_one(field, item, where)
    if not isinstance(item, list):
        raise malformed(f"{where}: expected an array")
    if field.kind == "float":
        return _floats(item, where)
    return [_decode_one(field, one, f"{where}[{n}]") for n, one in enumerate(item)]


def _decode_one(field: Field, item: Any, where: str) -> Any:
    kind = field.kind
    if kind == "message":
        return decode(field.of, item, where)
    if kind == "struct":
        if isinstance(item, dict):
            return item
    elif kind == "string":
        if isinstance(item, str):
            return item
    elif kind == "bool":
        if isinstance(item, bool):
            return item
    elif kind == "float":
        return float(_floats([item], where)[0])
    else:
        return _integer(kind, item, where)
    raise malformed(f"{where}: invalid value {_show(item)} for type {kind.upper()}")


def _integer(kind: str, item: Any, where: str) -> int:
    low, high = _BOUNDS[kind]
    if isinstance(item, float) and item.is_integer():
        item = int(item)  # proto3 JSON takes 3.0 for 3
    if isinstance(item, bool) or not isinstance(item, int) or not low <= item <= high:
        raise malformed(f"{where}: invalid value {_show(item)} for type {kind.upper()}")
    return item


def _floats(items: list[Any], where: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    for n, item in enumerate(items):
        if type(item) is not float and type(item) is not int:
            raise malformed(f"{where}[{n}]: invalid value {_show(item)} for type FLOAT")
    try:
        with np.errstate(over="ignore"):
            out = np.array(items, dtype=np.float64).astype(np.float32)
    except OverflowError as exc:
        raise malformed(f"{where}: number out of range for type FLOAT") from exc
    if not np.isfinite(out).all():
        raise malformed(f"{where}: number out of range for type FLOAT")
    return out


def _show(item: Any) -> str:
    text = json.dumps(item)
    return text if len(text) <= 40 else text[:37] + "..."


def encode(message: str, value: Decoded) -> bytes:
    """The JSON of a decoded message. Doubles keep their point: a metadata 3 leaves as 3.0."""
    return json.dumps(to_json(message, value), separators=(",", ":"), ensure_ascii=False).encode()


def to_json(message: str, value: Decoded) -> dict[str, Any]:
    fields = {field.name: field for field in MESSAGES[message].fields}
    return {fields[name].json_name: _to_json_field(fields[name], item) for name, item in value.items()}


def _to_json_field(field: Field, item: Any) -> Any:
    if field.kind == "map":
        return {key: to_json(field.of, one) for key, one in item.items()}
    if field.kind == "message":
        return [to_json(field.of, one) for one in item] if field.repeated else to_json(field.of, item)
    if field.kind == "float":
        return shortest(item) if field.repeated else shortest([item])[0]
    if field.kind == "uint64":
        return str(item)
    return item


def shortest(values: Any) -> list[float]:
    """The shortest decimals that are the same float32, as in the examples of "Fetch data": 0.1 stays 0.1."""
    return [float(text) for text in np.asarray(values, np.float32).astype(str).tolist()]
