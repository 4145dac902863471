"""One question to a sidecar's file, answered without making an index of it.

Every vector is looked at while the file is hashed, which takes little more time than hashing, and
hardly any memory. hnswlib copies what it is to search: that takes longer than this five times, and
many a program asks but one question.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from migrate.hnsw import container
from migrate.hnsw.container import BrokenError, Bytes, Manifest
from migrate.hnsw.graph import DELETED, Shape
from migrate.schema import Metric

Near = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def glance(
    descriptor: int, found: Manifest, shape: Shape, vector: npt.NDArray[np.float32], k: int, *, trusted: bool
) -> Near:
    """Return the rowids and distances of the k nearest, nearest first; distances as `Graph.ask` has them.

    vector: (dim,), of length 1 for cosine. Takes some 20 bytes of memory a vector. Raises BrokenError, OSError, as `container.read` does.
    """
    element = shape.element
    length = found.sections["elements"][1]
    if length % element.itemsize or found.sections["rowids"][1] != 8 * (length // element.itemsize):
        raise BrokenError("its parts do not fit each other")
    distances = np.empty(length // element.itemsize, np.float32)
    labels = np.empty(len(distances), np.uint64)

    def look(first: int, data: Bytes) -> None:
        elements = data.view(element)
        here = slice(first, first + len(elements))
        labels[here] = elements["label"]
        distances[here] = _distances(shape.metric, elements["vector"], vector)
        distances[here][elements["flags"] & DELETED != 0] = np.inf

    container.stream(descriptor, found, "elements", element.itemsize, look, trusted=trusted)
    rowids = container.read(descriptor, found, "rowids", trusted=trusted)["rowids"].view("<i8")
    if (labels >= len(rowids)).any():
        raise BrokenError("its labels are not those of its elements")
    near = np.argpartition(distances, k)[:k] if k < len(distances) else np.arange(len(distances))
    near = near[np.argsort(distances[near], kind="stable")]
    near = near[np.isfinite(distances[near])]
    return rowids[labels[near]].astype(np.int64), distances[near]


def _distances(
    metric: Metric, rows: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    found = np.empty(len(rows), np.float32)
    if metric is Metric.EUCLID:
        apart = rows - vector
        return np.einsum("ij,ij->i", apart, apart, out=found)
    return np.subtract(1, np.einsum("ij,j->i", rows, vector, out=found), out=found)
