"""Numbers for rows without a key: the ids of their points or records, given out in the order of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from migrate import values
from migrate.backends.base import Position
from migrate.batch import Row
from migrate.schema import Table

Id = TypeVar("Id")


def ids_of(
    table: Table, rows: Sequence[Row], pages: Iterable[tuple[Sequence[Id], Sequence[Row]]]
) -> list[Id]:
    """Return the ids of rows without a key, one for each. pages: ids and rows of a whole table, read until all are found."""
    kinds = [c.kind for c in table.columns]
    wanted = Counter(values.row_digest(kinds, row) for row in rows)
    found: list[Id] = []
    for ids, page in pages if rows else ():
        for one, row in zip(ids, page, strict=True):
            digest = values.row_digest(kinds, row)
            if wanted[digest] > 0:
                wanted[digest] -= 1
                found.append(one)
        if not +wanted:
            break
    return found


class Numbers:
    """Gives out numbers, the same ones when a run is broken off and goes on.

    A position counts all rows of the source; those kept aside whole have no point,
    so the first free number is the position less their count.
    """

    def __init__(self, aside: Callable[[str], int]) -> None:
        self._aside = aside
        self._durable: dict[str, int] = {}
        self._ahead: dict[str, int] = {}

    def next(self, table: str, rows: int, positions: Callable[[], dict[str, Position]]) -> int:
        """Return the number of the first of some rows."""
        if table not in self._durable:
            at = positions().get(table)
            self._durable[table] = at.rows - self._aside(table) if at is not None else 0
            self._ahead[table] = self._durable[table]
        first = self._ahead[table]
        self._ahead[table] += rows
        return first

    def committed(self) -> None:
        """Keep the numbers given out."""
        self._durable = dict(self._ahead)

    def rolled_back(self) -> None:
        """Give the numbers since the last commit out again; ask the books when next needed."""
        self._durable.clear()
        self._ahead.clear()
