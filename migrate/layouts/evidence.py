"""Whether the cells of a column are packed float32 vectors, told by evidence.

Evidence is the length of the cells, what the numbers in them look like, and
the column's name. A first byte says nothing: one vector in 256 begins with the
byte of `[`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from migrate import vectors

NAMES = frozenset({"embed", "embedding", "embeddings", "emb", "vec", "vector", "vectors"})
# A column named for what goes with a vector: its id, its checksum, its length.
_COMPANIONS = frozenset(
    {"id", "ids", "uuid", "guid", "key", "hash", "md5", "sha", "sha1", "sha256", "digest", "sig", "model"}
    | {"signature", "dim", "dims", "size", "norm", "count", "meta", "metadata", "json", "type", "name"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[A-Z]")
# libSQL and sqlite-vec write the dimension into the declared type.
_DECLARED = re.compile(r"\s*(?:F32_BLOB|FLOAT32|FLOAT|VECTOR)\s*[(\[]\s*(\d+)\s*[)\]]\s*", re.IGNORECASE)

# Up to 64 bytes a cell may be an id, a checksum, a key or a signature (sha512, ed25519).
_SMALLEST_UNNAMED = 68
_LARGEST = 4 * 65536  # no embedding model comes near 65,536 dimensions
_FEWEST_UNNAMED = 3  # different cells; fewer are no pattern
_UNIFORM = 0.99  # one odd cell in a hundred is a damaged cell; more are another model's vectors
# What embeddings look like. Random bytes, integers, float16 and float64 read as
# float32 have most of their values far outside.
_MOST, _LEAST = 1e6, 1e-10
_MEDIAN = (1e-5, 1e4)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a column's cells are. dim None: no vectors. `why` is in words for a plan, or empty.

    texts: some cells are vectors written as JSON text.
    """

    dim: int | None
    why: str = ""
    texts: bool = False


def declared_dim(declared: str) -> int | None:
    """Return the dimension that a declared type such as `F32_BLOB(384)` names, or None."""
    found = _DECLARED.fullmatch(declared)
    return int(found[1]) if found else None


def named_as_vector(name: str) -> bool:
    """Whether a column's name says that it holds vectors (`titleEmbedding`, not `embedding_id`)."""
    words = [w.lower() for w in _WORD.findall(name)]
    return any(w in NAMES for w in words) and words[-1] not in _COMPANIONS


def looks_like_floats(cells: Sequence[bytes]) -> list[bool]:
    """Say of each cell whether its float32 values could be an embedding's. Lengths divide by 4.

    An all-zero cell could be, but is no evidence: callers count it out with `bytes.strip`.
    """
    return [_sane(cell) for cell in cells]


def _sane(cell: bytes) -> bool:
    if len(cell) >= 16 and cell.isascii() and cell.decode().isprintable():
        return False  # a text kept as bytes
    with np.errstate(invalid="ignore"):
        size = np.abs(vectors.to_array(cell))
        if not np.isfinite(size).all() or float(size.max()) > _MOST:
            return False
        size = size[size > 0]
        if not size.size:
            return True
        tiny = int((size < _LEAST).sum())
    return tiny <= size.size // 100 and _MEDIAN[0] <= float(np.median(size)) <= _MEDIAN[1]


def dims_of(cells: Sequence[Any], known: frozenset[int] = frozenset()) -> Counter[int]:
    """Count the cells by the dimension of the vector in them; cells that are none are left out.

    known: dimensions that something else names. A blob of such a length is
    packed; another blob, or a text, may be a JSON array; then length decides.
    """
    return Counter(dim for cell in cells if (dim := _dim_of(cell, known)))


def _dim_of(cell: Any, known: frozenset[int]) -> int:
    if isinstance(cell, bytes):
        dim, rest = divmod(len(cell), 4)
        if not rest and dim in known:
            return dim
        packed = vectors.from_json(cell) if cell[:1] == b"[" and cell[-1:] == b"]" else None
        if packed is not None:
            return vectors.dim_of(packed)
        return 0 if rest else dim
    packed = vectors.from_json(cell) if isinstance(cell, str) else None
    return 0 if packed is None else vectors.dim_of(packed)


def hopeless(cells: Sequence[Any], named: bool) -> bool:
    """Whether a first few cells already show that a column holds no vectors."""
    given = [c for c in cells if c is not None]
    if not given:
        return False
    lengths = Counter(len(c) for c in given if isinstance(c, (bytes, str)))
    if not lengths or max(lengths) > _LARGEST * 4:
        return True
    if named:
        return False
    return len(lengths) > 1 or not _possible(next(iter(lengths)), named)


def _possible(length: int, named: bool) -> bool:
    """Whether a cell of this many bytes may be a vector of 2 dimensions or more."""
    return length % 4 == 0 and (8 if named else _SMALLEST_UNNAMED) <= length <= _LARGEST


def judge(cells: Sequence[Any], *, named: bool, declared: int | None = None) -> Verdict:
    """Say whether sampled cells are vectors, by length, values and (if `named`) the column's name.

    declared: the dimension that the column's declared type names.
    """
    given = [c for c in cells if c is not None]
    if declared is not None and all(isinstance(c, bytes) and len(c) == 4 * declared for c in given):
        return Verdict(declared, f"declared so; {_of(len(given), len(given))} {4 * declared:,} bytes")
    if not given:
        return Verdict(None, "no cell to judge by" if named else "")
    packed = [c for c in given if isinstance(c, bytes)]
    lengths = Counter(map(len, packed)).most_common(1)
    if not lengths:
        return Verdict(None, _texts_note(given) if named else "")
    length, count = lengths[0]
    if count < len(given) * (_UNIFORM if named else 1):
        return Verdict(None, f"only {_of(count, len(given))} {length:,} bytes" if named else "")
    if not _possible(length, named):
        return Verdict(None, f"{length:,} bytes are no vector" if named else "")
    alike = [c for c in packed if len(c) == length]
    sane = sum(looks_like_floats(alike))
    telling = len({c for c in alike if any(c)})
    if (sane <= len(alike) // 2) if named else (sane < len(alike) or telling < _FEWEST_UNNAMED):
        return Verdict(None, f"{_of(len(alike) - sane, len(alike))} no float32 values" if named else "")
    return Verdict(length // 4, f"{_of(count, len(given))} {length:,} bytes of {_quality(sane, count)}")


def _quality(sane: int, count: int) -> str:
    return "finite float32" if sane == count else f"float32, {count - sane:,} of them odd"


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} sampled cells are"


def _texts_note(given: Sequence[Any]) -> str:
    dims = dims_of([c for c in given if isinstance(c, str)])
    if not dims:
        return ""
    dim, count = dims.most_common(1)[0]
    return f"{_of(count, len(given))} JSON arrays of {dim:,} numbers"


def forced(cells: Sequence[Any]) -> Verdict:
    """Judge a column that the user calls a vector; dim is None where no cell tells it."""
    given = [c for c in cells if c is not None]
    dims = dims_of(given)
    if not dims:
        return Verdict(None)
    dim, count = dims.most_common(1)[0]
    texts = any(isinstance(c, str) for c in given)
    return Verdict(dim, f"as asked; {_of(count, len(given))} of {dim:,} dimensions", texts)
