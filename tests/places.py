"""Where the contract is kept: fresh targets of one kind of store, and what lies in them beside ours."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from migrate import backends
from migrate.backends.base import Options, Source, Target
from migrate.backends.memory import Memory
from migrate.config import MemorySettings, Settings, SqliteSettings
from migrate.fit import Fit
from migrate.schema import Table
from tests.small_stores import pairs


class Place(Protocol):
    """Makes fresh targets of one kind."""

    kind: str

    def fresh(self) -> Settings:
        """Return the address of a target that does not exist yet, or is empty."""
        ...

    def names(self, at: Settings) -> set[str]:
        """Return the names of everything that stands there, memlift's own things as well."""
        ...

    def stranger(self, at: Settings, name: str) -> None:
        """Make a table with one row, not by memlift."""
        ...


def target(place: Place, at: Settings, options: Options | None = None) -> Target:
    """Open a target."""
    opened: Target = backends.load(place.kind).target(at, options or Options())
    return opened


def source(place: Place, at: Settings) -> Source:
    """Open the same store for reading."""
    opened: Source = backends.load(place.kind).source(at)
    return opened


def fit(place: Place, table: Table) -> Fit:
    """Return what the store can hold of a table."""
    judged: Fit = backends.load(place.kind).fit(table, Options())
    return judged


def rows_in(place: Place, at: Settings, name: str, size: int = 1000) -> list[tuple[Any, ...]]:
    """Return all rows of a table, as the store gives them as a source."""
    opened = source(place, at)
    try:
        table = {t.name: t for t in opened.tables()}[name]
        return [row for batch in opened.batches(table, size=size) for row in batch.rows]
    finally:
        opened.close()


class MemoryPlace:
    """Stores in this process."""

    kind = "memory"

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def fresh(self) -> MemorySettings:
        return MemorySettings(f"target {next(self._numbers)}")

    def names(self, at: Settings) -> set[str]:
        return set(Memory(str(at).removeprefix("memory:")).shelf.tables)

    def stranger(self, at: Settings, name: str) -> None:
        shelf = Memory(str(at).removeprefix("memory:")).shelf
        shelf.tables[name], shelf.rows[name] = pairs(name), [(1, "theirs")]


class SqlitePlace:
    """Files of a folder."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count(1)

    def fresh(self) -> SqliteSettings:
        return SqliteSettings(self._folder / f"target {next(self._numbers)}.db")

    def names(self, at: Settings) -> set[str]:
        assert isinstance(at, SqliteSettings)
        if not at.path.exists():
            return set()
        with closing(sqlite3.connect(at.path)) as db:
            return {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}

    def stranger(self, at: Settings, name: str) -> None:
        assert isinstance(at, SqliteSettings)
        with closing(sqlite3.connect(at.path)) as db:
            quoted = '"' + name.replace('"', '""') + '"'
            db.execute(f"CREATE TABLE {quoted} (id INTEGER PRIMARY KEY, v TEXT)")
            db.execute(f"INSERT INTO {quoted} VALUES (1, 'theirs')")
            db.commit()


def local(kind: str, folder: Path) -> Place | None:
    """Return the place of a store that needs no server, None where it needs one."""
    makers: dict[str, Any] = {"memory": MemoryPlace, "sqlite": lambda: SqlitePlace(folder)}
    if kind == "qdrant":
        from tests.qdrant.place import EdgePlace  # the engine is imported only where it is tested

        makers["qdrant"] = lambda: EdgePlace(folder)
    made: Place | None = makers[kind]() if kind in makers else None
    return made


LOCAL: Sequence[str] = tuple(kind for kind in ("memory", "sqlite", "qdrant") if kind in backends.REGISTRY)
