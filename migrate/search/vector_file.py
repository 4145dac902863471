"""Query vectors in files: JSON arrays of numbers, numpy's `.npy`, raw float32; sparse ones as JSON objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.errors import ConfigError
from migrate.search import sparse
from migrate.search.base import Sparse, Vector
from migrate.vectors import F32

_HINT = "a JSON array of numbers (or of such arrays), a .npy file of numbers, or raw little-endian float32"
MOST_BYTES = 64 * 2**20  # a thousand vectors of 1536 numbers are 30 MB of JSON


def read_asked(path: str | Path) -> Vector | Sparse:
    """Return the one vector of a file, dense or sparse. Raises ConfigError as `read_vectors`."""
    found = _read(path)
    if isinstance(found, Sparse):
        return found
    if len(found) != 1:
        raise ConfigError(f"{path} holds {len(found)} vectors", hint="a search asks with one")
    return found[0]


def read_vectors(path: str | Path) -> list[Vector]:
    """Return the vectors of a file, (dim,) float32 each: one, or one for each row of a matrix.

    Raises ConfigError for a file that cannot be read or holds anything else than finite numbers.
    """
    found = _read(path)
    if isinstance(found, Sparse):
        raise ConfigError(f"{path} holds a sparse vector", hint=_HINT)
    return found


def _read(path: str | Path) -> list[Vector] | Sparse:
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{file} is larger than {MOST_BYTES:,} bytes", hint="give fewer vectors")
        with file.open("rb") as opened:
            numpy = opened.read(6) == b"\x93NUMPY"
        found = np.load(file, allow_pickle=False) if numpy else _parsed(file.read_bytes())
    except OSError as exc:
        raise ConfigError(f"cannot read the vector in {file}: {exc.strerror}", hint=_HINT) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{file} holds no vector: {exc}", hint=_HINT) from None
    if isinstance(found, dict):
        return sparse.parse(found)
    if found.dtype.kind not in "iuf" or found.ndim not in (1, 2) or not found.size:
        raise ConfigError(f"{file} holds no vector", hint=_HINT)
    with np.errstate(over="ignore"):
        packed = np.atleast_2d(found).astype(np.float32)
    if not np.isfinite(packed).all():
        raise ConfigError(f"{file} has a number that is no finite float32", hint=_HINT)
    return list(packed)


def _parsed(data: bytes) -> npt.NDArray[Any] | dict[str, Any]:
    """Return JSON as an array or the object it is, or bytes that are no text as the float32 values they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if len(data) % 4 == 0:
            return np.frombuffer(data, F32)
        raise
    found = json.loads(text)
    return found if isinstance(found, dict) else np.asarray(found)
