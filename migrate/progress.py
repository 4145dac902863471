"""Progress for people: tqdm bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from migrate.config import mask
from migrate.report import Observer, Silent

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 3.0
BAR_EVERY_S = 1.0  # the clock of a bar goes on while one long call says nothing
_LEFT_AFTER_S = 1.0  # a bar that took less vanishes when it is full: the report has the times
_UNITS = {"audit": " rows", "copy": " rows", "verify": " rows", "index": " blocks"}


def observer(*, quiet: bool, stream: TextIO | None = None) -> Observer:
    """Return what suits where the output goes."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    return Bars(stream) if stream.isatty() else Lines(stream)


def close(watching: Observer) -> None:
    """End what is still drawn."""
    if isinstance(watching, Bars | Lines):
        watching.close()


class _Ticker:
    """Calls `tick` every few seconds in a thread, between `start` and `stop`."""

    def __init__(self, every_s: float, tick: Callable[[], None]) -> None:
        self._every_s, self._tick = every_s, tick
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread. Not to be called with a lock that `tick` takes."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._tick()


class Lines:
    """A line every few seconds, for logs; nothing for what is over before."""

    def __init__(self, stream: TextIO, every_s: float = LINE_EVERY_S) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._at: tuple[str, str] | None = None
        self._since, self._first, self._done, self._total = 0.0, 0, 0, 0
        self._ticker = _Ticker(every_s, self._tick)

    def say(self, text: str) -> None:
        """See `Observer.say`."""
        with self._lock:
            self._write(mask(text))

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """See `Observer.step`."""
        self._ticker.start()
        with self._lock:
            if self._at != (phase, table) or done < self._done:
                self._at, self._since, self._first = (phase, table), time.monotonic(), done
            self._done, self._total = done, total

    def close(self) -> None:
        """Say no more lines of progress."""
        self._ticker.stop()

    def _tick(self) -> None:
        with self._lock:
            if self._at is not None and self._done < self._total:
                self._write(self._line(*self._at, time.monotonic() - self._since))

    def _line(self, phase: str, table: str, seconds: float) -> str:
        done, total, unit = self._done, self._total, _UNITS.get(phase, "")
        if total == 1 and phase == "index":  # a step that does not say how far it is
            return f"{phase} {table}: for {seconds:,.0f} s"
        text = f"{phase} {table}: {done:,} of {total:,}{unit} ({100 * done // total} %)"
        fresh = done - self._first
        if fresh > 0 and seconds > 0:
            left = (total - done) * seconds / fresh
            text += f", {fresh / seconds:,.0f}{unit}/s, about {left:,.0f} s left"
        return text

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Bars:
    """One bar for each phase and table, with rate and time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._at: tuple[str, str] | None = None
        self._bar: tqdm[Any] | None = None
        self._ticker = _Ticker(BAR_EVERY_S, self._tick)

    def say(self, text: str) -> None:
        """See `Observer.say`."""
        from tqdm import tqdm

        with self._lock:
            tqdm.write(mask(text), file=self._stream)

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """See `Observer.step`."""
        self._ticker.start()
        with self._lock:
            if self._at != (phase, table):
                self._end()
                self._begin(phase, table, done, total)
            if self._bar is None:
                return
            if done < self._bar.n or self._bar.total != total:
                self._bar.reset(total)
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the last bar."""
        self._ticker.stop()
        with self._lock:
            self._end()

    def _tick(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.refresh()

    def _begin(self, phase: str, table: str, done: int, total: int) -> None:
        from tqdm import tqdm

        self._at = (phase, table)
        self._bar = tqdm(
            desc=f"{phase} {table}",
            initial=done,
            total=total,
            unit=_UNITS.get(phase, ""),
            unit_scale=total >= 100_000,
            ncols=self._width(),
            nrows=20,  # else tqdm asks the terminal, which may say 0 and would get no bar
            leave=False,
            file=self._stream,
        )

    def _width(self) -> int:
        try:
            found = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            found = 0
        # Terminals that nobody has told their size say 0, and tqdm would draw nothing then.
        return (found or shutil.get_terminal_size((100, 24)).columns) - 1

    def _end(self) -> None:
        if self._bar is not None:
            elapsed = float(self._bar.format_dict["elapsed"])
            self._bar.leave = elapsed >= _LEFT_AFTER_S
            self._bar.close()
        self._bar, self._at = None, None
