"""Progress for people: tqdm bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from migrate.config import mask
from migrate.report import Observer, Silent

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 3.0
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
    if isinstance(watching, Bars):
        watching.close()


def rate_text(done: int, seconds: float) -> str:
    """Return a rate as people read it: 12,345 rows/s."""
    return f"{done / seconds:,.0f}" if seconds > 0 else "-"


class Lines:
    """A line every few seconds, for logs."""

    def __init__(self, stream: TextIO, every_s: float = LINE_EVERY_S) -> None:
        self._stream, self._every_s = stream, every_s
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._at: tuple[str, str] | None = None
        self._since, self._first = 0.0, 0

    def say(self, text: str) -> None:
        """See `Observer.say`."""
        with self._lock:
            self._write(mask(text))

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """See `Observer.step`."""
        now = time.monotonic()
        with self._lock:
            if self._at != (phase, table):
                self._at, self._since, self._first = (phase, table), now, done
            if now - self._last < self._every_s or done >= total:
                return
            self._last = now
            self._write(self._line(phase, table, done, total, now - self._since))

    def _line(self, phase: str, table: str, done: int, total: int, seconds: float) -> str:
        unit = _UNITS.get(phase, "")
        text = f"{phase} {table}: {done:,} of {total:,}{unit}"
        if total:
            text += f" ({100 * done // total} %)"
        fresh = done - self._first
        if fresh > 0 and seconds > 0:
            left = (total - done) * seconds / fresh
            text += f", {rate_text(fresh, seconds)}{unit}/s, about {left:,.0f} s left"
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

    def say(self, text: str) -> None:
        """See `Observer.say`."""
        from tqdm import tqdm

        with self._lock:
            tqdm.write(mask(text), file=self._stream)

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """See `Observer.step`."""
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
        with self._lock:
            self._end()

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
