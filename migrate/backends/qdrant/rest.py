"""Points and paths in the form of the REST API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from migrate.backends.qdrant.engine import Json, Multi, Packed, Point, Sparse


def path(name: str, tail: str = "") -> str:
    """Return the path of a collection, and what comes after it."""
    return f"/collections/{quote(name, safe='')}{tail}"


def point(one: Point) -> bytes:
    """Return a point as JSON; float32 in its shortest digits, half the bytes of doubles."""
    named: Any = {name: _vector(v) for name, v in one.vectors.items()}
    if list(named) == [""]:
        named = named[""]
    return orjson.dumps(
        {"id": one.id, "vector": named, "payload": one.payload}, option=orjson.OPT_SERIALIZE_NUMPY
    )


def _vector(packed: Packed) -> Any:
    if isinstance(packed, Sparse):
        return {
            "indices": np.frombuffer(packed.indices, np.uint32),
            "values": np.frombuffer(packed.values, np.float32),
        }
    if isinstance(packed, Multi):
        return np.frombuffer(packed.data, np.float32).reshape(-1, packed.dim)
    return np.frombuffer(packed, np.float32)


def unpack_point(found: Json) -> Point:
    """Return a `Record`. A vector by itself is the unnamed one; sparse ones always have a name."""
    given = found.get("vector")
    named = {} if given is None else given if isinstance(given, dict) else {"": given}
    vectors = {name: _packed(one) for name, one in named.items()}
    return Point(found["id"], vectors, found.get("payload") or {}, found.get("shard_key"))


def _packed(one: Any) -> Packed:
    if isinstance(one, dict):
        indices, numbers = np.asarray(one["indices"], np.uint32), np.asarray(one["values"], np.float32)
        order = np.argsort(indices)
        return Sparse(indices[order].tobytes(), numbers[order].tobytes())
    if one and isinstance(one[0], list):
        return Multi(len(one[0]), np.asarray(one, np.float32).tobytes())
    return np.asarray(one, np.float32).tobytes()
