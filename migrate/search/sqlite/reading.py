"""One query's view of a SQLite file, and what its tables mean from one query to the next.

A file that is in use is opened anew for every query and let go of after it: a
transaction that stays open would make the writers of a rollback-journal file
wait, and keep a WAL from being checkpointed. That takes half a millisecond. A
file that nobody has open stays open here as long as it does not change. What
the tables mean takes longer to tell (values are looked at), so it is kept, too.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from migrate import values
from migrate.backends.sqlite.hostile import explaining
from migrate.backends.sqlite.names import rowid_name, translating
from migrate.backends.sqlite.opening import Opened, open_source
from migrate.backends.sqlite.source import SqliteSource
from migrate.errors import BackendError, ConfigError, TransientError
from migrate.schema import Table
from migrate.search.base import Searched
from migrate.search.shape import searched_tables
from migrate.search.sqlite import where

# A column may become a vector column by its first rows; to look for that after each write would cost
# more than most queries.
_LOOK_AGAIN_S = 10.0
_MORE = min(4, os.cpu_count() or 1) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table stands in the file.

    table: as the file declares it, with the name it has here.
    rowid: the SQL name of its rowid; None where it has none, and rows go by key.
    """

    table: Table
    rowid: str | None

    @property
    def key(self) -> tuple[str, ...]:
        """Return the columns of the primary key; empty where rows only have their rowid."""
        return self.table.key


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot of the file, for one query.

    connection: can do nothing but SELECT, and has the function that filters use.
    state:      equal states mean equal rows; None where the file was written too lately to tell.
    utf8:       whether the file keeps text as UTF-8.
    tables:     all tables, as a layout understands them; `places` has each by its name.
    """

    path: Path
    connection: sqlite3.Connection
    state: str | None
    utf8: bool
    places: dict[str, Place]
    tables: tuple[Table, ...] = ()

    def at(self, searched: Searched) -> Place:
        """Return where a searched table stands."""
        return self.places[searched.name]

    @contextmanager
    def more(self, n: int = _MORE) -> Iterator[Sequence[sqlite3.Connection]]:
        """Open the same rows for so many more connections; fewer where the file was written meanwhile."""
        with ExitStack() as stack:
            found: list[sqlite3.Connection] = []
            while self.state is not None and len(found) < n:
                try:
                    opened = stack.enter_context(closing(open_source(self.path)))
                except (ConfigError, TransientError):  # one is enough; who reads by it learns what is wrong
                    break
                if opened.state != self.state:
                    break
                found.append(opened.connection)
            yield found


@dataclass(frozen=True, slots=True)
class _Meaning:
    searched: tuple[Searched, ...]
    tables: tuple[Table, ...]
    places: dict[str, Place]
    schema: tuple[int, int, int]
    state: str | None
    at: float


@dataclass(frozen=True, slots=True)
class _Open:
    opened: Opened
    reading: Reading


class SqliteFile:
    """A file that is read for one query at a time, or for several in threads of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: _Meaning | None = None
        self._kept: _Open | None = None
        self._lock = Lock()

    @property
    def path(self) -> Path:
        """Return the file's path."""
        return self._path

    def tables(self) -> Sequence[Searched]:
        """Return the tables that can be searched, as they are now."""
        with self.reading():
            return self._meaning.searched

    def close(self) -> None:
        """Let go of what is kept between queries."""
        kept = self._swapped(None)
        if kept is not None:
            kept.opened.close()

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Open the file for one query.

        Raises ConfigError where it cannot be read, TransientError where it was
        written to meanwhile and the query is worth another try.
        """
        open_ = self._current() or self._opened()
        with ExitStack() as stack:
            stack.callback(open_.opened.close)
            yield open_.reading
            if open_.reading.state is not None and open_.opened.is_current():
                stack.pop_all()
                other = self._swapped(open_)  # of another thread
                if other is not None:
                    other.opened.close()
                return
            try:
                open_.opened.check()
            except BackendError as exc:
                raise TransientError(exc.message, hint=exc.hint, **exc.where) from exc

    def _current(self) -> _Open | None:
        """Return what the last query left open, where it is as good as new."""
        kept = self._swapped(None)
        if kept is not None and not kept.opened.is_current():
            kept.opened.close()
            return None
        return kept

    def _swapped(self, kept: _Open | None) -> _Open | None:
        with self._lock:
            before, self._kept = self._kept, kept
        return before

    def _opened(self) -> _Open:
        with ExitStack() as stack:
            opened = stack.enter_context(closing(open_source(self._path)))
            connection = opened.connection
            with translating("read the schema", file=str(self._path)):
                (encoding,) = connection.execute("PRAGMA encoding").fetchone()
                (schema,) = connection.execute("PRAGMA schema_version").fetchone()
            with explaining(self._path):
                place = self._path.stat()
            meaning = self._understood((place.st_dev, place.st_ino, schema), opened.state)
            where.register(connection)
            connection.text_factory = values.bytes_text
            stack.pop_all()
        utf8 = encoding == "UTF-8"
        return _Open(
            opened, Reading(self._path, connection, opened.state, utf8, meaning.places, meaning.tables)
        )

    @property
    def _meaning(self) -> _Meaning:
        if self._known is None:
            raise RuntimeError("asked for before the file was read")
        return self._known

    def _understood(self, schema: tuple[int, int, int], state: str | None) -> _Meaning:
        """Return what the tables mean, looking again where the file may have changed it."""
        known = self._known
        fresh = known is not None and known.schema == schema
        if known is not None and fresh and known.state != state:
            fresh = time.monotonic() - known.at < _LOOK_AGAIN_S
        if known is None or not fresh:
            with closing(SqliteSource(self._path)) as source:
                tables = tuple(source.tables())
                found = searched_tables(source)
                places = {t.name: _place(source.declared(t)) for t in tables}
            searched = tuple(s for s in found if places[s.name].rowid or places[s.name].key)
            known = _Meaning(searched, tables, places, schema, state, time.monotonic())
            self._known = known
        return known


def _place(here: Table) -> Place:
    return Place(here, rowid_name(here))
