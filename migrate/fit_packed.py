"""Which packed vectors are sound: float32 of any dimension, float16, bytes, sparse, several to a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from migrate import vectors
from migrate.fit import Found, Typed
from migrate.schema import Kind


@dataclass(frozen=True, slots=True)
class Packed:
    """Cells of one vector kind, packed as `migrate.vectors` says, and finite.

    dim:   their dimension, or None where each cell may have its own.
    most:  dimensions at most, of a sparse vector entries at most; None: any number.
    strict: a sparse vector must name its dimension, and no entry that is 0, as in pgvector's `sparsevec`.
    """

    kind: Kind
    dim: int | None
    most: int | None = None
    strict: bool = False

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        yield from Typed(bytes, "vectors", b"").check(cells)
        for i, cell in enumerate(cells):
            if type(cell) is bytes and (reason := self._problem(cell)):
                yield Found(i, None, reason)

    def _problem(self, cell: bytes) -> str | None:
        match self.kind:
            case Kind.VECTOR:
                return self._dense(cell, 4, vectors.F32)
            case Kind.HALF:
                return self._dense(cell, 2, vectors.F16)
            case Kind.U8:
                return self._dense(cell, 1, np.dtype("u1"))
            case Kind.SPARSE:
                return self._sparse(cell)
            case _:
                return self._multi(cell)

    def _dense(self, cell: bytes, width: int, dtype: np.dtype[Any]) -> str | None:
        if self.dim is not None and len(cell) != width * self.dim:
            return f"{len(cell)} bytes in a column of {self.dim} {dtype.name}"
        if not cell or len(cell) % width:
            return f"{len(cell)} bytes, which are no {dtype.name} vector"
        if self.most is not None and len(cell) > width * self.most:
            return f"a vector of {len(cell) // width} dimensions; {self.most} at most"
        return _finite(np.frombuffer(cell, dtype))

    def _sparse(self, cell: bytes) -> str | None:
        if len(cell) < 8 or len(cell) != 8 + 8 * int.from_bytes(cell[4:8], "little"):
            return "no packed sparse vector"
        indices, numbers, dim = vectors.unpack_sparse(cell)
        if len(indices) > 1 and not bool((np.diff(indices.astype(np.int64)) > 0).all()):
            return "a sparse vector whose indices do not ascend"
        if self.dim is not None and dim != self.dim:
            return f"a sparse vector of {dim} dimensions in a column of {self.dim}"
        if (dim or self.strict) and len(indices) and int(indices[-1]) >= dim:
            return f"a sparse vector of {dim} dimensions with the index {int(indices[-1])}"
        if self.most is not None and len(indices) > self.most:
            return f"a sparse vector of {len(indices)} entries; {self.most} at most"
        if self.strict and not (dim and bool(numbers.all())):
            return "a sparse vector without a dimension, or with an entry of 0"
        return _finite(numbers)

    def _multi(self, cell: bytes) -> str | None:
        if len(cell) < 8:
            return "no packed multivector"
        n, dim = int.from_bytes(cell[:4], "little"), int.from_bytes(cell[4:8], "little")
        if n < 1 or (self.dim is not None and dim != self.dim) or len(cell) != 8 + 4 * n * dim:
            return f"no multivector of {self.dim} dimensions"
        return _finite(vectors.unpack_multi(cell))

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        dim = self.dim or 1
        match self.kind:
            case Kind.SPARSE:
                return vectors.pack_sparse([], [], dim)
            case Kind.MULTI:
                return vectors.pack_multi(np.zeros((1, dim)))
            case _:
                return bytes(dim * {Kind.VECTOR: 4, Kind.HALF: 2}.get(self.kind, 1))


def _finite(numbers: Any) -> str | None:
    return None if bool(np.isfinite(numbers).all()) else "NaN or infinity in a vector"
