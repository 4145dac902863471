"""Writing a Qdrant store: tables with vectors into collections, all others into the sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from migrate import values
from migrate.backends.apart import ApartTarget, Exact, Rows
from migrate.backends.base import Fit, Options, Position, Standing, Step
from migrate.backends.qdrant import build
from migrate.backends.qdrant.books import ServerBooks
from migrate.backends.qdrant.engine import Engine
from migrate.backends.qdrant.fit import fit as collection_fit
from migrate.backends.qdrant.hybrid import Bm25
from migrate.backends.qdrant.keyless import after_last, find
from migrate.backends.qdrant.names import METADATA, collection_name
from migrate.backends.qdrant.ownership import Ownership
from migrate.backends.qdrant.settings import limits_of, open_engine, sidecar_of
from migrate.backends.qdrant.shape import DIALECT, Shape, is_collection
from migrate.backends.sidecar import Place, Sidecar
from migrate.batch import Batch, ExactCell, Row
from migrate.config import QdrantSettings
from migrate.errors import SchemaError
from migrate.failpoints import hit
from migrate.fit import size_of
from migrate.plan import table_same_as
from migrate.schema import Table

PACKED_BYTES = 16 * 2**20  # 1,000 rows of 1,536 dimensions and some text are 8 MB
GRAPH = "graph"  # tables of this role are also in the sidecar, without vectors, so that SQL can walk them


class QdrantTarget(ApartTarget):
    """Collections and a sidecar as a `Target` (see `migrate.backends.base`).

    The order of a commit: points acknowledged and flushed, then position and
    exact cells in one transaction of the sidecar. A crash between the two sends
    the same points again, under the same ids.
    """

    def __init__(self, settings: QdrantSettings, options: Options) -> None:
        side = Sidecar(sidecar_of(settings), options)
        super().__init__(settings, side, side.whole_rows)
        self._settings, self._options = settings, options
        self._engine: Engine | None = None
        self._shapes: dict[str, Shape] = {}
        self._kept: dict[str, tuple[str, str]] = {}  # of tables: the collection, and the run that made it
        self._here: set[str] = set()  # planned tables whose rows SQL finds in the sidecar
        self._bm25 = Bm25(settings.bm25) if settings.bm25 else None
        self._pending: list[ExactCell] = []
        self._ours: Ownership | None = None

    @property
    def engine(self) -> Engine:
        """Return the engine, opened when first needed."""
        if self._engine is None:
            self._engine = open_engine(self._settings, writing=True)
        return self._engine

    @property
    def ours(self) -> Ownership:
        """Return what tells our collections from those of other machines."""
        if self._ours is None:
            books = None if self._settings.path else ServerBooks(self.engine, self._settings.prefix)
            self._ours = Ownership(self.engine, self._side, books)
        return self._ours

    def close(self) -> None:
        """See `Store.close`."""
        ours, self._ours = self._ours, None
        if ours is not None:
            ours.stop()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        super().close()

    def fit(self, table: Table) -> Fit:
        """See `Judge.fit`."""
        if is_collection(table):
            sharded = self._sharded(table)
            return collection_fit(table, self._options, limits_of(self._settings), sharded=sharded)
        return self._side.fit(table)

    # --- tables ---------------------------------------------------------------

    def _is_apart(self, table: Table) -> bool:
        return is_collection(table)

    def _stands(self, place: Place, identity: str) -> bool:
        return place.place == self._collection(place.table) and self.ours.made(place.place, identity)

    def _collection(self, table: Table) -> str:
        return collection_name(self._settings.prefix, table.name)

    def _shape(self, table: Table) -> Shape:
        shape = self._shapes.get(table.name)
        if shape is None or shape.table != table:
            shape = self._shapes[table.name] = Shape(
                table, json_text=self._options.json == "text", sharded=self._sharded(table)
            )
        return shape

    def _sharded(self, table: Table) -> bool:
        """Whether a table's collection has custom shard keys; only for one that had them is the server asked."""
        if table.dialect != DIALECT or "shard_key" not in table.column_names:
            return False
        info = self.engine.info(self._collection(table))
        return self.engine.distributed if info is None else info.custom_shards

    def _mirror(self, table: Table) -> Table | None:
        """Return what the sidecar keeps of a collection's table beside it; None for nothing."""
        if table.role != GRAPH or not table.key or not is_collection(table):
            return None
        vectors = {v.column.name for v in self._shape(table).vectors}
        return self._beside(table.with_columns(tuple(c for c in table.columns if c.name not in vectors)))

    def _beside(self, table: Table) -> Table:
        """Return a table of the sidecar: without foreign keys to rows that are in collections."""
        return replace(table, foreign_keys=tuple(k for k in table.foreign_keys if k.parent in self._here))

    def _beside_all(self, tables: Sequence[Table]) -> list[Table]:
        """Return the sidecar's tables of a plan, mirrors included."""
        self._here = {t.name for t in tables if not is_collection(t) or (t.role == GRAPH and t.key)}
        found = []
        for table in tables:
            kept = self._mirror(table) if is_collection(table) else self._beside(table)
            if kept is not None:
                found.append(kept)
        return found

    # --- before rows ----------------------------------------------------------

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`. Neither a folder nor a sidecar is made."""
        looked = self._look_beside(tables)
        tables, standing, places, identity = looked.tables, looked.standing, looked.places, looked.identity
        strangers = list(standing.strangers)
        notes = list(standing.notes)
        engine = self.engine
        here = set(engine.names())
        aliases = engine.aliases()
        taken: dict[str, str] = {}
        collections = {t.name: self._collection(t) for t in tables if is_collection(t)}
        other = self.ours.look(collections, standing, identity, here)
        for table in tables:
            if not is_collection(table):
                continue
            name = self._collection(table)
            if name in taken:
                raise SchemaError(
                    f"tables {taken[name]!r} and {table.name!r} would be one collection {name!r}"
                )
            taken[name] = table.name
            if name in aliases:
                strangers.append(table.name)
                notes.append(f"{name!r} is an alias of the collection {aliases[name]!r}")
            elif (
                name in here
                and table.name not in places
                and (other is None or table.name not in other.tables)
            ):
                self.ours.check_not_others(name, identity)
                strangers.append(table.name)
        gone = [n for n, p in places.items() if p.place not in here and standing.state == "done"]
        if gone:
            notes.append(f"collections that memlift made are gone: {', '.join(gone[:5])}")
        if other is not None:
            standing = replace(standing, state="unfinished", plan=other.plan, run=other.run)
            notes.append(
                f"goes on with an unfinished run of another machine (its sidecar was {other.sidecar});"
                " tables without vectors are copied anew"
            )
        return replace(standing, strangers=tuple(strangers), notes=tuple(notes))

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """See `Target.claim`."""
        if self._settings.path is not None:
            self._settings.path.mkdir(parents=True, exist_ok=True)  # a store without vectors has one too
        self.ours.take_over(self.say)
        orphans = self._side.claim(plan, run, self._store, restart=restart)
        self._run_id = run
        self.ours.begin(run, plan, restart=restart)
        self._clear(orphans)

    def _drop(self, places: Iterable[Place], identity: str | None, *, whole: bool) -> None:
        for place in places:
            self.ours.drop(place.place, identity)
        if whole:
            self.ours.forget(identity)

    def prepare(self, tables: Sequence[Table]) -> None:
        """See `Target.prepare`. A collection is remembered before it is made, so that none is ever lost."""
        self._prepare_beside(tables)
        places = self._side.places()
        for table in tables:
            if is_collection(table):
                self._prepare_collection(table, places.get(table.name))
                hit("prepare.inside")

    def _prepare_collection(self, table: Table, place: Place | None) -> None:
        name, engine, shape = self._collection(table), self.engine, self._shape(table)
        if place is not None:
            table_same_as(table, place.table)
        info = engine.info(name)
        if info is not None and place is not None and place.run:
            self.ours.check_not_others(name, self._side.identity)
        if info is not None and place is not None and place.run == self._run_id and info.points:
            at = self.positions().get(table.name)
            if at is None or not at.rows:
                # Sent before the first position was kept: the source may have other rows by now.
                engine.drop(name)
                info = None
        if place is None and info is not None:
            if not self._options.into_existing:
                raise SchemaError(
                    f"the collection {name!r} was not made by memlift", hint="?prefix=..., or --into-existing"
                )
            build.check_takes(shape, name, info)
        if place is None:
            self._side.enrol(table, name, self._run_id if info is None else "")
        if info is None:
            settings = {**build.collection_settings(shape, self._settings, self._bm25), **build.DEFERRED}
            try:
                engine.create(name, settings, {METADATA: self.ours.metadata(table)})
            except SchemaError:  # another machine was quicker; what it made is not ours
                self._side.forget(table.name)
                raise
        run = place.run if place is not None else self._run_id if info is None else ""
        self.ours.keep(table, name, run, self.positions().get(table.name))

    def owned(self) -> frozenset[str]:
        """See `Target.owned`."""
        mine = {n for n, p in self._side.places().items() if p.run == self._run_id}
        return self._side.target.owned() | mine

    # --- rows -----------------------------------------------------------------

    def pack(self, batch: Batch, columns: Sequence[Sequence[Any]]) -> Batch:
        """See `Packer.pack`. Rows without a key wait for `append`, which knows their numbers; large ones too."""
        if not is_collection(batch.table) or not batch.table.key or not batch.rows:
            return batch
        if len(_parts(batch.rows)) > 1:
            return batch
        return replace(batch, packed=(self._packed(batch.table, batch.rows, 0),))

    def _packed(self, table: Table, rows: Sequence[Row], first: int, *, insert_only: bool = False) -> bytes:
        points = self._shape(table).points(rows, first)
        if self._bm25 is not None:
            self._bm25.add(table, rows, points)
        return self.engine.pack(self._collection(table), points, insert_only=insert_only)

    def _append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        table = batch.table
        if batch.rows:
            name = self._collection(table)
            if batch.packed is not None:
                for points in batch.packed:
                    self.engine.send(name, points)
            else:
                self._send_rows(table, name, batch.rows)
            self._append_mirror(table, batch)
        self._pending += exact

    def _send_rows(self, table: Table, name: str, rows: Sequence[Row]) -> None:
        first = 0 if table.key else self._numbers.next(table.name, len(rows), self.positions)
        for part in _parts(rows):
            self.engine.send(name, self._packed(table, part, first))
            first += 0 if table.key else len(part)

    def _check_lease(self) -> None:
        """Raise LeaseLostError where another run, here or on another machine, has taken the target over."""
        super()._check_lease()
        self.ours.check()

    def _append_mirror(self, table: Table, batch: Batch) -> None:
        mirror = self._mirror(table)
        if mirror is not None:
            rows = self._mirrored(table, mirror, batch.rows)
            self._side.target.append(Batch(mirror, rows, batch.cursor), ())

    def _mirrored(self, table: Table, mirror: Table, rows: Sequence[Row]) -> list[Row]:
        """Return rows for the mirror; what does not fit there is whole in the collection anyway."""
        pick = [table.column_names.index(n) for n in mirror.column_names]
        picked = [tuple(row[i] for i in pick) for row in rows]
        fits = self._side.fit(mirror)
        found = fits.check(list(zip(*picked, strict=True))) if picked else []
        return fits.split(picked, found)[0] if found else picked

    def commit(self, position: Position) -> None:
        """See `Target.commit`."""
        name = position.table
        if name not in self._shapes or not is_collection(self._shapes[name].table):
            self._side.target.commit(position)
            return
        if self._lost is not None:
            raise self._lost
        if self._sent:
            self.engine.settle()
            self.ours.check()
        hit("commit.settled")
        if (mirror := self._mirror(self._shapes[name].table)) is not None:
            self._side.target.append(Batch(mirror, [], None), self._pending)
            self._side.target.commit(position)
        else:
            self._side.save(self._run_id, position, self._pending)
        hit("commit.inside")
        self.ours.keep(self._shapes[name].table, *self._placed(name), position)
        self._pending, self._sent = [], False
        self._numbers.committed()

    def _placed(self, name: str) -> tuple[str, str]:
        """Return a table's collection, and the run that made it."""
        if name not in self._kept:
            place = self._side.places()[name]
            self._kept[name] = place.place, place.run
        return self._kept[name]

    def _abandon(self) -> None:
        self._pending = []
        if self._engine is not None:
            self._engine.abandon()

    def reconnect(self) -> None:
        """See `Target.reconnect`."""
        self._pending = []
        self.engine.reconnect()
        super().reconnect()

    def _amend(
        self, table: Table, rows: Rows, exact: Exact, replace: bool, removed: Rows, gone: Rows
    ) -> None:
        shape, name, kinds = self._shape(table), self._collection(table), [c.kind for c in table.columns]
        mirror = self._mirror(table)
        if mirror is not None:
            kept = self._mirrored(table, mirror, rows)
            self._side.target.amend(mirror, kept, (), replace=replace, removed=removed)
        if removed:
            self._delete(name, shape, removed)
        if rows and table.key:
            new = rows if replace or self.engine.inserts_only else self._absent(name, shape, rows)
            self.engine.send(name, self._packed(table, new, 0, insert_only=not replace))
            self.engine.settle()
        key_kinds = [kinds[i] for i in table.key_positions]
        keys = [values.key_bytes(key_kinds, key) for key in removed] if table.key else []
        keys += [values.row_key(table, row) for row in rows] if table.key else []
        keys += [c.key for c in exact if c.key is not None]
        left = self._side.amend(
            table, dict.fromkeys(keys), [values.exact_row(kinds, row) for row in gone], exact
        )
        if left:
            found = find(self.engine, name, shape, [values.from_exact_row(row) for row in left])
            self.engine.delete(name, found)
        if rows and not table.key:
            first = after_last(self.engine, name)
            self.engine.send(name, self._packed(table, rows, first))
            self.engine.settle()

    def _delete(self, name: str, shape: Shape, keys: Sequence[Row]) -> None:
        for shard, mine in shape.by_shard(keys).items():
            self.engine.delete(name, [shape.key_id(key) for key in mine], shard)

    def _absent(self, name: str, shape: Shape, rows: Sequence[Row]) -> list[Row]:
        """Return the rows without a point: what a server that knows no `insert_only` may be sent."""
        at = shape.table.key_positions
        keys = {tuple(row[i] for i in at): row for row in rows}
        found: list[Row] = []
        for shard, mine in shape.by_shard(list(keys)).items():
            ids = {shape.key_id(key): keys[tuple(key)] for key in mine}
            there = self.engine.present(name, list(ids), shard)
            found += [row for point, row in ids.items() if point not in there]
        return found

    # --- after rows -----------------------------------------------------------

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """See `Target.steps`."""
        found = self._side.target.steps(self._beside_all(tables))
        adopted = {n for n, p in self._side.places().items() if not p.run}
        for table in tables:
            if is_collection(table) and table.name not in adopted:
                name, shape = self._collection(table), self._shape(table)
                found += build.steps(self.engine, name, shape, index=self._options.index)
                self._notes += build.left_out(self.engine, name, shape)
        return found

    def finish(self) -> list[str]:
        """See `Target.finish`."""
        self.engine.settle()
        warnings = [*dict.fromkeys(self._notes), *self._side.target.finish()]
        self.ours.end()
        return warnings

    def release(self) -> None:
        """See `Target.release`."""
        try:
            if self._ours is not None:
                self._ours.release()
        finally:
            super().release()

    def undo(self) -> list[str]:
        """See `Target.undo`."""
        dropped, folder = super().undo(), self._settings.path
        if dropped and folder is not None and not any(folder.iterdir()):
            folder.rmdir()
        return dropped


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Return rows in parts to be packed one after another: as points they take some five times their memory."""
    size = size_of(list(zip(*rows, strict=True)))
    if size <= PACKED_BYTES:
        return [rows]
    step = max(1, len(rows) * PACKED_BYTES // size)
    return [rows[i : i + step] for i in range(0, len(rows), step)]
