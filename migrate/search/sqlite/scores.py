"""Scores of vectors: quickly in float32, and exactly in float64 for those that may be among the best.

A product of float32 matrices is as quick as memory, but its last bits depend on
where a row stands in the matrix: two equal vectors may get two scores. So it
only chooses candidates, by a bound on its error; what is answered is computed
from each row alone. Equal vectors have equal scores, and the same score
whichever index found them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from migrate.errors import ConfigError
from migrate.schema import Metric

F32Array = npt.NDArray[np.float32]
F64Array = npt.NDArray[np.float64]

_UNIT = 2.0**-24  # of rounding to float32
# Lengths whose squares and products stay far from the ends of float32; others are scored exactly at once.
_SHORT, _LONG = 1e-15, 1e15
_USUAL = (1e-2, 1e15)  # lengths under which every store computes a cosine as we do
# The threads of BLAS wait for each other at the end of every product: on a busy machine that is a time
# slice, 4 ms, where einsum takes 0.3 ms for a piece that is still in the processor's cache.
_FOR_THREADS = 8 * 2**20
_L1_VALUES = 2**16  # of a block whose differences stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Asked:
    """A query vector and how others are compared with it.

    vector: (dim,) float64. quick: the same in float32, of length 1 for cosine.
    """

    metric: Metric
    vector: F64Array
    length: float
    quick: F32Array

    @classmethod
    def of(cls, metric: Metric, vector: npt.ArrayLike, dim: int) -> Asked:
        """Check a query. Raises ConfigError for another dimension, NaN, infinity, and zeros under cosine."""
        given = np.asarray(vector, np.float32)
        if given.shape != (dim,):
            shape = " x ".join(map(str, given.shape)) or "one"
            raise ConfigError(
                f"the query has {shape} numbers, the vectors have {dim:,}",
                hint="embed the query with the model that made the vectors",
            )
        wide = given.astype(np.float64)
        length = math.sqrt(np.dot(wide, wide))  # in which NaN and infinity stay, and no float32 overflows
        if not math.isfinite(length):
            raise ConfigError("the query vector holds NaN or infinity", hint="give finite numbers")
        if metric is Metric.COSINE:
            if length == 0:
                raise ConfigError("a query of zeros has no direction", hint="cosine compares directions")
            return cls(metric, wide, length, (wide / length).astype(np.float32))
        return cls(metric, wide, length, given)

    @property
    def sent(self) -> F32Array:
        """Return the query as other stores are asked, in float32.

        Under cosine one of an unusual length goes out with length 1: Qdrant takes a vector shorter than
        3e-4 as it is, and pgvector's squares leave float32. Both answer 0 then, or by inner products.
        """
        usual = self.metric is not Metric.COSINE or _USUAL[0] < self.length < _USUAL[1]
        return self.vector.astype(np.float32) if usual else self.quick


def exact(asked: Asked, rows: F32Array) -> F64Array:
    """Return the scores of (n, dim) rows as `Hit.score` has them, each from its row alone.

    NaN for a row of zeros under cosine. Takes 16 bytes of memory a number.
    """
    wide = rows.astype(np.float64)
    if asked.metric is Metric.EUCLID:
        wide -= asked.vector
        return _negative(np.sqrt(np.square(wide, out=wide).sum(axis=1)))
    if asked.metric is Metric.MANHATTAN:
        wide -= asked.vector
        return _negative(np.abs(wide, out=wide).sum(axis=1))
    products: F64Array = np.add.reduce(wide * asked.vector, axis=1)
    if asked.metric is Metric.DOT:
        return products
    lengths = np.sqrt(np.add.reduce(np.square(wide, out=wide), axis=1))
    lengths *= asked.length
    if lengths.all():
        products /= lengths
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # 3 us
            products /= lengths
    np.maximum(products, -1.0, out=products)  # np.clip takes 10 us, these 1
    return np.minimum(products, 1.0, out=products)


def _negative(distances: F64Array) -> F64Array:
    return np.subtract(0.0, distances, dtype=np.float64)  # no -0.0


def quick(asked: Asked, rows: F32Array, squares: F32Array, out: F32Array) -> None:
    """Write scores that choose candidates into `out`: of the order of the exact ones, within `error`.

    squares: the squared lengths of the rows. Rows that `certain` does not name get any value.
    """
    with np.errstate(all="ignore"):
        if asked.metric is Metric.MANHATTAN:
            step = max(1, _L1_VALUES // len(asked.quick))
            for i in range(0, len(rows), step):
                difference = rows[i : i + step] - asked.quick
                np.abs(difference, out=difference).sum(axis=1, out=out[i : i + step])
            np.negative(out, out=out)
            return
        if rows.nbytes < _FOR_THREADS:
            np.einsum("ij,j->i", rows, asked.quick, out=out)
        else:
            np.dot(rows, asked.quick, out=out)
        if asked.metric is Metric.COSINE:
            out /= np.sqrt(squares)
        elif asked.metric is Metric.EUCLID:  # minus the squared distance, less what all have alike
            out *= 2
            out -= squares


def in_quick(asked: Asked, score: float) -> float:
    """Return an exact score as `quick` would give it without error."""
    return asked.length**2 - score**2 if asked.metric is Metric.EUCLID else score


def error(asked: Asked, longest: float, score: float) -> float:
    """Return how far a quick score near `score` (a quick one) may be off, for rows of at most this length.

    The usual bound of a sum of n products, n units of rounding (N. Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1), in whatever order they are added.
    """
    units = (len(asked.quick) + 16) * _UNIT
    if asked.metric is Metric.COSINE:
        return 2 * units
    if asked.metric is Metric.DOT:
        return units * longest * asked.length
    if asked.metric is Metric.MANHATTAN:
        return 2 * units * abs(score)
    return 2 * units * (longest + asked.length) ** 2


def certain(asked: Asked, squares: F32Array) -> npt.NDArray[np.bool_]:
    """Return which rows the bound holds for; all others are to be scored exactly."""
    if asked.metric is not Metric.COSINE and asked.length and not _SHORT < asked.length < _LONG:
        return np.zeros(len(squares), bool)
    return (squares >= _SHORT**2) & (squares < _LONG**2)
