"""What a store must offer to be read from and written to: the contract every backend keeps.

A backend is a module (or package) with three functions and one line in
`REGISTRY`:

    source(settings) -> Source
    target(settings) -> Target
    fit(table, options) -> Fit      what its types can hold; needs no connection

It translates its driver's errors into the one tree (`migrate.errors`) in one
place, and imports neither the engine nor another backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from migrate.batch import Batch, Cursor, ExactCell, Row
from migrate.fit import Fit
from migrate.layouts.base import Layout
from migrate.schema import NotCarried, Table

__all__ = [
    "Fit",
    "Judge",
    "Metered",
    "Options",
    "Packer",
    "Phase",
    "Pickable",
    "Position",
    "Source",
    "Standing",
    "Step",
    "Store",
    "Target",
]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose about how tables are kept in a target.

    json:  "jsonb" (queryable) or "text" (the bytes as they were).
    index: "auto", "none" or "hnsw": whether what searches use is built: vector indexes, words, JSON.
    into_existing: write into tables that memlift did not make, after checking their columns.
    layout: the framework whose own DDL a store may use.
    workers: how many processes a server may use to build one index; 1 leaves it to the server.
    dry_run: the target is only looked at; nothing at all may change there.
    full_text: a full-text table of SQLite is one in SQLite again; a sidecar has ordinary tables.
    """

    json: str = "jsonb"
    index: str = "auto"
    into_existing: bool = False
    layout: Layout | None = None
    workers: int = 1
    dry_run: bool = False
    full_text: bool = True


@dataclass(frozen=True, slots=True)
class Position:
    """How far one table of a plan has got. `cursor` is the source's, after the last durable row."""

    table: str
    cursor: Cursor = None
    rows: int = 0
    done: bool = False


class Phase(StrEnum):
    """When a step is done: keys before rows are compared, all else after."""

    KEY = "key"
    LINK = "link"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Step:
    """Something built after the rows are in. `run` is idempotent; it reports done and total units."""

    table: str
    name: str
    phase: Phase
    run: Callable[[Callable[[int, int], None]], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a target holds before a run, seen without changing it.

    state: "empty", "unfinished" (a run that can go on), "done" (an earlier run's rows).
    plan:  the stored plan of that run, as JSON data.
    made:  the tables that memlift made there, as their source had them.
    held:  those of `made` that go on being written as they were made, whatever a column's values look like
           by now; a table that an unfinished run made is not one of them, for its plan must not change.
    strangers: planned names that are taken by tables memlift did not make.
    """

    state: str = "empty"
    plan: dict[str, Any] | None = None
    run: str | None = None
    made: Mapping[str, Table] = field(default_factory=dict)
    held: Mapping[str, Table] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Store(Protocol):
    """What every open store has."""

    def describe(self) -> str:
        """Return its address without secrets."""
        ...

    def close(self) -> None:
        """Let go of every handle. Idempotent."""
        ...


class Source(Store, Protocol):
    """A store as it was at one moment: every read sees the same snapshot, nothing is changed.

    `snapshot` grows when the store had to be opened again after a lost
    connection, so that what was read before may differ from now.
    """

    @property
    def snapshot(self) -> int:
        """Return the number of the snapshot that is read now."""
        ...

    def tables(self) -> list[Table]:
        """Return the ordinary tables, as the store declares them; a layout says more about them."""
        ...

    def not_carried(self) -> list[NotCarried]:
        """Return what is there and not carried, with the reason."""
        ...

    def count(self, table: Table) -> int:
        """Return the exact number of rows."""
        ...

    def problems(self) -> list[str]:
        """Return what is wrong with the store itself: rows that break its own foreign keys, damage."""
        ...

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """Yield rows in a stable order, `size` at most at a time, all after a cursor.

        Exact cells kept by an earlier run are put back. Raises RecordError for
        a row that cannot be read (a damaged page).
        """
        ...


@runtime_checkable
class Pickable(Protocol):
    """A source that can give some rows by key, for less than all of them."""

    def can_pick(self, table: Table) -> bool:
        """Whether rows of this table can be picked, and reading all of them is what one would not like."""
        ...

    def picked(self, table: Table, keys: Iterable[Row], taken: Callable[[Row], bool]) -> Iterator[list[Row]]:
        """Yield the rows of these keys that are there, in any order, each once.

        keys:  cells in `table.key` order; the iterable is read to its end.
        taken: tells the same rows by themselves, for those that cost nothing to read.
        """
        ...


@runtime_checkable
class Metered(Protocol):
    """A store whose service counts requests and charges for units."""

    def usage(self) -> dict[str, int]:
        """Return what was used since it was opened: requests, bytes, units by their names."""
        ...


@runtime_checkable
class Packer(Protocol):
    """A target that can turn rows into what it sends before they are appended.

    The engine does so in the thread that reads, while the thread that writes
    waits for the store: 0.97 s instead of 1.3 s for 50,000 x 384 into Postgres.
    """

    def pack(self, batch: Batch, columns: Sequence[Sequence[Any]]) -> Batch:
        """Return the batch with `packed` in place of its rows. Touches no connection.

        columns: the cells of the batch's rows again, one sequence a column.
        """
        ...


@runtime_checkable
class Judge(Protocol):
    """A target that knows better than its module what fits, because its settings matter (a sidecar)."""

    def fit(self, table: Table) -> Fit:
        """Return what this target can hold of a table; its rules may ask the store."""
        ...


class Target(Store, Protocol):
    """A store that rows are written to. One run owns it at a time.

    say: is told, in a line, of anything a person waits for.
    """

    say: Callable[[str], None]

    def look(self, tables: Sequence[Table]) -> Standing:
        """Say what stands there, without changing anything."""
        ...

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """Become the owner (a lease that is kept alive) and store the plan.

        Raises CheckpointError while another live run owns the target.
        """
        ...

    def prepare(self, tables: Sequence[Table]) -> None:
        """Create what is missing. Idempotent."""
        ...

    def positions(self) -> dict[str, Position]:
        """Return where this run's tables stand, by name."""
        ...

    def owned(self) -> frozenset[str]:
        """Return the tables that this run created: it may change all that is in them."""
        ...

    def append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        """Send rows; they are durable only after `commit`."""
        ...

    def commit(self, position: Position) -> None:
        """Make what was appended and this position durable, together or in this order.

        Raises LeaseLostError, and keeps nothing, when another run has taken over.
        """
        ...

    def rollback(self) -> None:
        """Forget what was appended and not committed. Idempotent, also on a broken connection."""
        ...

    def reconnect(self) -> None:
        """Open the store again after a TransientError, still as the same owner."""
        ...

    def loosen(self, *, unique: bool) -> None:
        """Drop the foreign keys that memlift built, so that rows can be amended in any order.

        unique: also unique indexes, for rows that are changed or removed. Where rows are only added
        they stay: a row that would break one is left out, and the comparison reports it.
        The steps, asked for anew, build and validate them again.
        """
        ...

    def amend(
        self,
        table: Table,
        rows: Sequence[Row],
        exact: Sequence[ExactCell],
        *,
        replace: bool,
        removed: Sequence[Row] = (),
        removed_rows: Sequence[Row] = (),
    ) -> None:
        """Remove rows, then write rows by key, in one transaction; durable on return.

        rows, exact:  as in `append`. replace: whether a row of the same key gives
                      way; without it that row stays as it is.
        removed:      keys of rows to remove, cells in `table.key` order, none NULL.
        removed_rows: whole rows to remove, one copy each, where rows have no key.
        """
        ...

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """Return what is to be built after the rows, in order. Empty where it already stands."""
        ...

    def finish(self) -> list[str]:
        """Mark the run as done and return warnings."""
        ...

    def quarantine(self) -> str | None:
        """Return where exact values are kept, or None where there are none."""
        ...

    def release(self) -> None:
        """Give the lease back. Idempotent."""
        ...

    def undo(self) -> list[str]:
        """Drop what memlift created here, and nothing else; return the names."""
        ...
