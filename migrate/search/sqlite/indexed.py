"""Nearest neighbours by an HNSW sidecar: candidates from the index, scores from the store."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.names import translating
from migrate.backends.sqlite.vectorscan import FEW_ROWS, few_cells_at, unpacked, vectors_at
from migrate.hnsw.build import Index
from migrate.hnsw.sidecar import Sidecar
from migrate.schema import Column, Metric
from migrate.search.base import Searched
from migrate.search.sqlite import scores
from migrate.search.sqlite.best import Best, untied
from migrate.search.sqlite.exact import Held, keys_of, rows_allowed
from migrate.search.sqlite.reading import Place, Reading
from migrate.search.sqlite.scores import Asked, F32Array
from migrate.search.sqlite.where import Allowed

# Looking at so few vectors is quicker than an index that asks Python about each candidate
# (0.5 us each, thousands of them where few are allowed), and misses none.
FEW = 10_000
FEW_SHARE = 0.02
# Where nearly all are allowed more candidates are asked for, and those that are not are left out.
NEARLY_ALL = 0.8
_WIDTH_FOR = 10  # hits, of the width that an index keeps
_WIDEST_SHARE = 0.25  # of all vectors; a search that wide is no quicker than looking at every one
_SPARE = 6  # asked for beyond what is wanted, to see where those end that are as near as the last
_FILTERS = 16
_ROUNDING = 1e-5  # of hnswlib's distances
MET_BYTES = 16 * 2**20


@dataclass(slots=True)
class Masks:
    """Which labels of an index filters allow in one state of the store, for the last filters."""

    index: Index | None = None
    state: str | None = None
    known: OrderedDict[tuple[str, str], npt.NDArray[np.bool_]] = field(default_factory=OrderedDict)

    def of(self, index: Index, at: Reading, searched: Searched, allowed: Allowed) -> npt.NDArray[np.bool_]:
        """Return a mask over labels."""
        if self.index is not index or self.state != at.state:  # rows may change whose vectors do not
            self.index, self.state = index, at.state
            self.known.clear()
        name = (allowed.sql, repr(allowed.bindings))  # 1, 1.0 and True are equal and not the same to SQL
        if name not in self.known:
            rowids = rows_allowed(at.connection, at.at(searched), allowed)
            self.known[name] = index.alive & np.isin(index.rowids, rowids)
            while len(self.known) > _FILTERS:
                self.known.popitem(last=False)
        self.known.move_to_end(name)
        return self.known[name]


class Met:
    """Vectors of the rows that were looked at last, as long as the store is in one state: a memory is found again."""

    def __init__(self) -> None:
        self._state: str | None = None
        self._cells: dict[int, bytes] = {}

    def rows(self, at: Reading, place: Place, column: Column, rowids: list[int]) -> F32Array | None:
        """Return the vectors of a few rows as (n, dim) float32; None where one is not there or not packed."""
        known = self._cells
        if self._state != at.state:
            self._state = at.state
            known.clear()
        try:
            return unpacked(column, [known[i] for i in rowids])
        except KeyError:  # one was not met yet
            cells = few_cells_at(at.connection, place.table.name, place.rowid or "", column, rowids)
        if cells is None:
            return None
        if at.state is not None:
            known.update(zip(rowids, cells, strict=True))
            while len(known) * len(cells[0]) > MET_BYTES:
                del known[next(iter(known))]
        return unpacked(column, cells)


def near(
    at: Reading,
    searched: Searched,
    column: Column,
    asked: Asked,
    k: int,
    index: Index,
    mask: npt.NDArray[np.bool_] | None,
    held: Held | None,
    met: Met,
) -> list[tuple[Any, float]] | None:
    """Return the k nearest rows that are allowed, or None where looking at every one is better.

    mask: over labels; None allows all. held: the column's vectors, where they are in memory.
    met: those of the column that were looked at last.
    """
    if index.width is None:
        return None
    alive = index.count
    allowed = alive if mask is None else int(np.count_nonzero(mask))
    wanted = min(k, allowed)
    width = max(index.width, math.ceil(index.width * k / _WIDTH_FOR))
    if width > max(_WIDEST_SHARE * alive, index.width) or wanted == 0:
        return None
    if allowed < NEARLY_ALL * alive and (allowed < FEW or allowed < FEW_SHARE * alive):
        return None
    labels = _candidates(asked, index, mask, allowed, width, wanted)
    if labels is None:
        return None
    return _scored(at, searched, column, asked, k, index.rowids[labels], held, met)


def glanced(
    sidecar: Sidecar, at: Reading, searched: Searched, column: Column, asked: Asked, k: int, met: Met
) -> list[tuple[Any, float]] | None:
    """Return the k nearest rows by the file of a sidecar that is not in memory, or None where that is not to be done."""
    found = sidecar.glance(at.state, asked.quick, k + _SPARE)
    if found is None:
        return None
    rowids, distances = found
    far: list[float] = distances.tolist()
    bound = _bound(asked, far[min(k, len(far)) - 1]) if far else 0.0
    if len(far) == k + _SPARE and far[-1] <= bound:
        return None  # more are as near as the last: the index is asked for all of them
    return _scored(at, searched, column, asked, k, rowids[: bisect_right(far, bound)], None, met)


def _candidates(
    asked: Asked,
    index: Index,
    mask: npt.NDArray[np.bool_] | None,
    allowed: int,
    width: int,
    wanted: int,
) -> npt.NDArray[np.uint64] | None:
    """Return the labels of the nearest, and of all that are as near as the last of them but for rounding.

    None where the index reaches fewer.
    """
    ask, most = index.graph.ask, wanted + _SPARE
    if mask is None:
        width = min(allowed, width)
        labels, distances = ask(asked.quick, width, most)
    elif allowed >= NEARLY_ALL * index.count:
        labels, distances = ask(asked.quick, min(index.count, math.ceil(width * index.count / allowed)))
        good = mask[labels]
        labels, distances = labels[good], distances[good]
    else:
        # An item of bytes is an int, in half the time of one of an array.
        labels, distances = ask(asked.quick, min(allowed, width), None, mask.tobytes().__getitem__)
    if len(labels) < wanted:
        return None
    far: list[float] = distances.tolist()
    bound = _bound(asked, far[wanted - 1])
    if mask is None and len(far) == most < width and far[-1] <= bound:
        labels, distances = ask(asked.quick, width)
        far = distances.tolist()
    return labels[: bisect_right(far, bound)]


def _bound(asked: Asked, last: float) -> float:
    """Return the distance up to which elements may be as near as the last that is wanted."""
    scale = 1.0 if asked.metric is Metric.COSINE else 1.0 + asked.length**2
    return last + _ROUNDING * (abs(last) + scale)


def _scored(
    at: Reading,
    searched: Searched,
    column: Column,
    asked: Asked,
    k: int,
    rowids: npt.NDArray[np.int64],
    held: Held | None,
    met: Met,
) -> list[tuple[Any, float]] | None:
    """Score candidates by the vectors that the store has; None where it has not all of them."""
    place, wanted = at.at(searched), rowids.tolist()
    with translating("compare vectors", table=searched.name, column=column.name):
        rows, there = None, None
        if held is not None:
            places = np.searchsorted(held.ids, rowids)
            if places.max(initial=-1) >= len(held.ids) or (held.ids[places] != rowids).any():
                return None
            rows = held.rows_at(places)
        elif place.rowid is not None and 0 < len(wanted) <= FEW_ROWS:
            rows = met.rows(at, place, column, wanted)
        if rows is not None:
            there = scores.exact(asked, rows)
            if (found := untied(wanted, there.tolist(), k)) is not None:
                return found
        best = Best(asked, k, keys_of(at.connection, place))
        if there is not None:
            best.add(rowids, there)
            return best.found()
        read = 0
        for piece in vectors_at(at.connection, place.table, column, wanted):
            best.add(piece.ids, scores.exact(asked, piece.rows))
            read += len(piece.ids)
        return best.found() if read == len(wanted) else None
