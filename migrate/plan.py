"""What a run is going to do, as data: fixed before the first row, stored with the progress."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrate.errors import CheckpointError, SchemaError
from migrate.schema import Column, NotCarried, Table


@dataclass(frozen=True, slots=True)
class Plan:
    """Tables in the order in which they are written, and what shapes them.

    source, target: addresses without secrets.
    json:           how JSON columns are kept (`Options.json`).
    """

    source: str
    target: str
    layout: str
    json: str
    tables: tuple[Table, ...]
    not_carried: tuple[NotCarried, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return a hash of all that must not change between a run and its resume."""
        shape = {
            "source": self.source,
            "json": self.json,
            "tables": [replace(t, sequence=None).to_dict() for t in self.tables],
        }
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; what a target stores beside the positions."""
        return {
            "version": 1,
            "source": self.source,
            "layout": self.layout,
            "json": self.json,
            "fingerprint": self.fingerprint,
            "tables": [t.to_dict() for t in self.tables],
        }

    def check_resumes(self, stored: dict[str, Any]) -> None:
        """Raise CheckpointError where an unfinished run's plan is not this one."""
        if stored.get("fingerprint") == self.fingerprint:
            return
        mine, theirs = [t.name for t in self.tables], [t["name"] for t in stored.get("tables", [])]
        if stored.get("source") != self.source:
            why = f"it reads {stored.get('source')}, this one {self.source}"
        elif set(mine) != set(theirs):
            why = f"its tables differ: {', '.join(sorted(set(mine) ^ set(theirs))[:5])}"
        elif stored.get("json") != self.json:
            why = f"it keeps JSON as {stored.get('json')}"
        else:
            why = "a table's columns or keys have changed since"
        raise CheckpointError(
            f"an unfinished run with another plan is in this target ({why})",
            hint="finish that run with its own command, or start over with --restart",
        )


def table_same_as(table: Table, made: Table | None) -> None:
    """Raise SchemaError where a table no longer is what an earlier migration made of it."""
    if made is not None and (table.column_names, table.key) != (made.column_names, made.key):
        raise SchemaError(
            f"the columns or the key of {table.name!r} are not those of the earlier migration",
            hint="migrate into another schema or file, or `memlift undo` the earlier one first",
        )


def as_made(table: Table, made: Table | None) -> tuple[Table, list[str]]:
    """Return a table with the columns that an earlier migration gave it, and what differs from what they are now.

    A column's kind is told by its values where its declaration binds nothing, so it can change as a store
    grows: a table without rows has no vectors yet. What stands in the target does not change with it.
    """
    if made is None or (table.column_names, table.key) != (made.column_names, made.key):
        return table, []
    notes = [
        f"{table.name}.{now.name}: stays {_shape(then)}, as the earlier migration made it, and not {_shape(now)};"
        " a migration into another place, or after `memlift undo`, takes it anew"
        for now, then in zip(table.columns, made.columns, strict=True)
        if (now.kind, now.dim) != (then.kind, then.dim)
    ]
    held = replace(
        table,
        columns=made.columns,
        dialect=made.dialect,
        strict=made.strict,
        without_rowid=made.without_rowid,
    )
    if table.dialect != made.dialect:
        held = replace(held, indexes=made.indexes, foreign_keys=made.foreign_keys)
    return held, notes


def _shape(column: Column) -> str:
    return f"{column.kind}({column.dim})" if column.dim else str(column.kind)


def choose(tables: Sequence[Table], only: Sequence[str] | None, exclude: Sequence[str]) -> list[Table]:
    """Return the tables that were asked for, in their order. Raises SchemaError for a name that is not there."""
    names = {t.name for t in tables}
    for name in [*(only or ()), *exclude]:
        if name not in names:
            raise SchemaError(f"the source has no table {name!r}", hint=f"tables: {', '.join(sorted(names))}")
    return [t for t in tables if (only is None or t.name in only) and t.name not in exclude]
