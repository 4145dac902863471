"""Reading a Qdrant store: collections by pages, the sidecar's tables, exact cells put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from migrate.backends.qdrant import foreign, pages
from migrate.backends.qdrant.books import BOOKS, ServerBooks
from migrate.backends.qdrant.engine import Engine, Info
from migrate.backends.qdrant.fit import standing
from migrate.backends.qdrant.ownership import maker
from migrate.backends.qdrant.settings import limits_of, open_engine, sidecar_of
from migrate.backends.qdrant.shape import Shape
from migrate.backends.sidecar import Place, Reading, exists, open_reading
from migrate.batch import Batch, Cursor
from migrate.config import QdrantSettings
from migrate.errors import ConfigError
from migrate.fit import size_of
from migrate.schema import NotCarried, Table


class QdrantSource:
    """Collections and a sidecar as a `Source` (see `migrate.backends.base`).

    Qdrant has no snapshot to read from: points that are written meanwhile may
    be seen or not. A cursor is the ranges of ids that are left (`pages`).
    """

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self.snapshot = 0
        self._engine: Engine = open_engine(settings, writing=False)
        self._side: Reading | None = None
        self._collections: dict[str, str] = {}
        self._shapes: dict[str, Shape] = {}
        self._tables: list[Table] | None = None
        self._left: list[NotCarried] = []
        self._notes: list[str] = []
        try:
            self._open_side()
        except BaseException:
            self._engine.close()
            raise

    def _open_side(self) -> None:
        settings = self._settings
        where = sidecar_of(settings)
        if exists(where):
            self._side = open_reading(where, self._standing)
        elif settings.sidecar is not None:
            raise ConfigError(f"there is no sidecar {where}", hint="check sidecar=")
        elif settings.path is not None and not settings.path.exists():
            raise ConfigError(f"there is no Qdrant store in {settings.path}", hint="check the path")

    def describe(self) -> str:
        """See `Store.describe`."""
        return str(self._settings)

    def close(self) -> None:
        """See `Store.close`."""
        self._engine.close()
        if self._side is not None:
            self._side.close()

    # --- tables ---------------------------------------------------------------

    def tables(self) -> list[Table]:
        """See `Source.tables`: what memlift made as its source had it, other collections as they are."""
        if self._tables is None:
            self._tables = self._read_tables()
        return self._tables

    def _read_tables(self) -> list[Table]:
        places = {p.place: p for p in self._side.places.values()} if self._side is not None else {}
        aliases, prefix = self._engine.aliases(), self._settings.prefix
        found: list[Table] = []
        for collection in self._engine.names():
            if collection.endswith(BOOKS):
                continue
            place = places.get(collection)
            if place is None and not collection.startswith(prefix):
                continue
            if place is None and self._is_half(collection):
                continue
            info = self._engine.info(collection)
            if info is not None:
                found.append(self._table(collection, place, info, aliases))
        named = {t.name for t in found}
        for alias, collection in aliases.items():
            self._left.append(
                NotCarried(
                    alias, f"an alias of the collection {collection}; made again in Qdrant", derived=True
                )
            )
        if self._side is not None:
            found += [t for t in self._side.tables() if t.name not in named]
            self._left += self._side.source.not_carried()
        return found

    def _table(self, collection: str, place: Place | None, info: Info, aliases: dict[str, str]) -> Table:
        if place is not None:
            table = place.table
        else:
            name = collection.removeprefix(self._settings.prefix) or collection
            table = foreign.describe(self._engine, collection, name, info, aliases)
        self._collections[table.name], self._shapes[table.name] = (
            collection,
            Shape(table, sharded=info.custom_shards),
        )
        return table

    def _is_half(self, collection: str) -> bool:
        """Whether memlift made a collection whose sidecar is not the one here: half of its rows' truth is there.

        Raises ConfigError where there is no sidecar at all.
        """
        settings = self._settings
        books = None if settings.path is not None else ServerBooks(self._engine, settings.prefix)
        found = maker(self._engine, books, collection)
        if found is None:
            return False
        hint = f"name it with sidecar=... (it was {found[1]}), or its own prefix with ?prefix=..."
        if self._side is None:
            raise ConfigError(
                f"the collection {collection!r} was made by memlift, and its sidecar is not here", hint=hint
            )
        self._left.append(NotCarried(collection, f"made by memlift with another sidecar: {hint}"))
        return True

    def _standing(self, full: Table, wanted: Table) -> Callable[[int, Any, Any], bool]:
        return standing(self._shapes[full.name], limits_of(self._settings), wanted)

    @property
    def engine(self) -> Engine:
        """Return what the collections are in."""
        return self._engine

    @property
    def beside(self) -> Reading | None:
        """Return the sidecar, None where there is none."""
        return self._side

    def aside(self, table: Table) -> frozenset[str]:
        """Return the columns of a table some of whose cells are in the sidecar instead of the payload."""
        return self._side.aside(table.name) if self._side is not None else frozenset()

    def kept(self, table: Table) -> tuple[str, Shape] | None:
        """Return a table's collection and how its rows are kept there, None for a table of the sidecar."""
        self.tables()
        collection = self._collections.get(table.name)
        return None if collection is None else (collection, self._shapes[table.name])

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        self.tables()
        return list(self._left)

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        found = list(self._notes)
        return found + (self._side.source.problems() if self._side is not None else [])

    # --- rows -----------------------------------------------------------------

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        self.tables()
        collection = self._collections.get(table.name)
        if collection is None:
            return self._beside().source.count(table)
        aside = self._side.whole_count(table.name) if self._side is not None else 0
        return self._engine.count(collection) + aside

    def _beside(self) -> Reading:
        if self._side is None:
            raise ConfigError("this table is in a sidecar that is not here", hint="name it with sidecar=...")
        return self._side

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`. Points come first, by `pages`, then the rows kept aside whole."""
        self.tables()
        collection = self._collections.get(table.name)
        if collection is None:
            yield from self._beside().source.batches(table, size=size, after=after)
            return
        shape = self._shapes[table.name]
        at: Any = after or {}
        if "aside" not in at:
            yield from self._points(collection, shape, table, size, at.get("left"))
        if self._side is not None:
            yield from self._side.whole_rows(
                shape.table, table, size, at.get("aside", 0), lambda n: {"aside": n}
            )

    def _points(self, collection: str, shape: Shape, table: Table, size: int, left: Any) -> Iterator[Batch]:
        if left is None:
            info = self._engine.info(collection)
            ranges = pages.ranges(self._engine, collection, info) if info is not None else []
        else:
            ranges = [pages.Range(*one) for one in left]
        found = pages.Pages(
            self._engine,
            collection,
            ranges,
            payload=shape.asks_payload(table),
            vectors=shape.asked_vectors(table),
            at_once=size,
        )
        for points, after in found:
            rows = shape.rows(points, table)
            found.seen(len(rows), size_of(list(zip(*rows, strict=True))))
            if self._side is not None:
                rows = self._side.restored(shape.table, rows, table)
            yield Batch(table, rows, {"left": after} if after else {"aside": 0})
