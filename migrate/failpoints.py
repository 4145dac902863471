"""Places where a test kills the process as `kill -9` would; they do nothing unless asked to.

`MEMLIFT_FAILPOINT=copy.append:3` ends the process at the third `hit("copy.append")`,
`*:40` at the fortieth hit of any point, and `*:0` only counts them (`counts`).
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from migrate import config

counts: Counter[str] = Counter()  # filled only while a failpoint is asked for
_asked: tuple[str, int] | None = None


def ask() -> None:
    """Read the environment; done once, at import, so that a hit costs one comparison."""
    global _asked
    text = config.env("MEMLIFT_FAILPOINT")
    if text is not None:
        name, _, count = text.rpartition(":")
        _asked = name, int(count)


def hit(name: str) -> None:
    """End the process here, with no clean-up at all, if this hit is the one that was asked for."""
    if _asked is None:
        return
    counts[name] += 1
    wanted, count = _asked
    if count == (counts.total() if wanted == "*" else counts[name] if wanted == name else -1):
        os.kill(os.getpid(), signal.SIGKILL)


ask()
