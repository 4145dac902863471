"""What stores share that keep tables with vectors apart (in collections, in namespaces) and all else in a sidecar.

A backend says which tables those are, and how their rows are written and read; what is the
sidecar's alone is done here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from migrate.backends import sidecar
from migrate.backends.base import Position
from migrate.backends.numbering import Numbers
from migrate.backends.sidecar import Looked, Place, Reading, Sidecar
from migrate.batch import Batch, Cursor, ExactCell, Row
from migrate.config import PineconeSettings, QdrantSettings
from migrate.errors import ConfigError, LeaseLostError
from migrate.failpoints import hit
from migrate.schema import NotCarried, Table

Apart = QdrantSettings | PineconeSettings
Rows = Sequence[Row]
Exact = Sequence[ExactCell]


def _everywhere(settings: Apart) -> str:
    """Return an address without secrets that means the same store in every folder."""
    if isinstance(settings, PineconeSettings):
        return str(replace(settings, bulk=None))  # files for an index are of the store that it becomes
    return str(settings if settings.path is None else replace(settings, path=settings.path.resolve()))


class ApartTarget(ABC):
    """The part of a `Target` that is the same whatever keeps the tables with vectors.

    aside: returns how many rows of a table the sidecar has, so that numbers go on after the others.
    """

    def __init__(self, settings: Apart, side: Sidecar, aside: Callable[[str], int]) -> None:
        self._address, self._named = str(settings), settings.sidecar is not None
        self._store = _everywhere(settings)
        self._side = side
        self._numbers = Numbers(aside)
        self._run_id = ""
        self._sent = False
        self._lost: LeaseLostError | None = None
        self._notes: list[str] = []
        self._say: Callable[[str], None] = lambda _: None

    @property
    def say(self) -> Callable[[str], None]:
        """Return who is told of anything a person waits for."""
        return self._say

    @say.setter
    def say(self, tell: Callable[[str], None]) -> None:
        self._say = self._side.target.say = tell

    def describe(self) -> str:
        """See `Store.describe`."""
        return self._address

    def close(self) -> None:
        """See `Store.close`."""
        self._side.target.close()

    @abstractmethod
    def _is_apart(self, table: Table) -> bool: ...

    @abstractmethod
    def _stands(self, place: Place, identity: str) -> bool:
        """Whether a place is here, made with the sidecar of that identity."""

    @abstractmethod
    def _beside_all(self, tables: Sequence[Table]) -> list[Table]:
        """Return the sidecar's tables of a plan."""

    @abstractmethod
    def _drop(self, places: Iterable[Place], identity: str | None, *, whole: bool) -> None:
        """Remove what is ours of some places. whole: they are all that runs with this sidecar have made."""

    @abstractmethod
    def _append(self, batch: Batch, exact: Exact) -> None:
        """Send rows of a table kept apart; they may be under way until the commit."""

    @abstractmethod
    def _amend(
        self, table: Table, rows: Rows, exact: Exact, replace: bool, removed: Rows, gone: Rows
    ) -> None:
        """Amend a table kept apart: there first, then in the sidecar. gone: `removed_rows`."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget what is under way."""

    def _look_beside(self, tables: Sequence[Table]) -> Looked:
        """Return what stands in the sidecar. Raises ConfigError where it is another store's."""
        looked = self._side.look(tables, self._beside_all)
        if self._named and looked.itself is not None:
            sidecar.check_store(
                self._side.settings, looked.itself, looked.places.values(), self._store, self._stands
            )
        return looked

    def _check_lease(self) -> None:
        """Raise LeaseLostError where another run has taken the target over."""
        self._side.check_lease()

    def _clear(self, orphans: Iterable[Place]) -> None:
        """Remove the places of runs that are gone."""
        for place in orphans:
            self._drop([place], self._side.identity, whole=False)
            hit("claim.dropped")
            self._side.forget(place.table.name)

    def _prepare_beside(self, tables: Sequence[Table]) -> None:
        """Make the sidecar's tables, and describe its own as their source had them."""
        full, beside = {t.name: t for t in tables}, self._beside_all(tables)
        self._side.target.prepare(beside)
        for table in beside:
            if not self._is_apart(full[table.name]) and table != full[table.name]:
                self._side.redefine(full[table.name])

    def positions(self) -> dict[str, Position]:
        """See `Target.positions`."""
        return self._side.target.positions()

    def append(self, batch: Batch, exact: Exact) -> None:
        """See `Target.append`."""
        if not self._is_apart(batch.table):
            self._side.target.append(batch, exact)
            return
        if not self._sent and not self._lost:
            self._sent = True
            try:
                self._check_lease()
            except LeaseLostError as exc:
                self._lost = exc  # told by commit; till then nothing more is sent
        if self._lost is None:
            self._append(batch, exact)

    def rollback(self) -> None:
        """See `Target.rollback`."""
        self._sent, self._lost = False, None
        self._numbers.rolled_back()
        self._abandon()
        self._side.target.rollback()

    def reconnect(self) -> None:
        """See `Target.reconnect`."""
        self._sent = False
        self._numbers.rolled_back()
        self._side.target.reconnect()

    def loosen(self, *, unique: bool) -> None:
        """See `Target.loosen`."""
        self._side.target.loosen(unique=unique)

    def amend(
        self,
        table: Table,
        rows: Rows,
        exact: Exact,
        *,
        replace: bool,
        removed: Rows = (),
        removed_rows: Rows = (),
    ) -> None:
        """See `Target.amend`. The sidecar comes last, so an amend that was broken off is repeated."""
        if not self._is_apart(table):
            self._side.target.amend(
                table, rows, exact, replace=replace, removed=removed, removed_rows=removed_rows
            )
            return
        self._check_lease()
        self._amend(table, rows, exact, replace, removed, removed_rows)
        hit("amend.inside")

    def quarantine(self) -> str | None:
        """See `Target.quarantine`."""
        return self._side.target.quarantine()

    def release(self) -> None:
        """See `Target.release`."""
        self._side.target.release()
        self._run_id = ""

    def undo(self) -> list[str]:
        """See `Target.undo`."""
        looked = self._look_beside([])
        if looked.standing.plan is None:
            return []
        made = {name: place for name, place in looked.places.items() if place.run}
        self._drop(made.values(), looked.identity, whole=True)
        self._side.undo()
        adopted = looked.places.keys() - made.keys()
        dropped = {*made, *(name for name in self._side.target.undo() if name not in adopted)}
        self.close()
        if not self._named:
            self._side.remove_if_empty()
        return sorted(dropped)


class ApartSource(ABC):
    """The part of a `Source` that is the same whatever keeps the tables with vectors."""

    def __init__(self, settings: Apart) -> None:
        self._address, self._named = str(settings), settings.sidecar is not None
        self._store = _everywhere(settings)
        self.snapshot = 0
        self._side: Reading | None = None
        self._tables: list[Table] | None = None
        self._left: list[NotCarried] = []

    def _open(self, where: sidecar.SidecarSettings, instead: sidecar.Instead) -> None:
        """Open the sidecar, if there is one.

        Raises ConfigError where one was named and is not there, or is another store's.
        """
        if sidecar.exists(where):
            side = self._side = sidecar.open_reading(where, instead)
            if self._named and side.itself is not None:
                try:
                    sidecar.check_store(where, side.itself, side.places.values(), self._store, self._stands)
                except BaseException:
                    side.close()
                    raise
        elif self._named:
            raise ConfigError(f"there is no sidecar {where}", hint="check sidecar=")

    def describe(self) -> str:
        """See `Store.describe`."""
        return self._address

    def close(self) -> None:
        """See `Store.close`."""
        if self._side is not None:
            self._side.close()

    @abstractmethod
    def _is_apart(self, table: Table) -> bool: ...

    @abstractmethod
    def _stands(self, place: Place, identity: str) -> bool:
        """Whether a place is here, made with the sidecar of that identity."""

    @abstractmethod
    def _read_tables(self) -> list[Table]:
        """Return all tables, and note what is not carried."""

    @abstractmethod
    def _count(self, table: Table) -> int:
        """Count the rows of a table kept apart."""

    @abstractmethod
    def _batches(self, table: Table, size: int, at: dict[str, Any]) -> Iterator[Batch]:
        """Read a table kept apart; at: a cursor."""

    def tables(self) -> list[Table]:
        """See `Source.tables`: what memlift made as its source had it, what others made as it is."""
        if self._tables is None:
            self._tables = self._read_tables()
        return self._tables

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        self.tables()
        return list(self._left)

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        return self._side.source.problems() if self._side is not None else []

    def _beside(self) -> Reading:
        if self._side is None:
            raise ConfigError("this table is in a sidecar that is not here", hint="name it with sidecar=...")
        return self._side

    def aside(self, table: Table) -> frozenset[str]:
        """Return the columns of a table kept apart some of whose cells are in the sidecar instead."""
        return self._side.aside(table.name) if self._side is not None else frozenset()

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        self.tables()
        return self._count(table) if self._is_apart(table) else self._beside().source.count(table)

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`. What is apart comes first, then the rows that the sidecar has."""
        self.tables()
        if self._is_apart(table):
            at: Any = after or {}
            yield from self._batches(table, size, at)
        else:
            yield from self._beside().source.batches(table, size=size, after=after)

    def restored(self, full: Table, rows: list[Row], wanted: Table) -> list[Row]:
        """Return rows of a table kept apart with their exact cells (`Reading.restored`)."""
        return rows if self._side is None else self._side.restored(full, rows, wanted)
