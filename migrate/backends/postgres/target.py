"""Writing a Postgres schema: COPY and the position in one transaction, fenced by the lease."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from migrate import lease
from migrate.backends.base import Fit, Options, Position, Standing, Step
from migrate.backends.postgres import build, ddl, enums, wire
from migrate.backends.postgres.amending import amend
from migrate.backends.postgres.connect import (
    Connection,
    Server,
    connect,
    local_settings,
    look_at,
    qualified,
)
from migrate.backends.postgres.heart import Heart
from migrate.backends.postgres.names import MADE, fitting, ident, literal, placed, translating
from migrate.backends.postgres.native import Asked
from migrate.backends.postgres.source import NOW
from migrate.backends.postgres.standing import (
    check_columns,
    check_json,
    check_names,
    check_rights,
    check_types,
)
from migrate.backends.postgres.types import BINARY, columns_here
from migrate.backends.sqlbooks import NAMES, Books, statements
from migrate.batch import Batch, ExactCell, Row
from migrate.config import PostgresSettings
from migrate.errors import CheckpointError, LeaseLostError, SchemaError
from migrate.failpoints import hit
from migrate.plan import table_same_as
from migrate.schema import VECTOR_KINDS, Table

_PLAIN_LOCK_S = "20s"  # a lock held by somebody for longer is worth another try, not an endless wait


class PostgresTarget:
    """A schema of a Postgres database as a `Target` (see `migrate.backends.base`)."""

    def __init__(self, settings: PostgresSettings, options: Options) -> None:
        self._settings, self._options = settings, options
        self._connection: Connection | None = None
        self._seen: Server | None = None
        self._run_id = ""
        self._owner = (
            uuid.uuid4().hex
        )  # of the lease: this attempt, not the run, which another may go on with
        self._copying: tuple[str, psycopg.Copy, ExitStack] | None = None
        self._pending: list[ExactCell] = []
        self._heart: Heart | None = None
        self.books = Books(self._run, self.at, NOW, row="ctid", lock=" FOR SHARE")
        self._notes: list[str] = []
        self._asked = Asked(self.another_connection)
        self.again = False  # whether rows may have been copied twice, by an earlier life of this run
        self.say: Callable[[str], None] = lambda _: None

    # --- connection -----------------------------------------------------------

    def describe(self) -> str:
        """See `Store.describe`."""
        return str(self._settings)

    def close(self) -> None:
        """See `Store.close`."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
        self._asked.close()
        self._drop_connection()

    def _drop_connection(self) -> None:
        self._copying, self._pending = None, []
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):  # what matters is that it is gone
                self._connection.close()
            self._connection = None

    @property
    def db(self) -> Connection:
        """Return the one connection that writes."""
        if self._connection is None:
            self._connection = connect(self._settings, first=not self._run_id)
        return self._connection

    @property
    def server(self) -> Server:
        """Return what the server is."""
        if self._seen is None:
            self._seen = look_at(self.db, self._settings.schema)
        return self._seen

    @property
    def options(self) -> Options:
        """Return what the user chose."""
        return self._options

    def note(self, text: str) -> None:
        """Keep a warning for the report."""
        if text not in self._notes:
            self._notes.append(text)

    def another_connection(self) -> Connection:
        """Open one more connection, to watch a long statement."""
        return connect(self._settings)

    def at(self, name: str) -> str:
        """Return a name qualified and quoted."""
        return qualified(self.server.schema, name)

    def _run(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = self.db.execute(placed(sql), tuple(parameters))
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def transaction(self, op: str, *, fenced: bool = True, **where: Any) -> Iterator[Connection]:
        """Run a block in one transaction of its own; `fenced`: only while the lease is ours."""
        with translating(op, **where):
            connection = self.db
            with connection.transaction():
                local_settings(connection, lock_timeout=_PLAIN_LOCK_S)
                if fenced:
                    self._fence()
                yield connection

    def _fence(self) -> None:
        if not self.books.owned_by(self._owner):
            raise LeaseLostError(
                "another run has taken this target over",
                hint="let that run end, then run the same command again",
                target=self.describe(),
            )

    def fit(self, table: Table) -> Fit:
        """See `Judge.fit`. The server itself judges texts of its types, over a connection of its own."""
        return ddl.fit(table, self._options, self._asked)

    # --- before rows ----------------------------------------------------------

    def look(self, tables: Sequence[Table]) -> Standing:
        """See `Target.look`. Also tells, before a row is read, what the role may not do."""
        with translating("look at the target", connecting=True), self.db.transaction():
            local_settings(self.db, lock_timeout=_PLAIN_LOCK_S)
            server = self.server
            check_rights(self.db, server, tables)
            check_types(self.db, tables, self._options)
            if not server.schema_exists:
                return Standing(notes=(f"the schema {server.schema!r} will be created",))
            found = {
                r[0]
                for r in self.db.execute(
                    "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                    " ON n.oid = c.relnamespace WHERE n.nspname = %s",
                    (server.schema,),
                )
            }
            made: dict[str, tuple[str, Table]] = {}
            begun: set[str] = set()
            last = None
            if {"memlift_runs", "memlift_tables"} <= found:
                made, last = self.books.made(), self.books.last_run()
                made = {name: (target, table) for name, (target, table) in made.items() if target in found}
                begun = set(self.books.made_by(last[0])) if last and last[1] != "done" else set()
            held = {name: (target, table) for name, (target, table) in made.items() if target not in begun}
            check_json(self.db, server.schema, tables, held, self._options)
            check_names(self.db, server.schema, tables)
            mine = {target for target, _ in made.values()}
            strangers = tuple(t.name for t in tables if fitting(t.name) in found - mine)
        if last is None:
            return Standing("empty", strangers=strangers)
        run, state, plan = last
        return Standing(
            "done" if state == "done" else "unfinished",
            plan,
            run,
            {name: table for name, (_, table) in made.items()},
            {name: table for name, (_, table) in held.items()},
            strangers,
        )

    def claim(self, plan: dict[str, Any], run: str, *, restart: bool) -> None:
        """See `Target.claim`."""
        with self.transaction("prepare the target", fenced=False) as db:
            self._one_at_a_time(db)
            if not look_at(db, self._settings.schema).schema_exists:
                db.execute(f"CREATE SCHEMA {ident(self.server.schema)}")
                db.execute(f"COMMENT ON SCHEMA {ident(self.server.schema)} IS {literal(MADE)}")
            for statement in statements("bytea", "bigint", "double precision", self.at):
                db.execute(statement)
        self._seen = None
        with translating("take the lease"):
            lease.acquire(self.books, self._owner, say=self.say)
        hit("claim.inside")
        self._run_id = run
        if self._heart is None:
            self._heart = Heart(self._settings, self.at, self._owner)
        with self.transaction("store the plan"):
            last = self.books.last_run()
            if last is not None and last[1] != "done" and (restart or last[0] != run):
                if not restart:
                    raise CheckpointError("an unfinished run is in the way", hint="run with --restart")
                self._drop(last[0])
            self.again = last is not None and last[0] == run
            if not self.again:
                self.books.begin_run(run, plan)

    def _one_at_a_time(self, db: Connection) -> None:
        """Let runs of one database that begin at once not trip over each other's CREATE IF NOT EXISTS."""
        db.execute("SELECT pg_advisory_xact_lock(hashtextextended('memlift', 0))")

    def _drop(self, run: str) -> None:
        """Drop what an unfinished run made."""
        names = {target: name for name, (target, _) in self.books.made().items()}
        made = self.books.made_by(run)
        if made:
            self.db.execute(f"DROP TABLE IF EXISTS {', '.join(map(self.at, made))}")
        for target in made:
            self.books.forget_table(names[target])
        self.books.forget_run(run)

    def prepare(self, tables: Sequence[Table]) -> None:
        """See `Target.prepare`."""
        if (
            any(c.kind in VECTOR_KINDS for t in tables for c in t.columns)
            and self.server.vector_schema is None
        ):
            with self.transaction("create the extension vector") as db:
                self._one_at_a_time(db)
                db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._seen = None
        with self.transaction("create tables") as db:
            made = self.books.made()
            here = {
                r[0]
                for r in db.execute(
                    "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                    " ON n.oid = c.relnamespace WHERE n.nspname = %s",
                    (self.server.schema,),
                )
            }
            # The longest first: a table may have the name of another's sequence (`t_id_seq`), which then takes another.
            for table in sorted(tables, key=lambda t: -len(t.name)):
                if (
                    table.name in made and made[table.name][0] not in here
                ):  # dropped by others: missing, like a row
                    self.books.forget_table(table.name)
                    self.books.drop_position(self._run_id, table.name)
                elif table.name in made:
                    table_same_as(table, made[table.name][1])
                    continue
                name = fitting(table.name)
                if name not in here:
                    enums.create(db, self.server.schema, table)
                    db.execute(ddl.create_table(table, self.server, self._options))
                    maker = self._run_id
                elif self._options.into_existing:
                    check_columns(db, self.at(name), name, table, self._options)
                    maker = ""
                else:
                    raise SchemaError(
                        f"the table {name!r} was not made by memlift", hint="?schema=..., or --into-existing"
                    )
                types = [
                    (there.name, there.type) if there else ("", "-")
                    for there in columns_here(table, self._options)
                ]
                self.books.add_table(maker, table, name, types)
                hit("prepare.inside")

    def positions(self) -> dict[str, Position]:
        """See `Target.positions`."""
        with self.transaction("read positions", fenced=False):
            return self.books.positions(self._run_id)

    def owned(self) -> frozenset[str]:
        """See `Target.owned`."""
        with self.transaction("read what was made", fenced=False):
            here = {target: name for name, (target, _) in self.books.made().items()}
            return frozenset(here[target] for target in self.books.made_by(self._run_id))

    # --- rows -----------------------------------------------------------------

    def pack(self, batch: Batch, columns: Sequence[Sequence[Any]]) -> Batch:
        """See `Packer.pack`."""
        if not batch.rows:
            return batch
        _, codecs, binary, picked = self.shape(batch.table)
        taken = columns if picked is None else [columns[i] for i in picked]
        packed = wire.pieces(taken, codecs) if binary else [wire.text_of(taken, codecs)]
        return replace(batch, rows=[], packed=packed)

    def append(self, batch: Batch, exact: Sequence[ExactCell]) -> None:
        """See `Target.append`. Rows go into one COPY until `commit`."""
        self._pending += exact
        if not batch.rows and batch.packed is None:
            return
        with translating("write rows", table=batch.table.name):
            if self._copying is None or self._copying[0] != batch.table.name:
                columns, _, binary, _ = self.shape(batch.table)
                self._open_copy(batch.table, columns, binary=binary)
            if batch.packed is None:
                batch = self.pack(batch, list(zip(*batch.rows, strict=True)))
            if self._copying is not None:
                for piece in batch.packed or ():
                    self._copying[1].write(piece)

    def shape(self, table: Table) -> tuple[list[str], list[str], bool, list[int] | None]:
        """Return the columns of a COPY, their codecs, whether it is binary, and which cells it takes."""
        here = columns_here(table, self._options)
        kept = [(i, there) for i, there in enumerate(here) if there is not None]
        codecs = [there.codec for _, there in kept]
        picked = None if len(kept) == len(here) else [i for i, _ in kept]
        return [there.name for _, there in kept], codecs, set(codecs) <= BINARY, picked

    def _open_copy(self, table: Table, columns: Sequence[str], *, binary: bool) -> None:
        self._end_copy()
        stack = ExitStack()
        if self.db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self.db.execute("BEGIN")
            local_settings(self.db, lock_timeout=_PLAIN_LOCK_S)
        cursor = stack.enter_context(self.db.cursor())
        names = ", ".join(map(ident, columns))
        form = "BINARY" if binary else "TEXT"
        copy = stack.enter_context(
            cursor.copy(f"COPY {self.at(fitting(table.name))} ({names}) FROM STDIN (FORMAT {form})")
        )
        if binary:
            copy.write(wire.HEADER)
            stack.callback(copy.write, wire.TRAILER)
        self._copying = (table.name, copy, stack)

    def _end_copy(self) -> None:
        if self._copying is not None:
            stack, self._copying = self._copying[2], None
            stack.close()

    def commit(self, position: Position) -> None:
        """See `Target.commit`."""
        with translating("commit", table=position.table):
            self._end_copy()
            if self.db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                self.db.execute("BEGIN")
                local_settings(self.db, lock_timeout=_PLAIN_LOCK_S)
            self._fence()
            self.books.add_exact(self._pending)
            self.books.save_position(self._run_id, position)
            if not position.done:
                # Rows and position are one transaction, so a server that crashes in the next
                # half second loses both or none; only a table's last commit waits for its disk.
                self.db.execute("SET LOCAL synchronous_commit = off")
            hit("commit.inside")
            self.db.execute("COMMIT")
            self._pending = []

    def rollback(self) -> None:
        """See `Target.rollback`."""
        self._pending = []
        copying, self._copying = self._copying, None
        if self._connection is None:
            return
        if copying is not None:  # ended by an error, so that the server forgets the rows
            self._drop_connection()
            return
        try:
            self._connection.rollback()
        except psycopg.Error:
            self._drop_connection()

    def reconnect(self) -> None:
        """See `Target.reconnect`."""
        self.again = True
        self._drop_connection()
        with translating("connect again"):
            self.db.execute("SELECT 1")

    def loosen(self, *, unique: bool) -> None:
        """See `Target.loosen`."""
        build.loosen(self, unique=unique)

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
        return build.steps(self, tables)

    def finish(self) -> list[str]:
        """See `Target.finish`."""
        with self.transaction("finish") as db:
            made = self.books.made()
            broken = db.execute(
                "SELECT c.relname::text, k.conname::text, p.relname::text FROM pg_catalog.pg_constraint k"
                " JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n"
                " ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_class p ON p.oid = k.confrelid"
                " WHERE n.nspname = %s AND NOT k.convalidated",
                (self.server.schema,),
            ).fetchall()
            aside = {made[name][0] for name in self.books.kept_whole() if name in made}
            self.books.end_run(self._run_id)
        hit("finish.inside")
        with self.transaction("analyze") as db:
            for target, _ in made.values():
                row = db.execute("SELECT to_regclass(%s)", (self.at(target),)).fetchone()
                if row is not None and row[0] is not None:
                    db.execute(f"ANALYZE {self.at(target)}")
        return self._notes + [
            f"the rows of {table} break its foreign key {name}, "
            + (f"for rows of {parent} are kept aside" if parent in aside else "as they do in the source")
            + ": left NOT VALID"
            for table, name, parent in broken
        ]

    def quarantine(self) -> str | None:
        """See `Target.quarantine`."""
        with self.transaction("count exact values", fenced=False):
            return f"{self.at('memlift_exact')} in {self.describe()}" if self.books.exact_count() else None

    def release(self) -> None:
        """See `Target.release`."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
        if self._run_id:
            self.rollback()
            self._run_id = ""
            with self.transaction("release the target", fenced=False):
                self.books.release(self._owner)

    def undo(self) -> list[str]:
        """See `Target.undo`."""
        server = self.server
        with translating("undo", connecting=True):
            row = self.db.execute("SELECT to_regclass(%s)", (self.at("memlift_tables"),)).fetchone()
        if row is None or row[0] is None:
            return []
        with translating("take the lease"):
            lease.acquire(self.books, self._owner)
        with self.transaction("undo", fenced=False) as db:
            made = self.books.made()
            adopted = self.books.adopted()
            targets = [target for name, (target, _) in made.items() if name not in adopted]
            everything = ", ".join(self.at(n) for n in (*targets, *NAMES))
            db.execute(f"DROP TABLE IF EXISTS {everything}")
            enums.drop(db, server.schema, [table for _, table in made.values()])
            comment = db.execute(
                "SELECT pg_catalog.obj_description(n.oid, 'pg_namespace'),"
                " NOT EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid)"
                " FROM pg_catalog.pg_namespace n WHERE n.nspname = %s",
                (server.schema,),
            ).fetchone()
            if comment == (MADE, True):
                db.execute(f"DROP SCHEMA {ident(server.schema)}")
        return sorted(set(made) - adopted)
