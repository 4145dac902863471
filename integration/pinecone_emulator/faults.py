"""Fault switches and request counters, both usable while the emulator runs.

A fault answers instead of the service (status), lets it work and then loses the answer (after=True with a
status or reset), drops the connection (reset), or delays the answer (delay_s).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(slots=True)
class Fault:
    """One switch. rate: share of matching requests; times: how many it hits, None for ever."""

    status: int | None = None
    rate: float = 1.0
    retry_after: float | None = None
    times: int | None = None
    path: str = "*"
    method: str = "*"
    index: str = "*"
    reset: bool = False
    delay_s: float = 0.0
    after: bool = False
    message: str = ""
    hits: int = 0

    def matches(self, method: str, path: str, index: str) -> bool:
        return (
            (self.times is None or self.hits < self.times)
            and fnmatchcase(method, self.method)
            and fnmatchcase(path, self.path)
            and fnmatchcase(index, self.index)
        )


class Faults:
    """The switches in force. Random choices come from one seeded generator."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._faults: list[Fault] = []

    def seed(self, seed: int) -> None:
        with self._lock:
            self._random.seed(seed)

    def add(
        self,
        *,
        status: int | None = None,
        rate: float = 1.0,
        retry_after: float | None = None,
        times: int | None = None,
        path: str = "*",
        method: str = "*",
        index: str = "*",
        reset: bool = False,
        delay_s: float = 0.0,
        after: bool = False,
        message: str = "",
    ) -> Fault:
        """Switch a fault on; path, method and index (its name) are shell patterns.

        gRPC calls match by the path and method of their REST twin, e.g. POST /vectors/upsert.
        """
        if status is None and not reset and delay_s <= 0:
            raise ValueError("a fault needs status=, reset=True or delay_s=")
        fault = Fault(status, rate, retry_after, times, path, method, index, reset, delay_s, after, message)
        with self._lock:
            self._faults.append(fault)
        return fault

    def fail_next(self, count: int, *, status: int = 503, path: str = "*") -> Fault:
        """Fail the next count requests (to paths that match)."""
        return self.add(status=status, times=count, path=path)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def pick(self, method: str, path: str, index: str) -> list[Fault]:
        """The faults that strike this request: delays, and at most one that fails it."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                failing = fault.status is not None or fault.reset
                if failing and any(one.status is not None or one.reset for one in struck):
                    continue
                if fault.matches(method, path, index) and self._random.random() < fault.rate:
                    fault.hits += 1
                    struck.append(fault)
        return struck


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was answered. status: 0 when the connection was dropped; bytes: the body's size."""

    method: str
    path: str
    index: str
    status: int
    bytes: int


class Counters:
    """Every request since the start or the last reset, in the order of the answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []

    def note(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def reset(self) -> None:
        with self._lock:
            self._seen.clear()

    def requests(self, path: str = "*", *, method: str = "*", index: str = "*") -> list[Seen]:
        """The requests whose path, method and index name match the shell patterns."""
        with self._lock:
            known = list(self._seen)
        return [
            one
            for one in known
            if fnmatchcase(one.path, path)
            and fnmatchcase(one.method, method)
            and fnmatchcase(one.index, index)
        ]

    def count(
        self, path: str = "*", *, status: int | None = None, method: str = "*", index: str = "*"
    ) -> int:
        found = self.requests(path, method=method, index=index)
        return len(found) if status is None else sum(one.status == status for one in found)

    def bytes(self, path: str = "*") -> int:
        """Bytes of request bodies received."""
        return sum(one.bytes for one in self.requests(path))

    def by_path(self) -> dict[tuple[str, str, int], int]:
        """(method, path, status) -> requests."""
        return dict(Counter((one.method, one.path, one.status) for one in self.requests()))
