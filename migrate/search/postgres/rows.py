"""Rows of Postgres read by where they lie, as the source's cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from migrate.backends.base import Options
from migrate.backends.postgres.types import fit
from migrate.backends.postgres.wire import iso_utc
from migrate.backends.sqlbooks import Books, restore
from migrate.batch import Row
from migrate.fit import whole
from migrate.schema import VECTOR_KINDS, Column, Kind, Table, affinity
from migrate.search import cells
from migrate.search.base import Vector
from migrate.search.postgres.catalog import Relation
from migrate.search.postgres.queries import column_list
from migrate.search.postgres.where import ALIAS, PGVECTOR, Held

Run = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Runs a statement with `$n` marks and reads its rows in binary form."""
Place = tuple[int, str]  # relation, ctid


def read_rows(
    run: Run, relation: Relation, table: Table, places: Sequence[Place], books: Books | None
) -> dict[Place, dict[str, Any]]:
    """Return the rows at some places, {column: cell}.

    table: with the wanted columns, the key's among them. books: where exact cells are, None where none are.
    """
    wanted = [(c, relation.columns[c.name]) for c in table.columns if c.name in relation.columns]
    held = [there for _, there in wanted]
    columns = ", ".join(
        [f"{ALIAS}.tableoid::int8", f"{ALIAS}.ctid::text", *([column_list(held)] if held else [])]
    )
    found = run(
        f"SELECT {columns} FROM {relation.at} {ALIAS} WHERE {ALIAS}.ctid = ANY($1::tid[])",
        [sorted({ctid for _, ctid in places})],
    )
    asked = set(places)
    at = [(row[0], row[1]) for row in found if (row[0], row[1]) in asked]
    narrow = table.with_columns(tuple(c for c, _ in wanted))
    rows = [decoded(narrow, held, row[2:]) for row in found if (row[0], row[1]) in asked]
    if books is not None and table.key:
        rows = restore(narrow, rows, lambda keys: _exact(books, table.name, keys), _stands_for(narrow))
    return {
        place: dict(zip(narrow.column_names, row, strict=True)) for place, row in zip(at, rows, strict=True)
    }


def _stands_for(table: Table) -> Callable[[int, Any, Any], bool]:
    """Return `Fit.stands_for`; vectors, which are still in pgvector's binary form here, are not looked at."""
    looked_at = fit(table, Options()).stands_for
    kinds = [c.kind for c in table.columns]
    return lambda at, exact, present: kinds[at] in VECTOR_KINDS or looked_at(at, exact, present)


def _exact(books: Books, table: str, keys: list[bytes]) -> list[tuple[bytes, str, bytes]]:
    marks = ", ".join("?" * len(keys))
    sql = (
        f'SELECT key, "column", value FROM {books.at("memlift_exact")} WHERE "table" = ?'
        f' AND "column" IS NOT NULL AND key IN ({marks})'
    )
    return [(bytes(k), str(c), bytes(v)) for k, c, v in books.run(sql, (table, *keys))]


def decoded(table: Table, held: Sequence[Held], row: Sequence[Any]) -> Row:
    """Return a row as the source gives it."""
    out = list(row)
    for i, (column, there) in enumerate(zip(table.columns, held, strict=True)):
        cell = out[i]
        if cell is None:
            continue
        if there.codec == "timestamptz":
            out[i] = iso_utc(cell)
        elif isinstance(cell, float) and _may_be_whole(table, column.kind, column.declared) and whole(cell):
            out[i] = int(cell)
    return tuple(out)


def _may_be_whole(table: Table, kind: Kind, declared: str) -> bool:
    return kind is Kind.REAL and table.dialect == "sqlite" and affinity(declared) == "NUMERIC"


def vector(column: Column, there: Held, cell: Any) -> Vector | None:
    """Return a vector cell, (dim,) float32; pgvector's binary form is int16 dim, int16 zero, big-endian numbers."""
    if cell is None or there.type not in PGVECTOR:
        return cells.vector(column, cell)
    return np.frombuffer(cell, ">f2" if there.type == "halfvec" else ">f4", offset=4).astype(np.float32)
