"""Records and their JSON, by hand: float32 in its shortest digits, half of what the SDK sends.

The SDK sends a float32 as the digits of its double (30 kB for 1,536 dimensions); these are
17 kB and read back as the same float32.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from migrate import vectors
from migrate.backends.pinecone.metadata import Metadata
from migrate.errors import BackendError

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class Sparse(NamedTuple):
    """A sparse vector: packed u32 indices, packed float32 values, in the same order."""

    indices: bytes
    values: bytes


class Record(NamedTuple):
    """One record. `values` is packed float32; `namespace` as requests name it."""

    id: str
    values: bytes | None
    sparse: Sparse | None
    metadata: Metadata
    namespace: str = ""

    @property
    def billed(self) -> int:
        """Return the bytes that count for write units."""
        size = len(self.id) + (len(self.values) if self.values else 0)
        if self.sparse is not None:
            size += len(self.sparse.indices) + len(self.sparse.values)
        return size + (len(orjson.dumps(self.metadata)) if self.metadata else 0)


def packed(record: Record) -> bytes:
    """Return a record as an element of `vectors`. It contains no line break."""
    parts = [b'{"id":', orjson.dumps(record.id)]
    if record.values is not None:
        parts += (b',"values":', _floats(record.values))
    if record.sparse is not None:
        indices = orjson.dumps(np.frombuffer(record.sparse.indices, vectors.U32), option=_NUMPY)
        parts += (b',"sparseValues":{"indices":', indices, b',"values":', _floats(record.sparse.values), b"}")
    if record.metadata:
        parts += (b',"metadata":', orjson.dumps(record.metadata))
    parts.append(b"}")
    return b"".join(parts)


def _floats(data: bytes) -> bytes:
    return orjson.dumps(np.frombuffer(data, vectors.F32), option=_NUMPY)


def upsert_body(records: Sequence[bytes], namespace: str) -> bytes:
    """Return the body of an upsert."""
    tail = b"]}" if not namespace else b'],"namespace":' + orjson.dumps(namespace) + b"}"
    return b'{"vectors":[' + b",".join(records) + tail


def parse(body: bytes) -> Any:
    """Return the JSON of an answer. A `-0` stays a negative zero, which orjson would make the integer 0."""
    try:
        if b"-0," in body or b"-0]" in body:
            return json.loads(body, parse_int=lambda text: -0.0 if text == "-0" else int(text))
        return orjson.loads(body) if body else {}
    except ValueError as exc:
        raise BackendError(f"Pinecone answered with something that is no JSON: {exc}") from exc


def record(answer: dict[str, Any], namespace: str) -> Record:
    """Return a record of a fetch."""
    values, sparse = answer.get("values"), answer.get("sparseValues")
    return Record(
        answer["id"],
        array("f", values).tobytes() if values else None,
        _sparse(sparse) if sparse and sparse.get("indices") else None,
        answer.get("metadata") or {},
        namespace,
    )


def _sparse(given: dict[str, Any]) -> Sparse:
    return Sparse(array("I", given["indices"]).tobytes(), array("f", given["values"]).tobytes())
