"""Writing a Pinecone store: rows with a vector as records, all else into the sidecar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from migrate import values
from migrate.backends.apart import ApartTarget, Exact, Rows
from migrate.backends.base import Fit, Options, Phase, Position, Standing, Step
from migrate.backends.pinecone.choosing import indexes_of, sender_of
from migrate.backends.pinecone.fit import fit as records_fit
from migrate.backends.pinecone.indexes import Mark, sidecar_of
from migrate.backends.pinecone.keyless import after_last, find
from migrate.backends.pinecone.names import Spot, namespace_name
from migrate.backends.pinecone.places import Places
from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.shape import Shape, beside, is_records, left_out
from migrate.backends.sidecar import Place, Sidecar
from migrate.batch import Batch, ExactCell, Row
from migrate.config import PineconeSettings
from migrate.errors import SchemaError
from migrate.failpoints import hit
from migrate.plan import table_same_as
from migrate.schema import Table


class PineconeTarget(ApartTarget):
    """Namespaces and a sidecar as a `Target` (see `migrate.backends.base`).

    The sidecar has every planned table: of a table with vectors the rows that are no records.
    The order of a commit: records acknowledged, then position, rows beside and exact cells in
    one transaction of the sidecar. A crash between the two sends the same records again, under
    the same ids.
    """

    def __init__(self, settings: PineconeSettings, options: Options) -> None:
        side = Sidecar(sidecar_of(settings), options)
        super().__init__(settings, side, side.rows)
        self._settings, self._options = settings, options
        self._indexes = indexes_of(settings)
        self._places = Places(self._indexes, settings)
        self._shapes: dict[str, Shape] = {}
        self._sender = sender_of(settings, self._indexes, self._mark)

    def usage(self) -> dict[str, int]:
        """See `Metered.usage`."""
        return self._indexes.usage.to_dict()

    def close(self) -> None:
        """See `Store.close`."""
        self._sender.close()
        self._indexes.close()
        super().close()

    def fit(self, table: Table) -> Fit:
        """See `Judge.fit`."""
        if not is_records(table):
            found = self._side.fit(table)
            return replace(found, notes=(*found.notes, *left_out(table)))
        found = records_fit(table, self._options)
        return replace(found, problems=self._side.fit(beside(table)).problems)

    # --- tables ---------------------------------------------------------------

    def _is_apart(self, table: Table) -> bool:
        return is_records(table)

    def _stands(self, place: Place, identity: str) -> bool:
        spot = Spot.parse(place.place)
        same = spot.namespace in (None, namespace_name(self._settings.namespace, place.table.name))
        return same and self._indexes.marked_by(spot, identity)

    def _shape(self, table: Table) -> Shape:
        shape = self._shapes.get(table.name)
        if shape is None or shape.table != table:
            shape = self._shapes[table.name] = Shape(table, json_text=self._options.json == "text")
        return shape

    def _beside_all(self, tables: Sequence[Table]) -> list[Table]:
        """Return the sidecar's tables of a plan."""
        here = {t.name for t in tables if not is_records(t)}
        return [
            beside(t)
            if is_records(t)
            else replace(t, foreign_keys=tuple(k for k in t.foreign_keys if k.parent in here))
            for t in tables
        ]

    def _plane(self, spot: Spot) -> Plane:
        return self._indexes.plane(spot.index)

    # --- before rows ----------------------------------------------------------

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`. Neither an index nor a sidecar is made."""
        self._indexes.find(self._indexes.base)  # one that nobody can reach is told, also without a sidecar
        looked = self._look_beside(tables)
        standing, places = looked.standing, looked.places
        wanted = [self._shape(t) for t in looked.tables if is_records(t)]
        found = self._places.look(wanted, places, looked.identity)
        gone = [n for n, p in places.items() if standing.state == "done" and not self._places.stands(p)]
        notes = [*standing.notes, *found.notes]
        if gone:
            notes.append(f"indexes that memlift wrote to are gone: {', '.join(gone[:5])}")
        return replace(standing, strangers=(*standing.strangers, *found.strangers), notes=tuple(notes))

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """See `Target.claim`."""
        orphans = self._side.claim(plan, run, self._store, restart=restart)
        self._run_id = run
        self._clear(orphans)

    def _drop(self, places: Iterable[Place], identity: str | None, *, whole: bool) -> None:
        for place in places:
            self._places.drop(place, identity or "")
        if whole:
            self._places.drop_indexes(identity or "")

    def prepare(self, tables: Sequence[Table]) -> None:
        """See `Target.prepare`. A namespace is remembered before it is made, so that none is ever lost."""
        self._prepare_beside(tables)
        known = self._side.places()
        for table in tables:
            if is_records(table):
                self._prepare_records(self._shape(table), known)
                known = self._side.places()
                hit("prepare.inside")

    def _prepare_records(self, shape: Shape, known: dict[str, Place]) -> None:
        table, indexes = shape.table, self._indexes
        place = known.get(table.name)
        again = place is not None
        if place is not None:
            table_same_as(table, place.table)
            if place.table != table:
                self._side.redescribe(table)
        spot = self._places.spot(shape, known)
        if place is None:
            ours = not self._places.holds_records(spot)
            if not ours and not self._options.into_existing:
                raise SchemaError(
                    f"{spot} was not made by memlift", hint="?namespace=..., or --into-existing"
                )
            if not ours and not table.key:
                raise SchemaError(
                    f"{table.name!r} has no key to match records of {spot} by", hint="?namespace=..."
                )
            self._side.enrol(table, str(spot), self._run_id if ours else "")
            place = self._side.places()[table.name]
        if indexes.find(spot.index) is None:
            indexes.make(spot.index, shape.form, self._side.identity, self._say)
            hit("prepare.made")
        self._places.check_form(shape, spot)
        if place.run == self._run_id and table.name not in self.positions():
            # Sent before the first position was kept: the source may have other rows by now.
            self._places.clear(spot, self._side.identity)
        if place.run and spot.namespace is not None:
            self._mark(spot, spot.namespace, table.name, again=again)

    def _mark(self, spot: Spot, namespace: str, table: str, *, again: bool = False) -> None:
        index = self._indexes.find(spot.index)
        if index is not None and index.form is not None:
            mark = Mark(namespace, table, self._side.describe(), self._side.identity, self._run_id)
            self._places.mark(spot.index, index.form, mark, again=again)

    def owned(self) -> frozenset[str]:
        """See `Target.owned`."""
        places = self._side.places()
        mine = {n for n, p in places.items() if p.run == self._run_id}
        return frozenset({n for n in self._side.target.owned() if n not in places} | mine)

    # --- rows -----------------------------------------------------------------

    def _append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        table = batch.table
        shape, spot = self._shape(table), self._spot_of(table)
        rows, others = self._split(shape, batch.rows)
        first = 0 if table.key else self._numbers.next(table.name, len(rows), self.positions)
        self._sender.send(shape.table.name, spot, shape.records(rows, first))
        kept, more = self._fitted_beside(table, others)
        self._side.target.append(Batch(beside(table), kept, batch.cursor), [*exact, *more])

    def _spot_of(self, table: Table) -> Spot:
        return self._places.spot(self._shape(table), None)

    def _split(self, shape: Shape, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Return the rows that become records, and those that stay in the sidecar."""
        if not rows:
            return [], []
        taken = shape.is_record(list(zip(*rows, strict=True)))
        return [r for r, t in zip(rows, taken, strict=True) if t], [
            r for r, t in zip(rows, taken, strict=True) if not t
        ]

    def _fitted_beside(self, table: Table, rows: Sequence[Row]) -> tuple[list[Row], list[ExactCell]]:
        """Return rows as the sidecar's own types hold them, and exact cells for what they do not."""
        fit = self._side.fit(beside(table))
        found = fit.check(list(zip(*rows, strict=True))) if rows else []
        return fit.split(rows, found) if found else (list(rows), [])

    def commit(self, position: Position) -> None:
        """See `Target.commit`."""
        if position.table in self._shapes:
            if self._lost is not None:
                raise self._lost
            self._sender.settle()
            hit("commit.settled")
        self._side.target.commit(position)
        hit("commit.inside")
        self._sent = False
        self._numbers.committed()

    def _abandon(self) -> None:
        self._sender.abandon()

    def _amend(
        self, table: Table, rows: Rows, exact: Exact, replace: bool, removed: Rows, gone: Rows
    ) -> None:
        shape, spot = self._shape(table), self._spot_of(table)
        taken, others = self._split(shape, rows)
        if not replace and table.key:
            taken = self._missing(shape, spot, taken)
        moved = [self._key(shape, row) for row in others] if table.key and replace else []
        moved += [key for c in exact if c.column is None and (key := _key_of(c)) is not None]
        self._delete(shape, spot, [*removed, *moved])
        lost, left = self._removed_records(shape, gone)
        if lost:
            self._sender.delete(spot, find(self._plane(spot), spot, shape, lost))
        first = 0 if table.key or not taken else after_last(self._plane(spot), spot)
        records = shape.records(taken, first)
        if table.key:
            self._sender.overwrite(spot, [(r.namespace or spot.namespace or "", r.id) for r in records])
        self._sender.send(shape.table.name, spot, records)
        self._sender.settle()
        hit("amend.sent")
        kept, more = self._fitted_beside(table, others)
        keys = [self._key(shape, row) for row in taken] if table.key else []
        left = self._not_whole(table, left)
        self._side.target.amend(
            beside(table),
            kept,
            [*exact, *more],
            replace=replace,
            removed=[*removed, *keys],
            removed_rows=left,
        )

    def _not_whole(self, table: Table, rows: Sequence[Row]) -> list[Row]:
        """Forget those of some rows that are kept whole, and return the others."""
        kinds = [c.kind for c in table.columns]  # the table's own: beside, vectors are of another kind
        if not rows:
            return []
        left = self._side.amend(table, (), [values.exact_row(kinds, row) for row in rows], ())
        return [values.from_exact_row(row) for row in left]

    def _key(self, shape: Shape, row: Row) -> Row:
        return tuple(row[i] for i in shape.table.key_positions)

    def _missing(self, shape: Shape, spot: Spot, rows: Sequence[Row]) -> list[Row]:
        """Return the rows whose key no record has."""
        asked: dict[str, list[str]] = {}
        places = [(self._namespace(shape, spot, key := self._key(shape, r)), shape.key_id(key)) for r in rows]
        for name, record_id in places:
            asked.setdefault(name, []).append(record_id)
        there = {name: self._plane(spot).seen(name, ids)[0] for name, ids in asked.items()}
        return [row for row, (name, one) in zip(rows, places, strict=True) if one not in there[name]]

    def _namespace(self, shape: Shape, spot: Spot, key: Row) -> str:
        if spot.namespace is not None:
            return spot.namespace
        return str(key[shape.table.key.index("namespace")])

    def _delete(self, shape: Shape, spot: Spot, keys: Sequence[Row]) -> None:
        found = [(self._namespace(shape, spot, key), shape.key_id(key)) for key in keys if None not in key]
        self._sender.delete(spot, found)

    def _removed_records(self, shape: Shape, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Tell rows without a key apart: those that are records, and those that the sidecar has."""
        if not rows or shape.table.key:
            return [], list(rows)
        columns = list(zip(*rows, strict=True))
        odd = {f.row for f in self.fit(shape.table).check(columns)}
        taken = shape.is_record(columns)
        gone = [r for i, r in enumerate(rows) if taken[i] and i not in odd]
        return gone, [r for i, r in enumerate(rows) if not taken[i] or i in odd]

    # --- after rows -----------------------------------------------------------

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """See `Target.steps`. What was written is waited for before rows are compared, and again at the end."""
        found = self._side.target.steps(self._beside_all(tables))
        for table in tables:
            if is_records(table):
                for phase in (Phase.KEY, Phase.INDEX):
                    run = partial(self._wait, table, phase)
                    found.append(Step(table.name, "until readable", phase, run))
        return found

    def _wait(self, table: Table, phase: Phase, progress: Callable[[int, int], None]) -> None:
        spot = self._spot_of(table)
        fresh, plane = self._indexes.fresh(spot.index), self._plane(spot)
        names = fresh.namespaces() if spot.namespace is None else [spot.namespace]
        expected = self._expected(table) if phase is Phase.KEY else None
        for name in names:
            records = expected if spot.namespace is not None else None
            if not fresh.wait(plane, name, records=records, say=self._say):
                self._notes.append(
                    f"{table.name}: Pinecone did not show all that was written within the time waited; rows"
                    " that verification misses may yet appear: memlift verify compares again"
                )
        progress(1, 1)

    def _expected(self, table: Table) -> int | None:
        """Return how many records this run has written into a namespace of its own; None where others may."""
        position = self.positions().get(table.name)
        if position is None or not position.done or table.name not in self.owned():
            return None
        return max(position.rows - self._side.rows(table.name), 0)

    def finish(self) -> list[str]:
        """See `Target.finish`."""
        self._sender.settle()
        notes, self._notes = self._notes, []
        if self._settings.host is not None and self._settings.host.startswith("http://"):
            host = self._settings.host.removeprefix("http://").partition(":")[0]
            if host not in ("127.0.0.1", "localhost"):
                notes.append("the API key and all rows travelled unencrypted (http://)")
        return [*dict.fromkeys(notes), *self._side.target.finish()]


def _key_of(cell: ExactCell) -> Row | None:
    """Return the key of a row that is kept whole; None where it has none, or NULL in it."""
    return None if cell.key is None else values.from_exact_row(cell.key)
