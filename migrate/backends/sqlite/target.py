"""Writing a SQLite file: rows and their position in one transaction."""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrate import lease, values
from migrate.backends.base import Options, Phase, Position, Standing, Step
from migrate.backends.sqlbooks import NAMES, Books, statements
from migrate.backends.sqlite import ddl, fulltext
from migrate.backends.sqlite.indexing import Sidecars
from migrate.backends.sqlite.introspect import read_schema
from migrate.backends.sqlite.names import bound, ident, literal, orphans_of, rowid_name, translating
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

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`. A file that does not exist is not made."""
        if not self._path.parent.is_dir():
            raise ConfigError(
                f"there is no folder {self._path.parent}", hint="make it first, or check the path"
            )
        if not self._options.dry_run:
            _check_names(tables)
        if not self._path.exists() or self._path.stat().st_size == 0:
            return Standing()
        if not self._options.dry_run and self._path.with_name(self._path.name + "-journal").exists():
            self._run(
                "SELECT 1 FROM sqlite_schema LIMIT 1", ()
            )  # a killed writer's transaction is rolled back
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
            _check_names(tables)
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
            self._insert(batch.table, batch.rows, "", "INSERT OR REPLACE" if again else "INSERT")
        self._pending += exact

    def _insert(self, table: Table, rows: Sequence[Row], conflict: str, verb: str = "INSERT") -> None:
        names = ", ".join(map(ident, table.column_names))
        marks = ", ".join("?" * len(table.columns))
        head = f"{verb} INTO {ident(table.name)} ({names}) VALUES"
        self._db.execute("SAVEPOINT batch")
        try:
            self._db.executemany(f"{head} ({marks}){conflict}", rows)
        except UnicodeEncodeError:
            # Text that is no UTF-8: bound as bytes and cast, which SQLite does not check.
            self._db.execute("ROLLBACK TO batch")
            for row in rows:
                cells = [bound(c) for c in row]
                marks = ", ".join("CAST(? AS TEXT)" if cast else "?" for _, cast in cells)
                self._db.execute(f"{head} ({marks}){conflict}", [c for c, _ in cells])
        self._db.execute("RELEASE batch")

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

    def loosen(self) -> None:
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
        with translating("amend rows", table=table.name):
            self._begin()
            self._fence()
            for row in removed_rows:
                if not self._books.drop_exact_row(table.name, values.exact_row(kinds, row)):
                    self._remove_one(table, row)
            conflict = ""
            if table.key:
                key_kinds = [kinds[i] for i in table.key_positions]
                self._books.drop_exact(table.name, (values.key_bytes(key_kinds, key) for key in removed))
                self._books.drop_exact(table.name, (values.row_key(table, row) for row in rows))
                self._books.drop_exact(table.name, {c.key for c in exact if c.key is not None})
                fits = ddl.fit(table, self._options)
                for key in removed:
                    if fits.holds_key(key):  # else its row was kept aside whole, and is forgotten by now
                        self._remove_key(table, key)
                conflict = " ON CONFLICT DO NOTHING"
                if replace:
                    # Removed and written anew, so that a value of a UNIQUE column may move between rows.
                    conflict = ""
                    for row in rows:
                        self._remove_key(table, [row[i] for i in table.key_positions])
                elif table.full_text is not None:  # a virtual table takes no ON CONFLICT
                    conflict, rows = "", self._absent(table, rows)
            self._insert(table, rows, conflict)
            self._books.add_exact(exact)
            hit("amend.inside")
            self._db.execute("COMMIT")

    def _absent(self, table: Table, rows: Sequence[Row]) -> list[Row]:
        """Return the rows whose key, one integer, is not there."""
        sql = f"SELECT 1 FROM {ident(table.name)} WHERE {ident(table.key[0])} = ?"
        (at,) = table.key_positions
        return [row for row in rows if not self._run(sql, (row[at],))]

    def _remove_key(self, table: Table, key: Sequence[Any]) -> None:
        tests, cells = [], []
        for name, cell in zip(table.key, key, strict=True):
            value, cast = bound(cell)
            tests.append(f"{ident(name)} = " + ("CAST(? AS TEXT)" if cast else "?"))
            cells.append(value)
        self._db.execute(f"DELETE FROM {ident(table.name)} WHERE {' AND '.join(tests)}", cells)

    def _remove_one(self, table: Table, row: Row) -> None:
        tests, cells = [], []
        for name, cell in zip(table.column_names, row, strict=True):
            value, cast = bound(cell)
            mark = "CAST(? AS TEXT)" if cast else "?"
            tests.append(f"{ident(name)} IS {mark} AND typeof({ident(name)}) = typeof({mark})")
            cells += [value, value]
        where, rowid = " AND ".join(tests), rowid_name(table)
        if rowid is not None:
            where = f"{rowid} = (SELECT {rowid} FROM {ident(table.name)} WHERE {where} LIMIT 1)"
        self._db.execute(f"DELETE FROM {ident(table.name)} WHERE {where}", cells)

    # --- after rows -----------------------------------------------------------

    def steps(self, tables: Sequence[Table]) -> list[Step]:
        """See `Target.steps`. Primary keys are part of a table from the start in SQLite."""
        layout = self._options.layout
        steps: list[Step] = []
        if layout is not None:
            steps += (
                Step(_named(statement, tables), _title(statement), Phase.INDEX, self._statement(statement))
                for statement in layout.sqlite_after(tables)
            )
        adopted = self._books.adopted()
        for table in tables:
            if table.name in adopted:
                continue
            for index in table.indexes:  # those that the layout has made by now are left as they are
                statement = ddl.create_index(table, index)
                if statement is not None:
                    steps.append(
                        Step(table.name, f"index {index.name}", Phase.INDEX, self._statement(statement))
                    )
            if table.sequence is not None:
                steps.append(Step(table.name, "sequence", Phase.LINK, self._sequence(table)))
        return steps + self._sidecars.steps(self._db, tables, self._beat)

    def _beat(self) -> None:
        with self.transaction("renew the lease"):
            self._books.beat(self._owner)

    def _statement(self, sql: str) -> Callable[[Callable[[int, int], None]], None]:
        def run(progress: Callable[[int, int], None]) -> None:
            with translating("build an index", file=str(self._path)):
                self._begin()
                self._fence()
                self._db.execute(sql)
                self._db.execute("COMMIT")
            progress(1, 1)

        return run

    def _sequence(self, table: Table) -> Callable[[Callable[[int, int], None]], None]:
        def run(progress: Callable[[int, int], None]) -> None:
            with translating("set a sequence", table=table.name):
                self._begin()
                self._fence()
                found = self._run("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,))
                if not found:
                    sql = "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)"
                    self._run(sql, (table.name, table.sequence))
                elif table.sequence is not None and found[0][0] < table.sequence:
                    sql = "UPDATE sqlite_sequence SET seq = ? WHERE name = ?"
                    self._run(sql, (table.sequence, table.name))
                self._db.execute("COMMIT")
            progress(1, 1)

        return run

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


def _check_names(tables: Sequence[Table]) -> None:
    """Raise SchemaError for names that SQLite refuses, or takes for one."""
    tables_here = [t.name.lower() for t in tables]
    for table in tables:
        if tables_here.count(table.name.lower()) > 1:
            raise SchemaError(
                f"table names that differ only in case: {table.name!r}",
                hint="SQLite takes them for one: leave one out with --exclude",
            )
        if table.name.lower().startswith("sqlite_"):
            raise SchemaError(
                f"SQLite reserves the table name {table.name!r}", hint=f"--exclude {table.name} leaves it out"
            )
        columns = [n.lower() for n in table.column_names]
        twice = [n for n in table.column_names if columns.count(n.lower()) > 1]
        if twice:
            raise SchemaError(
                f"column names of {table.name!r} that differ only in case: {', '.join(twice[:4])}",
                hint=f"SQLite takes them for one: rename one, or leave the table out with --exclude {table.name}",
            )


def _named(statement: str, tables: Sequence[Table]) -> str:
    """Return the table that a layout's statement is about, so that its time is counted there."""
    words = set(re.findall(r"\w+", statement))
    return next((t.name for t in tables if t.name in words), tables[0].name if tables else "")


def _title(statement: str) -> str:
    words = statement.split()
    return " ".join(words[:2]).lower() + "".join(f" {w}" for w in words[2:8] if w.strip('"').islower())


def _derived(layout: Any, table: Table) -> list[str]:
    return [f"{table.name}_fts"] if layout is not None and layout.sqlite_ddl(table) is not None else []
