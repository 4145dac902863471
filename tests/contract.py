"""What every target keeps: functions of a `Place`, run on every backend there is.

`tests/test_contract.py` runs them on the stores that need no server,
`integration/test_contract.py` on those that do.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import api, engine, lease
from migrate.backends import REGISTRY, base
from migrate.backends.base import Position, Target
from migrate.batch import Batch, Row
from migrate.config import Settings
from migrate.engine import Choices, Run
from migrate.errors import CheckpointError, LeaseLostError, SchemaError, VerifyError
from migrate.plan import Plan
from migrate.report import Report, Silent
from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, Metric, Table
from migrate.vectors import pack_multi, pack_sparse
from tests.places import Place, fit, rows_in, source, target
from tests.small_stores import in_memory, multiset, pairs

Check = Callable[[Place, pytest.MonkeyPatch], None]
CHECKS: list[Check] = []

_numbers = itertools.count(1)


def check(function: Check) -> Check:
    """Make a function part of the contract."""
    CHECKS.append(function)
    return function


class BoomError(Exception):
    """A bug or a power cut, somewhere in the middle."""


class Failing:
    """A target that fails at its nth commit, before or after the store has it."""

    def __init__(self, inner: Target, at: int, *, after: bool) -> None:
        self._inner, self._left, self._after = inner, at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, position: Position) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise BoomError
        self._inner.commit(position)
        if self._left == 0:
            raise BoomError


def filled(*tables: tuple[Table, Sequence[Row]]) -> str:
    """Make a source in memory and return its address."""
    name = f"source {next(_numbers)}"
    in_memory(name, *tables)
    return f"memory:{name}"


def put(address: str, table: str, rows: Sequence[Row]) -> None:
    """Change the rows of a source."""
    in_memory(address.removeprefix("memory:")).shelf.rows[table] = list(rows)


def moved(
    place: Place, origin: str, at: Settings, *, crash: int = 0, after: bool = False, **choices: Any
) -> Report:
    """Run the engine; every batch is a commit. crash: fail at this commit."""
    with api.Reach() as reach:
        opened = reach.source(reach.settings(origin, create=False))
        layout, reading = api.understand(opened, api.Wishes())
        plan = Plan(opened.describe(), str(at), reading.layout, "jsonb", tuple(reading.tables))
        there = target(place, at, base.Options(layout=layout))
        try:
            run = Run(
                opened,
                plan,
                Choices(**choices),
                target=cast("Target", Failing(there, crash, after=after)),
                open_reader=lambda: source(place, at),
                fit=lambda table: fit(place, table),
                observer=Silent(),
            )
            return run.run()
        finally:
            there.close()


@contextmanager
def small_commits(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commit after every batch."""
    with patch.context() as inner:
        inner.setattr(engine, "COMMIT_BYTES", 1)
        yield


def by_value(row: Row, table: Table) -> Row:
    """Return a row with its JSON cells as values, which is what JSON columns promise to keep."""
    cells = []
    for column, cell in zip(table.columns, row, strict=True):
        if column.kind is Kind.JSON and isinstance(cell, str):
            try:
                parsed = json.loads(cell, parse_float=Decimal)
                cell = "json " + json.dumps(parsed, sort_keys=True, default=lambda d: f"decimal {d}")
            except ValueError:
                pass
        cells.append(cell)
    return tuple(cells)


def holds(place: Place, at: Settings, table: Table, wanted: Sequence[Row]) -> None:
    """Assert that a target holds these rows and no others, cell for cell."""
    found = rows_in(place, at, table.name)
    assert multiset([by_value(r, table) for r in found]) == multiset([by_value(r, table) for r in wanted])


T = pairs()
ROWS: list[Row] = [(n, f"v{n}") for n in range(1, 8)]


# --- carrying -----------------------------------------------------------------------


@check
def an_empty_table_is_carried(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    report = api.migrate(filled((T, []), (pairs("u", key=()), [])), at)
    assert report.verified
    assert (report.total_rows, [t.rows_written for t in report.tables]) == (0, [0, 0])
    holds(place, at, T, [])
    assert {"t", "u"} <= place.names(at)


ODD = [
    "select",
    "we ird",
    'quo"te',
    "it's",
    "semi;colon",
    "per%cent",
    "%s",
    "brace{}",
    "back\\slash",
    "?",
    "😀",
    "a.b",
]


@check
def odd_names_of_tables_and_columns_are_carried(place: Place, patch: pytest.MonkeyPatch) -> None:
    columns = (Column("Id", Kind.INTEGER), *(Column(name, Kind.TEXT) for name in ODD))
    tables = [(Table(name, columns, ("Id",)), [(1, *ODD), (2, *reversed(ODD))]) for name in ODD]
    at = place.fresh()
    assert api.migrate(filled(*tables), at).verified
    for table, rows in tables:
        holds(place, at, table, cast("list[Row]", rows))


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


KINDS = Table(
    "kinds",
    (
        Column("id", Kind.INTEGER, "bigint", nullable=False),
        Column("real", Kind.REAL, "double precision"),
        Column("text", Kind.TEXT, "text"),
        Column("blob", Kind.BLOB, "bytea"),
        Column("bool", Kind.BOOL, "boolean"),
        Column("json", Kind.JSON, "jsonb"),
        Column("at", Kind.TIMESTAMP, "timestamp with time zone"),
        Column("native", Kind.NATIVE, "numeric"),
        Column("vector", Kind.VECTOR, "vector(3)", dim=3, metric=Metric.COSINE),
        Column("half", Kind.HALF, "halfvec(2)", dim=2),
        Column("sparse", Kind.SPARSE, "sparsevec(9)", dim=9),
        Column("multi", Kind.MULTI, "bytea"),
        Column("u8", Kind.U8, "bytea"),
    ),
    ("id",),
    dialect="postgres",
)
KIND_ROWS: list[Row] = [
    (
        2**63 - 1,
        0.1,
        "é😀\n\t\\N",
        b"\x00\xff\\",
        True,
        '{"b": 1.0, "a": [1, null, "é"], "n": 12345678901234567890.120}',
        "2024-01-02T03:04:05.000006+00:00",
        "12345678901234567890.1200",
        vector(1.5, -0.0, 1e-45),
        struct.pack("<2e", 1.5, -2.0),
        pack_sparse([7, 2], [0.5, -1.0], 9),
        pack_multi([[1.0, 2.0], [3.0, 4.0]]),
        bytes(range(5)),
    ),
    (
        -(2**63),
        5e-324,
        "",
        b"",
        False,
        "null",
        "1999-12-31T23:59:59.999999+00:00",
        "0",
        vector(0, 0, 0),
        *[None] * 4,
    ),
    (0, -1.7976931348623157e308, "5", b"5", *[None] * 9),
    (1, *[None] * 12),
]


@check
def every_kind_of_cell_comes_back_as_it_was(place: Place, patch: pytest.MonkeyPatch) -> None:
    assert {c.kind for c in KINDS.columns} == set(Kind)
    at = place.fresh()
    assert api.migrate(filled((KINDS, KIND_ROWS)), at).verified
    holds(place, at, KINDS, KIND_ROWS)


INEXACT = Table(
    "inexact",
    (
        Column("id", Kind.INTEGER),
        Column("i", Kind.INTEGER, nullable=False),
        Column("r", Kind.REAL),
        Column("t", Kind.TEXT, nullable=False),
        Column("j", Kind.JSON),
        Column("v", Kind.VECTOR, dim=2),
    ),
    ("id",),
)
INEXACT_ROWS: list[Row] = [
    (1, 2**64, float("nan"), "a\0b", '{"a": 1, "a": 2}', vector(float("nan"), 1)),
    (2, "seven", -0.0, "\udcff", "{broken", vector(1, 2, 3)),
    (3, 7, float("inf"), "\ud800", '"\\u0000"', b"odd"),
    (4, 7.5, 1, b"bytes", 5, "text"),
    (5, True, "1.5", 5, "-0", None),
    (2**70, 1, 1.5, "fits but for its key", "1", vector(1, 2)),
    ("six", 1, 1.5, "a text for a key", "1", vector(1, 2)),
    (7, 7, 1.5, "fits", '{"a": 1}', vector(1, 2)),
]


@check
def exact_cells_come_back_as_they_were(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((INEXACT, INEXACT_ROWS))
    report = api.migrate(origin, at, on_misfit="quarantine")
    assert report.verified
    holds(place, at, INEXACT, INEXACT_ROWS)
    assert api.verify(origin, at).verified
    again = api.migrate(origin, at, on_misfit="quarantine")
    assert (again.verified, [t.rows_written for t in again.tables]) == (True, [0])


@check
def exact_rows_without_a_key_come_back_as_often_as_they_were(place: Place, patch: pytest.MonkeyPatch) -> None:
    loose = pairs(key=())
    rows: list[Row] = [(1, "a\0"), (1, "a\0"), (1, "b"), (1, "b"), ("one", "c"), (None, None)]
    at = place.fresh()
    assert api.migrate(filled((loose, rows)), at, on_misfit="quarantine").verified
    holds(place, at, loose, rows)


@check
def links_and_indexes_do_not_stand_in_the_way_of_rows_in_any_order(
    place: Place, patch: pytest.MonkeyPatch
) -> None:
    child = Table(
        "child",
        (Column("id", Kind.INTEGER), Column("parent", Kind.INTEGER), Column("boss", Kind.INTEGER)),
        ("id",),
        (ForeignKey(("parent",), "parent", ("id",)), ForeignKey(("boss",), "child", ("id",))),
        (Index("child_by_parent", (IndexPart("parent", descending=True), IndexPart("boss")), unique=True),),
    )
    rows: list[Row] = [(1, 2, 2), (2, 1, 1), (3, None, 3)]
    at = place.fresh()
    parents: list[Row] = [(1, "a"), (2, "b")]
    assert api.migrate(filled((child, rows), (pairs("parent"), parents)), at).verified
    holds(place, at, child, rows)
    holds(place, at, pairs("parent"), parents)


# --- reading ------------------------------------------------------------------------


@check
def reading_after_a_cursor_continues_without_gap_or_overlap(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    text_keyed, loose = pairs("text_keyed", key=("v",)), pairs("loose", key=())
    tables = [
        (T, ROWS),
        (text_keyed, [(1, v) for v in ("b", "B", "ä", "", "a")]),
        (loose, [(1, "x")] * 5),
        (INEXACT, INEXACT_ROWS),
    ]
    origin = filled(*cast("Any", tables))
    assert api.migrate(origin, at, on_misfit="quarantine").verified
    opened = source(place, at)
    try:
        here = {t.name: t for t in opened.tables()}
        for table, rows in tables:
            for size in (1, 2, 3, 100):
                batches = list(opened.batches(here[table.name], size=size))
                whole = [row for batch in batches for row in batch.rows]
                assert multiset(whole) == multiset(cast("Any", rows)) or table is INEXACT
                assert len(whole) == len(rows) == opened.count(here[table.name])
                assert all(0 < len(b.rows) <= size for b in batches)
                read = 0
                for batch in batches:
                    read += len(batch.rows)
                    cursor = json.loads(json.dumps(batch.cursor))
                    rest = [
                        r for b in opened.batches(here[table.name], size=size, after=cursor) for r in b.rows
                    ]
                    assert multiset(rest) == multiset(whole[read:]), (table.name, size, cursor)
    finally:
        opened.close()


@check
def a_reader_may_stop_in_the_middle_and_begin_again(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    api.migrate(filled((T, ROWS)), at)
    opened = source(place, at)
    try:
        table = opened.tables()[0]
        for _ in range(3):
            reading = opened.batches(table, size=2)
            assert len(next(reading).rows) == 2
            cast("Any", reading).close()
        assert opened.count(table) == 7
        assert sum(len(b.rows) for b in opened.batches(table, size=2)) == 7
    finally:
        opened.close()


# --- going on -----------------------------------------------------------------------


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


def _claimed(place: Place, at: Settings, run: str = "run", *, restart: bool = False) -> Target:
    opened = target(place, at)
    plan = Plan("memory:x", str(at), "generic", "jsonb", (T,))
    opened.claim(plan.to_dict(), run, restart=restart)
    return opened


@check
def positions_and_rows_become_durable_together(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    first = _claimed(place, at)
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

    second = _claimed(place, at)
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
    opened = _claimed(place, at)
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


# --- what is not ours ----------------------------------------------------------------


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
    first = _claimed(place, at, "first")
    first.prepare([T])
    second, written = target(place, at), itertools.count(1)

    def meanwhile(seconds: float) -> None:
        n = next(written)
        first.append(Batch(T, [(n, "first")], n), [])
        first.commit(Position("t", n, n))
        engine.time.sleep(min(seconds, 0.25))

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
    first = _claimed(place, at, "run")
    first.prepare([T])
    second, written = target(place, at), itertools.count(1)

    def meanwhile(seconds: float) -> None:
        n = next(written)
        first.append(Batch(T, [(n, "first")], n), [])
        first.commit(Position("t", n, n))
        engine.time.sleep(min(seconds, 0.25))

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
    first, second = _claimed(place, at, "run"), target(place, at)
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
        opened = _claimed(place, at, run)
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
