"""Requests under way at once, as many as the store takes: the writer of stores behind a network.

Every request must be safe to send twice (an upsert under fixed ids), because
one whose answer was lost is sent again. The number under way grows by one for
each full round of successes and is halved when the store says it is
overloaded, which is how TCP finds its pace; a `Retry-After` holds all back.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from migrate.errors import TransientError, UnreachableError

Request = TypeVar("Request")
Result = TypeVar("Result")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
PATIENCE_S = 60.0  # without one success for so long, the run's own retry takes over
AWAY_S = 3.0  # for a store that has not answered once yet: its address may be wrong
LONGEST_ASKED_S = 120.0  # a longer Retry-After is taken for this


def retry_after(value: Any) -> float | None:
    """Return the seconds of a Retry-After: a number, also with a fraction, or a date."""
    if value is None:
        return None
    text = str(value).strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def patiently(work: Callable[[], Result], over: threading.Event, *, reached: bool = True) -> Result:
    """Do one request, again after a TransientError, until it has failed for `PATIENCE_S`; return its result.

    A run that is told of an error reads a whole table again, so a busy moment is waited out here.
    over: set when nobody needs the result any more; the error is raised at once then.
    reached: whether the store has ever answered; to one that has not, no connection is tried for long.
    """
    since, failures = time.monotonic(), 0
    while True:
        try:
            return work()
        except TransientError as exc:
            failures += exc.retry_after is None
            wait = _pause(exc, failures)
            patience_s = AWAY_S if isinstance(exc, UnreachableError) and not reached else PATIENCE_S
            if time.monotonic() - since + (0 if exc.retry_after else wait) > patience_s or over.wait(wait):
                raise


def _pause(error: TransientError, failures: int) -> float:
    """Return the seconds to wait after some failures in a row: what was asked for, else longer each time."""
    if error.retry_after is not None:
        return max(0.0, min(error.retry_after, LONGEST_ASKED_S))
    longest: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


@dataclass(slots=True)
class Counts:
    """What happened, for a report: requests that succeeded, and tries that did not."""

    requests: int = 0
    retries: int = 0
    waited_s: float = 0.0


@dataclass(slots=True)
class _State(Generic[Request]):
    waiting: deque[Request] = field(default_factory=deque)
    active: int = 0
    pause_until: float = 0.0
    failures: int = 0  # since the last success
    last_success: float = 0.0
    error: BaseException | None = None
    closed: bool = False


class Writer(Generic[Request]):
    """Sends requests from a few threads.

    send:    sends one and returns when it is acknowledged; raises TransientError where another try may help.
    streams: the most that are ever under way.
    patience_s: without one success for so long an error is raised; `PATIENCE_S` unless told.
    ahead:   requests that may wait beyond those; `submit` blocks when there are more.
    """

    def __init__(
        self,
        send: Callable[[Request], None],
        *,
        streams: int = 4,
        ahead: int = 2,
        patience_s: float | None = None,
    ) -> None:
        self._send, self._streams, self._ahead = send, streams, ahead
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._width = float(min(2, streams))
        self._state: _State[Request] = _State()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.counts = Counts()

    @property
    def width(self) -> int:
        """Return how many requests may be under way now."""
        return max(1, int(self._width))

    def submit(self, request: Request) -> None:
        """Hand a request over. Raises what an earlier one met."""
        with self._changed:
            self._raise()
            if not self._state.waiting and not self._state.active:
                self._state.last_success = time.monotonic()  # patience counts from the first of a series
            while len(self._state.waiting) >= self._ahead:
                self._changed.wait(1.0)
                self._raise()
            self._state.waiting.append(request)
            if len(self._threads) < self._streams and len(self._threads) < self._state.active + len(
                self._state.waiting
            ):
                self._begin()
            self._changed.notify_all()

    def settle(self) -> None:
        """Return when all is acknowledged; raise what one of them met."""
        with self._changed:
            while (self._state.waiting or self._state.active) and self._state.error is None:
                self._changed.wait(1.0)
            self._raise()

    def abandon(self) -> None:
        """Forget what is not yet sent and wait for what is under way."""
        with self._changed:
            self._state.waiting.clear()
            self._state.error = None
            self._state.pause_until = 0.0
            while self._state.active:
                self._state.waiting.clear()
                self._changed.wait(1.0)
            self._state.error = None

    def close(self) -> None:
        """End the threads. Idempotent."""
        with self._changed:
            self._state.closed = True
            self._state.waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)
        self._threads.clear()

    def _raise(self) -> None:
        error, self._state.error = self._state.error, None
        if error is not None:
            self._state.waiting.clear()
            raise error

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, name="memlift writer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                request = self._next()
                if request is None:
                    return
            try:
                self._send(request)
            except TransientError as exc:
                self._failed(request, exc)
            except BaseException as exc:  # raised again in the thread that submits
                self._ended(exc)
            else:
                self._succeeded()

    def _next(self) -> Request | None:
        """Wait for a turn and take a request; None when all is over."""
        state = self._state
        while True:
            if state.closed:
                return None
            hold = state.pause_until - time.monotonic()
            if state.waiting and state.active < self.width and hold <= 0:
                state.active += 1
                request = state.waiting.popleft()
                self._changed.notify_all()
                return request
            self._changed.wait(min(hold, 1.0) if state.waiting and hold > 0 else 1.0)

    def _succeeded(self) -> None:
        with self._changed:
            state = self._state
            state.active -= 1
            state.failures, state.last_success = 0, time.monotonic()
            self._width = min(float(self._streams), self._width + 1 / self._width)
            self.counts.requests += 1
            self._changed.notify_all()

    def _failed(self, request: Request, error: TransientError) -> None:
        with self._changed:
            state, now = self._state, time.monotonic()
            state.active -= 1
            self.counts.retries += 1
            if now - state.last_success > self._patience_s:
                state.error = error
            else:
                if now >= state.pause_until:  # those that failed together count once
                    state.failures += 1
                    self._width = max(1.0, self._width / 2)
                    wait = _pause(error, state.failures)
                    state.pause_until = now + wait
                    self.counts.waited_s += wait
                state.waiting.appendleft(request)
            self._changed.notify_all()

    def _ended(self, error: BaseException) -> None:
        with self._changed:
            self._state.active -= 1
            self._state.error = self._state.error or error
            self._state.waiting.clear()
            self._changed.notify_all()
