"""Reading a Pinecone store: namespaces page by page, the sidecar's tables, exact cells put back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from migrate.backends import sidecar
from migrate.backends.apart import ApartSource
from migrate.backends.base import Options
from migrate.backends.pinecone import foreign
from migrate.backends.pinecone.choosing import indexes_of
from migrate.backends.pinecone.fit import fit
from migrate.backends.pinecone.indexes import Mark, sidecar_of
from migrate.backends.pinecone.names import BOOKS, Form, Spot, namespace_name
from migrate.backends.pinecone.plane import Plane, Stats
from migrate.backends.pinecone.reading import SMALL, STREAMS, Place, Read, in_order, read
from migrate.backends.pinecone.shape import Shape, beside
from migrate.backends.pinecone.wire import Record
from migrate.batch import Batch, Cursor, Row
from migrate.config import PineconeSettings
from migrate.errors import ConfigError
from migrate.schema import NotCarried, Table

_KEYS_AT_ONCE = 1000


class PineconeSource(ApartSource):
    """Namespaces and a sidecar as a `Source` (see `migrate.backends.base`).

    Pinecone has no snapshot to read from: records that are written meanwhile may be seen or not.
    """

    def __init__(self, settings: PineconeSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._indexes = indexes_of(settings)
        self._spots: dict[str, Spot] = {}
        self._shapes: dict[str, Shape] = {}
        self._stats: dict[str, Stats] = {}
        self._marks: dict[str, dict[str, Mark]] = {}
        try:
            self._open(sidecar_of(settings), lambda full, wanted: fit(full, Options()).standing_in(wanted))
        except BaseException:
            self._indexes.close()
            raise

    def close(self) -> None:
        """See `Store.close`."""
        self._indexes.close()
        super().close()

    def usage(self) -> dict[str, int]:
        """See `Metered.usage`."""
        return self._indexes.usage.to_dict()

    # --- tables ---------------------------------------------------------------

    def _is_apart(self, table: Table) -> bool:
        return table.name in self._spots

    def _stands(self, place: sidecar.Place, identity: str) -> bool:
        spot, asked = Spot.parse(place.place), self._settings.namespace
        same = None in (asked, spot.namespace) or spot.namespace == namespace_name(asked, place.table.name)
        return same and self._indexes.marked_by(spot, identity)

    def _told(self, index: str) -> Stats:
        if index not in self._stats:
            if self._indexes.find(index) is None:
                raise ConfigError(
                    f"the Pinecone index {index!r} is gone, and with it the vectors that memlift wrote there",
                    hint="restore it from a backup; memlift migrate from the original store writes it again",
                )
            self._stats[index] = self._indexes.stats(index)
        return self._stats[index]

    def _marked(self, index: str, stats: Stats) -> dict[str, Mark]:
        if index not in self._marks:
            self._marks[index] = self._indexes.marks(index, stats)
        return self._marks[index]

    def _read_tables(self) -> list[Table]:
        """Return what memlift made as its source had it, and all other namespaces as one table."""
        found: list[Table] = []
        if self._side is not None:
            for name, place in self._side.places.items():
                self._spots[name], self._shapes[name] = Spot.parse(place.place), Shape(place.table)
                found.append(place.table)
            found += self._side.tables()
            self._left += self._side.source.not_carried()
        theirs = self._foreign({t.name for t in found})
        return [*found, *([theirs] if theirs is not None else [])]

    def _foreign(self, taken: set[str]) -> Table | None:
        """Return the table of the namespaces that memlift did not make."""
        indexes, base = self._indexes, self._indexes.base
        index = indexes.find(base)
        if index is None:
            if self._side is None:
                raise ConfigError(
                    f"there is no Pinecone index {base!r}", hint="check the name and the API key's project"
                )
            return None
        if index.form is None:
            return None
        stats = self._told(base)
        ours = {spot.namespace for spot in self._spots.values() if spot.index == base}
        if None in ours:
            return None
        strangers = self._without_halves(base, stats, ours)
        if self._settings.namespace is not None:
            strangers = [n for n in strangers if n == self._settings.namespace]
            if not strangers and self._side is None:
                raise ConfigError(
                    f"the index has no namespace {self._settings.namespace!r}", hint="check namespace="
                )
        if not strangers and self._side is not None:
            return None
        name = foreign.table_name(self._settings, taken)
        table = foreign.describe(name, index.form)
        self._spots[name], self._shapes[name] = Spot(base, None), Shape(table)
        return table

    def _without_halves(self, index: str, stats: Stats, ours: set[str | None]) -> list[str]:
        """Return the namespaces that are whole without a sidecar.

        Raises ConfigError where some are not, and there is no sidecar at all.
        """
        marks = self._marked(index, stats)
        halves = [m for name, m in marks.items() if name not in ours]
        if self._settings.namespace is not None:
            mine = self._settings.namespace
            halves = [m for m in halves if m.namespace == mine or m.namespace.startswith(f"{mine}:")]
        for mark in halves:
            hint = f"name it with sidecar=... (it was {mark.sidecar})"
            if self._side is None:
                raise ConfigError(
                    f"memlift made the namespace {mark.namespace!r} (table {mark.table}), and its sidecar"
                    " is not here",
                    hint=hint,
                )
            self._left.append(
                NotCarried(mark.table, f"namespace {mark.namespace!r} was made with another sidecar: {hint}")
            )
        return [n for n in sorted(stats.counts) if n not in ours and n not in marks and n != BOOKS]

    def kept(self, table: Table) -> tuple[Plane, list[str], Shape] | None:
        """Return a table's index, its namespaces and how its rows are records; None for one of the sidecar."""
        self.tables()
        spot = self._spots.get(table.name)
        if spot is None:
            return None
        return self._indexes.plane(spot.index), self._namespaces(spot), self._shapes[table.name]

    def form(self, table: Table) -> Form | None:
        """Return what the index of a table holds, as far as it tells."""
        return self._told(self._spots[table.name].index).form

    def rows_of(self, table: Table, records: list[Record]) -> list[Row]:
        """Return the rows of some records, the wanted columns, exact cells put back."""
        return self._rows(table, records)

    # --- rows -----------------------------------------------------------------

    def _namespaces(self, spot: Spot) -> list[str]:
        """Return the namespaces of a table, in the order they are read."""
        if spot.namespace is not None:
            return [spot.namespace]
        stats = self._told(spot.index)
        if self._side is not None and any(Spot.parse(p.place) == spot for p in self._side.places.values()):
            return [n for n in sorted(stats.counts) if n != BOOKS]
        ours = {
            s.namespace for s in self._spots.values() if s.index == spot.index and s.namespace is not None
        }
        marked = set(self._marked(spot.index, stats))
        found = [n for n in sorted(stats.counts) if n != BOOKS and n not in ours | marked]
        if self._settings.namespace is not None:
            found = [n for n in found if n == self._settings.namespace]
        return found

    def _count(self, table: Table) -> int:
        """Count rows as far as Pinecone's statistics know them by now."""
        spot = self._spots[table.name]
        self._stats.pop(spot.index, None)
        counts = self._told(spot.index).counts
        return sum(counts.get(n, 0) for n in self._namespaces(spot)) + self._count_beside(table.name)

    def _count_beside(self, name: str) -> int:
        if self._side is None or name not in self._side.places:
            return 0
        return self._side.source.count(self._beside_table(name))

    def _beside_table(self, name: str) -> Table:
        return {t.name: t for t in self._beside().source.tables()}[name]

    def _batches(self, table: Table, size: int, at: dict[str, Any]) -> Iterator[Batch]:
        """Yield records by namespace and ascending id, then the rows kept beside."""
        if "beside" not in at:
            yield from self._records(self._spots[table.name], table, size, at)
        yield from self._rows_beside(table, size, at.get("beside"))

    def _records(self, spot: Spot, table: Table, size: int, at: dict[str, Any]) -> Iterator[Batch]:
        plane, begin = self._indexes.plane(spot.index), at.get("namespace", "")
        counts = self._told(spot.index).counts

        def whole(namespace: str) -> Iterator[tuple[str, Read]]:
            place = Place()
            if namespace == begin and "after" in at:
                place = Place(at["after"], at.get("token"), at.get("prefix", ""))
            for part in read(plane, namespace, size, place, records=counts.get(namespace, 0)):
                yield namespace, part

        names = [n for n in self._namespaces(spot) if n >= begin]
        for small, some in itertools.groupby(names, lambda name: counts.get(name, 0) <= SMALL):
            readings = [partial(whole, name) for name in some]
            one_by_one = itertools.chain.from_iterable(reading() for reading in readings)
            for namespace, part in in_order(readings, ahead=1) if small else one_by_one:
                if part.records:
                    cursor = {"namespace": namespace, **part.place._asdict()}
                    yield Batch(table, self._rows(table, part.records), cursor)

    def _rows(self, table: Table, records: list[Record]) -> list[Row]:
        shape = self._shapes[table.name]
        return self.restored(shape.table, shape.rows(records, table), table)

    def _rows_beside(self, table: Table, size: int, after: Cursor) -> Iterator[Batch]:
        if self._side is None or table.name not in self._side.places:
            return
        full = self._shapes[table.name].table
        pick = [full.column_names.index(n) for n in table.column_names]
        whole = pick == list(range(len(full.columns)))
        for batch in self._side.source.batches(beside(full), size=size, after=after):
            rows = batch.rows if whole else [tuple(row[i] for i in pick) for row in batch.rows]
            # Once more, by our rules: beside a vector of zeros, its JSON text is kept.
            yield Batch(table, self.restored(full, rows, table), {"beside": batch.cursor})

    # --- a sample -------------------------------------------------------------

    def picked(self, table: Table, keys: Iterable[Row], taken: Callable[[Row], bool]) -> Iterator[list[Row]]:
        """See `Pickable.picked`: only the records of these keys are fetched."""
        self.tables()
        spot = self._spots[table.name]
        shape = self._shapes[table.name]
        plane = self._indexes.plane(spot.index) if self._indexes.find(spot.index) is not None else None
        waiting = iter(keys)
        with ThreadPoolExecutor(STREAMS, thread_name_prefix="memlift fetch") as pool:
            while part := list(itertools.islice(waiting, _KEYS_AT_ONCE)):
                if plane is None:
                    continue
                asked: dict[str, list[str]] = {}
                for key in part:
                    asked.setdefault(foreign.namespace_of(table, key, spot), []).append(shape.key_id(key))
                jobs = [
                    pool.submit(plane.fetched, namespace, some)
                    for namespace, ids in asked.items()
                    for some in plane.parts(ids)
                ]
                for job in jobs:
                    yield self._rows(table, job.result())
        for batch in self._rows_beside(table, _KEYS_AT_ONCE, None):
            yield [row for row in batch.rows if taken(row)]

    def can_pick(self, table: Table) -> bool:
        """See `Pickable.can_pick`: rows without a key have no ids that could be told, and files cost nothing."""
        self.tables()
        return table.name in self._spots and bool(table.key) and self._settings.bulk is None
