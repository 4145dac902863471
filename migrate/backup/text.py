"""What a person reads: sizes, ages, lengths of time, progress."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import Any

from migrate.cli_text import out

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_LONGEST_S = 36500 * 86400.0  # a century; clocks and waits take no 300 years


def duration(text: str) -> float:
    """Read `90`, `15m`, `1h`, `7d` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; 90s, 15m, 1h, 7d")
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if seconds > _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is too long; 36500d at most")
    return seconds


class Progress:
    """A line on stderr every two seconds, and none for a phase that is done before."""

    def __init__(self) -> None:
        self._phase, self._last = "", 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._phase:
            self._phase, self._last = what, now
        if now - self._last >= 2.0 and done < total:
            self._last = now
            tell(f"{what}: {100 * done // max(total, 1)} %")


def print_json(document: dict[str, Any]) -> int:
    """Print one JSON document; return exit code 0."""
    out(json.dumps(document, indent=2))
    return 0


def say(text: str) -> None:
    """Print a result."""
    out(text)


def tell(text: str) -> None:
    """Print a message, on stderr."""
    sys.stderr.write(text + "\n")


def show_size(size: float) -> str:
    """Return bytes for a person: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def show_age(seconds: int) -> str:
    """Return an age for a person: 3 h."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
