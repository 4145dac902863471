"""What a target must have before a run writes to it: rights, pgvector, columns that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from migrate.backends.base import Options
from migrate.backends.postgres.connect import Connection, Server
from migrate.backends.postgres.names import fitting_column
from migrate.backends.postgres.types import columns_here
from migrate.errors import ConfigError, SchemaError
from migrate.schema import VECTOR_KINDS, Kind, Table


def check_rights(db: Connection, server: Server, tables: Sequence[Table]) -> None:
    """Raise ConfigError for what the role may not do, or the server cannot, with what to run."""
    row = db.execute(
        "SELECT has_database_privilege(current_database(), 'CREATE'), current_user,"
        " current_database(), pg_catalog.pg_is_in_recovery(),"
        " (SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace n WHERE n.nspname = %s)",
        (server.schema,),
    ).fetchone()
    if row is None:
        return
    may_create, role, database, standby, may_use = row
    if standby:
        raise ConfigError("the server is a read-only standby", hint="use the address of the primary")
    if server.schema_exists and not may_use:
        raise ConfigError(
            f"the role {role} may not create tables in schema {server.schema}",
            hint=f'GRANT USAGE, CREATE ON SCHEMA "{server.schema}" TO "{role}"',
        )
    if not server.schema_exists and not may_create:
        raise ConfigError(
            f"the role {role} may not create the schema {server.schema}",
            hint=f'CREATE SCHEMA "{server.schema}" AUTHORIZATION "{role}", as a role that may',
        )
    if not any(c.kind in VECTOR_KINDS for t in tables for c in t.columns):
        return
    if server.vector_schema is None and server.vector_available is None:
        raise ConfigError(
            "the server has no pgvector",
            hint="install the pgvector package on the server, or use an image that has it (memlift up postgres)",
        )
    if server.vector_schema is None and not may_create:
        raise ConfigError(
            f"pgvector is not created in database {database}, and the role {role} may not do so",
            hint=f"run `CREATE EXTENSION vector` in database {database} as a role that may",
        )
    if server.vector_schema is not None and server.vector_version < (0, 5):
        raise ConfigError(
            f"pgvector {'.'.join(map(str, server.vector_version))} has no HNSW index",
            hint="ALTER EXTENSION vector UPDATE, after installing 0.5 or newer",
        )


def check_json(
    db: Connection,
    schema: str,
    tables: Sequence[Table],
    made: Mapping[str, tuple[str, Table]],
    options: Options,
) -> None:
    """Refuse to write JSON in one form into a table that keeps it in the other. Raises SchemaError.

    tables: those of a plan. made: what memlift made here (`Books.made`).
    """
    types = {
        (table, column): kind
        for table, column, kind in db.execute(
            "SELECT c.relname::text, a.attname::text, t.typname::text FROM pg_catalog.pg_attribute a"
            " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s"
            " AND a.attnum > 0 AND NOT a.attisdropped AND t.typname IN ('json', 'jsonb', 'text')",
            (schema,),
        )
    }
    for name in (t.name for t in tables if t.name in made):
        target, table = made[name]
        for column, here in zip(table.columns, columns_here(table, options), strict=True):
            if column.kind is not Kind.JSON or here is None:
                continue
            wanted = here.type.split(" COLLATE ")[0]
            found = types.get((target, here.name), wanted)
            if found != wanted:
                raise SchemaError(
                    f"the earlier migration keeps {name}.{column.name} as {found}, not as {wanted}",
                    hint=f"--json-columns {'text' if found == 'text' else 'jsonb'}, or migrate into another schema",
                )


def check_columns(db: Connection, place: str, name: str, table: Table, options: Options) -> None:
    """Refuse an existing table whose columns cannot take ours, or that has no key to match rows by.

    place: its qualified, quoted name. Raises SchemaError.
    """
    here: dict[str, str] = dict(
        db.execute(
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)"
            " FROM pg_catalog.pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0"
            " AND NOT a.attisdropped",
            (place,),
        ).fetchall()
    )
    for column in columns_here(table, options):
        if column is None:
            continue
        wanted, found = column.type.split(" COLLATE ")[0], here.get(column.name)
        if found is None or found.rpartition(".")[2] != wanted:
            raise SchemaError(
                f"the column {column.name!r} of the existing table {name!r} is {found or 'missing'}, not {wanted}",
                hint="migrate into another schema (?schema=...)",
            )
    key = db.execute(
        "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) u (n) JOIN pg_catalog.pg_attribute a"
        " ON a.attrelid = i.indrelid AND a.attnum = u.n) FROM pg_catalog.pg_index i"
        " WHERE i.indrelid = %s::regclass AND i.indisprimary",
        (place,),
    ).fetchone()
    if set(key[0] if key else ()) != {fitting_column(k) for k in table.key}:
        raise SchemaError(
            f"the existing table {name!r} has another primary key than {table.key}",
            hint="migrate into another schema (?schema=...)",
        )
