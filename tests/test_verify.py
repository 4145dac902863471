"""Comparing two stores: what is missing, extra or different is named; order and chunking never matter."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import current_thread
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import ledger
from migrate.backends.memory import Memory
from migrate.batch import Batch, Row
from migrate.errors import MigrateError, TransientError
from migrate.schema import Column, Kind, Table
from migrate.verify import Marked, Outcome, compare, compare_counts
from tests.small_stores import in_memory, pairs

pytestmark = pytest.mark.usefixtures("shelves")

KEYED, LOOSE = pairs(), pairs(key=())


def compared(
    left: list[Row],
    right: list[Row],
    table: Table = KEYED,
    there: Table | None = None,
    **options: Any,
) -> Outcome:
    Memory.shelves.clear()
    a = in_memory("left", (table, left))
    b = in_memory("right", (there or table, right))
    return compare(a, b, table, there or table, **options)


def summary(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.missing, outcome.extra, outcome.different


def rows(*numbers: int) -> list[Row]:
    return [(n, f"v{n}") for n in numbers]


def test_equal_stores_are_clean() -> None:
    found = compared(rows(1, 2, 3), rows(1, 2, 3))
    assert (found.clean, found.checked, found.rows_source, found.rows_target) == (True, 3, 3, 3)
    assert found.to_dict() == {"missing": 0, "extra": 0, "different": 0, "shown": []}
    assert compared([], []).clean


def test_missing_extra_and_different_are_named_by_key_and_column() -> None:
    found = compared([(1, "a"), (2, "b"), (3, "c")], [(1, "a"), (3, "C"), (4, "d")])
    assert summary(found) == (1, 1, 1)
    assert not found.clean
    assert sorted(found.shown, key=lambda d: d["key"]) == [
        {"table": "t", "what": "missing", "key": [2]},
        {"table": "t", "what": "different", "key": [3], "columns": ["v"]},
        {"table": "t", "what": "extra", "key": [4]},
    ]
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), ("1", b"1"), (None, ""), ("é", "e\u0301")]
)
def test_values_that_python_takes_for_equal_are_different(a: Any, b: Any) -> None:
    found = compared([(7, a)], [(7, b)])
    assert summary(found) == (0, 0, 1)
    assert found.shown[0]["columns"] == ["v"]


def test_nan_equals_itself_by_its_bits() -> None:
    table = Table("t", (Column("id", Kind.INTEGER), Column("r", Kind.REAL)), ("id",))
    assert compared([(1, float("nan"))], [(1, float("nan"))], table).clean


def test_json_columns_compare_as_values() -> None:
    table = Table("t", (Column("id", Kind.INTEGER), Column("j", Kind.JSON)), ("id",))
    left: list[Row] = [(1, '{"a": 1, "b": [2]}'), (2, "1"), (3, "{broken"), (4, None)]
    assert compared(left, [(1, '{"b":[2],"a":1}'), *left[1:]], table).clean
    assert summary(compared(left, [left[0], (2, "1.0"), (3, "{broken "), (4, "null")], table)) == (0, 0, 3)


def test_a_blob_is_not_the_json_text_of_its_bytes() -> None:
    table = Table("t", (Column("id", Kind.INTEGER), Column("j", Kind.JSON)), ("id",))
    left: list[Row] = [(1, '{"a":1}'), (2, "[1, 2]")]
    assert summary(compared(left, [(1, b'{"a":1}'), (2, b"[1,2]")], table)) == (0, 0, 2)


def test_a_row_in_the_middle_missing_costs_one_difference() -> None:
    left = rows(*range(5000))
    found = compared(left, left[:2500] + left[2501:], size=100)
    assert summary(found) == (1, 0, 0)
    assert found.shown == [{"table": "t", "what": "missing", "key": [2500]}]
    assert found.checked == 5000


@given(st.data())
def test_order_and_batch_sizes_do_not_matter(data: st.DataObject) -> None:
    left = data.draw(st.permutations(rows(*range(12))))
    right = data.draw(st.permutations([*rows(*range(2, 12)), (20, "extra")]))
    right = [(3, "changed") if row[0] == 3 else row for row in right]
    found = compared(left, right, size=data.draw(st.integers(1, 5)))
    assert summary(found) == (2, 1, 1)
    assert {(d["what"], d["key"][0]) for d in found.shown} == {
        ("missing", 0),
        ("missing", 1),
        ("extra", 20),
        ("different", 3),
    }


def test_reversed_order_on_disk_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_HELD", 50)
    left = rows(*range(3000))
    right = [*reversed(left[1:]), (3001, "x")]
    assert summary(compared(left, right, size=100)) == (1, 1, 0)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_tables_without_a_key_are_multisets(a: list[str], b: list[str]) -> None:
    found = compared([(1, v) for v in a], [(1, v) for v in b], LOOSE, size=2)
    missing = sum(max(a.count(v) - b.count(v), 0) for v in "abc")
    extra = sum(max(b.count(v) - a.count(v), 0) for v in "abc")
    assert summary(found) == (missing, extra, 0)


def test_repeated_keys_are_counted() -> None:
    twice: list[Row] = [(None, "a"), (None, "a"), (None, "b")]
    assert summary(compared(twice, twice[1:])) == (1, 0, 0)
    assert summary(compared(twice, [*twice, (None, "a")])) == (0, 1, 0)


def test_columns_of_the_target_are_picked_by_name() -> None:
    there = Table("t", (Column("new", Kind.TEXT), *reversed(KEYED.columns)), ("id",))
    assert compared(rows(1), [("n", "v1", 1)], KEYED, there).clean
    assert summary(compared(rows(1), [("n", "v2", 1)], KEYED, there)) == (0, 0, 1)
    with pytest.raises(MigrateError, match="has no column 'v'"):
        compared(rows(1), [(1,)], KEYED, replace(KEYED, columns=KEYED.columns[:1]))


def test_a_sample_compares_one_row_in_twenty_the_same_on_both_sides() -> None:
    left = rows(*range(4000))
    shuffled = list(left)
    random.Random(1).shuffle(shuffled)
    found = compared(left, shuffled, sample=True)
    assert found.clean
    assert 120 < found.checked < 300
    assert (found.rows_source, found.rows_target) == (4000, 4000)
    changed: list[Row] = [(n, "changed") for n, _ in left]
    assert compared(left, changed, sample=True).different == found.checked


def test_counts_compare_only_the_numbers_of_rows() -> None:
    Memory.shelves.clear()
    a, b = in_memory("a", (KEYED, rows(1, 2, 3))), in_memory("b", (KEYED, rows(7)))
    assert summary(compare_counts(a, b, KEYED, KEYED)) == (2, 0, 0)
    assert summary(compare_counts(b, a, KEYED, KEYED)) == (0, 2, 0)
    assert compare_counts(a, a, KEYED, KEYED).clean


def test_what_differs_is_marked_for_a_second_pass() -> None:
    marked = Marked.empty()
    compared([(1, "a"), (2, "b")], [(2, "B"), (3, "c")], marked=marked)
    assert (marked.add.total, marked.change.total, marked.remove.total) == (1, 1, 1)
    marked.close()


def test_only_the_first_differences_are_shown_and_all_are_counted() -> None:
    found = compared(rows(*range(100)), [])
    assert found.missing == 100
    assert len(found.shown) == 20


class Broken(Memory):
    """A store that fails while it is read."""

    def batches(self, table: Table, *, size: int, after: Any = None) -> Any:
        yield from super().batches(table, size=size)
        raise MigrateError("the disk is gone")


@pytest.mark.parametrize("side", [0, 1])
def test_an_error_while_reading_either_side_ends_the_comparison(side: int) -> None:
    in_memory("s", (KEYED, rows(*range(100))))
    sides = [Memory("s"), Memory("s")]
    sides[side] = Broken("s")
    with pytest.raises(MigrateError, match="the disk is gone"):
        compare(sides[0], sides[1], KEYED, KEYED, size=10)


def test_progress_counts_the_rows_of_the_source() -> None:
    seen: list[int] = []
    compared(rows(*range(10)), rows(*range(10)), size=4, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 10


class Slow(Memory):
    """A store whose reading waits, and which says in which threads it was read."""

    threads: ClassVar[set[str]] = set()

    def batches(self, table: Table, *, size: int, after: Any = None) -> Iterator[Batch]:
        for batch in super().batches(table, size=size, after=after):
            time.sleep(0.02)
            self.threads.add(current_thread().name)
            yield batch


def test_a_side_that_keeps_us_waiting_is_read_ahead_in_a_thread() -> None:
    many = rows(*range(400))
    left, right = in_memory("left", (KEYED, many)), in_memory("right", (KEYED, [*many[:-1], (399, "x")]))
    slow = Slow(left.name)
    found = compare(slow, right, KEYED, KEYED, size=20)
    assert summary(found) == (0, 0, 1)
    assert len(Slow.threads) == 2


def test_an_error_of_a_side_that_is_read_ahead_is_raised() -> None:
    class Failing(Slow):
        def batches(self, table: Table, *, size: int, after: Any = None) -> Iterator[Batch]:
            for n, batch in enumerate(super().batches(table, size=size, after=after)):
                if n == 15:
                    raise TransientError("gone")
                yield batch

    many = rows(*range(400))
    left, right = in_memory("left", (KEYED, many)), in_memory("right", (KEYED, many))
    with pytest.raises(TransientError, match="gone"):
        compare(Failing(left.name), right, KEYED, KEYED, size=20)
