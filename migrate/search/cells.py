"""What a cell means to a filter, and how it is shown in a hit: the same for every store that keeps JSON as text."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from migrate import values, vectors
from migrate.schema import PACKED_KINDS, Column, Kind
from migrate.search.base import Sparse

_BEYOND_ORJSON = 2.0**63
"""Integers of more than 64 bits come out of orjson as floats of at least this size."""


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_exactly = json.JSONDecoder(parse_constant=_refuse)


def meaning(kind: Kind, cell: Any) -> Any:
    """Return a cell as `filters.holds` takes it: JSON parsed, 0 and 1 of a BOOL column as booleans.

    Text in a JSON column that is no JSON is the text itself.
    """
    if kind is Kind.JSON and isinstance(cell, str):
        return from_json(cell)
    if kind is Kind.BOOL and isinstance(cell, int | float) and cell in (0, 1):
        return bool(cell)
    return cell


def from_json(text: str) -> Any:
    """Return the value of a JSON text, integers of any size exact; text that is no JSON comes back as it is."""
    try:
        return _exactly.decode(text)
    except (ValueError, RecursionError):
        return text


def quickly_from_json(data: bytes | str) -> Any:
    """Return the same as `from_json`, in a microsecond, but for what `may_be_rounded` tells."""
    try:
        return orjson.loads(data)
    except ValueError:
        return from_json(values.bytes_text(data) if isinstance(data, bytes) else data)


def may_be_rounded(value: Any) -> bool:
    """Whether a number out of `quickly_from_json` may stand for an integer that it could not hold."""
    return isinstance(value, float) and abs(value) >= _BEYOND_ORJSON


def shown(kind: Kind, cell: Any) -> Any:
    """Return a cell ready for JSON: bytes as `x'hex'`, numbers that JSON has not as text, odd text escaped."""
    return _ready(meaning(kind, cell))


def is_shown(kind: Kind) -> bool:
    """Whether cells of this kind are part of a hit's metadata: vectors and BLOBs are not."""
    return kind not in PACKED_KINDS


def _ready(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        return value if value.isascii() else values.text_bytes_safe(value)
    if isinstance(value, list):
        return [_ready(item) for item in value]
    if isinstance(value, dict):
        return {str(_ready(name)): _ready(item) for name, item in value.items()}
    return value


def vector(column: Column, cell: Any) -> npt.NDArray[np.float32] | None:
    """Return a cell as (dim,) float32, or None where it is no finite vector of the column's dimension."""
    if column.legacy_json and not (isinstance(cell, bytes) and len(cell) == 4 * (column.dim or 0)):
        cell = vectors.from_json(cell) if isinstance(cell, str | bytes) else None
    kind = vectors.F16 if column.kind is Kind.HALF else vectors.F32
    if not isinstance(cell, bytes) or len(cell) != kind.itemsize * (column.dim or 0):
        return None
    found = np.frombuffer(cell, kind).astype(np.float32)
    return found if np.isfinite(found).all() else None


def sparse(cell: Any) -> Sparse | None:
    """Return a packed sparse cell (`vectors.pack_sparse`), or None where it is none that can be compared."""
    if not isinstance(cell, bytes) or len(cell) < 16 or (len(cell) - 8) % 8:
        return None
    if int.from_bytes(cell[4:8], "little") != (len(cell) - 8) // 8:
        return None
    indices, numbers, _ = vectors.unpack_sparse(cell)
    if not (indices[1:] > indices[:-1]).all() or not np.isfinite(numbers).all():
        return None
    return Sparse(indices, numbers)
