"""Growth is told by timestamps of any form, by evidence, and not by what only looks like them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.growth import Weeks, candidates, clock_of
from migrate.schema import Column, Kind, Table

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def table(name: str = "created_at", kind: Kind = Kind.INTEGER) -> Table:
    return Table("t", (Column("id", Kind.INTEGER), Column(name, kind)), ("id",))


def moments(n: int, step: timedelta = timedelta(hours=5)) -> list[datetime]:
    return [NOW - i * step for i in range(n)]


FORMS: dict[str, Any] = {
    "seconds": lambda d: int(d.timestamp()),
    "milliseconds": lambda d: int(d.timestamp() * 1000),
    "microseconds": lambda d: int(d.timestamp() * 1e6),
    "ISO 8601": lambda d: d.isoformat(),
}


@pytest.mark.parametrize("unit", FORMS)
def test_every_form_is_read_as_the_moment_it_is(unit: str) -> None:
    cells = [FORMS[unit](d) for d in moments(30)]
    clock = clock_of(table(), [(i, c) for i, c in enumerate(cells)], NOW)
    assert clock is not None
    assert (clock.column, clock.unit) == ("created_at", unit)
    assert clock.seconds(cells[3]) == pytest.approx((NOW - timedelta(hours=15)).timestamp(), abs=1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01T10:00:00Z",
        "2026-05-01 10:00:00",
        "2026-05-01 12:00:00+02",
        "2026-05-01T10:00:00.000000+00:00",
    ],
)
def test_texts_of_many_stores_are_one_moment(text: str) -> None:
    clock = clock_of(table("ts", Kind.TEXT), [(1, text)], NOW)
    assert clock is not None
    assert clock.seconds(text) == datetime(2026, 5, 1, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "cells",
    [
        [1, 2, 3],  # counts
        [1_700_000_000, 5, 7, 9],  # one of four
        ["yesterday", "2026"],
        [int((NOW + timedelta(days=400)).timestamp())] * 3,  # a plan, not a past
        [True, False],
        [],
        [None, None],
        ["2026-13-45T99:00:00"],
    ],
)
def test_what_only_has_the_name_is_no_clock(cells: list[Any]) -> None:
    assert clock_of(table(), [(i, c) for i, c in enumerate(cells)], NOW) is None


def test_the_moment_of_creation_comes_before_others_and_updates_tell_nothing() -> None:
    columns = [Column(n, Kind.INTEGER) for n in ("id", "updated_at", "timestamp", "created_at")]
    rows = [(1, *[int(NOW.timestamp())] * 3)]
    clock = clock_of(Table("t", tuple(columns), ("id",)), rows, NOW)
    assert clock is not None
    assert clock.column == "created_at"
    assert candidates(Table("t", tuple(columns[:2]), ("id",))) == []
    assert candidates(Table("t", (Column("created_at", Kind.BLOB),), ())) == []


def grown(when: list[datetime], share: float = 1.0, now: datetime = NOW) -> Any:
    weeks = Weeks()
    for moment in when:
        weeks.add(moment.timestamp())
    return weeks.growth("t.created_at", now, share)


def test_the_rate_is_the_median_of_the_newest_weeks() -> None:
    steady = grown(moments(12 * 7, timedelta(days=1)))
    assert (steady.per_week, steady.weeks, steady.stale) == (7, 8, False)
    assert (steady.oldest, steady.newest) == ("2026-03-10", "2026-06-01")
    # One import of a thousand rows on one day moves no median.
    imported = grown([*moments(84, timedelta(days=1)), *[NOW - timedelta(days=30)] * 1000])
    assert imported.per_week == 7
    assert grown(moments(84, timedelta(days=1)), share=0.5).per_week == 3.5


def test_an_import_of_some_days_is_no_growth() -> None:
    assert grown([]) is None
    assert grown(moments(1000, timedelta(minutes=5))) is None
    assert grown(moments(13, timedelta(days=1))) is None
    assert grown(moments(14, timedelta(days=1))).weeks == 2
    assert grown([*moments(50, timedelta(hours=1)), NOW - timedelta(days=300)]) is None


def test_rows_that_come_in_bursts_are_averaged() -> None:
    bursts = [NOW - timedelta(weeks=4 * i) for i in range(4) for _ in range(80)]
    assert grown(bursts).per_week == pytest.approx(160 / 8)


def test_a_store_that_stopped_growing_is_said_to_have() -> None:
    old = [m - timedelta(days=300) for m in moments(40, timedelta(days=1))]
    assert grown(old).stale
    assert grown(old).per_week == 7


def test_moments_that_cannot_be_are_left_out() -> None:
    odd = [datetime(1970, 1, 2, tzinfo=UTC), NOW + timedelta(days=3000)]
    assert grown([*moments(28, timedelta(days=1)), *odd]).oldest == "2026-05-05"


@given(st.integers(1, 50), st.integers(2, 30))
def test_any_steady_rate_is_found(per_day: int, weeks: int) -> None:
    when = [NOW - timedelta(days=d) for d in range(7 * weeks) for _ in range(per_day)]
    assert grown(when).per_week == 7 * per_day
