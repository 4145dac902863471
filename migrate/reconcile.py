"""Mending a table by what a comparison found: a second pass over the rows that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from migrate import values
from migrate.backends.base import Source, Target
from migrate.batch import BATCH_BYTES, ExactCell, Row
from migrate.failpoints import hit
from migrate.fit import Fit, size_of
from migrate.schema import Kind, Table
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
    progress: Callable[[int], None] = lambda written: None,
) -> tuple[int, int]:
    """Add the rows that are missing and, where asked, change and remove others.

    progress: called with the rows written so far, after each commit.

    Returns (rows written, exact values kept). Deletes come first, so that a
    value that moved from one row to another meets no unique index.
    """

    def amend(rows: Sequence[Row] = (), exact: Sequence[ExactCell] = (), **more: Any) -> None:
        hit("mend.before_amend")
        retrying(partial(target.amend, table, rows, exact, **{"replace": False, **more}))
        hit("mend.after_amend")

    if remove and marked.remove.total:
        _remove(amend, table, marked, size, open_reader)
    if not marked.add.total and not (change and marked.change.total):
        return 0, 0
    written = quarantined = 0
    waiting: list[Row] = []

    def flush(replace: bool) -> None:
        nonlocal written, quarantined, waiting
        rows, waiting = waiting, []
        if not rows:
            return
        found = fit.check(list(zip(*rows, strict=True)))
        kept, exact = fit.split(rows, found) if found else (rows, [])
        amend(kept, exact, replace=replace)
        written, quarantined = written + len(rows), quarantined + len(exact)
        progress(written)

    # Changes come first: one of them may free the value of a UNIQUE column that an added row has.
    for replace, wanted in ((True, marked.change), (False, marked.add)):
        if not wanted.total or (replace and not change):
            continue
        weight = 0
        for batch in source.batches(table, size=size):
            taken = [row for row in batch.rows if wanted.take(values.match_key(table, row))]
            waiting += taken
            weight += size_of(list(zip(*taken, strict=True)))
            if len(waiting) >= _AT_ONCE or weight >= BATCH_BYTES:
                flush(replace)
                weight = 0
        flush(replace)
    return written, quarantined


def _remove(
    amend: Callable[..., None],
    table: Table,
    marked: Marked,
    size: int,
    open_reader: Callable[[], Source],
) -> None:
    keys: list[Row] = []
    spelled = any(table.columns[i].kind is Kind.JSON for i in table.key_positions)
    unnamed = False
    for key in marked.remove.each():
        if spelled or key.startswith(b"\0"):
            unnamed = True
            continue
        keys.append(values.from_exact_row(key))
        if len(keys) >= _AT_ONCE:
            amend(removed=keys)
            keys = []
    if keys:
        amend(removed=keys)
        keys = []
    if not unnamed:
        return
    # A row without a key is named by its digest, and JSON in a key by its value, however it is
    # spelled there; the target is read again to find the cells.
    reader = open_reader()
    try:
        there = {t.name: t for t in reader.tables()}[table.name]
        pick = [there.column_names.index(n) for n in table.column_names]
        surplus: list[Row] = []
        for batch in reader.batches(there, size=size):
            for row in batch.rows:
                picked = tuple(row[i] for i in pick)
                key = values.match_key(table, picked)
                if not (spelled or key.startswith(b"\0")) or not marked.remove.take(key):
                    continue
                if key.startswith(b"\0"):
                    surplus.append(picked)
                else:
                    keys.append(tuple(picked[i] for i in table.key_positions))
    finally:
        reader.close()
    for i in range(0, len(keys), _AT_ONCE):
        amend(removed=keys[i : i + _AT_ONCE])
    for i in range(0, len(surplus), _AT_ONCE):
        amend(removed_rows=surplus[i : i + _AT_ONCE])
