"""SIGINT and SIGTERM: a clean checkpoint first, a broken-off call next, a bound on it all.

The copy and verify loops look at `stop` after each batch, so most runs end by
themselves within a moment. A run that is inside one long call (an index build,
a slow server) is interrupted after `PATIENCE_S`, or at once by a second signal.
What even that does not move (a statement inside SQLite's C code) ends with the
process after `LIMIT_S`: what was committed stays, as after a kill -9.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from migrate.errors import InterruptedRunError

PATIENCE_S = 3.0  # a batch and its commit take a second at most
LIMIT_S = 4.8  # a checkpoint within 5 s is promised
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALARM: int | None = getattr(signal, "SIGALRM", None)  # not on Windows: there only the limit counts
HINT = "run the same command again to go on"


class BrokenOffError(InterruptedRunError, KeyboardInterrupt):
    """Raised inside a call that took too long after a signal.

    psycopg cancels its query for a KeyboardInterrupt only, and the engine keeps
    the partial report of a MigrateError only; so it is both.
    """


class Interruption:
    """Watches for signals while the block lasts.

    stop:    set by the first signal.
    at_once: raise in the main thread with the first signal; for commands that do
             not look at `stop`.
    last:    called with the exit code before a process that hangs is ended; may
             print, must not raise.
    """

    def __init__(
        self,
        *,
        at_once: bool = False,
        say: Callable[[str], None] = lambda _: None,
        last: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.stop = threading.Event()
        self.number: int | None = None
        self.broken_off = False
        self._at_once, self._say, self._last = at_once, say, last
        self._over = False
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self._ours, self._watched = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)

    @property
    def exit_code(self) -> int:
        """Return 128 + the signal that came, or 130 where none has come."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self
        for handled in SIGNALS:
            self._before[handled] = signal.signal(handled, self._in_main_thread)
        self._ours.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if _ALARM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for handled, before in self._before.items():
                signal.signal(handled, before)
        self._ours.close()  # ends the thread
        if self._thread.is_alive():
            self._thread.join(1)
        self._watched.close()

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        """Raise when it is time to. Runs between two steps of Python code in the main thread.

        `stop` is set by the other thread: this one may be inside `stop.wait`, and hold its lock.
        """
        if self._over:
            return
        if number == _ALARM or self._at_once or self.number is not None:
            self._at_once = False
            self.number = self.number or number
            self.broken_off = True
            raise BrokenOffError("interrupted", exit_code=self.exit_code, hint=HINT)
        self.number = number
        if _ALARM is not None:
            self._before[_ALARM] = signal.signal(_ALARM, self._in_main_thread)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def _watch(self) -> None:
        """Learn of signals at once, also while the main thread is inside C code."""
        deadline: float | None = None
        first: int = signal.SIGINT
        while not self._over:
            self._watched.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.01))
            try:
                came = self._watched.recv(1)
            except TimeoutError:
                break
            except OSError:
                return
            if not came:
                return
            if came[0] in SIGNALS and deadline is None:
                first, deadline = came[0], time.monotonic() + LIMIT_S
                self.stop.set()
                if not self._at_once:
                    self._say("stopping at the next checkpoint; once more to break off")
        if not self._over:
            self._last(128 + first)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + first)
