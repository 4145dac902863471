"""What a framework's tables mean: the contract of a layout.

A backend reads what a store declares. A layout adds what the declaration does
not say: which BLOBs are vectors, which TEXT is JSON, which tables are derived.
It never changes how a cell is read, only what it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from migrate.batch import Row
from migrate.schema import NotCarried, Table

Sample = Callable[[Table, int], list[Row]]
"""`sample(table, n)` returns up to n rows, cells in `table.columns` order.

A layout asks for the columns it needs to see: the table it gives has its key
and those columns only, so that big cells of other columns are not read."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user forces: `table.column` names that are, or are not, vectors."""

    vectors: frozenset[str] = frozenset()
    no_vectors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """A store's tables as a layout understands them.

    notes: what was decided by evidence, in words for the plan.
    """

    layout: str
    tables: list[Table]
    not_carried: list[NotCarried]
    notes: list[str]


class Layout(Protocol):
    """One framework's way of keeping memory."""

    name: str

    def recognises(self, tables: Sequence[Table]) -> bool:
        """Whether these tables, by names and columns, are this framework's."""
        ...

    def read(self, tables: Sequence[Table], sample: Sample, wishes: Wishes) -> Reading:
        """Return the tables with kinds, dims, roles and keys filled in."""
        ...

    def sqlite_ddl(self, table: Table) -> list[str] | None:
        """Return the framework's own statements that create a table in SQLite, or None for ours.

        `table` is as `read` returned it. The framework's indexes come with `sqlite_after`.
        """
        ...

    def sqlite_after(self, tables: Sequence[Table]) -> list[str]:
        """Return statements that rebuild derived things in SQLite once rows are in. Idempotent."""
        ...
