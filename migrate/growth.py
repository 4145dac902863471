"""How fast a store grows, as far as its own timestamps tell.

Which columns are times of creation is judged by evidence: the name, and that the
cells are moments (epoch seconds, milliseconds or microseconds, ISO 8601 texts)
between 2001 and a day from now. One pass reads keys, times and tenants only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from migrate.schema import Kind, Table

WEEK_S = 7 * 86_400
WEEKS = 8  # the newest whole weeks, whose median is the rate
FEWEST_WEEKS = 2  # of a shorter time nothing can be said: an import of one day is no growth
STALE_WEEKS = 4  # a store whose newest row is older than this has stopped growing

# Names of a moment at which a row came into being, the surest first.
_NAMES = (
    *("created_at", "createdat", "created", "created_on", "creation_time", "created_time", "date_created"),
    *("inserted_at", "ingested_at", "ingestedat", "added_at", "indexed_at", "stored_at", "recorded_at"),
    *("archived_at", "ran_at", "accessed_at", "timestamp", "ts", "time", "date", "datetime", "at"),
)
_KINDS = frozenset({Kind.INTEGER, Kind.REAL, Kind.TEXT, Kind.TIMESTAMP, Kind.NATIVE})
_FIRST = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC).timestamp()  # 10^9 s: numbers before it are counts
_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?")
_AGREE = 0.9  # of the sampled cells are such moments, where a column is one of times


@dataclass(frozen=True, slots=True)
class Clock:
    """A column that tells when rows came, and how to read it: a unit of epoch time, or "ISO 8601"."""

    column: str
    unit: str

    def seconds(self, cell: Any) -> float | None:
        """Return a cell as seconds since 1970, or None where it is no moment."""
        if self.unit == "ISO 8601":
            return _iso(cell)
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            return None
        return cell / _UNITS[self.unit]


@dataclass(frozen=True, slots=True)
class Growth:
    """How fast rows came.

    per_week: rows, the median of `weeks` whole weeks up to the newest row.
    newest, oldest: UTC dates of the rows. stale: nothing came for weeks before now.
    column:   `table.column` that told.
    """

    per_week: float
    weeks: int
    oldest: str
    newest: str
    stale: bool
    column: str


def clock_of(table: Table, rows: Sequence[Sequence[Any]], now: datetime) -> Clock | None:
    """Return the column that tells when rows came, judged by sampled rows (cells in `table.columns` order)."""
    names = [c.name.lower() for c in table.columns]
    for wanted in _NAMES:
        if wanted not in names:
            continue
        at = names.index(wanted)
        if table.columns[at].kind not in _KINDS:
            continue
        unit = _unit([row[at] for row in rows if row[at] is not None], now)
        if unit is not None:
            return Clock(table.columns[at].name, unit)
    return None


def candidates(table: Table) -> list[str]:
    """Return the columns that may tell when rows came."""
    return [c.name for c in table.columns if c.name.lower() in _NAMES and c.kind in _KINDS]


def _unit(cells: Sequence[Any], now: datetime) -> str | None:
    """Return how cells are read as moments, or None where most of them are none."""
    last = (now + timedelta(days=1)).timestamp()
    for unit in (*_UNITS, "ISO 8601"):
        clock = Clock("", unit)
        fits = sum(1 for cell in cells if (s := clock.seconds(cell)) is not None and _FIRST <= s <= last)
        if cells and fits >= _AGREE * len(cells):
            return unit
    return None


def _iso(cell: Any) -> float | None:
    if not isinstance(cell, str) or not _ISO.fullmatch(cell.strip()):
        return None
    try:
        found = datetime.fromisoformat(cell.strip().replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class Weeks:
    """Counts moments by day, so that constant memory serves any number of rows."""

    def __init__(self) -> None:
        self._days: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one row."""
        self._days[int(seconds // 86_400)] += 1

    def growth(self, column: str, now: datetime, share: float = 1.0) -> Growth | None:
        """Return the growth that was seen, or None where the newest rows came in too few weeks.

        share: how many of the counted rows matter (those with a vector).
        """
        last = (now + timedelta(days=1)).timestamp() // 86_400
        days = {d: n for d, n in self._days.items() if _FIRST // 86_400 <= d <= last}
        if not days:
            return None
        newest, oldest = max(days), min(days)
        weeks = min((newest - oldest + 1) // 7, WEEKS)
        if weeks < FEWEST_WEEKS:
            return None
        counts = [sum(days.get(newest - 7 * w - d, 0) for d in range(7)) for w in range(weeks)]
        if sum(map(bool, counts)) < FEWEST_WEEKS:
            return None
        # Bursts leave most weeks empty; then the mean says more than a median of nothing.
        rate = median(counts) or sum(counts) / weeks
        return Growth(
            per_week=round(rate * share, 2),
            weeks=weeks,
            oldest=_date(oldest),
            newest=_date(newest),
            stale=now.timestamp() // 86_400 - newest > 7 * STALE_WEEKS,
            column=column,
        )


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
