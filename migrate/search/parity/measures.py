"""What two answers to the same question have in common: pure functions, no I/O.

Scores are those of `migrate.search.base.Hit`: higher is better. Two scores count
as equal within what float32 arithmetic explains, so that hits that tie at the
k-th place are right in any choice and any order.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from migrate.schema import Metric
from migrate.search.base import Vector

SLACK = 2e-6
"""Scores closer than this are equal: 1536 products of float32, summed in any order, differ by some 1e-7."""

K = TypeVar("K", bound=Hashable)


def score(metric: Metric, query: Vector, vector: Vector) -> float:
    """Return the exact score of a vector, computed in float64; -inf where a direction has no length."""
    a, b = query.astype(np.float64), vector.astype(np.float64)
    if metric is Metric.DOT:
        return float(a @ b)
    if metric is Metric.EUCLID:
        return -float(np.sqrt(np.square(a - b).sum()))
    if metric is Metric.MANHATTAN:
        return -float(np.abs(a - b).sum())
    lengths = float(np.sqrt(a @ a) * np.sqrt(b @ b))
    return float(a @ b) / lengths if lengths else -np.inf


def drift(metric: Metric, a: float, b: float, length: float) -> float:
    """Return how far two scores of one pair are apart, on a scale on which float error is small.

    length: of the query. Cosines are compared as they are. Others relative to their size; a
    Euclidean distance that comes out of squares is only as exact as the squares of the lengths.
    """
    if a == b:
        return 0.0
    if not (np.isfinite(a) and np.isfinite(b)):
        return float("inf")
    apart = abs(a - b)
    if metric is Metric.COSINE:
        return apart
    if metric is Metric.EUCLID:
        size = max(abs(a), abs(b), length, 1e-30)
        return apart * (abs(a) + abs(b)) / size / size
    return apart / max(1.0, abs(a), abs(b), length if metric is Metric.MANHATTAN else length * length)


def recall(truth: Mapping[K, float], found: Mapping[K, float], metric: Metric, length: float) -> float | None:
    """Return the share of the truth that was found; None where there is nothing to be found.

    truth: the k nearest with their scores. found: the keys of at most k hits with their *exact*
    scores. A hit that is not in `truth` counts where it is as near as the last of it.
    """
    if not truth:
        return None
    last = min(truth.values())
    right = sum(
        1 for key, s in found.items() if key in truth or s >= last or drift(metric, s, last, length) <= SLACK
    )
    return min(right, len(truth)) / len(truth)


def order(scores: Sequence[float], metric: Metric, length: float) -> float | None:
    """Return how well an order agrees with exact scores, from -1 to 1; None where no two differ.

    scores: exact scores in the order of the answer. Kendall's tau over the pairs that the exact
    scores tell apart (Goodman and Kruskal's gamma), so ties may come in any order and two hits
    are enough.
    """
    agree = disagree = 0
    for i, better in enumerate(scores):
        for worse in scores[i + 1 :]:
            if drift(metric, better, worse, length) <= SLACK:
                continue
            agree += better > worse
            disagree += better < worse
    return (agree - disagree) / (agree + disagree) if agree + disagree else None


def same_set(a: Mapping[K, float], b: Mapping[K, float], k: int, metric: Metric, length: float) -> bool:
    """Whether two filtered answers of at most k hits are the same set; ties at the k-th place may differ.

    An answer of fewer than k hits is all there is, so there every difference counts.
    """
    if a.keys() == b.keys():
        return True
    if len(a) != k or len(b) != k:
        return False
    last = min(a.values())
    return all(
        drift(metric, s, last, length) <= SLACK
        for one, other in ((a, b), (b, a))
        for key, s in one.items()
        if key not in other
    )


def alike(a: Sequence[float], b: Sequence[float], metric: Metric, length: float, within: float) -> int:
    """Return how many scores of two descending lists pair up: for rows whose keys say nothing elsewhere."""
    i = j = pairs = 0
    while i < len(a) and j < len(b):
        if drift(metric, a[i], b[j], length) <= within:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif a[i] > b[j]:
            i += 1
        else:
            j += 1
    return pairs


def overlap(a: Sequence[K], b: Sequence[K]) -> float | None:
    """Return the share of the longer list that both have; None where both are empty."""
    longest = max(len(set(a)), len(set(b)))
    return len(set(a) & set(b)) / longest if longest else None


def percentiles(spent_s: Sequence[float]) -> dict[str, float | None]:
    """Return p50 and p95 of times in seconds, in ms."""
    if not spent_s:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.asarray(spent_s) * 1000, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined, None where nothing is."""
    defined = [v for v in values if v is not None]
    return sum(defined) / len(defined) if defined else None


def histogram(values: Sequence[float], bins: int = 10) -> list[int]:
    """Return how many shares (0 to 1) lie in each tenth; 1 itself is in a bin of its own, the last."""
    counts = [0] * (bins + 1)
    for value in values:
        counts[min(int(value * bins + 1e-9), bins)] += 1
    return counts


def perturbed(vector: Vector, rng: np.random.Generator, amount: float = 0.1) -> Vector:
    """Return a vector a little beside another: noise of `amount` of its length."""
    noise = rng.standard_normal(vector.shape)
    length = float(np.linalg.norm(vector.astype(np.float64)))
    made: npt.NDArray[np.float64] = vector.astype(np.float64) + noise * (
        amount * length / np.linalg.norm(noise)
    )
    return made.astype(np.float32)
