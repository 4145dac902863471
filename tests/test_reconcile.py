"""Mending by what a comparison found: what is written and removed, in which order, and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from migrate import reconcile
from migrate.backends.memory import Memory
from migrate.batch import ExactCell, Row
from migrate.fit import Fit, Integers, Texts
from migrate.reconcile import mend
from migrate.schema import Table
from migrate.verify import Marked, compare
from tests.small_stores import in_memory, multiset, pairs

pytestmark = pytest.mark.usefixtures("shelves")

LEFT: list[Row] = [(1, "same"), (2, "new"), (3, "changed"), (5, "a\0b")]
RIGHT: list[Row] = [(1, "same"), (3, "old"), (4, "surplus")]


class Noting(Memory):
    """A target that notes what it is told to do."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[tuple[str, Any]] = []

    def amend(self, table: Table, rows: Sequence[Row], exact: Sequence[ExactCell], **more: Any) -> None:
        if more.get("removed") or more.get("removed_rows"):
            self.told.append(("remove", [*more.get("removed", ()), *more.get("removed_rows", ())]))
        if rows:
            self.told.append(("replace" if more["replace"] else "add", list(rows)))
        if exact:
            self.told.append(("keep", [(c.column, c.reason) for c in exact]))
        super().amend(table, rows, exact, **more)


def mended(
    left: list[Row], right: list[Row], table: Table, fit: Fit | None = None, **choices: bool
) -> tuple[Noting, tuple[int, int]]:
    source = in_memory("left", (table, left))
    in_memory("right", (table, right))
    target, marked = Noting("right"), Marked.empty()
    compare(source, target, table, table, marked=marked)

    def once(work: Callable[[], Any]) -> Any:
        return work()

    result = mend(
        source,
        target,
        table,
        fit or Fit(table, (Integers(), Texts(nul=True)), keyed=bool(table.key)),
        marked,
        size=2,
        open_reader=lambda: Memory("right"),
        retrying=once,
        **choices,
    )
    marked.close()
    return target, result


def test_without_leave_only_missing_rows_are_added() -> None:
    target, result = mended(LEFT, RIGHT, pairs(), change=False, remove=False)
    assert target.told == [("add", [(2, "new"), (5, "a\0b")])]
    assert result == (2, 0)


def test_with_update_the_source_wins() -> None:
    target, result = mended(LEFT, RIGHT, pairs(), change=True, remove=False)
    assert sorted(target.told) == [("add", [(2, "new"), (5, "a\0b")]), ("replace", [(3, "changed")])]
    assert result == (3, 0)


def test_with_mirror_rows_are_removed_before_any_is_written() -> None:
    target, _ = mended(LEFT, RIGHT, pairs(), change=True, remove=True)
    assert target.told[0] == ("remove", [(4,)])
    assert multiset(target.shelf.rows["t"]) == multiset(LEFT)


def test_cells_that_do_not_fit_are_kept_beside_here_too() -> None:
    fit = Fit(pairs(), (Integers(), Texts()), key=frozenset({0}))
    target, result = mended(LEFT, RIGHT, pairs(), fit, change=False, remove=False)
    assert target.told == [
        ("add", [(2, "new"), (5, None)]),
        ("keep", [("v", "a NUL character in text")]),
    ]
    assert result == (2, 1)


def test_equal_stores_are_left_alone() -> None:
    target, result = mended(LEFT, LEFT, pairs(), change=True, remove=True)
    assert (target.told, result) == ([], (0, 0))


def test_rows_without_a_key_are_added_and_removed_by_copies() -> None:
    left: list[Row] = [(1, "x"), (1, "x"), (1, "x"), (2, "y")]
    right: list[Row] = [(1, "x"), (3, "z"), (3, "z"), (2, "y")]
    target, result = mended(left, right, pairs(key=()), change=True, remove=True)
    assert multiset(target.shelf.rows["t"]) == multiset(left)
    assert target.told[0] == ("remove", [(3, "z"), (3, "z")])
    assert result == (2, 0)


def test_rows_whose_key_is_null_are_matched_whole() -> None:
    left: list[Row] = [(None, "a"), (None, "b"), (None, "b"), (1, "c")]
    right: list[Row] = [(None, "b"), (None, "d"), (1, "c")]
    target, _ = mended(left, right, pairs(), change=True, remove=True)
    assert multiset(target.shelf.rows["t"]) == multiset(left)


def test_many_rows_are_amended_a_few_hundred_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_AT_ONCE", 3)
    left: list[Row] = [(n, "x") for n in range(10)]
    right: list[Row] = [(n, "y") for n in range(100, 107)]
    target, result = mended(left, right, pairs(), change=True, remove=True)
    assert result == (10, 0)
    assert multiset(target.shelf.rows["t"]) == multiset(left)
    assert all(len(rows) <= 4 for _, rows in target.told)
    assert [what for what, _ in target.told] == ["remove"] * 3 + ["add"] * 3
