"""Packed vectors: the one home of byte order and of the forms of a vector cell.

A dense cell is `dim` little-endian float32 values, back to back, with no
header: what SQLite stores of AgentOS hold, what a protobuf packed `repeated
float` holds, and what numpy reads without a copy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = np.dtype("<f4")
F32_BIG = np.dtype(">f4")
F16 = np.dtype("<f2")
U32 = np.dtype("<u4")


def dim_of(cell: bytes) -> int:
    """Return the dimension of a packed float32 cell."""
    return len(cell) // 4


def to_array(cell: bytes) -> npt.NDArray[np.float32]:
    """View a packed cell as a (dim,) float32 array, without copying."""
    return np.frombuffer(cell, F32)


def matrix(cells: Sequence[bytes], dim: int) -> npt.NDArray[np.float32]:
    """Return packed cells of one dimension as an (n, dim) float32 array."""
    return np.frombuffer(b"".join(cells), F32).reshape(len(cells), dim)


def pack(values: Any) -> bytes:
    """Pack numbers as little-endian float32; a value that is no float32 is rounded to nearest."""
    return np.asarray(values, F32).tobytes()


def pack_exact(values: Any) -> bytes | None:
    """Pack numbers as float32, or return None where one of them overflows or is no number."""
    wide = np.asarray(values, np.float64)
    if wide.ndim != 1 or not np.isfinite(wide).all():
        return None
    if wide.size and float(np.abs(wide).max()) > float(np.finfo(np.float32).max):
        return None
    return wide.astype(F32).tobytes()


def from_json(text: str | bytes) -> bytes | None:
    """Pack a vector written as a JSON array of numbers; None where the text is anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not values:
        return None
    if not all(type(v) in (int, float) for v in values):
        return None
    return pack_exact(values)


def not_finite(cells: Sequence[bytes], dim: int) -> list[int]:
    """Return the positions of the cells that hold a NaN or an infinity."""
    if not cells or dim == 0:
        return []
    finite = np.isfinite(matrix(cells, dim))
    if finite.all():
        return []
    return [int(i) for i in np.flatnonzero(~finite.all(axis=1))]


def swap(packed: bytes | bytearray | memoryview) -> bytes:
    """Turn packed float32 from little to big endian, or back."""
    return np.frombuffer(packed, U32).byteswap().tobytes()


def norm(cell: bytes) -> float:
    """Return the Euclidean norm of a packed float32 cell, computed in float64."""
    return float(np.sqrt(np.square(to_array(cell).astype(np.float64)).sum()))


def same_direction(a: bytes, b: bytes, tolerance: float = 1e-6) -> bool:
    """Whether two packed cells point the same way: unit vectors equal within `tolerance` in each place.

    Two all-zero cells are equal; a zero and another are not.
    """
    if len(a) != len(b):
        return False
    x, y = to_array(a).astype(np.float64), to_array(b).astype(np.float64)
    nx, ny = float(np.sqrt(x @ x)), float(np.sqrt(y @ y))
    if nx == 0 or ny == 0:
        return nx == ny
    return bool(np.abs(x / nx - y / ny).max() <= tolerance)


def pack_sparse(indices: Sequence[int], values: Any, dim: int = 0) -> bytes:
    """Pack a sparse vector: u32 dim (0 = unknown), u32 n, n ascending u32 indices, n float32 values.

    Raises ValueError on indices that repeat, are negative or do not fit.
    """
    order = sorted(range(len(indices)), key=lambda i: indices[i])
    ordered = [int(indices[i]) for i in order]
    if any(a == b for a, b in pairwise(ordered)):
        raise ValueError("a sparse vector names an index twice")
    if ordered and (ordered[0] < 0 or ordered[-1] >= 2**32):
        raise ValueError("a sparse vector's index does not fit 32 bits")
    head = np.array([dim, len(ordered)], U32).tobytes()
    packed = np.asarray(values, F32)
    return head + np.array(ordered, U32).tobytes() + packed[order].astype(F32).tobytes()


def unpack_sparse(cell: bytes) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32], int]:
    """Return (indices, values, dim) of a packed sparse cell."""
    dim, n = (int(x) for x in np.frombuffer(cell, U32, 2))
    return np.frombuffer(cell, U32, n, 8), np.frombuffer(cell, F32, n, 8 + 4 * n), dim


def pack_multi(rows: Any) -> bytes:
    """Pack an (n, dim) multivector: u32 n, u32 dim, then n * dim float32."""
    array = np.asarray(rows, F32)
    if array.ndim != 2:
        raise ValueError("a multivector has two dimensions")
    return np.array(array.shape, U32).tobytes() + array.tobytes()


def unpack_multi(cell: bytes) -> npt.NDArray[np.float32]:
    """Return the (n, dim) float32 array of a packed multivector."""
    n, dim = (int(x) for x in np.frombuffer(cell, U32, 2))
    return np.frombuffer(cell, F32, n * dim, 8).reshape(n, dim)
