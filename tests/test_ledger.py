"""Rows matched by key: any order, repeated rows, and the same answer from memory and from disk."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import ledger as module
from migrate.ledger import Difference, Ledger, Wanted

Entry = tuple[int, bytes, bytes]
entries = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b", b""]), st.sampled_from([b"1", b"2", b"3"])),
    max_size=40,
)


def left_over(given_entries: list[Entry]) -> dict[bytes, tuple[Counter[bytes], Counter[bytes]]]:
    """Count what does not cancel out, by an oracle of its own."""
    found: dict[bytes, tuple[Counter[bytes], Counter[bytes]]] = {}
    for key in {key for _, key, _ in given_entries}:
        sides = [Counter(d for s, k, d in given_entries if (s, k) == (side, key)) for side in (0, 1)]
        left, right = sides[0] - sides[1], sides[1] - sides[0]
        if left or right:
            found[key] = (left, right)
    return found


def matched(given_entries: list[Entry]) -> list[Difference]:
    ledger = Ledger()
    try:
        for entry in given_entries:
            ledger.enter(*entry)
        return list(ledger.differences())
    finally:
        ledger.close()


def counted(found: list[Difference]) -> dict[bytes, tuple[Counter[bytes], Counter[bytes]]]:
    assert len({d.key for d in found}) == len(found)
    return {d.key: (Counter(d.left), Counter(d.right)) for d in found}


@given(entries)
def test_equal_entries_of_the_two_sides_cancel_out_in_any_order(given_entries: list[Entry]) -> None:
    assert counted(matched(given_entries)) == left_over(given_entries)


@pytest.mark.parametrize("held", [0, 1, 7])
def test_the_answer_is_the_same_when_entries_go_to_disk(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", held)
    rng = random.Random(held)
    for _ in range(40):
        given_entries = [
            (rng.randrange(2), rng.choice([b"a", b"b", b""]), rng.choice([b"1", b"2"])) for _ in range(30)
        ]
        assert counted(matched(given_entries)) == left_over(given_entries)


def test_a_key_changed_on_one_side_has_what_each_side_holds() -> None:
    assert matched([(0, b"k", b"old"), (1, b"k", b"new")]) == [Difference(b"k", (b"old",), (b"new",))]


def test_differences_from_disk_come_in_order_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 2)
    found = matched([(0, bytes([n]), b"x") for n in (5, 1, 4, 2, 3)])
    assert [d.key for d in found] == [b"\1", b"\2", b"\3", b"\4", b"\5"]


def test_rows_far_apart_in_the_two_stores_still_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 10)
    rows = [(0, b"%d" % n, b"x") for n in range(200)] + [(1, b"%d" % n, b"x") for n in reversed(range(200))]
    assert matched(rows) == []


def test_a_ledger_that_spilled_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 10)
    ledger = Ledger()
    for n in range(1000):
        ledger.enter(0, b"%d" % n, b"x")
        assert sum(len(left) + len(right) for left, right in ledger._near.values()) <= 10
    ledger.close()


def test_wanted_keys_are_counted_off() -> None:
    wanted = Wanted()
    wanted.add(b"a")
    wanted.add(b"a", 2)
    wanted.add(b"b")
    assert wanted.total == 4
    assert sorted(wanted.each()) == [b"a", b"b"]
    assert [wanted.take(b"a") for _ in range(4)] == [True, True, True, False]
    assert [wanted.take(b"b"), wanted.take(b"b"), wanted.take(b"c")] == [True, False, False]
    wanted.close()


def test_a_closed_ledger_may_be_closed_again() -> None:
    ledger = Ledger()
    ledger.close()
    ledger.close()
