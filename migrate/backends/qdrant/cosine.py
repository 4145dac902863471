"""Vectors of cosine collections: sent as unit vectors, given back byte for byte.

Qdrant keeps the vectors of a cosine collection normalised, and which bits its
own arithmetic gives depends on the machine. But it leaves a vector alone whose
squared norm is within 1e-6 of 1 (`is_length_zero_or_normalized`; measured:
every unit vector up to 4,096 dimensions came back bit by bit). So we divide by
the norm ourselves, in float32. Multiplying again gives each cell back or its
neighbour (measured: 10 % of cells are one unit in the last place off, none
more), so the norm and one trit a cell are enough to restore the very bytes:
7 % of the vector's size, kept in the point's payload, with a checksum of what was
sent: a vector that a program has written over it since is another, and its own.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate import vectors

_UNTOUCHED = 4e-7  # squared norms this near to 1 are left as they are; the engine's own bound is 1e-6
_NORMAL = np.finfo(np.float32).tiny  # smaller norms have few bits, and the engine normalises once more
_MAX_DIM = 4096  # beyond, the engine's float32 sum strays too far: the whole vector is kept beside
_WEIGHTS = (1, 3, 9, 27, 81)  # five trits in a byte

Matrix = npt.NDArray[np.float32]


def unit(cells: Sequence[bytes], dim: int) -> tuple[list[bytes], list[dict[str, Any] | None]]:
    """Return packed unit vectors, and for each what restores the original (None: nothing is needed).

    cells: packed, finite, `dim` float32 each. An all-zero cell stays as it is.
    """
    if not cells:
        return [], []
    given = vectors.matrix(cells, dim)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.square(given, dtype=np.float64).sum(axis=1))
        scale = norms.astype(np.float32)
        sent = given / scale[:, None]
        off = given.view(np.int32) - (sent * scale[:, None]).view(np.int32)
        fits = (np.abs(off) <= 1).all(axis=1) & np.isfinite(scale) & (scale > 0) & (dim <= _MAX_DIM)
    as_they_are = (np.abs(norms * norms - 1) <= _UNTOUCHED) | (norms == 0)
    if dim > _MAX_DIM:
        as_they_are = norms == 0
    plain = off.any(axis=1)
    packed: list[bytes] = []
    extra: list[dict[str, Any] | None] = []
    trits = _trits(off) if bool((fits & plain & ~as_they_are).any()) else None
    for i, cell in enumerate(cells):
        if as_they_are[i]:
            packed.append(cell)
            extra.append(None)
        elif fits[i]:
            packed.append(sent[i].tobytes())
            kept: dict[str, Any] = {"n": float(scale[i])}
            if scale[i] >= _NORMAL:
                kept["c"] = zlib.crc32(packed[-1])
            if plain[i] and trits is not None:
                kept["t"] = base64.b64encode(trits[i].tobytes()).decode()
            extra.append(kept)
        else:
            packed.append((given[i].astype(np.float64) / norms[i]).astype(np.float32).tobytes())
            extra.append({"x": base64.b64encode(cell).decode()})
    return packed, extra


def _is_of(stored: bytes, cell: bytes) -> bool:
    """Whether a unit vector still has the direction of a cell; if not, somebody has written another since."""
    if len(stored) != len(cell):
        return False
    whole = np.frombuffer(cell, vectors.F32).astype(np.float64)
    unit = whole / np.sqrt(np.square(whole).sum())
    return bool((np.abs(np.frombuffer(stored, vectors.F32) - unit) < 1e-6).all())


def _trits(off: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    n, dim = off.shape
    padded = np.zeros((n, -(-dim // 5) * 5), np.uint8)
    padded[:, :dim] = (off + 1).astype(np.uint8)
    packed = np.zeros((n, padded.shape[1] // 5), np.uint8)
    for place, weight in enumerate(_WEIGHTS):
        packed += padded[:, place::5] * np.uint8(weight)
    return packed


def original(stored: bytes, kept: Any) -> bytes:
    """Return the cell that `unit` was given. `kept`: what it returned beside the stored vector.

    Something else under our key, or another vector (a program wrote there), gives the vector as it is stored.
    """
    if not isinstance(kept, dict):
        return stored
    if isinstance(kept.get("x"), str):
        whole = base64.b64decode(kept["x"])
        return whole if _is_of(stored, whole) else stored
    if not isinstance(kept.get("n"), (int, float)) or kept.get("c", zlib.crc32(stored)) != zlib.crc32(stored):
        return stored
    cell = (np.frombuffer(stored, vectors.F32) * np.float32(kept["n"])).astype(vectors.F32)
    if isinstance(kept.get("t"), str):
        packed = np.frombuffer(base64.b64decode(kept["t"]), np.uint8)
        trits = np.empty((packed.size, 5), np.uint8)
        for place, weight in enumerate(_WEIGHTS):
            trits[:, place] = packed // np.uint8(weight) % np.uint8(3)
        if trits.size >= cell.size:
            moved = cell.view(np.int32) + (trits.reshape(-1)[: cell.size].astype(np.int32) - 1)
            return moved.tobytes()
    return cell.tobytes()
