"""Reading ahead of the writer: one thread reads, checks and packs batches into a bounded queue."""

from __future__ import annotations

from dataclasses import replace
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

from migrate.backends.base import Fit, Packer, Position, Source, Target
from migrate.batch import Batch, ExactCell
from migrate.fit import size_of
from migrate.schema import Table

_AHEAD = 2  # batches read ahead of the writer; more only take memory that is not in the cache


class ReadAhead:
    """Reads, checks and measures batches in a thread, a few ahead of the writer."""

    def __init__(
        self, source: Source, table: Table, fit: Fit, size: int, at: Position, target: Target
    ) -> None:
        self._source, self._table, self._fit, self._size, self._at = source, table, fit, size, at
        self._packer = target if isinstance(target, Packer) else None
        self._queue: Queue[Any] = Queue(maxsize=_AHEAD)
        self._stop = Event()
        self._thread = Thread(target=self._work, name=f"read {table.name}", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except Empty:
                self._thread.join(0.02)

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> tuple[Batch, list[ExactCell], int, int]:
        item = self._queue.get()
        if item is None:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        ready: tuple[Batch, list[ExactCell], int, int] = item
        return ready

    def _work(self) -> None:
        try:
            for batch in self._source.batches(self._table, size=self._size, after=self._at.cursor):
                columns = list(zip(*batch.rows, strict=True))
                found = self._fit.check(columns)
                n = len(batch.rows)
                exact: list[ExactCell] = []
                if found:
                    rows, exact = self._fit.split(batch.rows, found)
                    batch = replace(batch, rows=rows)
                if self._packer is not None:
                    batch = self._packer.pack(batch)
                size = size_of(columns) if batch.packed is None else len(batch.packed)
                self._put((batch, exact, n, size))
                del batch, columns  # their memory serves the next batch
            self._put(None)
        except BaseException as exc:  # raised again in the thread that writes
            self._put(exc)

    def _put(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except Full:
                continue
