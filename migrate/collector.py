"""Python's collector of cycles, told to wait while rows stream by.

It looks at every tuple of a batch as soon as a few hundred are there, finds no
cycle in any, and does so again for the next batch: a tenth of the time of a
copy. Only growth that no batch explains is worth a look then.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_OBJECTS = 10_000  # more than the batches on their way at once; of 50,000 the peak of memory grew with a run

_lock = Lock()
_waiting = 0
_before = (0, 0, 0)


@contextmanager
def patient() -> Iterator[None]:
    """Let the collector wait for `_OBJECTS` new objects; what was set before holds again at the end of the last run."""
    global _waiting, _before
    with _lock:
        if not _waiting:
            _before = gc.get_threshold()
            if 0 < _before[0] < _OBJECTS:  # 0: the user has turned it off
                gc.set_threshold(_OBJECTS, *_before[1:])
        _waiting += 1
    try:
        yield
    finally:
        with _lock:
            _waiting -= 1
            if not _waiting:
                gc.set_threshold(*_before)
