"""Part of the contract: a run that was broken off goes on, and a second one mends."""

from __future__ import annotations

import itertools

import pytest

from migrate import api
from migrate.backends.base import Position
from migrate.batch import Batch, Row
from migrate.errors import VerifyError
from tests.contract_kit import (
    INEXACT,
    INEXACT_ROWS,
    KIND_ROWS,
    KINDS,
    ROWS,
    BoomError,
    T,
    check,
    claimed,
    filled,
    holds,
    moved,
    put,
    small_commits,
    vector,
)
from tests.places import Place, rows_in
from tests.small_stores import multiset, pairs


@check
def a_run_broken_off_at_any_commit_goes_on_without_gap_or_overlap(
    place: Place, patch: pytest.MonkeyPatch
) -> None:
    loose = pairs("loose", key=())
    rows: list[Row] = [(1, "x"), (1, "x"), (2, "y\0"), (3, "z"), (1, "x")]
    with small_commits(patch):
        for after in (False, True):
            for crash in itertools.count(1):
                at, origin = place.fresh(), filled((T, ROWS), (loose, rows))
                try:
                    moved(place, origin, at, crash=crash, after=after, batch_size=2, on_misfit="quarantine")
                    break
                except BoomError:
                    pass
                report = moved(place, origin, at, batch_size=2, on_misfit="quarantine")
                assert (report.verified, report.resumed, report.total_rows) == (True, True, 12)
                holds(place, at, T, ROWS)
                holds(place, at, loose, rows)
            assert crash >= 7


@check
def what_was_committed_before_a_crash_is_not_written_again(place: Place, patch: pytest.MonkeyPatch) -> None:
    with small_commits(patch):
        at, origin = place.fresh(), filled((T, ROWS))
        with pytest.raises(BoomError):
            moved(place, origin, at, crash=3, after=True, batch_size=2)
        report = moved(place, origin, at, batch_size=2)
    assert report.tables[0].rows_written == 1  # of 7, six were durable
    assert report.verified


@check
def a_source_that_changed_after_the_crash_is_what_the_resume_ends_with(
    place: Place, patch: pytest.MonkeyPatch
) -> None:
    with small_commits(patch):
        at, origin = place.fresh(), filled((T, ROWS))
        with pytest.raises(BoomError):
            moved(place, origin, at, crash=3, after=True, batch_size=2)
        now: list[Row] = [(1, "changed"), *ROWS[2:], (8, "new")]
        put(origin, "t", now)
        assert moved(place, origin, at, batch_size=2).verified
    holds(place, at, T, now)


@check
def positions_and_rows_become_durable_together(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    first = claimed(place, at)
    first.prepare([T])
    assert (first.positions(), first.owned()) == ({}, frozenset({"t"}))
    first.append(Batch(T, ROWS[:2], 2), [])
    first.append(Batch(T, ROWS[2:3], 3), [])
    first.commit(Position("t", {"odd": [1, "é", None]}, 3))
    first.append(Batch(T, ROWS[3:5], 5), [])
    first.rollback()
    first.rollback()
    assert first.positions() == {"t": Position("t", {"odd": [1, "é", None]}, 3, False)}
    first.append(Batch(T, ROWS[3:4], 4), [])
    first.rollback()
    first.release()
    first.close()
    first.close()

    second = claimed(place, at)
    assert second.positions() == {"t": Position("t", {"odd": [1, "é", None]}, 3, False)}
    assert second.owned() == frozenset({"t"})
    second.prepare([T])  # again: nothing happens
    second.append(Batch(T, ROWS[3:], 7), [])
    second.commit(Position("t", 7, 7, done=True))
    assert second.look([T]).state == "unfinished"
    second.release()
    second.close()
    assert multiset(rows_in(place, at, "t")) == multiset(ROWS)


@check
def a_broken_connection_is_mended_by_reconnecting(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    opened = claimed(place, at)
    opened.prepare([T])
    opened.append(Batch(T, ROWS[:2], 2), [])
    opened.rollback()
    opened.reconnect()
    opened.append(Batch(T, ROWS, 7), [])
    opened.commit(Position("t", 7, 7, done=True))
    opened.release()
    opened.close()
    assert multiset(rows_in(place, at, "t")) == multiset(ROWS)


# --- again ---------------------------------------------------------------------------


@check
def a_second_run_writes_nothing(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((T, ROWS), (KINDS, KIND_ROWS))
    assert [t.rows_written for t in api.migrate(origin, at).tables] == [7, 4]
    again = api.migrate(origin, at)
    assert (again.verified, again.resumed) == (True, False)
    assert [(t.rows_written, t.rows_unchanged) for t in again.tables] == [(0, 7), (0, 4)]


@check
def missing_rows_are_added_and_nothing_else_is_touched(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((T, ROWS))
    api.migrate(origin, at)
    put(origin, "t", [(2, "changed"), *ROWS[2:], (8, "new")])
    with pytest.raises(VerifyError) as raised:
        api.migrate(origin, at)
    report = raised.value.report
    assert report is not None
    assert (report.verified, report.tables[0].rows_written, report.tables[0].rows_extra) == (False, 1, 1)
    assert report.tables[0].differences["different"] == 1
    holds(place, at, T, [*ROWS, (8, "new")])


@check
def with_update_the_source_wins_and_rows_it_has_not_stay(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((T, ROWS))
    api.migrate(origin, at)
    put(origin, "t", [(2, "changed"), *ROWS[2:], (8, "new")])
    with pytest.raises(VerifyError) as raised:
        api.migrate(origin, at, update=True)
    assert raised.value.report is not None
    assert raised.value.report.tables[0].differences["extra"] == 1
    holds(place, at, T, [(1, "v1"), (2, "changed"), *ROWS[2:], (8, "new")])


@check
def with_mirror_the_target_becomes_the_source(place: Place, patch: pytest.MonkeyPatch) -> None:
    loose = pairs("loose", key=())
    at, origin = place.fresh(), filled((T, ROWS), (loose, [(1, "x"), (1, "x"), (2, "y")]))
    api.migrate(origin, at)
    now: list[Row] = [(2, "changed"), *ROWS[2:], (8, "new")]
    put(origin, "t", now)
    put(origin, "loose", [(1, "x"), (3, "z")])
    assert api.migrate(origin, at, mirror=True).verified
    holds(place, at, T, now)
    holds(place, at, loose, [(1, "x"), (3, "z")])


@check
def mending_exact_cells_keeps_them_exact(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((INEXACT, INEXACT_ROWS))
    api.migrate(origin, at, on_misfit="quarantine")
    now: list[Row] = [
        (1, 1, 1.5, "fits now", "1", vector(1, 2)),
        (7, 2**65, 1.5, "no\0longer", '{"a": 1}', vector(1, 2)),
        *INEXACT_ROWS[1:5],
        ("seven", 1, 1.5, "another text for a key", "1", vector(1, 2)),
    ]
    put(origin, "inexact", now)
    assert api.migrate(origin, at, mirror=True, on_misfit="quarantine").verified
    holds(place, at, INEXACT, now)


@check
def rows_whose_key_is_null_are_mended_as_rows_without_one(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    origin = filled((T, [(None, "a"), (None, "b"), (None, "b"), (1, "c")]))
    assert api.migrate(origin, at, on_misfit="quarantine").verified
    now: list[Row] = [(None, "b"), (None, "d"), (None, "d"), (None, None), (1, "changed")]
    put(origin, "t", now)
    assert api.migrate(origin, at, on_misfit="quarantine", mirror=True).verified
    holds(place, at, T, now)
