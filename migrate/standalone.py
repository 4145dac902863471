"""Comparing two stores that already hold their rows: `memlift verify`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from migrate.backends.base import Metered, Source
from migrate.collector import patient
from migrate.layouts.base import Layout, Reading, Wishes
from migrate.report import Observer, Progress, Report
from migrate.sampling import compare_sample
from migrate.verify import compare, compare_counts

Understand = Callable[[Source, Wishes], tuple[Layout, Reading]]


def compare_stores(
    left: Source, right: Source, understand: Understand, mode: str, observer: Observer
) -> Report:
    """Compare every table of the left store with its namesake on the right.

    Tables that only one side has are errors of the report.
    """
    started = time.monotonic()
    _, mine = understand(left, Wishes())
    theirs = {t.name: t for t in understand(right, Wishes())[1].tables}
    progress = Progress(left.describe(), right.describe(), mode, dry_run=False)
    progress.set(layout=mine.layout)
    errors = []
    for table in mine.tables:
        progress.table(table.name, kind=table.role, key=table.key)
        there = theirs.pop(table.name, None)
        if there is None:
            n = left.count(table)
            errors.append(f"table {table.name!r} ({n} rows) is not in the target")
            gone = {"missing": n, "extra": 0, "different": 0, "shown": []}
            progress.table(table.name, rows_source=n, differences=gone)
            continue
        if mode == "counts":
            outcome = compare_counts(left, right, table, there)
        else:
            total = left.count(table)
            how = compare_sample if mode == "sample" else compare
            with patient():
                outcome = how(left, right, table, there, progress=partial(_seen, observer, table.name, total))
        progress.table(
            table.name,
            rows_source=outcome.rows_source,
            rows_unchanged=max(outcome.checked - outcome.missing - outcome.different, 0),
            rows_extra=outcome.extra,
            rows_checked=outcome.checked,
            verify_s=outcome.seconds,
            verified=outcome.clean,
            differences=outcome.to_dict(),
        )
    progress.warn(*(f"table {name!r} is only in the target" for name in theirs))
    for store in (left, right):
        if isinstance(store, Metered):
            progress.used(store.usage())
    report = progress.current()
    progress.set(duration_ms=round((time.monotonic() - started) * 1000))
    progress.set(errors=tuple(errors), verified=not errors and all(t.verified for t in report.tables))
    return progress.current()


def _seen(observer: Observer, table: str, total: int, rows: int) -> None:
    observer.step("verify", table, min(rows, total), total)
