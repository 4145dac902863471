"""Dense and sparse vectors: what is accepted, and how they score.

Rules: Vector and SparseValues in the 2026-07 OpenAPI file; the dimension and all-zero messages as public
bug reports quote them. The API file does not say whether sparse indices must be sorted (its own example is
not) or unique; here the order is kept and duplicates are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from integration.pinecone_emulator.errors import invalid
from integration.pinecone_emulator.limits import Limits
from integration.pinecone_emulator.wire import Decoded

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Sparse:
    """Indices and float32 values in the order they came."""

    __slots__ = ("indices", "values")

    def __init__(self, indices: tuple[int, ...], values: Floats) -> None:
        self.indices = indices
        self.values = values

    def message(self) -> Decoded:
        return {"indices": list(self.indices), "values": self.values}

    def dot(self, weights: dict[int, float]) -> float:
        return float(
            sum(v * weights.get(i, 0.0) for i, v in zip(self.indices, self.values.tolist(), strict=True))
        )

    def weights(self) -> dict[int, float]:
        return dict(zip(self.indices, self.values.tolist(), strict=True))


def dense(values: Floats, dimension: int | None, limits: Limits, *, of: str = "") -> Floats:
    """The vector, if an index of that dimension takes it. of: the record's id, for the message."""
    if dimension is None:
        raise invalid("Cannot use dense values with a sparse index: it holds sparse vectors only")
    if len(values) != dimension:
        raise invalid(f"Vector dimension {len(values)} does not match the dimension of the index {dimension}")
    if not np.isfinite(values).all():
        raise invalid(f"Vector values must be finite numbers. Vector ID {of} contains NaN or infinity.")
    if of and float(np.abs(values).max()) < limits.zero_magnitude:
        raise invalid(
            f"Dense vectors must contain at least one non-zero value. Vector ID {of} contains only zeros."
        )
    return values


def sparse(message: Decoded, limits: Limits, *, of: str = "") -> Sparse:
    """The sparse vector of a SparseValues message."""
    indices: list[int] = message.get("indices", [])
    values: Floats = message.get("values", np.zeros(0, np.float32))
    where = f" Vector ID {of}." if of else ""
    if len(indices) != len(values):
        raise invalid(f"Sparse indices and values must have the same length.{where}")
    if not indices:
        raise invalid(f"Sparse vector must contain at least one value.{where}")
    if len(indices) > limits.sparse_values:
        raise invalid(
            f"Sparse vectors hold at most {limits.sparse_values} values, got {len(indices)}.{where}"
        )
    if len(set(indices)) != len(indices):
        raise invalid(f"Sparse indices must be unique.{where}")
    if not np.isfinite(values).all():
        raise invalid(f"Sparse values must be finite numbers.{where}")
    return Sparse(tuple(indices), values)


def scores(metric: str, matrix: Floats, query: Floats) -> Floats:
    """One score per row of matrix, float32. euclidean is the squared distance, as the service returns it."""
    rows, wanted = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.asarray(((rows - wanted) ** 2).sum(axis=1), np.float32)
    dots = rows @ wanted
    if metric == "cosine":
        with np.errstate(invalid="ignore", divide="ignore"):
            dots = np.nan_to_num(dots / (np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted)))
    return np.asarray(dots, np.float32)
