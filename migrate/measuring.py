"""What is measured of a store for advice: rows, growth, tenants, latency, writers, reading speed.

Nothing is changed anywhere. What cannot be measured is None, with a note that says why.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from migrate import tenants, writers
from migrate.backends.base import Source
from migrate.config import Settings
from migrate.errors import ConfigError, MigrateError
from migrate.growth import Clock, Growth, Weeks, candidates, clock_of
from migrate.inspect import Inspection, inspected, tier_of
from migrate.layouts.base import Wishes
from migrate.layouts.generic import narrowed
from migrate.reach import Reach, understand
from migrate.schema import Table
from migrate.search import open_searchable
from migrate.search.base import Means, Mode, Query, Searchable, Searched

QUERIES, QUERIES_S = 30, 3.0  # at most so many, for at most so long; at least three
PASS_S = 10.0  # for reading timestamps and tenants
_BATCH = 5000
_SAMPLED = 200
_TENANTS = 100_000  # counted one by one up to here


@dataclass(frozen=True, slots=True)
class Measured:
    """What one look at a store gave. shapes: (vectors, dimensions) of each table with vectors."""

    inspection: Inspection
    shapes: tuple[tuple[int, int], ...]
    growth: Growth | None
    growth_note: str
    latency: dict[str, Any] | None
    latency_note: str
    writers: writers.Writers
    tenants: dict[str, Any] | None
    read: dict[str, float]
    current: str | None
    now: datetime


class Measuring:
    """Looks at one store from all sides."""

    def __init__(self, reach: Reach, settings: Settings, given: int | None, now: datetime) -> None:
        self._reach, self._settings, self._given, self._now = reach, settings, given, now

    def all(self) -> Measured:
        source = self._reach.source(self._settings)
        seen = writers.seen(self._settings)
        if self._given is not None:
            seen = replace(seen, count=self._given, how="write at the same time, as you say", given=True)
        _, reading = understand(source, Wishes())
        current = tier_of(self._settings)
        started = time.monotonic()
        found = inspected(source, reading, current)
        read = _rate(found, time.monotonic() - started)
        passed = _Pass(source, found, self._now)
        for table in reading.tables:
            passed.read(table)
        growth, note = passed.growth()
        latency, latency_note = self._latency()
        return Measured(
            inspection=found,
            shapes=tuple((t.vectors, int(t.vector["dim"] or 0)) for t in found.tables if t.vector),
            growth=growth,
            growth_note=note,
            latency=latency,
            latency_note=latency_note,
            writers=seen,
            tenants=passed.tenants(),
            read=read,
            current=current,
            now=self._now,
        )

    def _latency(self) -> tuple[dict[str, Any] | None, str]:
        try:
            searchable = open_searchable(self._settings, Means(hnsw=False))
        except ConfigError as exc:
            return None, f"not measured: {exc.message}"
        try:
            return measured_latency(searchable)
        except MigrateError as exc:
            return None, f"not measured: {exc.message}"
        finally:
            searchable.close()


def _rate(found: Inspection, seconds: float) -> dict[str, float]:
    """Return rows and bytes a second, as just read: of each table at most its first rows were."""
    rows = sum(min(t.rows, t.read) for t in found.tables)
    size = sum(t.bytes * min(t.rows, t.read) // max(t.rows, 1) for t in found.tables)
    spent = max(seconds, 1e-6)
    return {"rows_per_s": round(rows / spent), "bytes_per_s": round(size / spent)}


class _Pass:
    """Reads keys, timestamps and tenants of all tables, and nothing else, for a limited time."""

    def __init__(self, source: Source, found: Inspection, now: datetime) -> None:
        self._source, self._now = source, now
        self._seen = {t.name: t for t in found.tables}
        self._deadline = time.monotonic() + PASS_S
        self._growths: list[Growth] = []
        self._clocks: list[str] = []
        self._cut: list[str] = []
        self._tenants: Counter[Any] = Counter()
        self._tenant_columns: set[str] = set()
        self._all_tenants = True

    def read(self, table: Table) -> None:
        """Read one table. Growth is that of tables with vectors, or of all where there are none."""
        tenant = next((c for c in tenants.COLUMNS if c in table.column_names), None)
        growing = bool(self._seen[table.name].vectors) or not any(t.vectors for t in self._seen.values())
        wanted = {*(candidates(table) if growing else ()), *([tenant] if tenant else ())}
        if not wanted:
            return
        narrow = narrowed(table, wanted)
        clock = self._clock(narrow) if growing else None
        if clock is None and tenant is None:
            return
        weeks = Weeks()
        whole = self._count(narrow, clock, tenant, weeks)
        if clock is None:
            return
        place = f"{table.name}.{clock.column}"
        self._clocks.append(f"{place} ({clock.unit})")
        if not whole:
            self._cut.append(table.name)
            return
        seen = self._seen[table.name]
        share = seen.vectors / seen.rows if seen.vectors and seen.rows else 1.0
        if (growth := weeks.growth(place, self._now, share)) is not None:
            self._growths.append(growth)

    def _clock(self, narrow: Table) -> Clock | None:
        for batch in self._source.batches(narrow, size=_SAMPLED):
            return clock_of(narrow, batch.rows, self._now)
        return None

    def _count(self, narrow: Table, clock: Clock | None, tenant: str | None, weeks: Weeks) -> bool:
        """Count moments and tenants; return whether all rows were read."""
        when = narrow.column_names.index(clock.column) if clock else None
        who = narrow.column_names.index(tenant) if tenant else None
        if tenant:
            self._tenant_columns.add(tenant)
        for batch in self._source.batches(narrow, size=_BATCH):
            if clock is not None and when is not None:
                for row in batch.rows:
                    if (seconds := clock.seconds(row[when])) is not None:
                        weeks.add(seconds)
            if who is not None and len(self._tenants) >= _TENANTS:
                self._all_tenants = False
            elif who is not None:
                self._tenants.update(row[who] for row in batch.rows if row[who] is not None)
            if time.monotonic() > self._deadline:
                self._all_tenants = self._all_tenants and who is None
                return False
        return True

    def growth(self) -> tuple[Growth | None, str]:
        """Return how fast vectors (or rows) come in all, and what has to be said of it."""
        if self._growths:
            newest = max(g.newest for g in self._growths)
            going = [g for g in self._growths if not g.stale] or self._growths
            return (
                Growth(
                    per_week=round(sum(g.per_week for g in going), 2),
                    weeks=max(g.weeks for g in going),
                    oldest=min(g.oldest for g in self._growths),
                    newest=newest,
                    stale=all(g.stale for g in self._growths),
                    column=", ".join(g.column for g in going),
                ),
                "",
            )
        if self._cut:
            return None, f"not measured: {', '.join(self._cut)} has more rows than {PASS_S:g} s can read"
        if self._clocks:
            return (
                None,
                f"not seen: by {', '.join(self._clocks)} rows came in fewer than two of the last weeks",
            )
        return None, "not seen: no column tells when rows came"

    def tenants(self) -> dict[str, Any] | None:
        """Return how many tenants there are and how many rows the largest has, or None without any.

        exact: False where not all rows were read; then both are the least that there are.
        """
        if not self._tenants:
            return None
        most = self._tenants.most_common(1)[0][1]
        columns = ", ".join(sorted(self._tenant_columns))
        return {
            "count": len(self._tenants),
            "columns": columns,
            "largest_rows": most,
            "exact": self._all_tenants,
        }


def measured_latency(searchable: Searchable) -> tuple[dict[str, Any] | None, str]:
    """Return p50 and p95 of nearest-neighbour queries over the largest table, in ms, and a note where there is none.

    Queries are vectors of the table itself, one unmeasured first; those of zeros are no questions.
    """
    having = [s for s in searchable.tables() if s.vector is not None]
    best: tuple[Searched, list[Any]] | None = None
    for searched in sorted(having, key=lambda s: -(s.rows or 0)):
        picked = [(key, v) for key, v in searchable.sample(searched, QUERIES, seed=1) if v.any()]
        if best is None or len(picked) > len(best[1]):
            best = searched, picked
        if searched.rows:  # the largest, where a store knows
            break
    if best is None or not best[1]:
        return None, "not measured: there are no vectors to ask for"
    searched, picked = best
    deadline = time.monotonic() + QUERIES_S
    spent: list[float] = []
    how = ""
    for n, (_, vector) in enumerate([picked[0], *picked]):
        asked = Query(Mode.VECTOR, vector=vector, where=searched.live, rows=False)
        started = time.perf_counter()
        how = searchable.search(searched, asked).how
        if n:
            spent.append((time.perf_counter() - started) * 1000)
        if time.monotonic() > deadline and len(spent) >= 3:
            break
    p50, p95 = (round(float(x), 3) for x in np.percentile(spent, [50, 95]))
    return {"p50": p50, "p95": p95, "queries": len(spent), "table": searched.name, "how": how}, ""
