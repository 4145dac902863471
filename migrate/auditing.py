"""Reading one table whole before anything is written: sizes, and every cell that does not fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from migrate import values
from migrate.backends.base import Fit, Source
from migrate.batch import Row
from migrate.failpoints import hit
from migrate.fit import Found, size_of
from migrate.report import LISTED, Observer
from migrate.schema import VECTOR_KINDS, Kind, Table

# The audit weighs every row of the first batches and one batch in eight of the rest:
# weighing each would take a tenth of the time that reading it takes.
_WEIGHED_WHOLE, _WEIGHED_ONE_IN = 16, 8


def audit(
    source: Source,
    table: Table,
    fit: Fit,
    *,
    size: int,
    check_stop: Callable[[], None],
    observer: Observer,
) -> dict[str, Any]:
    """Read a table and return what `TableReport` says of it.

    size: rows a batch. check_stop: raises where the run is to end.
    """
    started = time.monotonic()
    total = source.count(table)
    rows = weight = misfits = weighed = zero = 0
    listed: list[dict[str, Any]] = [{"key": None, "column": None, "reason": p} for p in fit.problems]
    dense = [(i, c) for i, c in enumerate(table.columns) if c.kind is Kind.VECTOR and c.dim]
    observer.step("audit", table.name, 0, total)
    numbers = count()
    for batch in source.batches(table, size=size):  # not by enumerate(), which holds on to the batch
        number = next(numbers)
        check_stop()
        hit("audit.batch")
        columns = list(zip(*batch.rows, strict=True))
        for found in fit.check(columns):
            if not found.harmless:
                misfits += 1
                if len(listed) < LISTED:
                    listed.append(_misfit(table, batch.rows[found.row], found))
        zero += sum(columns[i].count(bytes(4 * (c.dim or 0))) for i, c in dense)
        rows += len(batch.rows)
        if number < _WEIGHED_WHOLE or number % _WEIGHED_ONE_IN == 0:
            weight += size_of(columns)
            weighed += len(batch.rows)
        observer.step("audit", table.name, rows, total)
        del batch, columns  # their memory serves the next batch
    notes = list(fit.notes)
    if zero:
        notes.append(f"{zero} all-zero vectors: a cosine index cannot find them")
    return {
        "kind": table.role,
        "rows_source": rows,
        "bytes": round(weight * rows / weighed) if weighed else 0,
        "vector": _vector(table),
        "key": table.key,
        "types": dict(fit.types),
        "audit_s": time.monotonic() - started,
        "misfits": {"cells": misfits + len(fit.problems), "shown": listed},
        "notes": tuple(notes),
    }


def _misfit(table: Table, row: Row, found: Found) -> dict[str, Any]:
    at = table.key_positions
    return {
        "key": values.key_text([row[i] for i in at]) if at else None,
        "column": None if found.column is None else table.columns[found.column].name,
        "reason": found.reason,
    }


def _vector(table: Table) -> dict[str, Any] | None:
    for column in table.columns:
        if column.kind in VECTOR_KINDS:
            return {"column": column.name, "dim": column.dim, "metric": column.metric}
    return None
