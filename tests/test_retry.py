"""The one retry loop, in virtual time."""

from __future__ import annotations

import pytest

from migrate import retry
from migrate.errors import BackendError, TransientError, UnreachableError


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tenacity.nap.time.sleep", made.sleep)
    monkeypatch.setattr(retry, "time", made)
    return made


class Flaky:
    """Fails as often as it is told, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls, self.recovered = list(errors), 0, 0

    def work(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def recover(self) -> None:
        self.recovered += 1


def test_work_that_succeeds_is_done_once_without_recovering(clock: Clock) -> None:
    flaky = Flaky()
    assert retry.call(flaky.work, recover=flaky.recover) == "done"
    assert (flaky.calls, flaky.recovered, clock.slept) == (1, 0, [])


def test_transient_errors_are_retried_after_recovering_and_said(clock: Clock) -> None:
    flaky, said = Flaky(TransientError("away"), TransientError("busy")), list[str]()
    assert retry.call(flaky.work, recover=flaky.recover, say=said.append) == "done"
    assert (flaky.calls, flaky.recovered) == (3, 2)
    assert said == ["away; trying again", "busy; trying again"]


@pytest.mark.parametrize("error", [BackendError("no"), ValueError("bug"), KeyboardInterrupt()])
def test_any_other_error_ends_the_run_at_once(clock: Clock, error: BaseException) -> None:
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)):
        retry.call(work, recover=lambda: None)
    assert (calls, clock.slept) == (1, [])


def test_waits_grow_from_a_quarter_of_a_second_to_ten_seconds(clock: Clock) -> None:
    flaky = Flaky(*[TransientError("away")] * 12)
    retry.call(flaky.work, recover=flaky.recover)
    assert 0.25 <= clock.slept[0] <= 0.75
    assert all(s <= 10.5 for s in clock.slept)
    assert clock.slept[-1] >= 9.5
    assert all(b > a - 0.5 for a, b in zip(clock.slept, clock.slept[1:], strict=False))


def test_the_store_says_how_long_to_wait(clock: Clock) -> None:
    flaky = Flaky(TransientError("429", retry_after=7.0), TransientError("429", retry_after=0.0))
    retry.call(flaky.work, recover=flaky.recover)
    assert clock.slept == [7.0, 0.0]


def test_a_store_that_asks_for_an_hour_does_not_get_it(clock: Clock) -> None:
    flaky = Flaky(TransientError("429", retry_after=3600.0))
    retry.call(flaky.work, recover=flaky.recover)
    assert clock.slept == [retry.PATIENCE_S]


def test_patience_ends_after_two_minutes_without_progress(clock: Clock) -> None:
    flaky = Flaky(*[TransientError("away")] * 1000)
    with pytest.raises(TransientError, match="away"):
        retry.call(flaky.work, recover=flaky.recover)
    assert 120 <= sum(clock.slept) <= 132


def test_a_store_that_was_never_reached_is_given_up_soon_where_that_is_asked(clock: Clock) -> None:
    refused = Flaky(*[UnreachableError("refused")] * 1000)
    with pytest.raises(UnreachableError):
        retry.call(refused.work, recover=refused.recover, away_s=5.0)
    assert 5 <= sum(clock.slept) <= 12
    busy = Flaky(*[TransientError("busy")] * 8)
    assert retry.call(busy.work, recover=busy.recover, away_s=5.0) == "done"


def test_patience_starts_anew_with_every_progress(clock: Clock) -> None:
    commits = 0

    def work() -> str:
        nonlocal commits
        commits += 1
        if commits < 100:
            raise TransientError("away", retry_after=60)
        return "done"

    assert retry.call(work, recover=lambda: None, progress=lambda: commits) == "done"
    assert sum(clock.slept) == 99 * 60


def test_recovering_may_fail_for_a_while_too(clock: Clock) -> None:
    flaky, fails = Flaky(TransientError("away")), [TransientError("still away"), TransientError("still")]

    def recover() -> None:
        if fails:
            raise fails.pop()

    assert retry.call(flaky.work, recover=recover) == "done"
    assert (flaky.calls, fails) == (2, [])
