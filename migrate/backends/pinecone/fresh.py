"""Waiting, with a bound, until what was written can be read.

Pinecone is eventually consistent. Each write to a namespace has a log sequence number, and an
answer may tell up to which number it sees ("Check data freshness" in the documentation). Where a
fetch does not tell, its records do: one of each recent request must be there as it was sent, and
ids that were deleted must be gone. Statistics lag on their own and are waited for as well, where
the number of records is known.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.wire import Record

BOUND_S = 120.0  # the documentation speaks of seconds
_FIRST_S, _LONGEST_S = 0.05, 2.0
_REMEMBERED = 50  # ids of either kind; the last requests are the last to be seen


@dataclass(slots=True)
class _Written:
    lsn: int = -1
    there: deque[Record] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    gone: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Freshness:
    """What was written to the namespaces of one index and not yet seen by a reader."""

    def __init__(self) -> None:
        self._written: dict[str, _Written] = {}
        self._lock = threading.Lock()

    def upserted(self, namespace: str, lsn: int | None, probe: Record) -> None:
        """Remember an upsert by its number and one of its records."""
        with self._lock:
            one = self._written.setdefault(namespace, _Written())
            one.lsn = max(one.lsn, -1 if lsn is None else lsn)
            if probe.id in one.gone:
                one.gone.remove(probe.id)
            kept = [r for r in one.there if r.id != probe.id]
            one.there = deque([*kept, probe], maxlen=_REMEMBERED)

    def deleted(self, namespace: str, lsn: int | None, ids: list[str]) -> None:
        """Remember a deletion."""
        with self._lock:
            one = self._written.setdefault(namespace, _Written())
            one.lsn = max(one.lsn, -1 if lsn is None else lsn)
            left = set(ids)
            one.there = deque((r for r in one.there if r.id not in left), maxlen=_REMEMBERED)
            one.gone.extend(ids)

    def cleared(self, namespace: str, lsn: int | None) -> None:
        """Remember that a namespace was emptied."""
        with self._lock:
            self._written[namespace] = _Written(-1 if lsn is None else lsn)

    def namespaces(self) -> list[str]:
        """Return the namespaces that were written to and not yet waited for."""
        with self._lock:
            return list(self._written)

    def wait(
        self,
        plane: Plane,
        namespace: str,
        *,
        records: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        bound_s: float | None = None,
    ) -> bool:
        """Return True as soon as all can be read, False when the bound has passed.

        records: how many the namespace must have by its statistics; None where that is not known.
        """
        with self._lock:
            one = self._written.get(namespace)
        if one is None:
            return True
        bound = BOUND_S if bound_s is None else bound_s
        began, pause, told = time.monotonic(), _FIRST_S, False
        while not (_readable(plane, namespace, one) and _counted(plane, namespace, records)):
            waited = time.monotonic() - began
            if waited > bound:
                return False
            if waited > 5 and not told:
                told = True
                say("waiting until Pinecone shows what was written")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_S)
        with self._lock:
            if self._written.get(namespace) is one:
                del self._written[namespace]
        return True


def until_gone(plane: Plane, namespace: str) -> bool:
    """Return True as soon as a namespace that was removed is seen to be empty, False when the bound has passed."""
    began, pause = time.monotonic(), _FIRST_S
    while plane.stats().counts.get(namespace):
        if time.monotonic() - began > BOUND_S:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)
    return True


def _readable(plane: Plane, namespace: str, one: _Written) -> bool:
    wanted, gone = list(one.there), list(one.gone)
    if not wanted and not gone:
        return True
    seen, lsn = plane.seen(namespace, [*(r.id for r in wanted), *gone])
    if any(one in seen for one in gone) or any(r.id not in seen for r in wanted):
        return False
    if lsn is not None:
        return lsn >= one.lsn
    return all((seen[r.id].values, seen[r.id].metadata) == (r.values, r.metadata) for r in wanted)


def _counted(plane: Plane, namespace: str, records: int | None) -> bool:
    return records is None or plane.stats().counts.get(namespace, 0) == records
