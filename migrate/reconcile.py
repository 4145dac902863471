"""Mending a table by what a comparison found: a second pass over the rows that differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from migrate import values
from migrate.backends.base import Source, Target
from migrate.batch import ExactCell, Row
from migrate.failpoints import hit
from migrate.fit import Fit
from migrate.schema import Table
from migrate.verify import Marked

_AT_ONCE = 500  # rows amended in one transaction


def mend(
    source: Source,
    target: Target,
    table: Table,
    fit: Fit,
    marked: Marked,
    *,
    size: int,
    change: bool,
    remove: bool,
    open_reader: Callable[[], Source],
    retrying: Callable[[Callable[[], Any]], Any],
) -> tuple[int, int]:
    """Add the rows that are missing and, where asked, change and remove others.

    Returns (rows written, exact values kept). Deletes come first, so that a
    value that moved from one row to another meets no unique index.
    """

    def amend(rows: list[Row], exact: list[ExactCell], removed: list[Row]) -> None:
        hit("mend.before_amend")
        retrying(partial(target.amend, table, rows, exact, removed))
        hit("mend.after_amend")

    if remove and marked.remove.total:
        _remove(amend, table, marked, size, open_reader)
    if not marked.add.total and not (change and marked.change.total):
        return 0, 0
    written = quarantined = 0
    rows: list[Row] = []

    def flush() -> None:
        nonlocal written, quarantined, rows
        if not rows:
            return
        found = fit.check(list(zip(*rows, strict=True)))
        kept, exact = fit.split(rows, found) if found else (rows, [])
        amend(kept, exact, [])
        written, quarantined, rows = written + len(rows), quarantined + len(exact), []

    for batch in source.batches(table, size=size):
        for row in batch.rows:
            key = _key(table, row)
            if marked.add.take(key) or (change and marked.change.take(key)):
                rows.append(row)
        if len(rows) >= _AT_ONCE:
            flush()
    flush()
    return written, quarantined


def _key(table: Table, row: Row) -> bytes:
    if table.key:
        return values.row_key(table, row)
    return values.row_digest([c.kind for c in table.columns], row)


def _remove(
    amend: Callable[[list[Row], list[ExactCell], list[Row]], None],
    table: Table,
    marked: Marked,
    size: int,
    open_reader: Callable[[], Source],
) -> None:
    none: list[ExactCell] = []
    if table.key:
        keys: list[Row] = []
        for key in marked.remove.each():
            keys.append(values.from_exact_row(key))
            if len(keys) >= _AT_ONCE:
                amend([], none, keys)
                keys = []
        if keys:
            amend([], none, keys)
        return
    # Without a key a row is named by its digest; the target is read again to find its cells.
    reader = open_reader()
    try:
        there = {t.name: t for t in reader.tables()}[table.name]
        pick = [there.column_names.index(n) for n in table.column_names]
        surplus: list[Row] = []
        for batch in reader.batches(there, size=size):
            for row in batch.rows:
                picked = tuple(row[i] for i in pick)
                if marked.remove.take(_key(table, picked)):
                    surplus.append(picked)
    finally:
        reader.close()
    for i in range(0, len(surplus), _AT_ONCE):
        part = surplus[i : i + _AT_ONCE]
        amend([], none, part)
