"""What is built once the rows are in: keys, foreign keys, indexes, the vector index, sequences."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from migrate import values
from migrate.backends.base import Phase, Step
from migrate.backends.postgres import ddl
from migrate.backends.postgres.connect import qualified
from migrate.backends.postgres.names import fitting, fitting_column, ident, placed, translating
from migrate.backends.postgres.types import columns_here
from migrate.errors import BackendError, TransientError
from migrate.fit import INT64
from migrate.layouts.words import word_columns
from migrate.schema import Column, Index, Kind, Table

if TYPE_CHECKING:
    from migrate.backends.postgres.target import PostgresTarget

Progress = Callable[[int, int], None]

# An HNSW build that fits into maintenance_work_mem took 50 CPU seconds for
# 50,000 x 384, one that did not 117. A node holds its vector and some 300 bytes
# of neighbours at m = 16.
_NODE_BYTES = 300
_LEAST_MEMORY, _MOST_MEMORY = 64 * 2**20, 2 * 2**30


def steps(target: PostgresTarget, tables: Sequence[Table]) -> list[Step]:
    """Return what is to be built, in order; what already stands is left out.

    Links of tables that are not among `tables` are built too where they are gone: a change of one table
    takes the links of all away (`loosen`).
    """
    standing = _standing(target)
    made = {name: table for name, (here, table) in _made(target).items() if here in standing.relations}
    known = {**made, **{t.name: t for t in tables}}
    found: list[Step] = []
    links: list[Step] = []
    indexes: list[Step] = []
    with target.transaction("read what was adopted", fenced=False):
        adopted = target.books.adopted()
    asked = {table.name for table in tables}
    for table in [*tables, *(t for name, t in made.items() if name not in asked)]:
        if table.name in adopted:
            continue
        if table.name not in asked:
            links += _apart(_links(target, table, known, standing))
            indexes += _apart([s for s in _indexes(target, table, standing) if s.phase is Phase.LINK])
            continue
        if table.key:
            name, sql = standing.free(table, *ddl.primary_key(table, target.server))
            if (fitting(table.name), "p") not in standing.keyed:
                found.append(
                    Step(
                        table.name, "primary key", Phase.KEY, partial(_primary_key, target, table, name, sql)
                    )
                )
        links += _links(target, table, known, standing)
        indexes += _indexes(target, table, standing)
    unique = [step for step in indexes if step.phase is Phase.LINK]  # foreign keys may name them
    return [*found, *unique, *links, *(step for step in indexes if step.phase is Phase.INDEX)]


def loosen(target: PostgresTarget, *, unique: bool) -> None:
    """Drop the foreign keys and, if asked, unique indexes that `steps` built, of all tables that memlift made."""
    with target.transaction("loosen foreign keys") as db:
        adopted = target.books.adopted()
        ours = {name: made for name, made in target.books.made().items() if name not in adopted}
        made = [here for here, _ in ours.values()]
        built = db.execute(
            "SELECT c.relname::text, k.conname::text FROM pg_catalog.pg_constraint k"
            " JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = %s AND k.contype = 'f' AND c.relname = ANY(%s)",
            (target.server.schema, made),
        ).fetchall()
        for table, name in built:
            if name in ddl.foreign_key_names(ours, table):
                db.execute(f"ALTER TABLE {target.at(table)} DROP CONSTRAINT {ident(name)}")
        if not unique:
            return
        indexes = db.execute(
            "SELECT t.relname::text, c.relname::text, EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k"
            "   WHERE k.conindid = c.oid AND k.contype = 'u') FROM pg_catalog.pg_index i"
            " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_class t"
            " ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
            " WHERE n.nspname = %s AND t.relname = ANY(%s) AND i.indisunique AND NOT i.indisprimary",
            (target.server.schema, made),
        ).fetchall()
        for here, name, constraint in indexes:
            if name not in ddl.unique_names(ours, here, target.server):
                continue
            if constraint:
                db.execute(f"ALTER TABLE {target.at(here)} DROP CONSTRAINT {ident(name)}")
            else:
                db.execute(f"DROP INDEX {target.at(name)}")


def _apart(found: Sequence[Step]) -> list[Step]:
    """Return the steps of a table that no report is about."""
    return [Step("", f"{s.table}: {s.name}", s.phase, s.run) for s in found if s.name != "sequence"]


class _Standing:
    """Constraints (table, name) and relations of the schema; an index with the table that it is of."""

    def __init__(self) -> None:
        self.constraints: set[tuple[str, str]] = set()
        self.relations: dict[str, str] = {}
        self.keyed: set[tuple[str, str]] = set()
        self._planned: dict[str, str] = {}

    def free(self, table: Table, name: str, sql: str) -> tuple[str, str]:
        """Return the name and the statement of a table's index or key under a name that nothing else has.

        `user_group_id_key` is of (id) in `user_group` and of (group_id) in `user`.
        """
        here = fitting(table.name)
        wanted = ddl.constraint_names(table, name)
        free = [n for n in wanted if self.relations.get(n, self._planned.get(n, here)) == here]
        chosen = next((n for n in free if n in self.relations), free[0] if free else wanted[-1])
        self._planned[chosen] = here
        for word in ("CONSTRAINT", "EXISTS"):
            sql = sql.replace(f"{word} {ident(name)}", f"{word} {ident(chosen)}", 1)
        return chosen, sql


def _standing(target: PostgresTarget) -> _Standing:
    found = _Standing()
    with target.transaction("list constraints", fenced=False) as db:
        for name, kind, table, valid in db.execute(
            "SELECT k.conname::text, k.contype::text, c.relname::text, k.convalidated"
            " FROM pg_catalog.pg_constraint k"
            " JOIN pg_catalog.pg_class c ON c.oid = k.conrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s",
            (target.server.schema,),
        ):
            if valid:  # else a run was broken off before it was, or rows break it: it is tried again
                found.constraints.add((table, name))
            found.keyed.add((table, kind))
        for name, table in db.execute(
            "SELECT c.relname::text, coalesce(t.relname::text, '') FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid"
            " LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid WHERE n.nspname = %s",
            (target.server.schema,),
        ):
            found.relations[name] = table
    return found


def _made(target: PostgresTarget) -> dict[str, tuple[str, Table]]:
    with target.transaction("read what was made", fenced=False):
        return target.books.made()


def _names_a_key(table: Table, columns: tuple[str, ...]) -> bool:
    """Whether columns are a table's key, or those of a whole unique index; else no foreign key can name them."""
    whole = [i.columns for i in table.indexes if i.unique and i.where is None]
    return any(set(columns) == set(names) for names in (table.key, *whole))


def _links(target: PostgresTarget, table: Table, known: dict[str, Table], standing: _Standing) -> list[Step]:
    found: list[Step] = []

    def add(title: str, work: Callable[[Progress], None]) -> None:
        found.append(Step(table.name, title, Phase.LINK, work))

    for number, key in enumerate(table.foreign_keys, 1):
        name, sql = ddl.foreign_key(table, number, key, target.server)
        if (fitting(table.name), name) in standing.constraints:
            continue
        parent = known.get(key.parent)
        if parent is None or not _names_a_key(parent, key.parent_columns):
            why = "that table is not in the target" if parent is None else "it names columns that are no key"
            target.note(f"foreign key of {table.name} to {key.parent}: {why}")
            continue
        add(f"foreign key to {key.parent}", partial(_foreign_key, target, table, name, sql))
    for column in table.columns:
        if column.identity and column.kind is Kind.INTEGER:
            add("sequence", partial(_sequence, target, table, column))
    return found


def _indexes(target: PostgresTarget, table: Table, standing: _Standing) -> list[Step]:
    found: list[Step] = []

    def add(title: str, work: Callable[[Progress], None], phase: Phase = Phase.INDEX) -> None:
        found.append(Step(table.name, title, phase, work))

    wanted = [ddl.index(table, i, target.server) for i in table.indexes]
    for made, index in zip(wanted, table.indexes, strict=True):
        if made is None:
            target.note(f"index {index.name} of {table.name}: its condition {index.where} does not translate")
    nocase = Index("", (), unique=True)
    for made, index in zip(
        [*wanted, ddl.nocase_key(table, target.server)], [*table.indexes, nocase], strict=True
    ):
        if made is not None:
            name, sql = standing.free(table, *made)
            constraint = ddl.is_constraint(table, index)
            half_built = constraint and (fitting(table.name), name) not in standing.constraints
            if name not in standing.relations or half_built:
                phase = Phase.LINK if index.unique else Phase.INDEX
                build = _unique_constraint if constraint else _plain_index
                add(f"index {name}", partial(build, target, table, name, sql), phase)
    if target.options.index == "none":
        return found
    for column, here in zip(table.columns, columns_here(table, target.options), strict=True):
        made = ddl.vector_index(table, column, here, target.server) if here is not None else None
        if made is not None:
            name, sql = standing.free(table, *made)
            if name not in standing.relations:
                add(f"vector index {name}", partial(_vector_index, target, table, column, name, sql))
        elif column.kind in (Kind.VECTOR, Kind.HALF):
            why = "rows of many dimensions" if column.dim is None else f"{column.dim} dimensions"
            target.note(f"{table.name}.{column.name}: pgvector has no HNSW index for {why}; search is exact")
    for made in _gin_indexes(target, table):
        name, sql = standing.free(table, *made)
        if name not in standing.relations:
            add(f"index {name}", partial(_plain_index, target, table, name, sql))
    return found


def _gin_indexes(target: PostgresTarget, table: Table) -> list[tuple[str, str]]:
    """Return the indexes that a search by words and filters on JSON make use of: derived, and carried nowhere."""
    layout = target.options.layout
    kept = zip(table.columns, columns_here(table, target.options), strict=True)
    here = {c.name: (c, there) for c, there in kept if there is not None and there.codec != "bytea"}
    texts = [name for name in word_columns(table, layout.name if layout else "generic") if name in here]
    wanted = [ddl.words_index(table, texts, target.server)]
    wanted += [ddl.json_index(table, column, there, target.server) for column, there in here.values()]
    return [made for made in wanted if made is not None]


def _primary_key(target: PostgresTarget, table: Table, name: str, sql: str, progress: Progress) -> None:
    with target.transaction(f"build {name}", table=table.name) as db:
        if name in _constraints_of(db, target.server.schema, fitting(table.name)):
            return  # a commit whose answer was lost
        if target.again:
            # A row that moved in its source was copied once more by the resume. One copy
            # is enough here: the rows are compared with the source next.
            keys = [ident(fitting_column(k)) for k in table.key]
            same = " AND ".join(f"a.{k} = b.{k}" for k in keys)
            relation = target.at(fitting(table.name))
            db.execute(f"DELETE FROM {relation} a USING {relation} b WHERE {same} AND a.ctid > b.ctid")
        db.execute(sql)


def _foreign_key(target: PostgresTarget, table: Table, name: str, sql: str, progress: Progress) -> None:
    """Create a foreign key and validate it; where the source's own rows break it, it stays NOT VALID."""
    try:
        with target.transaction(f"build {name}", table=table.name) as db:
            if name not in _constraints_of(db, target.server.schema, fitting(table.name)):
                db.execute(sql)
    except BackendError as exc:
        state = getattr(exc.__cause__, "sqlstate", None)
        if isinstance(exc, TransientError) or state not in ("42830", "42804", "42703"):
            raise
        target.note(f"foreign key {name} of {table.name} was left out: {exc.message}")
        return
    try:
        with target.transaction(f"validate {name}", table=table.name) as db:
            db.execute(f"ALTER TABLE {target.at(fitting(table.name))} VALIDATE CONSTRAINT {ident(name)}")
    except BackendError as exc:
        if getattr(exc.__cause__, "sqlstate", None) != "23503":
            raise


def _constraints_of(db: psycopg.Connection[tuple[object, ...]], schema: str, table: str) -> set[str]:
    rows = db.execute(
        "SELECT k.conname::text FROM pg_catalog.pg_constraint k"
        " JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, table),
    )
    return {str(r[0]) for r in rows}


def _sequence(target: PostgresTarget, table: Table, column: Column, progress: Progress) -> None:
    """Let numbering go on after the largest number in use or ever given out."""
    relation, name = target.at(fitting(table.name)), ident(fitting_column(column.name))
    with target.transaction("set a sequence", table=table.name) as db:
        row = db.execute(
            placed(f"SELECT pg_catalog.pg_get_serial_sequence(?, ?), (SELECT max({name}) FROM {relation})"),
            (relation, fitting_column(column.name)),
        ).fetchone()
        if row is None or row[0] is None:
            return
        last = max((n for n in (row[1], table.sequence, *_aside(target, table, column)) if n), default=0)
        if last > 0:
            db.execute("SELECT pg_catalog.setval(%s::regclass, greatest(%s, 1), true)", (row[0], last))


def _aside(target: PostgresTarget, table: Table, column: Column) -> list[int]:
    """Return the numbers of rows that are kept aside whole: they are in use too."""
    sql = f'SELECT value FROM {target.at("memlift_exact")} WHERE "table" = ? AND "column" IS NULL'
    at = table.column_names.index(column.name)
    cells = (values.from_exact_row(bytes(value))[at] for (value,) in target.books.run(sql, (table.name,)))
    return [n for n in cells if type(n) is int and n <= INT64[1]]


def _plain_index(target: PostgresTarget, table: Table, name: str, sql: str, progress: Progress) -> None:
    try:
        with _watching(target, table, progress), target.transaction(f"build {name}", table=table.name) as db:
            db.execute(sql)
    except BackendError as exc:
        if getattr(exc.__cause__, "sqlstate", None) != "54000":
            raise
        target.note(f"index {name} was left out: a value of {table.name} is too long for it")


def _unique_constraint(target: PostgresTarget, table: Table, name: str, sql: str, progress: Progress) -> None:
    """Build a unique index and make it what a UNIQUE constraint stands on."""
    _plain_index(target, table, name, sql, progress)
    with target.transaction(f"build {name}", table=table.name) as db:
        here = target.server.schema, fitting(table.name)
        built = db.execute("SELECT to_regclass(%s)", (target.at(name),)).fetchone()
        if built != (None,) and name not in _constraints_of(db, *here):
            db.execute(
                f"ALTER TABLE {qualified(*here)} ADD CONSTRAINT {ident(name)} UNIQUE USING INDEX {ident(name)}"
            )


def _vector_index(
    target: PostgresTarget, table: Table, column: Column, name: str, sql: str, progress: Progress
) -> None:
    """Build an HNSW index with the memory it needs, and with the server's workers where they can be had."""
    with target.transaction("size the index", fenced=False) as db:
        row = db.execute(
            f"SELECT count({ident(fitting_column(column.name))}), pg_size_bytes(current_setting('maintenance_work_mem')),"
            " current_setting('max_parallel_workers')::int, current_setting('max_parallel_maintenance_workers')::int"
            f" FROM {target.at(fitting(table.name))}"
        ).fetchone()
    rows, memory, most_workers, workers = row or (0, _LEAST_MEMORY, 0, 0)
    half = 2 if (column.dim or 0) > ddl.MAX_HNSW_DIM or column.kind is Kind.HALF else 4
    need = int(rows * ((column.dim or 0) * half + _NODE_BYTES) * 1.1)
    memory = max(memory, min(max(need, _LEAST_MEMORY), _MOST_MEMORY))
    if target.options.workers > 1:
        workers = min(target.options.workers, most_workers)
    try:
        _hnsw(target, table, name, sql, progress, memory, workers)
    except BackendError as exc:
        # 53100, 58030: parallel builds share memory through /dev/shm, 64 MB in a plain container.
        if workers == 0 or getattr(exc.__cause__, "sqlstate", None) not in ("53100", "53200", "58030"):
            raise
        target.note(f"{name} was built without parallel workers: {exc.message}")
        _hnsw(target, table, name, sql, progress, memory, 0)


def _hnsw(
    target: PostgresTarget, table: Table, name: str, sql: str, progress: Progress, memory: int, workers: int
) -> None:
    with _watching(target, table, progress), target.transaction(f"build {name}", table=table.name) as db:
        db.execute(
            "SELECT set_config('maintenance_work_mem', %s, true),"
            " set_config('max_parallel_maintenance_workers', %s, true)",
            (f"{memory // 1024}kB", str(workers)),
        )
        db.execute(sql)


class _watching:  # noqa: N801 - a context manager, used like a function
    """Asks the server once a second how far an index build is, from a second connection."""

    def __init__(self, target: PostgresTarget, table: Table, progress: Progress) -> None:
        self._target, self._progress = target, progress
        self._relation = qualified(target.server.schema, fitting(table.name))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memlift index", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(timeout=30)

    def _watch(self) -> None:
        if self._done.wait(1.0):
            return  # most builds are over before it is worth a connection
        try:
            with translating("watch the index"), self._target.another_connection() as connection:
                while not self._done.wait(1.0):
                    row = connection.execute(
                        "SELECT CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,"
                        " CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END"
                        " FROM pg_catalog.pg_stat_progress_create_index WHERE relid = %s::regclass",
                        (self._relation,),
                    ).fetchone()
                    if row is not None and row[1]:
                        self._progress(min(int(row[0]), int(row[1])), int(row[1]))
        except (BackendError, psycopg.Error) as exc:
            self._target.say(f"the progress of the index cannot be watched: {exc}")
