"""The outer retry loop of backups: goes on where boto3's own five attempts have given up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from migrate.errors import InterruptedRunError, TransientError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on after TransientError.

    total_s: seconds of trying before the last error is raised; first_s and
    cap_s: bounds of the pause, doubled each time and drawn at random (full
    jitter), so that many clients do not return together. A store's own
    `retry_after` is a lower bound. cancel: set it to stop within a moment.
    """

    # 300: boto3 gave up after 13 s of 503 (measured); outages of object stores last minutes.
    total_s: float = 300.0
    first_s: float = 0.5
    cap_s: float = 30.0
    cancel: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise InterruptedRunError where `cancel` is set."""
        if self.cancel.is_set():
            raise InterruptedRunError("stopped", exit_code=143, hint="run it again")

    def call(self, operation: Callable[[], T]) -> T:
        """Return operation(), tried again after each TransientError until total_s have passed."""
        deadline = time.monotonic() + self.total_s
        bound = self.first_s
        while True:
            self.check()
            try:
                return operation()
            except TransientError as exc:
                pause = max(random.uniform(0, bound), exc.retry_after or 0.0)  # noqa: S311 - jitter
                if time.monotonic() + pause > deadline:
                    raise
                self.cancel.wait(pause)
                bound = min(bound * 2, self.cap_s)
