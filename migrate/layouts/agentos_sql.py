"""The statements by which AgentOS makes its tables in SQLite, written from the facts in `agentos_schema`."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.layouts.agentos_schema import match
from migrate.schema import Column, ForeignKey, Index, Kind, Table

# Its rows are found by the rowids of `memory_traces`, which a copy may change,
# so the index is made again and never copied.
FTS = "memory_traces_fts"
_CREATE_FTS = (
    f"CREATE VIRTUAL TABLE IF NOT EXISTS {FTS} USING fts5(content, tags, "
    "content='memory_traces', content_rowid='rowid', tokenize='porter ascii')"
)
_REBUILD_FTS = f"INSERT INTO {FTS}({FTS}) VALUES('rebuild')"


def create_table(table: Table) -> str | None:
    """Return the framework's CREATE TABLE for a table that a layout has read, or None where it is not fit.

    A table with other columns, types or keys is made from its own description,
    so that nothing of it is lost or changed. Foreign keys are those that the
    table has: a parent that stays behind is not referred to.
    """
    model = as_made(table)
    if model is None:
        return None
    lines = [_column(c, model) for c in model.columns]
    if len(model.key) > 1:
        lines.append(f"PRIMARY KEY ({', '.join(model.key)})")
    given = {(f.columns, f.parent, f.parent_columns) for f in table.foreign_keys}
    lines += [_link(f) for f in model.foreign_keys if (f.columns, f.parent, f.parent_columns) in given]
    body = ",\n  ".join(lines)
    return f"CREATE TABLE IF NOT EXISTS {table.name} (\n  {body}\n)"


def as_made(table: Table) -> Table | None:
    """Return the framework's own description of a table, or None where the two differ in what rows they take."""
    found = match(table)
    if found is None or table.role != found.model.role or table.key != found.model.key:
        return None
    if len(table.columns) != len(found.model.columns):
        return None
    takes = all(_takes(c, table.column(c.name), table.dialect) for c in found.model.columns)
    return found.model if takes else None


def _takes(model: Column, column: Column, dialect: str) -> bool:
    """Whether a framework's column keeps every cell of a given one as it is.

    An INTEGER column of SQLite makes a number of the text '12', and a REAL one
    makes 1.0 of 1, so the types have to be alike.
    """
    if column.nullable and not model.nullable and not model.identity:
        return False
    if model.declared == "BLOB":  # changes nothing that is put into it
        return True
    if dialect == "sqlite":
        return column.declared.upper() == model.declared
    return column.kind is model.kind or (model.kind is Kind.JSON and column.kind is Kind.TEXT)


def after(tables: Sequence[Table]) -> list[str]:
    """Return the framework's indexes, and the full-text index over the traces. Idempotent."""
    statements = []
    for table in tables:
        model = as_made(table)
        if model is not None:
            statements += [_create_index(table.name, index) for index in model.indexes]
            if table.name == "memory_traces":
                statements += [_CREATE_FTS, _REBUILD_FTS]
    return statements


def _column(column: Column, model: Table) -> str:
    words = [column.name, column.declared]
    if model.key == (column.name,):
        words.append("PRIMARY KEY AUTOINCREMENT" if column.identity else "PRIMARY KEY")
    elif not column.nullable:
        words.append("NOT NULL")
    if column.default is not None:
        words.append(f"DEFAULT {column.default}")
    return " ".join(words)


def _link(link: ForeignKey) -> str:
    own, parent = ", ".join(link.columns), ", ".join(link.parent_columns)
    return f"FOREIGN KEY ({own}) REFERENCES {link.parent}({parent})"


def _create_index(table: str, index: Index) -> str:
    parts = ", ".join(f"{p.column} DESC" if p.descending else p.column for p in index.parts)
    return f"CREATE INDEX IF NOT EXISTS {index.name} ON {table} ({parts})"
