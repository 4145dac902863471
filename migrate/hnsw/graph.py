"""An hnswlib index in memory: made, changed, asked, turned into arrays and back.

hnswlib believes what it is given: a link beyond the last element ends the
process. So arrays are checked before they become an index, whatever hash they
came with, and its own files, whose loader checks little, are not used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.hnsw.settings import EF_CONSTRUCTION, SPACES, M
from migrate.schema import Metric

Labels = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

DELETED = 1  # of the byte after an element's number of links
_STATE_VERSION = 1  # of hnswlib's own dictionary
_THREADS = os.cpu_count() or 1
_HIGHEST_LEVEL = 64  # a level is drawn as -ln(uniform) / ln(M): 64 is never met


class DamagedError(Exception):
    """Arrays that are no index."""


def installed() -> str | None:
    """Return the version of hnswlib, or None where it is not installed."""
    there = sys.modules["hnswlib"] if "hnswlib" in sys.modules else find_spec("hnswlib")
    return _version() if there is not None else None


@lru_cache
def _version() -> str:
    return metadata.version("hnswlib")  # 0.3 ms, which is more than most searches take


@dataclass(frozen=True, slots=True)
class Shape:
    """What an index is of."""

    metric: Metric
    dim: int
    m: int = M
    ef_construction: int = EF_CONSTRUCTION

    @property
    def element(self) -> np.dtype[Any]:
        """Return how hnswlib lays an element out in its lowest layer."""
        return np.dtype(
            [
                ("links", "<u2"),
                ("flags", "u1"),
                ("unused", "u1"),
                ("to", "<u4", (2 * self.m,)),
                ("vector", "<f4", (self.dim,)),
                ("label", "<u8"),
            ]
        )

    @property
    def upper(self) -> np.dtype[Any]:
        """Return how the links of an element in one upper layer are laid out."""
        return np.dtype([("links", "<u2"), ("unused", "<u2"), ("to", "<u4", (self.m,))])


@dataclass(frozen=True, slots=True)
class Arrays:
    """An index as bytes.

    elements: `Shape.element` each. levels: int32, one an element. upper: `Shape.upper`, for each
    element as many as its level, in the order of elements.
    """

    elements: Bytes
    levels: Bytes
    upper: Bytes
    entry: int
    top: int


class Graph:
    """An hnswlib index. Labels count from 0 in the order of adding; deleted ones are not used again."""

    def __init__(self, shape: Shape, index: Any) -> None:
        self.shape, self._index = shape, index
        self._width = 0  # that hnswlib was told last

    @classmethod
    def new(cls, shape: Shape, room: int) -> Graph:
        """Return an empty index with room for some elements."""
        import hnswlib  # type: ignore[import-untyped]

        index = hnswlib.Index(SPACES[shape.metric], shape.dim)
        index.init_index(max(1, room), M=shape.m, ef_construction=shape.ef_construction)
        return cls(shape, index)

    @property
    def count(self) -> int:
        """Return how many elements there are, deleted ones too."""
        return int(self._index.get_current_count())

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows with the next labels, by all processors."""
        first, room = self.count, int(self._index.get_max_elements())
        if first + len(rows) > room:
            self._index.resize_index(max(first + len(rows), room + room // 8))
        self._index.add_items(rows, np.arange(first, first + len(rows), dtype=np.uint64))

    def delete(self, labels: Sequence[int]) -> None:
        """Leave elements out of all answers to come."""
        for label in labels:
            self._index.mark_deleted(int(label))

    def ask(
        self,
        vector: npt.NDArray[np.float32],
        width: int,
        most: int | None = None,
        allowed: Callable[[int], object] | None = None,
    ) -> tuple[Labels, npt.NDArray[np.float32]]:
        """Return the labels and distances of up to `most` of `width` near elements, nearest first.

        most: all of them where it is left out. Fewer where no more are reached. A distance is
        1 - cosine, 1 - product, or the square of Euclid's. For one thread at a time.
        """
        if width != self._width:
            self._index.set_ef(width)
            self._width = width
        k = width if most is None else min(most, width)
        while k:
            try:
                labels, distances = self._index.knn_query(vector, k=k, num_threads=1, filter=allowed)
            except RuntimeError:  # it reached fewer: the rest is deleted, not allowed, or cut off
                k //= 2
                continue
            return labels[0], distances[0]
        return np.empty(0, np.uint64), np.empty(0, np.float32)

    def ask_all(self, rows: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
        """Return the distances that `ask` finds for many rows, by all processors; infinite where fewer are reached."""
        try:
            distances: npt.NDArray[np.float32] = self._index.knn_query(rows, k=width)[1]
            return distances
        except RuntimeError:
            found = np.full((len(rows), width), np.inf, np.float32)
            for row, into in zip(rows, found, strict=True):
                near = self.ask(row, width)[1]
                into[: len(near)] = near
            return found

    def arrays(self) -> Arrays:
        """Return a copy of the index as bytes; takes its memory once more."""
        (state,) = self._index.__getstate__()
        n, element = state["cur_element_count"], self.shape.element
        levels = state["element_levels"][:n].astype("<i4")
        upper = state["link_lists"].view(np.uint8)[: int(levels.sum()) * self.shape.upper.itemsize]
        elements = state["data_level0"].view(np.uint8)[: n * element.itemsize]
        return Arrays(elements, levels.view(np.uint8), upper, state["enterpoint_node"], state["max_level"])

    @classmethod
    def of(cls, shape: Shape, arrays: Arrays, *, trusted: bool) -> Graph:
        """Make an index of bytes. Raises DamagedError for what is none; not looked for where `trusted`."""
        import hnswlib

        element, upper = shape.element, shape.upper
        if (
            len(arrays.elements) % element.itemsize
            or len(arrays.levels) % 4
            or len(arrays.upper) % upper.itemsize
        ):
            raise DamagedError("its parts are no whole elements")
        elements, levels = arrays.elements.view(element), arrays.levels.view("<i4")
        if not trusted:
            _check(elements, levels, arrays.upper.view(upper), arrays)
        try:
            return cls(shape, hnswlib.Index(_state(shape, arrays, elements, levels)))
        except RuntimeError as exc:
            raise DamagedError(str(exc)) from None


def _state(shape: Shape, arrays: Arrays, elements: Any, levels: Any) -> dict[str, Any]:
    """Return an index as hnswlib takes it; every place in memory follows from the shape, none from a file."""
    element, n = shape.element, len(elements)
    return {
        "ser_version": _STATE_VERSION,
        "space": SPACES[shape.metric],
        "dim": shape.dim,
        "index_inited": True,
        "ep_added": True,
        "normalize": shape.metric is Metric.COSINE,
        "num_threads": _THREADS,
        "seed": 100,
        "offset_level0": 0,
        "max_elements": n,
        "cur_element_count": n,
        "size_data_per_element": element.itemsize,
        "label_offset": element.fields["label"][1],  # type: ignore[index]
        "offset_data": element.fields["vector"][1],  # type: ignore[index]
        "max_level": arrays.top,
        "enterpoint_node": arrays.entry,
        "max_M": shape.m,
        "max_M0": 2 * shape.m,
        "M": shape.m,
        "mult": 1 / float(np.log(shape.m)),
        "ef_construction": max(shape.ef_construction, shape.m),  # as hnswlib takes it
        "ef": 10,
        "has_deletions": bool((elements["flags"] & DELETED).any()),
        "size_links_per_element": shape.upper.itemsize,
        "label_lookup_external": np.ascontiguousarray(elements["label"]),
        "label_lookup_internal": np.arange(n, dtype=np.uint32),
        "element_levels": levels,
        "data_level0": arrays.elements.view(np.int8),
        "link_lists": arrays.upper.view(np.int8),
    }


def deleted(shape: Shape, arrays: Arrays) -> npt.NDArray[np.bool_]:
    """Return which labels are deleted."""
    elements = arrays.elements.view(shape.element)
    gone = np.zeros(len(elements), np.bool_)
    gone[elements["label"]] = elements["flags"] & DELETED
    return gone


def _check(elements: Any, levels: Any, upper: Any, arrays: Arrays) -> None:
    n = len(elements)
    if n == 0 or len(levels) != n:
        raise DamagedError("its parts do not fit each other")
    if levels.min() < 0 or levels.max() > _HIGHEST_LEVEL or int(levels.sum(dtype=np.int64)) != len(upper):
        raise DamagedError("its layers do not fit its elements")
    if not 0 <= arrays.entry < n or levels[arrays.entry] != arrays.top or levels.max() != arrays.top:
        raise DamagedError("its entry is not in its highest layer")
    labels = elements["label"]
    if labels.max() >= n or not np.bincount(labels.astype(np.int64), minlength=n).all():
        raise DamagedError("its labels are not those of its elements")
    most = elements["to"].shape[1]
    if elements["links"].max() > most or (len(upper) and upper["links"].max() > upper["to"].shape[1]):
        raise DamagedError("an element has too many links")
    # Places without a link are 0 or hold an old one, so that in a sound index no number is too large.
    if (
        elements["to"].max() >= n
        and (elements["to"] >= n)[np.arange(most) < elements["links"][:, None]].any()
    ):
        raise DamagedError("a link leads nowhere")
    if not len(upper):
        return
    # An element's entries in `upper` are its layers 1, 2, ...; who is linked there must reach as high.
    high = np.flatnonzero(levels)
    starts = np.cumsum(levels[high]) - levels[high]
    layer = np.arange(len(upper)) - np.repeat(starts, levels[high]) + 1
    used = np.arange(upper["to"].shape[1]) < upper["links"][:, None]
    to = np.where(used, upper["to"], arrays.entry)
    if (to >= n).any() or (levels[to] < layer[:, None]).any():
        raise DamagedError("a link leads into a layer that its element is not in")
