"""What a target must have before a run writes to it: rights, pgvector, columns that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from migrate.backends.base import Options
from migrate.backends.postgres.connect import Connection, Server, qualified
from migrate.backends.postgres.names import fitting, fitting_column, ident
from migrate.backends.postgres.native import parted
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
    newer = any(c.kind in (Kind.HALF, Kind.SPARSE) for t in tables for c in t.columns)
    if newer and server.vector_schema is not None and server.vector_version < (0, 7):
        raise ConfigError(
            f"pgvector {'.'.join(map(str, server.vector_version))} has no halfvec and sparsevec",
            hint="ALTER EXTENSION vector UPDATE, after installing 0.7 or newer",
        )
    if server.vector_schema is not None and server.vector_version < (0, 5):
        raise ConfigError(
            f"pgvector {'.'.join(map(str, server.vector_version))} has no HNSW index",
            hint="ALTER EXTENSION vector UPDATE, after installing 0.5 or newer",
        )


# Types that only an extension brings, where its name is not theirs.
_BRINGS = {
    **dict.fromkeys(("geometry", "geography", "box2d", "box3d"), "postgis"),
    **dict.fromkeys(("lquery", "ltxtquery"), "ltree"),
    **dict.fromkeys(("isbn", "isbn13", "issn", "issn13", "ismn", "upc", "ean13"), "isn"),
}


def check_types(db: Connection, tables: Sequence[Table], options: Options) -> None:
    """Raise ConfigError for a column whose type the server does not have, with what to run."""
    wanted: dict[str, str] = {}
    for table in tables:
        for column, here in zip(table.columns, columns_here(table, options), strict=True):
            if here is not None and here.codec == "native" and not column.labels:
                wanted.setdefault(parted(here.type)[0], f"{table.name}.{column.name}")
    found = db.execute(
        "SELECT w.name, (SELECT current_database()) FROM unnest(%s::text[]) w (name) WHERE to_regtype(w.name) IS NULL",
        (list(wanted),),
    ).fetchall()
    for kind, database in found:
        bare = kind.removesuffix("[]").rpartition(".")[2].strip('"')
        extension = _BRINGS.get(bare, bare)
        there = db.execute(
            "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = %s", (extension,)
        ).fetchone()
        place = wanted[kind]
        leave = f"--exclude {place.rpartition('.')[0]} leaves the table out"
        schema = kind.rpartition(".")[0]
        create = (
            f"`CREATE EXTENSION {extension}{f' SCHEMA {schema}' if schema else ''}` in database {database}"
        )
        raise ConfigError(
            f"the server has no type {kind}, which {place} needs",
            hint=f"run {create} as a role that may; {leave}"
            if there
            else f"install what brings it (an extension {extension}?) on the server, then run {create}; {leave}",
        )


def check_names(db: Connection, schema: str, tables: Sequence[Table]) -> None:
    """Raise SchemaError where a planned name is taken by something that is no table."""
    row = db.execute(
        "SELECT c.relname::text, CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'index' END,"
        " coalesce((SELECT t.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class t"
        "   ON t.oid = i.indrelid WHERE i.indexrelid = c.oid), (SELECT t.relname::text FROM pg_catalog.pg_depend d"
        "   JOIN pg_catalog.pg_class t ON t.oid = d.refobjid WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass"
        "   AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1))"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('S', 'i', 'I', 'c') AND c.relname = ANY(%s) ORDER BY 1",
        (schema, [fitting(t.name) for t in tables]),
    ).fetchone()
    if row is None:
        return
    name, what, owner = row
    rename = f"ALTER {what.upper()} {qualified(schema, name)} RENAME TO {ident(fitting(name + '_'))}"
    raise SchemaError(
        f"the table {name!r} cannot be made: its name is that of {'an' if what == 'index' else 'a'} {what}"
        + (f" of {owner!r}" if owner else ""),
        hint=f"{rename}; or migrate into another schema (?schema=...), or leave it out with --exclude",
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
