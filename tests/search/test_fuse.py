"""Ranked lists become one."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.search.fuse import best, fused, key_order


def test_ranks_are_summed_and_the_best_come_first() -> None:
    found = fused([[("a",), ("b",)], [("b",), ("c",)]], 10)
    assert found == [(("b",), 1 / 62 + 1 / 61), (("a",), 1 / 61), (("c",), 1 / 62)]


def test_equal_sums_come_in_the_order_of_keys_and_k_cuts() -> None:
    assert [key for key, _ in fused([[("b",)], [("a",)]], 10)] == [("a",), ("b",)]
    assert fused([[("b",)], [("a",)]], 1) == [(("a",), 1 / 61)]
    assert fused([[], []], 5) == []


def test_keys_of_any_types_have_an_order() -> None:
    keys: list[tuple[Any, ...]] = [("a",), (b"a",), (2,), (None,), (1.5,), ("B",)]
    assert sorted(keys, key=key_order) == [(None,), (1.5,), (2,), ("B",), ("a",), (b"a",)]
    assert [key for key, _ in best([(key, 1.0) for key in keys], 3)] == [(None,), (1.5,), (2,)]


@pytest.mark.parametrize(("worse", "better"), [((1, 61), (20, 20))])
def test_a_row_in_both_lists_beats_the_first_of_one(worse: tuple[int, int], better: tuple[int, int]) -> None:
    lists: list[list[tuple[Any, ...]]] = [[(f"x{at}{i}",) for i in range(60)] for at in (0, 1)]
    lists[0][worse[0] - 1] = ("worse",)
    lists[0][better[0] - 1] = lists[1][better[1] - 1] = ("better",)
    assert fused(lists, 1)[0][0] == ("better",)
