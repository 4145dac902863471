"""The k best of rows that are offered in pieces, exactly, with equal scores in the order of keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.vectorscan import Ids
from migrate.search.base import Key
from migrate.search.fuse import key_order
from migrate.search.sqlite import scores
from migrate.search.sqlite.scores import Asked, F32Array, F64Array

_AT_ONCE = 2048  # rows scored exactly at a time: 2048 x 1536 take 50 MB
_LOWEST = -float(np.finfo(np.float32).max)  # rows that are not allowed have -inf
_MOST_TIED = 4096  # kept with the score of the last place before their keys decide

KeysOf = Callable[[Ids], Sequence[Key]]
"""Returns the keys of rows, in the order of the ids that are given."""


class Best:
    """Collects the k best rows.

    directionless: how many rows of zeros were offered under cosine; they are in no answer.
    """

    def __init__(self, asked: Asked, k: int, keys_of: KeysOf) -> None:
        self._asked, self._k, self._keys_of = asked, k, keys_of
        self._scores: F64Array = np.empty(0)
        self._ids: Ids = np.empty(0, np.int64)
        self.directionless = 0

    def offer(
        self, ids: Ids, rows: F32Array, squares: F32Array, allowed: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Offer (n, dim) rows with their squared lengths, only those that are allowed."""
        quick = np.empty(len(rows), np.float32)
        scores.quick(self._asked, rows, squares, quick)
        self.choose(ids, quick, squares, lambda at: rows[at], allowed)

    def choose(
        self,
        ids: Ids,
        quick: F32Array,
        squares: F32Array,
        rows_at: Callable[[npt.NDArray[np.intp]], F32Array],
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Offer rows by their quick scores (which are overwritten); `rows_at` is asked for candidates only."""
        certain = scores.certain(self._asked, squares)
        if allowed is not None:
            certain &= allowed
        if certain.all():
            longest = float(np.sqrt(squares.max(initial=0)))
        else:
            odd = np.flatnonzero(~certain if allowed is None else ~certain & allowed)
            self._score(ids, odd, rows_at)
            quick[~certain] = -np.inf
            longest = float(np.sqrt(squares[certain].max(initial=0)))
        self._score(ids, np.flatnonzero(quick >= self._floor(quick, longest)), rows_at)

    def _floor(self, quick: F32Array, longest: float) -> float:
        """Return the quick score below which no row can be among the best."""
        floor, asked = _LOWEST, self._asked
        if len(self._scores) >= self._k:
            worst = scores.in_quick(asked, float(self._scores.min()))
            floor = _in_float32(worst - scores.error(asked, longest, worst))
        if len(quick) > self._k and np.count_nonzero(quick >= floor) > 4 * self._k:
            last = float(np.partition(quick, len(quick) - self._k)[len(quick) - self._k])
            if np.isfinite(last):
                floor = max(floor, _in_float32(last - 2 * scores.error(asked, longest, last)))
        return floor

    def _score(self, ids: Ids, at: npt.NDArray[np.intp], rows_at: Callable[[Any], F32Array]) -> None:
        for i in range(0, len(at), _AT_ONCE):
            part = at[i : i + _AT_ONCE]
            self.add(ids[part], scores.exact(self._asked, rows_at(part)))

    def add(self, ids: Ids, exact: F64Array) -> None:
        """Add rows whose scores are known."""
        odd = np.isnan(exact)
        if odd.any():
            self.directionless += int(np.count_nonzero(odd))
            exact, ids = exact[~odd], ids[~odd]
        if len(self._scores):
            exact, ids = np.concatenate([self._scores, exact]), np.concatenate([self._ids, ids])
        self._scores, self._ids = exact, ids
        if len(self._scores) > self._k:
            last = np.partition(self._scores, len(self._scores) - self._k)[len(self._scores) - self._k]
            kept = self._scores >= last
            self._scores, self._ids = self._scores[kept], self._ids[kept]
        if len(self._scores) > self._k + _MOST_TIED:
            order = self._order()[: self._k]
            self._scores, self._ids = self._scores[order], self._ids[order]

    def _order(self) -> npt.NDArray[np.intp]:
        """Return the places of the rows, best first; keys are read only for scores that several rows have."""
        order = np.argsort(-self._scores, kind="stable")
        ordered = self._scores[order]
        same = ordered[1:] == ordered[:-1]
        if not same.any():
            return order
        tied = np.zeros(len(order), np.bool_)
        tied[1:] |= same
        tied[:-1] |= same
        at = order[tied]
        found = self._keys_of(self._ids[at])
        keys = {int(place): key_order(key) for place, key in zip(at, found, strict=True)}
        places = sorted(order.tolist(), key=lambda i: (-self._scores[i], keys.get(i, ())))
        return np.array(places, np.intp)

    def found(self) -> list[tuple[Any, float]]:
        """Return (id, score) of the best, best first."""
        order = self._order()[: self._k]
        return list(zip(self._ids[order].tolist(), self._scores[order].tolist(), strict=True))


def untied(ids: Sequence[int], exact: Sequence[float], k: int) -> list[tuple[int, float]] | None:
    """Return (id, score) of the k best of a few rows, best first, or None where only a `Best` can tell.

    That is where keys decide between equal scores, and where a score is NaN.
    """
    found = sorted(zip(exact, ids, strict=True), reverse=True)
    if len(set(exact)) < len(exact) or math.isnan(sum(exact)):
        return None
    return [(rowid, score) for score, rowid in found[:k]]


def _in_float32(floor: float) -> float:
    """Return the next lower float32; scores of rows beyond float32 may be beyond it, too."""
    if floor <= _LOWEST:
        return _LOWEST
    return float(np.nextafter(np.float32(min(floor, -_LOWEST)), np.float32(-np.inf)))
