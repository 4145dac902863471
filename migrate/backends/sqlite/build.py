"""What is better built after the rows: a layout's own statements, indexes, sequences, HNSW sidecars."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from migrate.backends.base import Phase, Step
from migrate.backends.sqlite import ddl
from migrate.schema import Table

if TYPE_CHECKING:
    from migrate.backends.sqlite.target import SqliteTarget

Progress = Callable[[int, int], None]


def steps(target: SqliteTarget, tables: Sequence[Table]) -> list[Step]:
    """Return what is to be built, but for sidecars. Primary keys are part of a table from the start in SQLite."""
    layout = target.options.layout
    found: list[Step] = []
    if layout is not None:
        found += (
            Step(_named(sql, tables), _title(sql), Phase.INDEX, partial(_statement, target, sql))
            for sql in layout.sqlite_after(tables)
        )
    adopted = target.books.adopted()
    for table in tables:
        if table.name in adopted:
            continue
        for index in table.indexes:  # those that the layout has made by now are left as they are
            sql = ddl.create_index(table, index)
            if sql is not None:
                run = partial(_statement, target, sql)
                found.append(Step(table.name, f"index {index.name}", Phase.INDEX, run))
        if table.sequence is not None:
            found.append(Step(table.name, "sequence", Phase.LINK, partial(_sequence, target, table)))
    return found


def _statement(target: SqliteTarget, sql: str, progress: Progress) -> None:
    with target.transaction("build an index") as db:
        db.execute(sql)
    progress(1, 1)


def _sequence(target: SqliteTarget, table: Table, progress: Progress) -> None:
    """Have AUTOINCREMENT go on after the largest number that the source has given."""
    with target.transaction("set a sequence", table=table.name) as db:
        found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).fetchone()
        if found is None:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, table.sequence))
        elif table.sequence is not None and found[0] < table.sequence:
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (table.sequence, table.name))
    progress(1, 1)


def _named(statement: str, tables: Sequence[Table]) -> str:
    """Return the table that a layout's statement is about, so that its time is counted there."""
    words = set(re.findall(r"\w+", statement))
    return next((t.name for t in tables if t.name in words), tables[0].name if tables else "")


def _title(statement: str) -> str:
    words = statement.split()
    return " ".join(words[:2]).lower() + "".join(f" {w}" for w in words[2:8] if w.strip('"').islower())
