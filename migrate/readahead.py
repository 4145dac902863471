"""Reading ahead of whoever takes what was read: in a thread where that saves time, at once where not."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

from migrate.backends.base import Fit, Packer, Position, Source, Target
from migrate.batch import Batch, ExactCell
from migrate.fit import size_of
from migrate.schema import Table

_LOOK_S = 0.02  # of work, before it is told who waits
_WAITS = 1 / 3  # the share of all time that one side is without the processor, beyond which a thread helps

T = TypeVar("T")


class Ahead(Generic[T]):
    """Gives what a generator yields; runs it in a thread of its own where something waits.

    Python runs one thread at a time, and SQLite lets go of Python's lock at every row: threads
    that have nothing to wait for only take the lock from each other, which made copying to
    SQLite and comparing tables without vectors 1.1 to 1.3 times as slow. So the first items are
    made here, and it is looked at whether the processor was busy meanwhile. Where reading (from a
    network, a disk) or the taker (a server) waits for much of the time, the rest is read ahead.

    depth: items read ahead at most; more only take memory that is not in the processor's cache.
    waits: it is known that the taker waits, so that nothing needs to be looked at.
    """

    def __init__(
        self, items: Generator[T, None, None], name: str, *, depth: int = 2, waits: bool = False
    ) -> None:
        self._items, self._name, self._waits = items, name, waits
        self._queue: Queue[Any] = Queue(maxsize=depth)
        self._stop = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        while self._thread is not None and self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except Empty:
                self._thread.join(0.02)
        self._items.close()

    def __iter__(self) -> Iterator[T]:
        if not (yield from self._here()):
            return
        self._thread = Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()
        while True:
            failed, item = self._queue.get()
            if failed:
                raise item
            if item is _END:
                return
            yield item
            del item  # its memory serves the next one

    def _here(self) -> Generator[T, None, bool]:
        """Yield items made in this thread until one of the two sides is seen to wait; whether there may be more."""
        reading, taking = _Clock(), _Clock()
        while not (self._waits or _wait(reading, taking)):
            with reading:
                item = next(self._items, _END)
            if item is _END:
                return False
            with taking:
                yield item
                del item
        return True

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put((False, item)):
                    return
                del item
            self._put((False, _END))
        except BaseException as exc:  # raised again in the thread that takes
            self._put((True, exc))

    def _put(self, item: object) -> bool:
        """Hand an item over; False where nobody takes any more."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except Full:
                continue
        return False


_END: Any = object()


class _Clock:
    """Adds up the time of a kind of work, and the processor's time in it."""

    def __init__(self) -> None:
        self._wall = self._busy = 0.0

    def __enter__(self) -> None:
        self._wall -= time.perf_counter()
        self._busy -= time.thread_time()

    def __exit__(self, *exc: object) -> None:
        self._wall += time.perf_counter()
        self._busy += time.thread_time()

    @property
    def wall(self) -> float:
        """Return seconds spent so far."""
        return self._wall

    @property
    def idle(self) -> float:
        """Return the seconds of them in which the processor did something else."""
        return self._wall - self._busy


def _wait(reading: _Clock, taking: _Clock) -> bool:
    """Whether one side waits for so much of the time that the other could work meanwhile."""
    both = reading.wall + taking.wall
    return both >= _LOOK_S and max(reading.idle, taking.idle) > _WAITS * both


def prepared(
    source: Source, table: Table, fit: Fit, size: int, at: Position, target: Target
) -> Generator[tuple[Batch, list[ExactCell], int, int], None, None]:
    """Yield batches after a position as a target takes them: (batch, exact cells, rows read, bytes)."""
    packer = target if isinstance(target, Packer) else None
    for batch in source.batches(table, size=size, after=at.cursor):
        columns = list(zip(*batch.rows, strict=True))
        found = fit.check(columns)
        n = len(batch.rows)
        exact: list[ExactCell] = []
        if found:
            rows, exact = fit.split(batch.rows, found)
            batch, columns = replace(batch, rows=rows), list(zip(*rows, strict=True))
        if packer is not None:
            batch = packer.pack(batch, columns)
        weight = size_of(columns) if batch.packed is None else sum(map(len, batch.packed))
        del columns
        yield batch, exact, n, weight
        del batch  # its memory serves the next one
