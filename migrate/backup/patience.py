"""The outer retry loop of backups: goes on where boto3 has given up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from migrate.errors import InterruptedRunError, TransientError

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on after TransientError.

    total_s: seconds of trying before the last error is raised; first_s and
    cap_s: bounds of the pause, doubled each time and drawn at random (full
    jitter), so that many clients do not return together. A store's own
    `retry_after` is a lower bound; one beyond total_s is taken for that, since
    MinIO asks for 60 s whatever is the matter (`writeErrorResponse`).
    cancel: set it to stop within a moment.
    """

    # 300: boto3's own five tries ended after 13 s of 503 (measured); outages of object stores last minutes.
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
                left = deadline - time.monotonic()
                if pause > left and (left <= 0 or (exc.retry_after or 0.0) <= self.total_s):
                    raise
                self.cancel.wait(min(pause, left))
                bound = min(bound * 2, self.cap_s)


def parallel(function: Callable[[S], T], items: list[S], *, workers: int) -> list[T]:
    """Return [function(item) ...] in order, computed by daemon threads; raises the first error.

    Not a ThreadPoolExecutor: its threads are waited for at exit, and a process
    that was told to stop must not wait for a slow store.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    todo = iter(enumerate(items))
    lock = threading.Lock()

    def work() -> None:
        while not errors:
            with lock:
                number, item = next(todo, (-1, None))
            if number < 0:
                return
            try:
                results[number] = function(item)  # type: ignore[arg-type]
            except BaseException as exc:  # carried to the caller's thread
                errors.append(exc)

    threads = [
        threading.Thread(target=work, name="memlift-read", daemon=True)
        for _ in range(min(workers, len(items)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(items))]
