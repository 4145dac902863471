"""Part of the contract: what is not ours is left alone, and one run at a time owns a target."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import pytest

from migrate import api, lease
from migrate.backends import REGISTRY
from migrate.backends.base import Position, Target
from migrate.batch import Batch
from migrate.errors import CheckpointError, LeaseLostError, SchemaError
from migrate.plan import Plan
from migrate.schema import Column, Kind
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
    small_commits,
)
from tests.places import Place, rows_in, target
from tests.small_stores import multiset, pairs


@check
def a_table_that_memlift_did_not_make_is_refused_and_left(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    place.stranger(at, "t")
    before = place.names(at)
    with pytest.raises(SchemaError, match="memlift did not make: t"):
        api.migrate(filled((T, ROWS)), at)
    assert place.names(at) == before
    assert rows_in(place, at, "t") == [(1, "theirs")]
    report = api.migrate(filled((T, ROWS)), at, dry_run=True)
    assert any("a run would refuse" in w for w in report.warnings)


@check
def undo_leaves_nothing_of_ours_and_all_of_theirs(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    place.stranger(at, "theirs")
    before = place.names(at)
    api.migrate(filled((T, ROWS), (INEXACT, INEXACT_ROWS)), at, on_misfit="quarantine")
    assert api.undo(at) == ["inexact", "t"]
    assert place.names(at) == before
    assert rows_in(place, at, "theirs") == [(1, "theirs")]
    assert api.undo(at) == []
    assert api.migrate(filled((T, ROWS)), at).verified


@check
def a_dry_run_changes_nothing(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    report = api.migrate(filled((T, ROWS), (KINDS, KIND_ROWS)), at, dry_run=True)
    assert (report.dry_run, report.verified, report.total_rows) == (True, False, 11)
    assert place.names(at) == set()


# --- plans and owners ------------------------------------------------------------------


@check
def an_unfinished_run_with_another_plan_is_refused_until_restarted(
    place: Place, patch: pytest.MonkeyPatch
) -> None:
    other = filled((T, [(9, "other")]))
    with small_commits(patch):
        at, origin = place.fresh(), filled((T, ROWS), (pairs("u"), ROWS))
        with pytest.raises(BoomError):
            moved(place, origin, at, crash=2, after=True, batch_size=2)
        with pytest.raises(CheckpointError, match="another plan"):
            moved(place, other, at)
        report = moved(place, other, at, restart=True)
    assert (report.verified, report.resumed) == (True, False)
    holds(place, at, T, [(9, "other")])
    assert "u" not in place.names(at)  # made by the run that was given up


@check
def a_table_that_changed_its_shape_since_is_refused(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    api.migrate(filled((T, ROWS)), at)
    wider = T.with_columns((*T.columns, Column("new", Kind.TEXT)))
    with pytest.raises(SchemaError, match="not those of the earlier migration"):
        api.migrate(filled((wider, [(1, "a", "b")])), at)
    holds(place, at, T, ROWS)


@check
def a_second_owner_is_refused_while_the_first_is_at_work(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    first = claimed(place, at, "first")
    first.prepare([T])
    second, written = target(place, at), itertools.count(1)

    def meanwhile(seconds: float) -> None:
        n = next(written)
        first.append(Batch(T, [(n, "first")], n), [])
        first.commit(Position("t", n, n))
        time.sleep(min(seconds, 0.25))

    with patch.context() as inner:
        inner.setattr(lease, "time", SimpleNamespace(sleep=meanwhile))
        with pytest.raises(CheckpointError, match="another run"):
            second.claim(
                Plan("memory:y", str(at), "generic", "jsonb", (T,)).to_dict(), "second", restart=True
            )
    second.close()
    first.append(Batch(T, [(99, "first")], 99), [])
    first.commit(Position("t", 99, 99, done=True))
    first.release()
    first.close()
    assert (99, "first") in rows_in(place, at, "t")


def _elsewhere() -> tuple[str, int]:
    return "another machine#1", 1


@check
def a_resume_is_refused_while_the_run_itself_is_at_work(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    first = claimed(place, at, "run")
    first.prepare([T])
    second, written = target(place, at), itertools.count(1)

    def meanwhile(seconds: float) -> None:
        n = next(written)
        first.append(Batch(T, [(n, "first")], n), [])
        first.commit(Position("t", n, n))
        time.sleep(min(seconds, 0.25))

    with patch.context() as inner:
        inner.setattr(lease, "time", SimpleNamespace(sleep=meanwhile))
        inner.setattr(lease, "identity", _elsewhere)
        with pytest.raises(CheckpointError, match="another run"):
            second.claim(Plan("memory:x", str(at), "generic", "jsonb", (T,)).to_dict(), "run", restart=False)
    second.close()
    first.release()
    first.close()


@check
def an_owner_that_was_taken_for_dead_writes_nothing_more(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    first, second = claimed(place, at, "run"), target(place, at)
    first.prepare([T])
    first.append(Batch(T, ROWS[:1], 1), [])
    first.commit(Position("t", 1, 1))
    with patch.context() as inner:
        inner.setattr(lease, "DEAD_AFTER_S", -1.0)
        inner.setattr(lease, "alive", lambda holder: None)
        inner.setattr(lease, "identity", _elsewhere)
        try:
            second.claim(Plan("memory:x", str(at), "generic", "jsonb", (T,)).to_dict(), "run", restart=False)
        except CheckpointError:
            assert place.kind == "memory"  # owners of one process cannot die alone
            return
    first.append(Batch(T, ROWS[1:], 7), [])
    with pytest.raises(LeaseLostError):
        first.commit(Position("t", 7, 7, done=True))
    first.rollback()
    with pytest.raises(LeaseLostError):
        first.amend(T, ROWS[1:], [], replace=True)
    first.rollback()
    first.release()
    first.close()
    assert second.positions() == {"t": Position("t", 1, 1)}
    second.append(Batch(T, ROWS[1:3], 3), [])
    second.commit(Position("t", 3, 3, done=True))
    second.release()
    second.close()
    assert multiset(rows_in(place, at, "t")) == multiset(ROWS[:3])


@check
def a_lease_given_back_is_free_at_once(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    for run in ("run", "run"):
        opened = claimed(place, at, run)
        opened.release()
        opened.release()
        opened.close()


@check
def the_module_is_what_the_registry_says(place: Place, patch: pytest.MonkeyPatch) -> None:
    assert REGISTRY[place.kind][0].startswith("migrate.backends.")
    opened = target(place, place.fresh())
    for name in (n for n in vars(Target) if not n.startswith("_")):
        assert hasattr(opened, name), name
    assert opened.describe()
    opened.close()
