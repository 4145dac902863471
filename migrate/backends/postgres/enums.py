"""Enum types that a table's columns need: made with it, dropped with the last of it."""

from __future__ import annotations

import contextlib

import psycopg

from migrate.backends.postgres import ddl
from migrate.backends.postgres.connect import Connection, qualified
from migrate.backends.postgres.names import MADE, fitting, literal
from migrate.errors import SchemaError
from migrate.schema import Table


def create(db: Connection, schema: str, table: Table) -> None:
    """Create the enum types of a table that are not there. Raises SchemaError for one of that name without a label."""
    for column in table.columns:
        if not column.labels:
            continue
        name = fitting(ddl.enum_name(column))
        found = db.execute(
            "SELECT ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)"
            " FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace"
            " WHERE n.nspname = %s AND t.typname = %s",
            (schema, name),
        ).fetchone()
        if found is None:
            labels = ", ".join(map(literal, column.labels))
            db.execute(f"CREATE TYPE {qualified(schema, name)} AS ENUM ({labels})")
            db.execute(f"COMMENT ON TYPE {qualified(schema, name)} IS {literal(MADE)}")
        elif not set(column.labels) <= set(found[0]):
            raise SchemaError(
                f"there is a type {name!r} already, without the label"
                f" {min(set(column.labels) - set(found[0]))!r} that {table.name}.{column.name} needs",
                hint="migrate into another schema (?schema=...)",
            )


def drop(db: Connection, schema: str, tables: list[Table]) -> None:
    """Drop the types of tables that we made, but those that a table of others has come to use."""
    for name in {fitting(ddl.enum_name(c)) for table in tables for c in table.columns if c.labels}:
        kind = qualified(schema, name)
        row = db.execute("SELECT pg_catalog.obj_description(to_regtype(%s), 'pg_type')", (kind,)).fetchone()
        if row == (MADE,):
            with contextlib.suppress(psycopg.errors.DependentObjectsStillExist), db.transaction():
                db.execute(f"DROP TYPE {kind}")
