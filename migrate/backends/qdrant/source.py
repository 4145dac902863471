"""Reading a Qdrant store: collections by pages, the sidecar's tables, exact cells put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from migrate.backends.apart import ApartSource
from migrate.backends.pacing import patiently
from migrate.backends.qdrant import foreign, pages
from migrate.backends.qdrant.books import BOOKS, ServerBooks
from migrate.backends.qdrant.engine import Engine, Info
from migrate.backends.qdrant.fit import standing
from migrate.backends.qdrant.ownership import maker
from migrate.backends.qdrant.settings import limits_of, open_engine, sidecar_of
from migrate.backends.qdrant.shape import Shape
from migrate.backends.sidecar import Place
from migrate.batch import Batch
from migrate.config import QdrantSettings
from migrate.errors import ConfigError, TransientError
from migrate.fit import size_of
from migrate.schema import NotCarried, Table


class QdrantSource(ApartSource):
    """Collections and a sidecar as a `Source` (see `migrate.backends.base`).

    Qdrant has no snapshot to read from: points that are written meanwhile may
    be seen or not. A cursor is the ranges of ids that are left (`pages`).
    """

    def __init__(self, settings: QdrantSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._engine: Engine = open_engine(settings, writing=False)
        self._collections: dict[str, str] = {}
        self._shapes: dict[str, Shape] = {}
        try:
            self._open(sidecar_of(settings), self._standing)
            if self._side is None and settings.path is not None and not settings.path.exists():
                raise ConfigError(f"there is no Qdrant store in {settings.path}", hint="check the path")
        except BaseException:
            self._engine.close()
            raise

    def close(self) -> None:
        """See `Store.close`."""
        self._engine.close()
        super().close()

    # --- tables ---------------------------------------------------------------

    def _is_apart(self, table: Table) -> bool:
        return table.name in self._collections

    def _stands(self, place: Place, identity: str) -> bool:
        found = maker(self._engine, self._books(), place.place)
        return place.place.startswith(self._settings.prefix) and found is not None and found[0] == identity

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
        found = maker(self._engine, self._books(), collection)
        if found is None:
            return False
        hint = f"name it with sidecar=... (it was {found[1]}), or its own prefix with ?prefix=..."
        if self._side is None:
            raise ConfigError(
                f"the collection {collection!r} was made by memlift, and its sidecar is not here", hint=hint
            )
        self._left.append(NotCarried(collection, f"made by memlift with another sidecar: {hint}"))
        return True

    def _books(self) -> ServerBooks | None:
        settings = self._settings
        return None if settings.path is not None else ServerBooks(self._engine, settings.prefix)

    def _standing(self, full: Table, wanted: Table) -> Callable[[int, Any, Any], bool]:
        return standing(self._shapes[full.name], limits_of(self._settings), wanted)

    @property
    def engine(self) -> Engine:
        """Return what the collections are in."""
        return self._engine

    def kept(self, table: Table) -> tuple[str, Shape] | None:
        """Return a table's collection and how its rows are kept there, None for a table of the sidecar."""
        self.tables()
        collection = self._collections.get(table.name)
        return None if collection is None else (collection, self._shapes[table.name])

    # --- rows -----------------------------------------------------------------

    def _count(self, table: Table) -> int:
        aside = self._side.whole_count(table.name) if self._side is not None else 0
        return self._engine.count(self._collections[table.name]) + aside

    def _batches(self, table: Table, size: int, at: dict[str, Any]) -> Iterator[Batch]:
        """Yield points, by `pages`, then the rows kept aside whole."""
        shape = self._shapes[table.name]
        if "aside" not in at:
            yield from self._points(self._collections[table.name], shape, table, size, at.get("left"))
        if self._side is not None:
            yield from self._side.whole_rows(
                shape.table, table, size, at.get("aside", 0), lambda n: {"aside": n}
            )

    def _shown(self, collection: str) -> Info | None:
        """Return a collection as it stands, once it hides no points. Raises TransientError where it goes on to.

        https://qdrant.tech/documentation/ops-optimization/optimizer/: with `prevent_unoptimized` scrolls leave out what
        is not yet indexed.
        """

        def look() -> Info | None:
            info = self._engine.info(collection)
            if info is not None and info.hidden:
                raise TransientError(
                    f"the collection {collection!r} hides {info.hidden:,} points until they are indexed",
                    hint="stop its writers until it is green, or switch its prevent_unoptimized off",
                )
            return info

        return patiently(look, Event())

    def _points(self, collection: str, shape: Shape, table: Table, size: int, left: Any) -> Iterator[Batch]:
        info = self._shown(collection)
        if left is None:
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
            rows = self.restored(shape.table, rows, table)
            yield Batch(table, rows, {"left": after} if after else {"aside": 0})
