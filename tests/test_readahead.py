"""Reading ahead: a thread only where something waits; order, errors and the end are the same in both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from itertools import count
from threading import active_count, current_thread, main_thread

import pytest

from migrate.readahead import Ahead


def numbers(n: int, before: Callable[[], object], seen: set[str]) -> Generator[int, None, None]:
    try:
        for i in range(n):
            before()
            seen.add("here" if current_thread() is main_thread() else "thread")
            yield i
    finally:
        seen.add("closed")


def busy() -> None:
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        sum(range(1000))


def nap() -> None:
    time.sleep(0.01)


@pytest.mark.parametrize(
    ("reading", "taking", "wanted"),
    [(nap, busy, {"here", "thread"}), (busy, nap, {"here", "thread"}), (nap, nap, {"here", "thread"})],
)
def test_a_side_that_waits_is_helped_by_a_thread(
    reading: Callable[[], object], taking: Callable[[], object], wanted: set[str]
) -> None:
    seen: set[str] = set()
    taken = []
    with Ahead(numbers(40, reading, seen), "numbers") as ahead:
        for n in ahead:
            taken.append(n)
            taking()
    assert taken == list(range(40))
    assert seen == wanted | {"closed"}


def test_what_never_waits_is_read_in_the_same_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(0.0, 1e-6)  # whatever else the machine does
    monkeypatch.setattr(time, "thread_time", lambda: next(ticks))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    seen: set[str] = set()
    with Ahead(numbers(20_000, lambda: None, seen), "numbers") as ahead:
        assert sum(ahead) == sum(range(20_000))
    assert seen == {"here", "closed"}


@pytest.mark.parametrize("at", [0, 35])
def test_an_error_is_raised_where_the_items_are_taken(at: int) -> None:
    def failing() -> Generator[int, None, None]:
        for i in range(40):
            nap()
            if i == at:
                raise ValueError("no more")
            yield i

    taken: list[int] = []
    with Ahead(failing(), "failing") as ahead, pytest.raises(ValueError, match="no more"):
        taken.extend(ahead)
    assert taken == list(range(at))


@pytest.mark.parametrize("after", [0, 5, 30])
def test_a_taker_that_leaves_leaves_nothing_behind(after: int) -> None:
    seen: set[str] = set()
    threads = active_count()
    made = 0

    def counted() -> None:
        nonlocal made
        made += 1
        nap()

    with Ahead(numbers(1000, counted, seen), "numbers") as ahead:
        for n in ahead:
            if n == after:
                break
    assert "closed" in seen
    assert made <= after + 6  # nothing is read that nobody takes
    assert active_count() == threads
