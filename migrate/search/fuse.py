"""Reciprocal rank fusion: one list of hits out of several, by rank alone.

Scores of different kinds (a cosine, a BM25) cannot be added; ranks can. The
sum needs no weights and no scaling, and is the same on every tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from migrate.search.base import RRF_K, Key


def depth(k: int) -> int:
    """Return how many hits of each list are fused for an answer of k.

    A row that is 20th in both lists beats one that is 1st in only one of them
    (2 / 80 to 1 / 61), so a list cut at k would lose what fusion is for.
    """
    return max(50, 5 * k)


def fused(lists: Iterable[Sequence[Key]], k: int) -> list[tuple[Key, float]]:
    """Return the k best keys of several ranked lists with their scores, best first.

    A hit of rank r (from 1) in a list adds 1 / (RRF_K + r). Equal sums come in
    the order of their keys.
    """
    scores: dict[Key, float] = {}
    for ranked in lists:
        for rank, key in enumerate(ranked, 1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (RRF_K + rank)
    return best(scores.items(), k)


def best(scored: Iterable[tuple[Key, float]], k: int) -> list[tuple[Key, float]]:
    """Return the k best of keys with scores, best first, equal scores in the order of their keys."""
    return sorted(scored, key=lambda pair: (-pair[1], key_order(pair[0])))[:k]


def key_order(key: Sequence[Any]) -> tuple[tuple[int, Any], ...]:
    """Return what orders keys of any types: NULL, then numbers, texts, bytes, as SQLite has it."""
    return tuple(map(_cell_order, key))


def _cell_order(cell: Any) -> tuple[int, Any]:
    if cell is None:
        return (0, 0)
    if isinstance(cell, int | float):
        return (1, cell)
    return (2, cell) if isinstance(cell, str) else (3, bytes(cell))
