"""The store beside a vector store: tables without vectors, exact cells, and memlift's books for the whole.

A Qdrant or Pinecone target holds points and little else. What is no vector goes
to a sidecar, which is an ordinary SQLite or Postgres store of ours, opened
through its own backend, so that it can be looked into, migrated and backed up
like any other. Its books (runs, positions, the lease, exact cells) serve the
whole target: the position of a collection is saved there after the collection
has acknowledged the rows, in one transaction with their exact cells.

One more book says which tables are kept elsewhere:

    memlift_places (name, place, run, created, definition)

`place` is the collection, `definition` the table as its source had it. The row without a name
is the sidecar's own: `place` its identity, `definition` the address of the store that it is beside.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from migrate import addresses, backends, config, values
from migrate.backends.base import Fit, Judge, Options, Position, Source, Standing, Target
from migrate.backends.sqlbooks import Books, restore
from migrate.batch import Batch, ExactCell, Row
from migrate.config import PostgresSettings, SqliteSettings
from migrate.errors import ConfigError
from migrate.plan import as_made
from migrate.schema import Table

_PLACES = "memlift_places"
_ITSELF = ""  # the row of the book that names the sidecar itself
_KEYS_AT_ONCE = 500
SidecarSettings = SqliteSettings | PostgresSettings
Instead = Callable[[Table, Table], Callable[[int, Any, Any], bool]]
"""Of a whole table and the wanted columns: whether a cell still is what was written in an exact one's place."""


class SqlTarget(Target, Protocol):
    """A target that keeps its books in SQL."""

    @property
    def books(self) -> Books:
        """Return memlift's own tables there."""
        ...

    def transaction(self, op: str, *, fenced: bool = True, **where: Any) -> AbstractContextManager[Any]:
        """Run a block in one transaction; `fenced`: only while the lease is ours."""
        ...


class SqlSource(Source, Protocol):
    """A source that has such books."""

    @property
    def books(self) -> Books:
        """Return memlift's own tables there."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table is kept. run: the run that made it, empty where we adopted it."""

    place: str
    run: str
    table: Table


@dataclass(frozen=True, slots=True)
class Itself:
    """What a sidecar says of itself. store: the address it is beside; None where an older memlift made it."""

    identity: str
    store: str | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What stands in a target.

    tables:   those of the plan, as an earlier run has made them.
    standing: of sidecar and places together.
    places:   the tables that are elsewhere. itself: which sidecar it is; None for one yet to be made.
    """

    tables: Sequence[Table]
    standing: Standing
    places: dict[str, Place]
    itself: Itself | None

    @property
    def identity(self) -> str | None:
        """Return which sidecar it is; None for one yet to be made."""
        return self.itself.identity if self.itself is not None else None


def settings_of(address: str | None, default: Path) -> SidecarSettings:
    """Return the settings of a sidecar: a SQLite file or a Postgres URL, else the file `default`."""
    if address is None:
        return SqliteSettings(default)
    found = addresses.parse(address)
    if isinstance(found, SqliteSettings) or (isinstance(found, PostgresSettings) and found.embedded is None):
        return found
    raise ConfigError(
        f"{found} cannot be a sidecar", hint="sidecar= is a SQLite file, or the URL of a Postgres server"
    )


def default_for_server(address: str, part: str) -> Path:
    """Return the sidecar of a server: one file for each address and prefix (or namespace) in our own folder."""
    name = hashlib.sha256(f"{address.rstrip('/')}\n{part}".encode()).hexdigest()[:20]
    return config.home() / "sidecars" / f"{name}.sqlite"


def default_beside(folder: Path, part: str) -> Path:
    """Return the sidecar of a folder: a file beside it, not inside, named after it (and the prefix)."""
    tail = f".{hashlib.sha256(part.encode()).hexdigest()[:8]}" if part else ""
    folder = folder.absolute()
    return folder.with_name(f"{folder.name}{tail}.memlift.sqlite")


def _has_places(books: Books, settings: SidecarSettings) -> bool:
    if isinstance(settings, SqliteSettings):
        return bool(books.run("SELECT 1 FROM sqlite_schema WHERE name = ?", (_PLACES,)))
    return books.run("SELECT to_regclass(?)", (books.at(_PLACES),)) != [(None,)]


def _places(books: Books) -> dict[str, Place]:
    rows = books.run(f"SELECT name, place, run, definition FROM {books.at(_PLACES)} ORDER BY name", ())
    return {
        name: Place(place, run, Table.from_dict(json.loads(text)))
        for name, place, run, text in rows
        if name != _ITSELF
    }


def _itself(books: Books) -> Itself | None:
    rows = books.run(f"SELECT place, definition FROM {books.at(_PLACES)} WHERE name = ?", (_ITSELF,))
    return Itself(str(rows[0][0]), json.loads(rows[0][1]).get("store")) if rows else None


def check_store(
    where: SidecarSettings,
    itself: Itself,
    places: Iterable[Place],
    store: str,
    stands: Callable[[Place, str], bool],
) -> None:
    """Raise ConfigError where a sidecar is beside another store than this.

    store: this one's address, which changes when it is moved, or reached another way.
    stands: whether a place is here, made with the sidecar of that identity.
    """
    if itself.store in (None, store) or any(stands(place, itself.identity) for place in places):
        return
    raise ConfigError(
        f"{where} is the sidecar of another store: {itself.store}",
        hint="name a file or schema of its own with sidecar=...",
    )


def exists(settings: SidecarSettings) -> bool:
    """Whether there is something to open: a SQLite file is not made by looking at it."""
    return not isinstance(settings, SqliteSettings) or (
        settings.path.exists() and settings.path.stat().st_size > 0
    )


class Sidecar:
    """The sidecar of a target, for writing. All but `look` and `places` needs the lease that `claim` takes."""

    def __init__(self, settings: SidecarSettings, options: Options) -> None:
        self.settings = settings
        # A framework's own DDL is for whole stores; half of one must not look like it.
        self._options = replace(options, layout=None, index="none", full_text=False)
        self._module = backends.load(settings.type)
        self.target: SqlTarget = self._module.target(settings, self._options)
        self.identity = ""

    def fit(self, table: Table) -> Fit:
        """Return what the sidecar can hold of a table."""
        if isinstance(self.target, Judge):
            return self.target.fit(table)
        found: Fit = self._module.fit(table, self._options)
        return found

    def describe(self) -> str:
        """Return its address without secrets."""
        return str(self.settings)

    # --- before rows ----------------------------------------------------------

    def look(self, tables: Sequence[Table], beside: Callable[[Sequence[Table]], list[Table]]) -> Looked:
        """Say what stands there; changes nothing. beside: what the sidecar keeps of a plan's tables."""
        if isinstance(self.settings, SqliteSettings) and not self.settings.path.parent.is_dir():
            return Looked(tables, Standing(), {}, None)
        standing = self.target.look(beside(tables))
        if standing.plan is None or not exists(self.settings):
            return Looked(tables, standing, {}, None)
        reading = open_reading(self.settings)
        try:
            places, itself = reading.places, reading.itself
        finally:
            reading.close()
        begun = standing.run if standing.state == "unfinished" else None
        made = {**standing.made, **{n: p.table for n, p in places.items()}}
        held = {n: t for n, t in standing.held.items() if n not in places}
        held.update((n, p.table) for n, p in places.items() if p.run != begun)
        as_they_are = [as_made(t, held.get(t.name))[0] for t in tables]
        if as_they_are != list(tables):  # where a table is kept may be another place by its values of now
            standing = self.target.look(beside(as_they_are))
        return Looked(as_they_are, replace(standing, made=made, held=held), places, itself)

    def claim(self, plan: dict[str, Any], run: str, store: str, *, restart: bool) -> list[Place]:
        """Become the owner; return the places of runs that are gone, for the caller to clear and `forget`.

        store: the address of the store that this is the sidecar of.
        """
        if isinstance(self.settings, SqliteSettings):
            self.settings.path.parent.mkdir(parents=True, exist_ok=True)
        self.target.claim(plan, run, restart=restart)
        books = self.target.books
        with self.target.transaction("prepare the books"):
            books.run(
                f"CREATE TABLE IF NOT EXISTS {books.at(_PLACES)} (name TEXT PRIMARY KEY, place TEXT NOT NULL,"
                " run TEXT NOT NULL, created TEXT NOT NULL, definition TEXT NOT NULL)",
                (),
            )
            itself = _itself(books) or Itself(uuid.uuid4().hex, None)
            if itself.store != store:
                books.run(f"DELETE FROM {books.at(_PLACES)} WHERE name = ?", (_ITSELF,))
                self._insert(_ITSELF, itself.identity, "", json.dumps({"store": store}))
            self.identity = itself.identity
            known = {r[0] for r in books.run(f"SELECT id FROM {books.at('memlift_runs')}", ())}
            return [p for p in _places(books).values() if p.run and p.run not in known]

    def _insert(self, name: str, place: str, run: str, definition: str) -> None:
        books = self.target.books
        books.run(
            f"INSERT INTO {books.at(_PLACES)} (name, place, run, created, definition) VALUES (?, ?, ?, ?, ?)",
            (name, place, run, datetime.now(UTC).isoformat(), definition),
        )

    def enrol(self, table: Table, place: str, run: str) -> None:
        """Remember that a table is kept elsewhere; no run: we did not make its place."""
        with self.target.transaction("remember a table", table=table.name):
            self._insert(table.name, place, run, json.dumps(table.to_dict()))

    def redescribe(self, table: Table) -> None:
        """Describe a table that is kept elsewhere as its source has it now: its sequence may have grown."""
        books = self.target.books
        with self.target.transaction("describe a table", table=table.name):
            books.run(
                f"UPDATE {books.at(_PLACES)} SET definition = ? WHERE name = ?",
                (json.dumps(table.to_dict()), table.name),
            )

    def forget(self, name: str) -> None:
        """Forget a table that is kept elsewhere, with its exact cells."""
        books = self.target.books
        with self.target.transaction("forget a table", table=name):
            books.run(f"DELETE FROM {books.at(_PLACES)} WHERE name = ?", (name,))
            books.drop_exact(name)

    def redefine(self, table: Table) -> None:
        """Describe one of the sidecar's own tables as its source had it, foreign keys to collections included."""
        books = self.target.books
        with self.target.transaction("describe a table", table=table.name):
            books.run(
                f"UPDATE {books.at('memlift_tables')} SET definition = ? WHERE name = ?",
                (json.dumps(table.to_dict()), table.name),
            )

    def places(self) -> dict[str, Place]:
        """Return where the tables are that are kept elsewhere."""
        with self.target.transaction("read places"):
            return _places(self.target.books)

    # --- rows that are kept elsewhere -----------------------------------------

    def check_lease(self) -> None:
        """Raise LeaseLostError where another run has taken the target over."""
        with self.target.transaction("check the lease"):
            pass

    def save(self, run: str, position: Position, exact: Iterable[ExactCell]) -> None:
        """Keep a position and the exact cells of its rows, in one transaction."""
        books = self.target.books
        with self.target.transaction("commit", table=position.table):
            books.add_exact(exact)
            books.save_position(run, position)
            holder = books.holder()
            if holder is not None:  # ours: the transaction is fenced
                books.beat(holder.owner)

    def amend(
        self, table: Table, keys: Iterable[bytes], rows: Iterable[bytes], exact: Iterable[ExactCell]
    ) -> list[bytes]:
        """Replace the exact cells of keys, and remove whole rows; return the rows that were not kept here."""
        books = self.target.books
        with self.target.transaction("amend exact values", table=table.name):
            left = [value for value in rows if not books.drop_exact_row(table.name, value)]
            books.drop_exact(table.name, keys)
            books.add_exact(exact)
        return left

    def whole_rows(self, name: str) -> int:
        """Return how many rows of a table are kept here whole."""
        with self.target.transaction("count rows", table=name):
            return _whole_count(self.target.books, name)

    def rows(self, name: str) -> int:
        """Return how many rows the sidecar has of one of its own tables, those kept whole among them."""
        books = self.target.books
        with self.target.transaction("count rows", table=name):
            made = books.made().get(name)
            own = books.run(f"SELECT count(*) FROM {books.at(made[0])}", ())[0][0] if made else 0
            return int(own) + _whole_count(books, name)

    def undo(self) -> None:
        """Drop the book of places; the target's own undo drops the rest."""
        books = self.target.books
        with self.target.transaction("undo", fenced=False):
            books.run(f"DROP TABLE IF EXISTS {books.at(_PLACES)}", ())

    def remove_if_empty(self) -> None:
        """Remove the file of a sidecar in which nothing is left, ours or theirs. Close the target first."""
        if not isinstance(self.settings, SqliteSettings) or not exists(self.settings):
            return
        source: SqlSource = self._module.source(self.settings)
        try:
            left = source.tables() or source.not_carried()
        finally:
            source.close()
        if not left:
            for tail in ("", "-wal", "-shm"):
                self.settings.path.with_name(self.settings.path.name + tail).unlink(missing_ok=True)


def _whole_count(books: Books, name: str) -> int:
    sql = f'SELECT count(*) FROM {books.at("memlift_exact")} WHERE "table" = ? AND "column" IS NULL'
    return int(books.run(sql, (name,))[0][0])


class Reading:
    """The sidecar of a source: its own tables, and what is kept there of tables that are elsewhere."""

    def __init__(self, settings: SidecarSettings, standing: Instead) -> None:
        self.settings = settings
        self._standing = standing
        self.source: SqlSource = backends.load(settings.type).source(settings)
        self.places: dict[str, Place] = {}
        self.itself: Itself | None = None
        self._exact: dict[str, int] = {}
        self._aside: dict[str, frozenset[str]] = {}
        if _has_places(self.source.books, settings):
            self.places = _places(self.source.books)
            self.itself = _itself(self.source.books)
            self._exact = self.source.books.exact_count()

    def close(self) -> None:
        """Let go of the store."""
        self.source.close()

    def tables(self) -> list[Table]:
        """Return the sidecar's own tables, without those that only mirror one kept elsewhere."""
        return [t for t in self.source.tables() if t.name not in self.places]

    def whole_count(self, name: str) -> int:
        """Return how many rows of a table are kept here whole."""
        return _whole_count(self.source.books, name) if self._exact.get(name) else 0

    def aside(self, name: str) -> frozenset[str]:
        """Return the columns of a table kept elsewhere that have exact cells here."""
        if not self._exact.get(name):
            return frozenset()
        if name not in self._aside:
            books = self.source.books
            found = books.run(
                f'SELECT DISTINCT "column" FROM {books.at("memlift_exact")} WHERE "table" = ?'
                ' AND "column" IS NOT NULL',
                (name,),
            )
            self._aside[name] = frozenset(str(column) for (column,) in found)
        return self._aside[name]

    def restored(self, full: Table, rows: list[Row], wanted: Table) -> list[Row]:
        """Put exact cells back into rows of a table kept elsewhere.

        full: the whole table, to know its key; wanted: the columns that the rows have,
        the key's among them. What somebody has written over a cell since stays.
        """
        if not self._exact.get(full.name) or not full.key or not rows:
            return rows
        stands_for = self._standing(full, wanted)
        return restore(wanted, rows, lambda keys: self._cells(full.name, keys), stands_for)

    def _cells(self, name: str, keys: list[bytes]) -> list[tuple[bytes, str, bytes]]:
        books = self.source.books
        found: list[tuple[bytes, str, bytes]] = []
        for i in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[i : i + _KEYS_AT_ONCE]
            found += books.run(
                f'SELECT key, "column", value FROM {books.at("memlift_exact")} WHERE "table" = ?'
                f' AND "column" IS NOT NULL AND key IN ({", ".join("?" * len(part))})',
                (name, *part),
            )
        return found

    def whole_rows(
        self, full: Table, wanted: Table, size: int, after: int, cursor: Callable[[int], Any]
    ) -> Iterator[Batch]:
        """Yield the rows kept here whole, by their bytes: equal rows are alike, so a number is a cursor."""
        books, at = self.source.books, after
        pick = [full.column_names.index(n) for n in wanted.column_names]
        while self._exact.get(full.name):
            found = books.run(
                f'SELECT value FROM {books.at("memlift_exact")} WHERE "table" = ? AND "column" IS NULL'
                f" ORDER BY value LIMIT {size} OFFSET {at}",
                (full.name,),
            )
            if not found:
                return
            at += len(found)
            rows = [values.from_exact_row(bytes(v)) for (v,) in found]
            yield Batch(wanted, [tuple(row[i] for i in pick) for row in rows], cursor(at))


def open_reading(settings: SidecarSettings, standing: Instead = lambda full, wanted: _null) -> Reading:
    """Open a sidecar for reading. standing: what stands in the place of exact cells; NULL where left out."""
    return Reading(settings, standing)


def _null(at: int, exact: Any, present: Any) -> bool:
    return present is None
