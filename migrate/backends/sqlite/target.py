"""Writing a SQLite file: rows and their position in one transaction."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrate import lease
from migrate.backends.base import Options, Position, Standing, Step
from migrate.backends.sqlbooks import NAMES, Books, statements
from migrate.backends.sqlite import build, ddl, fulltext
from migrate.backends.sqlite.amending import amend, insert
from migrate.backends.sqlite.hostile import rolls_back_to_nothing
from migrate.backends.sqlite.indexing import Sidecars
from migrate.backends.sqlite.introspect import read_schema
from migrate.backends.sqlite.names import check_names, ident, literal, orphans_of, translating
from migrate.backends.sqlite.opening import open_source
from migrate.backends.sqlite.source import NOW
from migrate.batch import Batch, ExactCell, Row
from migrate.errors import CheckpointError, ConfigError, LeaseLostError, SchemaError
from migrate.failpoints import hit
from migrate.hnsw import places
from migrate.plan import table_same_as
from migrate.schema import Table

_BUSY_MS = 10_000  # how long a statement waits for another program's lock


class SqliteTarget:
    """A SQLite file as a `Target` (see `migrate.backends.base`)."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path, self._options = path, options
        self._connection: sqlite3.Connection | None = None
        self._run_id = ""
        self._owner = (
            uuid.uuid4().hex
        )  # of the lease: this attempt, not the run, which another may go on with
        self._plan: dict[str, Any] = {}
        self._books = Books(self._run, ident, NOW, row="rowid")
        self._pending: list[ExactCell] = []
        self._again = False
        self._sidecars = Sidecars(path, options.index)
        self._notes: list[str] = []
        self.say: Callable[[str], None] = lambda _: None

    # --- connection -----------------------------------------------------------

    def describe(self) -> str:
        """See `Store.describe`."""
        return str(self._path)

    def close(self) -> None:
        """See `Store.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._sidecars.settle()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            with translating("open the file", file=str(self._path)):
                self._connection = sqlite3.connect(
                    self._path, isolation_level=None, timeout=_BUSY_MS / 1000, check_same_thread=False
                )
                self._connection.execute("PRAGMA trusted_schema = OFF")
                self._connection.execute("PRAGMA foreign_keys = OFF")
                self._connection.execute("PRAGMA cache_size = -65536")
                # Rows that are added to a file need no copy in a WAL first, with a checksum each page:
                # loading is 1.4 times as fast at 384 dimensions and 1.8 times at 1536. A file of
                # others that is in WAL mode stays so; `finish` leaves one of ours in it.
                if self._connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    self._connection.execute("PRAGMA journal_mode = TRUNCATE")
                # A commit is a promise that a checkpoint was kept, also through a power cut.
                self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    def _run(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, tuple(parameters)).fetchall()

    @property
    def options(self) -> Options:
        """Return what the user chose."""
        return self._options

    @property
    def books(self) -> Books:
        """Return memlift's own tables here; to be used inside `transaction`."""
        return self._books

    @contextmanager
    def transaction(self, op: str, *, fenced: bool = True, **where: Any) -> Iterator[sqlite3.Connection]:
        """Run a block in one transaction of its own; `fenced`: only while the lease is ours."""
        with translating(op, file=str(self._path), **where):
            self._begin()
            try:
                if fenced:
                    self._fence()
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self.rollback()
                raise

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _fence(self) -> None:
        if not self._books.owned_by(self._owner):
            raise LeaseLostError(
                "another run has taken this target over",
                hint="let that run end, then run the same command again",
                file=str(self._path),
            )

    # --- before rows ----------------------------------------------------------

    def _refuse_unwritable(self) -> None:
        """Raise ConfigError where no database can be: SQLite itself would leave a journal beside a device."""
        there = self._path.exists()
        if there and not self._path.is_file():
            what = "a folder" if self._path.is_dir() else "a device, pipe or socket"
            raise ConfigError(f"cannot write to {self._path}: it is {what}", hint="name a file")
        if not os.access(self._path if there else self._path.parent, os.W_OK):
            place = self._path if there else f"the folder {self._path.parent}"
            raise ConfigError(f"you may not write to {place}", hint="check its permissions, or name another")

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`. A file that does not exist is not made."""
        if not self._path.parent.is_dir():
            raise ConfigError(
                f"there is no folder {self._path.parent}", hint="make it first, or check the path"
            )
        self._refuse_unwritable()
        if not self._options.dry_run:
            check_names(tables)
        if not self._path.exists():
            return Standing()
        journal = self._path.with_name(self._path.name + "-journal")
        if self._options.dry_run:
            if rolls_back_to_nothing(journal):
                return Standing()
        elif journal.exists():
            # A killed writer's transaction is rolled back; where it was the first, to an empty file.
            self._run("SELECT 1 FROM sqlite_schema LIMIT 1", ())
        if self._path.stat().st_size == 0:
            return Standing()
        opened = open_source(self._path)
        try:
            with translating("look at the target", file=str(self._path)):
                return self._standing(opened.connection, [t.name for t in tables])
        finally:
            opened.close()

    def _standing(self, connection: sqlite3.Connection, names: Sequence[str]) -> Standing:
        found, _ = read_schema(connection)
        here = {t.name.lower() for t in found}
        ours = {
            r[0]
            for r in connection.execute(
                "SELECT name FROM sqlite_schema WHERE name LIKE 'memlift!_%' ESCAPE '!'"
            )
        }
        made: dict[str, tuple[str, Table]] = {}
        begun: set[str] = set()
        last = None
        if "memlift_runs" in ours and "memlift_tables" in ours:
            books = Books(
                lambda sql, p: connection.execute(sql, tuple(p)).fetchall(), ident, NOW, row="rowid"
            )
            made, last = books.made(), books.last_run()
            made = {name: (target, table) for name, (target, table) in made.items() if target.lower() in here}
            begun = set(books.made_by(last[0])) if last and last[1] != "done" else set()
        taken = {
            name.lower(): kind
            for kind, name in connection.execute(
                "SELECT type, name FROM sqlite_schema WHERE type IN ('index', 'view')"
            )
        }
        for name in names:
            if (kind := taken.get(name.lower())) is not None:
                raise SchemaError(
                    f"the table {name!r} cannot be made: its name is that of {'an' if kind == 'index' else 'a'} {kind}",
                    hint=f"drop or rename that {kind}, migrate into another file, or leave the table out with --exclude",
                )
        mine = {target.lower() for target, _ in made.values()}
        strangers = tuple(n for n in names if n.lower() in here and n.lower() not in mine)
        if last is None:
            return Standing("empty", strangers=strangers)
        run, state, plan = last
        return Standing(
            "done" if state == "done" else "unfinished",
            plan,
            run,
            {name: table for name, (_, table) in made.items()},
            {name: table for name, (target, table) in made.items() if target not in begun},
            strangers,
        )

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """See `Target.claim`."""
        with translating("prepare the target", file=str(self._path)):
            self._begin()
            for statement in statements("BLOB", "INTEGER", "REAL", ident):
                self._db.execute(statement)
            self._db.execute("COMMIT")
            lease.acquire(self._books, self._owner, say=self.say)
            hit("claim.inside")
            self._run_id, self._plan = run, plan
            self._begin()
            last = self._books.last_run()
            if last is not None and last[1] != "done" and (restart or last[0] != run):
                if not restart:
                    raise CheckpointError("an unfinished run is in the way", hint="run with --restart")
                self._drop(last[0])
            self._again = last is not None and last[0] == run
            if not self._again:
                self._books.begin_run(run, plan)
            self._db.execute("COMMIT")

    def _drop(self, run: str) -> None:
        """Drop what an unfinished run made."""
        made = {target: name for name, (target, _) in self._books.made().items()}
        for target in self._books.made_by(run):
            self._db.execute(f"DROP TABLE IF EXISTS {ident(target)}")
            self._books.forget_table(made[target])
        self._books.forget_run(run)

    def prepare(self, tables: Sequence[Table]) -> None:
        """See `Target.prepare`."""
        with translating("create tables", file=str(self._path)):
            self._begin()
            self._fence()
            made = self._books.made()
            here = {
                r[0].lower() for r in self._run("SELECT name FROM sqlite_schema WHERE type = 'table'", ())
            }
            check_names(tables)
            for table in tables:
                if table.name in made and made[table.name][0].lower() not in here:  # dropped by others
                    self._books.forget_table(table.name)
                    self._books.drop_position(self._run_id, table.name)
                elif table.name in made:
                    table_same_as(table, made[table.name][1])
                    continue
                if table.name.lower() not in here:
                    self._create(table, {*here, *(t.name.lower() for t in tables)})
                    maker = self._run_id
                elif self._options.into_existing:
                    self._check_columns(table)
                    maker = ""
                else:
                    raise SchemaError(
                        f"the table {table.name!r} was not made by memlift", hint="--into-existing"
                    )
                types = [(c.name, ddl.column_type(c, table.dialect)) for c in table.columns]
                self._books.add_table(maker, table, table.name, types)
                hit("prepare.inside")
            self._db.execute("COMMIT")

    def _create(self, table: Table, taken: Collection[str]) -> None:
        own = self._options.layout.sqlite_ddl(table) if self._options.layout else None
        full_text = fulltext.create(table) if self._options.full_text else None
        if full_text is not None and not own:
            clash = next((n for t in fulltext.TAILS if (n := f"{table.name}_{t}".lower()) in taken), None)
            try:
                if clash is not None:
                    raise sqlite3.OperationalError(f"there is a table {clash} already")
                self._db.execute("SAVEPOINT full_text")
                self._db.execute(full_text)
                self._db.execute("RELEASE full_text")
                return
            except sqlite3.OperationalError as exc:
                if clash is None:
                    self._db.execute("ROLLBACK TO full_text")
                    self._db.execute("RELEASE full_text")
                self._notes.append(
                    f"{table.name}: its rows are in an ordinary table, without a full-text index: {exc}"
                )
        for statement in own or [ddl.create_table(table)]:
            self._db.execute(statement)

    def _check_columns(self, table: Table) -> None:
        """Refuse an existing table that lacks a column, or has no key to match rows by."""
        here = self._run(f"PRAGMA table_info({literal(table.name)})", ())
        names = {r[1] for r in here}
        absent = [n for n in table.column_names if n not in names]
        key = tuple(r[1] for r in sorted((r for r in here if r[5]), key=lambda r: int(r[5])))
        if absent or set(key) != set(table.key):
            problem = f"has no column {absent[0]!r}" if absent else f"has the key {key}, not {table.key}"
            raise SchemaError(
                f"the existing table {table.name!r} {problem}", hint="migrate into another file"
            )

    def positions(self) -> dict[str, Position]:
        """See `Target.positions`."""
        with translating("read positions", file=str(self._path)):
            return self._books.positions(self._run_id)

    def owned(self) -> frozenset[str]:
        """See `Target.owned`."""
        with translating("read what was made", file=str(self._path)):
            here = {target: name for name, (target, _) in self._books.made().items()}
            return frozenset(here[target] for target in self._books.made_by(self._run_id))

    # --- rows -----------------------------------------------------------------

    def append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        """See `Target.append`."""
        with translating("write rows", table=batch.table.name):
            self._begin()
            # A resumed run may meet a row again that moved in its source; the newer one stands.
            again = bool(batch.table.key) and self._again
            insert(self._db, batch.table, batch.rows, verb="INSERT OR REPLACE" if again else "INSERT")
        self._pending += exact

    def commit(self, position: Position) -> None:
        """See `Target.commit`."""
        with translating("commit", table=position.table):
            self._begin()
            self._fence()
            self._books.add_exact(self._pending)
            self._books.save_position(self._run_id, position)
            self._books.beat(self._owner)
            hit("commit.inside")
            self._db.execute("COMMIT")
            self._pending = []

    def rollback(self) -> None:
        """See `Target.rollback`."""
        self._pending = []
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def reconnect(self) -> None:
        """See `Target.reconnect`."""
        self._pending = []
        self._again = True
        self.close()

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
        amend(self, table, rows, exact, replace=replace, removed=removed, removed_rows=removed_rows)

    # --- after rows -----------------------------------------------------------

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """See `Target.steps`."""
        return build.steps(self, tables) + self._sidecars.steps(self._db, tables, self._beat)

    def _beat(self) -> None:
        with self.transaction("renew the lease"):
            self._books.beat(self._owner)

    def finish(self) -> list[str]:
        """See `Target.finish`. Foreign keys that the rows violate are counted and named."""
        with translating("finish", file=str(self._path)):
            orphans: dict[tuple[str, str], int] = {}
            here = {
                r[0].lower() for r in self._run("SELECT name FROM sqlite_schema WHERE type = 'table'", ())
            }
            for name, (target, _) in self._books.made().items():
                if target.lower() not in here:
                    continue  # dropped by others
                for parent, n in orphans_of(self._db, target)[0].items():
                    orphans[(name, parent)] = n
            self._begin()
            self._fence()
            self._books.end_run(self._run_id)
            self._db.execute("COMMIT")
            hit("finish.inside")
            warnings = self._settle()
        return [*warnings, *self._notes, *self._sidecars.notes] + [
            f"{n} rows of {child} name a row of {parent} that is not there"
            for (child, parent), n in orphans.items()
        ]

    def _settle(self) -> list[str]:
        """Leave a file of our own in WAL mode, as agents want it, and nothing in its WAL."""
        found, _ = read_schema(self._db)
        mine = {target.lower() for target, _ in self._books.made().values()}
        if all(table.name.lower() in mine for table in found):
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as exc:
                return [
                    f"the file could not be put into WAL mode ({exc}); set it when no program has it open"
                ]
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return []

    def quarantine(self) -> str | None:
        """See `Target.quarantine`."""
        with translating("count exact values", file=str(self._path)):
            return f"{self._path}, table memlift_exact" if self._books.exact_count() else None

    def release(self) -> None:
        """See `Target.release`."""
        if self._connection is not None and self._run_id:
            with translating("release the target", file=str(self._path)):
                self.rollback()
                self._books.release(self._owner)
        self._run_id = ""

    def undo(self) -> list[str]:
        """See `Target.undo`."""
        with translating("undo", file=str(self._path)):
            here = {r[0] for r in self._run("SELECT name FROM sqlite_schema WHERE type = 'table'", ())}
            if "memlift_tables" not in here:
                return []
            lease.acquire(self._books, self._owner)
            self._begin()
            dropped = []
            layout, adopted = self._options.layout, self._books.adopted()
            for name, (target, table) in self._books.made().items():
                if name in adopted:
                    continue
                for derived in _derived(layout, table):
                    self._db.execute(f"DROP TABLE IF EXISTS {ident(derived)}")
                self._db.execute(f"DROP TABLE IF EXISTS {ident(target)}")
                dropped.append(name)
            for book in NAMES:
                self._db.execute(f"DROP TABLE IF EXISTS {ident(book)}")
            self._db.execute("COMMIT")
        places.remove(Path(os.path.realpath(self._path)))
        return dropped


def _derived(layout: Any, table: Table) -> list[str]:
    return [f"{table.name}_fts"] if layout is not None and layout.sqlite_ddl(table) is not None else []
