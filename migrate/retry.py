"""The one retry loop: only for `TransientError`, bounded, with backoff and jitter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from migrate.errors import TransientError, UnreachableError

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0
PATIENCE_S = 120.0  # without any progress for so long, the store is given up
AWAY_S = 5.0  # and one that was never reached, so soon: its address may be wrong, and nothing is lost


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, TransientError) else None
    if asked is not None:
        return min(asked, PATIENCE_S)
    backoff = tenacity.wait_exponential(FIRST_WAIT_S, max=LONGEST_WAIT_S) + tenacity.wait_random(0, 0.5)
    return float(backoff(state))


class _Patience:
    """Stops when too long a time has passed since something last became durable."""

    def __init__(self, progress: Callable[[], int], patience_s: float, away_s: float) -> None:
        self._progress, self._patience_s, self._away_s = progress, patience_s, away_s
        self._seen, self._since = progress(), time.monotonic()

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        now = self._progress()
        if now > self._seen:
            self._seen, self._since = now, time.monotonic()
        error = state.outcome.exception() if state.outcome else None
        patience_s = self._away_s if isinstance(error, UnreachableError) else self._patience_s
        return time.monotonic() - self._since > patience_s


def call(
    work: Callable[[], T],
    *,
    recover: Callable[[], None],
    progress: Callable[[], int] = lambda: 0,
    say: Callable[[str], None] = lambda _: None,
    patience_s: float = PATIENCE_S,
    away_s: float | None = None,
) -> T:
    """Do `work`, again after a TransientError, until `patience_s` have passed without progress.

    recover:  makes the store usable again (reconnects); may itself raise TransientError.
    progress: a number that grows whenever something became durable; patience
              starts anew each time it has grown.
    away_s:   the same for a store to which no connection can be made; None: as long.
    """
    tried = False

    def attempt() -> T:
        nonlocal tried
        if tried:
            recover()
        tried = True
        return work()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        wait=_wait,
        stop=_Patience(progress, patience_s, patience_s if away_s is None else away_s),
        before_sleep=lambda s: say(f"{s.outcome.exception() if s.outcome else 'failed'}; trying again"),
        reraise=True,
    )
    return retrying(attempt)
