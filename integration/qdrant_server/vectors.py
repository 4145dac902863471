"""Vectors: from JSON to packed form and back, and the checks against a collection.

Packed form: `("d", bytes)` dense float32, `("m", dim, bytes)` multivector,
`("s", indices, values)` sparse, `("t", text)` a text for the built-in BM25 encoder.
"""

from __future__ import annotations

import array
from typing import Any

from integration.qdrant_server import settings
from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]
Packed = tuple[Any, ...]

MAX_U32 = 2**32 - 1
BM25_MODEL = "qdrant/bm25"
# Said by the server when no inference service is configured.
NO_INFERENCE = (
    "InferenceService is not initialized. "
    "Please check if it was properly configured and initialized during startup."
)


def _floats(given: list[Any]) -> bytes:
    """Numbers as float32; 1e39 becomes infinity, as Rust's `f64 as f32` does."""
    if not set(map(type, given)) <= {int, float}:
        raise QdrantError("format", "data did not match any variant of untagged enum VectorStruct")
    try:
        return array.array("f", given).tobytes()
    except OverflowError:
        limit = 3.4028235677973366e38  # half a step over the largest float32
        capped = [float("inf") * (1 if v > 0 else -1) if abs(v) >= limit else v for v in given]
        return array.array("f", capped).tobytes()


def check_sparse(indices: list[int], values: list[float]) -> None:
    """The server's `SparseVector` validation: 422, whatever `wait` is."""
    if len(indices) != len(values):
        raise QdrantError("validation", "[values: must be the same length as indices]")
    if len(set(indices)) != len(indices):
        raise QdrantError("validation", "[indices: must be unique]")


def check_multi(lengths: list[int]) -> None:
    if not lengths:
        raise QdrantError("validation", "[vector: multivector must not be empty]")
    if len(set(lengths)) != 1:
        raise QdrantError("validation", "[vector: all vectors must have the same dimension]")


def one_from_json(given: Any) -> Packed:
    """One vector of any kind from JSON."""
    if isinstance(given, list):
        if given and isinstance(given[0], list):
            if not all(isinstance(row, list) for row in given):
                raise QdrantError("format", "data did not match any variant of untagged enum VectorStruct")
            check_multi([len(row) for row in given])
            return ("m", len(given[0]), b"".join(_floats(row) for row in given))
        if not given:
            raise QdrantError("validation", "[vector: dense vector must not be empty]")
        return ("d", _floats(given))
    if isinstance(given, dict) and "indices" in given and "values" in given:
        indices, values = given["indices"], given["values"]
        if not all(type(i) is int and 0 <= i <= MAX_U32 for i in indices):
            raise QdrantError("format", "data did not match any variant of untagged enum VectorStruct")
        check_sparse(indices, values)
        return ("s", indices, array.array("f", _floats(values)).tolist())
    if isinstance(given, dict) and "text" in given and "model" in given:
        return document(given["text"], given["model"])
    if isinstance(given, dict) and "model" in given:
        raise QdrantError("inference", NO_INFERENCE)
    raise QdrantError("format", "data did not match any variant of untagged enum VectorStruct")


def document(text: str, model: str) -> Packed:
    """Text in place of a vector: only the built-in BM25 model needs no inference service."""
    if model.lower() != BM25_MODEL:
        raise QdrantError("inference", NO_INFERENCE)
    return ("t", text)


def from_json(given: Any) -> dict[str, Packed]:
    """A point's `vector`: one unnamed vector, or vectors by name; `{}` is none."""
    if isinstance(given, dict) and not ({"indices", "values"} <= given.keys() or "model" in given):
        return {name: one_from_json(one) for name, one in given.items()}
    return {"": one_from_json(given)}


def one_to_json(packed: Packed) -> Any:
    if packed[0] == "s":
        return {"indices": packed[1], "values": packed[2]}
    if packed[0] == "m":
        flat = memoryview(packed[2]).cast("f").tolist()
        return [flat[i : i + packed[1]] for i in range(0, len(flat), packed[1])]
    return memoryview(packed[1]).cast("f").tolist()


def to_json(named: dict[str, Packed]) -> Any:
    """As the server answers: a bare vector for the unnamed one, else a map."""
    if list(named) == [""]:
        return one_to_json(named[""])
    return {name: one_to_json(packed) for name, packed in named.items()}


def check(named: dict[str, Packed], collection: Json) -> None:
    """Names, kinds and dimensions against the collection; texts are the engine's own.

    Done here since the engine aborts on a multivector of a wrong dimension.
    """
    dense, sparse = settings.dense_vectors(collection), settings.sparse_vectors(collection)
    for name, packed in named.items():
        if packed[0] in ("s", "t"):
            if name in dense:
                raise QdrantError("bad_input", "Wrong usage of sparse vectors")
            if name not in sparse:
                raise QdrantError("bad_input", f"Not existing vector name error: {name}")
            continue
        if name in sparse:
            raise QdrantError("bad_input", "Wrong usage of sparse vectors")
        if name not in dense:
            raise QdrantError("bad_input", f"Not existing vector name error: {name}")
        multi = bool(dense[name].get("multivector_config"))
        if packed[0] == "m" and not multi:
            raise QdrantError("bad_input", "Wrong usage of multi vectors")
        # A single vector in a multivector field is a multivector of one row.
        got = packed[1] if packed[0] == "m" else len(packed[1]) // 4
        if got != dense[name]["size"]:
            raise QdrantError(
                "bad_input", f"Vector dimension error: expected dim: {dense[name]['size']}, got {got}"
            )


def size_bytes(named: dict[str, Packed]) -> int:
    """What the optimizer's threshold counts: dense vectors, 4 bytes a number."""
    return sum(len(packed[-1]) for packed in named.values() if packed[0] in "dm")
