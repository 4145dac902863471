"""A store in this process: the simplest backend there is, for tests and as a model of the contract.

Rows, positions and exact cells live in dicts; a commit is one assignment.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from migrate import values
from migrate.backends.base import Fit, Options, Phase, Position, Standing, Step
from migrate.batch import Batch, Cursor, ExactCell, Row
from migrate.config import MemorySettings
from migrate.errors import CheckpointError, LeaseLostError
from migrate.fit import Anything
from migrate.plan import table_same_as
from migrate.schema import NotCarried, Table


@dataclass(slots=True)
class Shelf:
    """What one named store holds: rows by table, and what runs left."""

    tables: dict[str, Table] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    runs: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # id, state, plan
    positions: dict[str, Position] = field(default_factory=dict)
    owner: str = ""


class Memory:
    """A `Source` and a `Target` over one shelf (see `migrate.backends.base`)."""

    shelves: ClassVar[dict[str, Shelf]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.shelf = self.shelves.setdefault(name, Shelf())
        self.snapshot = 0
        self.say: Callable[[str], None] = lambda _: None
        self._waiting: list[Row] = []
        self._run = ""
        self._owner = uuid.uuid4().hex

    def describe(self) -> str:
        """See `Store.describe`."""
        return f"memory:{self.name}"

    def close(self) -> None:
        """See `Store.close`."""

    # --- source ---------------------------------------------------------------

    def tables(self) -> list[Table]:
        """See `Source.tables`."""
        return list(self.shelf.tables.values())

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        return []

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        return len(self.shelf.rows[table.name])

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        return []

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`. A cursor is how many rows came before it."""
        here = self.shelf.tables[table.name]
        pick = [here.column_names.index(n) for n in table.column_names]
        rows = list(self.shelf.rows[table.name])
        for start in range(after or 0, len(rows), size):
            part = [tuple(row[i] for i in pick) for row in rows[start : start + size]]
            yield Batch(table, part, start + len(part))

    # --- target ---------------------------------------------------------------

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`."""
        shelf = self.shelf
        strangers = tuple(t.name for t in tables if t.name in shelf.tables and t.name not in shelf.makers)
        if not shelf.runs:
            return Standing(strangers=strangers)
        run, state, plan = shelf.runs[-1]
        made = {name: shelf.tables[name] for name in shelf.makers}
        return Standing(state, plan, run, made, strangers=strangers)

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """See `Target.claim`."""
        shelf = self.shelf
        if shelf.owner and shelf.owner != self._owner:
            raise CheckpointError("another run is writing to this target", hint="wait until it has ended")
        shelf.owner, self._run = self._owner, run
        if shelf.runs and shelf.runs[-1][1] == "unfinished" and restart:
            dead = shelf.runs.pop()[0]
            for name in [n for n, maker in shelf.makers.items() if maker == dead]:
                del shelf.tables[name], shelf.rows[name], shelf.makers[name]
            shelf.positions.clear()
        if not shelf.runs or shelf.runs[-1][0] != run:
            shelf.runs.append((run, "unfinished", plan))
            shelf.positions.clear()

    def prepare(self, tables: Sequence[Table]) -> None:
        """See `Target.prepare`."""
        for table in tables:
            if table.name in self.shelf.tables:
                table_same_as(table, self.shelf.tables[table.name])
                continue
            self.shelf.tables[table.name], self.shelf.rows[table.name] = table, []
            self.shelf.makers[table.name] = self._run

    def positions(self) -> dict[str, Position]:
        """See `Target.positions`."""
        return dict(self.shelf.positions)

    def owned(self) -> frozenset[str]:
        """See `Target.owned`."""
        return frozenset(name for name, maker in self.shelf.makers.items() if maker == self._run)

    def append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        """See `Target.append`. Everything fits here, so there are no exact cells."""
        self._waiting += batch.rows

    def commit(self, position: Position) -> None:
        """See `Target.commit`."""
        if self.shelf.owner != self._owner:
            raise LeaseLostError("another run has taken this target over")
        self.shelf.rows[position.table] += self._waiting
        self.shelf.positions[position.table] = position
        self._waiting = []

    def rollback(self) -> None:
        """See `Target.rollback`."""
        self._waiting = []

    def reconnect(self) -> None:
        """See `Target.reconnect`."""

    def loosen(self, *, unique: bool) -> None:
        """See `Target.loosen`: foreign keys are not enforced while we write."""

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
        """See `Target.amend`."""
        kinds = [c.kind for c in table.columns]
        held = list(self.shelf.rows[table.name])
        for row in removed_rows:
            digest = values.row_digest(kinds, row)
            held.remove(next(r for r in held if values.row_digest(kinds, r) == digest))
        # A row with NULL in its key is matched whole (`values.match_key`), like one without a key.
        gone = {values.key_bytes([kinds[i] for i in table.key_positions], key) for key in removed}
        new = {key for row in rows if not (key := values.match_key(table, row)).startswith(b"\0")}
        if replace:
            gone |= new
        held = [row for row in held if values.match_key(table, row) not in gone]
        known = {values.match_key(table, row) for row in held} & new
        rows = [row for row in rows if values.match_key(table, row) not in known]
        self.shelf.rows[table.name] = [*held, *rows]

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """See `Target.steps`: nothing is built here but a mark that it was asked for."""
        return [Step(t.name, "key", Phase.KEY, lambda progress: progress(1, 1)) for t in tables if t.key]

    def finish(self) -> list[str]:
        """See `Target.finish`."""
        run, _, plan = self.shelf.runs[-1]
        self.shelf.runs[-1] = (run, "done", plan)
        return []

    def quarantine(self) -> str | None:
        """See `Target.quarantine`."""
        return None

    def release(self) -> None:
        """See `Target.release`."""
        if self.shelf.owner == self._owner:
            self.shelf.owner = ""

    def undo(self) -> list[str]:
        """See `Target.undo`."""
        made = sorted(self.shelf.makers)
        for name in made:
            del self.shelf.tables[name], self.shelf.rows[name]
        self.shelf.makers.clear()
        self.shelf.runs.clear()
        self.shelf.positions.clear()
        return made


def source(settings: MemorySettings) -> Memory:
    """Open a store for reading."""
    return Memory(settings.name)


def target(settings: MemorySettings, options: Options) -> Memory:
    """Open a store for writing."""
    return Memory(settings.name)


def fit(table: Table, options: Options) -> Fit:
    """Return a fit that takes everything."""
    return Fit(table, tuple(Anything() for _ in table.columns))
