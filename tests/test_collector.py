"""The collector waits while rows stream by, and is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from migrate.collector import patient


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_batches_of_rows_are_not_looked_at() -> None:
    began = []
    gc.callbacks.append(lambda phase, info: began.append(phase))
    try:
        with patient():
            gc.collect(0)
            began.clear()
            for _ in range(20):
                rows = [(object(), i) for i in range(1000)]
                del rows
            assert began == []
            kept = [[i] for i in range(20_000)]  # growth that no batch explains is
            assert began
            del kept
    finally:
        gc.callbacks.pop()


def test_the_last_of_several_runs_puts_back_what_was_set() -> None:
    gc.set_threshold(500, 5, 5)
    with patient():
        with patient():
            assert gc.get_threshold()[0] > 1000
        assert gc.get_threshold()[0] > 1000
    assert gc.get_threshold() == (500, 5, 5)


@pytest.mark.parametrize("set_by_user", [0, 1_000_000])
def test_a_user_who_asked_for_less_of_it_is_left_alone(set_by_user: int) -> None:
    gc.set_threshold(set_by_user, 5, 5)
    with patient():
        assert gc.get_threshold() == (set_by_user, 5, 5)


def test_an_error_puts_it_back_too() -> None:
    gc.set_threshold(500, 5, 5)
    with pytest.raises(RuntimeError), patient():
        raise RuntimeError
    assert gc.get_threshold() == (500, 5, 5)
