"""The statements by which AgentOS makes its tables in SQLite, written from the facts in `agentos_schema`."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.layouts.agentos_schema import match
from migrate.schema import Column, ForeignKey, Index, Table

# Its rows are found by the rowids of `memory_traces`, which a copy may change,
# so the index is made again and never copied.
FTS = "memory_traces_fts"
_CREATE_FTS = (
    f"CREATE VIRTUAL TABLE IF NOT EXISTS {FTS} USING fts5(content, tags, "
    "content='memory_traces', content_rowid='rowid', tokenize='porter ascii')"
)
_REBUILD_FTS = f"INSERT INTO {FTS}({FTS}) VALUES('rebuild')"


def create_table(table: Table) -> str | None:
    """Return the framework's CREATE TABLE for a table, or None where it is not quite the framework's.

    A table with other columns or another key is made from its own description,
    so that nothing of it is lost. Foreign keys are those that the table has: a
    parent that stays behind is not referred to.
    """
    model = match_exactly(table)
    if model is None:
        return None
    lines = [_column(c, model) for c in model.columns]
    if len(model.key) > 1:
        lines.append(f"PRIMARY KEY ({', '.join(model.key)})")
    given = {(f.columns, f.parent, f.parent_columns) for f in table.foreign_keys}
    lines += [_link(f) for f in model.foreign_keys if (f.columns, f.parent, f.parent_columns) in given]
    body = ",\n  ".join(lines)
    return f"CREATE TABLE IF NOT EXISTS {table.name} (\n  {body}\n)"


def match_exactly(table: Table) -> Table | None:
    """Return the framework's table of the same columns and key, or None."""
    found = match(table)
    if found is None or table.key != found.model.key:
        return None
    return found.model if len(table.columns) == len(found.model.columns) else None


def after(tables: Sequence[Table]) -> list[str]:
    """Return the framework's indexes and the full-text index over the traces. Idempotent."""
    statements = []
    for table in tables:
        found = match(table)
        if found is None:
            continue
        statements += [_create_index(table.name, index) for index in found.model.indexes]
        if table.name == "memory_traces" and not table.without_rowid:
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
