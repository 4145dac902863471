"""Vectors that are no type of pgvector's (`bytea`, JSON text, as AgentOS keeps them): read and compared here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from migrate.schema import Column
from migrate.search import cells, fuse
from migrate.search.postgres.queries import Asked, column_list
from migrate.search.postgres.rows import Place
from migrate.search.postgres.where import ALIAS, Held
from migrate.search.sqlite import scores

_AT_ONCE = 2048  # rows


def statement(asked: Asked, held: Held) -> str:
    """Return the statement that reads every row which may be found: `r, p`, the vector's cell, the key."""
    columns = column_list([held, *asked.relation.key])
    return (
        f"SELECT {ALIAS}.tableoid::int8, {ALIAS}.ctid::text, {columns} FROM {asked.relation.at} {ALIAS}"
        f" WHERE {held.sql} IS NOT NULL AND {asked.where}"
    )


def nearest(
    listed: Iterable[Sequence[Any]], column: Column, query: scores.Asked, n: int
) -> list[tuple[Place, float]]:
    """Return the n nearest of the rows that `statement` reads, best first. Keeps n of them, and one piece."""
    best: list[tuple[tuple[Any, ...], Place, float]] = []
    for piece in _pieces(listed):
        found = [(row, v) for row in piece if (v := cells.vector(column, row[2])) is not None]
        if not found:
            continue
        marks = scores.exact(query, np.stack([v for _, v in found]))
        offered = (
            ((-mark, fuse.key_order(row[3:])), (row[0], row[1]), float(mark))
            for (row, _), mark in zip(found, marks.tolist(), strict=True)
            if mark == mark  # an all-zero vector has no direction
        )
        best = heapq.nsmallest(n, [*best, *offered], key=lambda one: one[0])
    return [(place, score) for _, place, score in best]


def _pieces(listed: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    rest = iter(listed)
    while piece := list(islice(rest, _AT_ONCE)):
        yield piece
