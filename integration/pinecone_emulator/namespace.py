"""One namespace: what was committed, and what readers see of it yet.

"Data freshness": the service is eventually consistent; every write gets a log sequence number (LSN), a read
reports the highest one it saw. Here a write is committed at once (deletes by filter and updates work on
committed data, restarts keep it) and becomes visible to list, fetch, query and stats after the lag.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from integration.pinecone_emulator.metadata import Metadata
from integration.pinecone_emulator.vectors import Floats, Sparse
from integration.pinecone_emulator.wire import Decoded

DEFAULT = "__default__"


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record. values: float32, None on sparse indexes."""

    id: str
    values: Floats | None
    sparse: Sparse | None
    metadata: Metadata | None

    def message(self, *, values: bool = True, metadata: bool = True) -> Decoded:
        """The record as a Vector; `values` is always there, empty where there is nothing to return."""
        kept = self.values if values and self.values is not None else np.zeros(0, np.float32)
        out: Decoded = {"id": self.id, "values": kept}
        if values and self.sparse is not None:
            out["sparse_values"] = self.sparse.message()
        if metadata and self.metadata:
            out["metadata"] = self.metadata
        return out

    def nbytes(self) -> int:
        dense = 0 if self.values is None else self.values.nbytes
        sparse = 0 if self.sparse is None else 8 * len(self.sparse.indices)
        return len(self.id) + dense + sparse + len(repr(self.metadata or ""))


@dataclass(slots=True)
class View:
    """Records by id, with the order and the matrix that reads need, made when first asked for."""

    records: dict[str, Record] = field(default_factory=dict)
    exists: bool = False
    _ids: list[str] | None = None
    _matrix: tuple[list[Record], Floats] | None = None

    def put(self, records: Iterable[Record]) -> None:
        self.exists = True
        for record in records:
            self.records[record.id] = record
        self._ids = self._matrix = None

    def drop(self, ids: Iterable[str]) -> None:
        for one in ids:
            self.records.pop(one, None)
        self._ids = self._matrix = None

    def clear(self) -> None:
        self.records.clear()
        self._ids = self._matrix = None

    def remove(self) -> None:
        self.clear()
        self.exists = False

    def create(self) -> None:
        self.exists = True

    def ids(self) -> list[str]:
        """All ids, sorted by code point: ids are ASCII, so this is the "C" collation of the API file."""
        if self._ids is None:
            self._ids = sorted(self.records)
        return self._ids

    def matrix(self) -> tuple[list[Record], Floats]:
        """The records that have dense values, and those values as (n, dim) float32."""
        if self._matrix is None:
            rows = [record for record in self.records.values() if record.values is not None]
            stacked = (
                np.stack([row.values for row in rows if row.values is not None]) if rows else np.zeros((0, 0))
            )
            self._matrix = rows, np.asarray(stacked, np.float32)
        return self._matrix


Write = Callable[[View], None]


@dataclass(slots=True)
class Namespace:
    """A namespace by the name the service shows; requests without one address DEFAULT."""

    name: str
    clock: Callable[[], float]
    committed: View = field(default_factory=View)
    visible: View = field(default_factory=View)
    schema: dict[str, Any] | None = None
    lsn: int = 0
    visible_lsn: int = 0
    _pending: deque[tuple[float, int, Write]] = field(default_factory=deque)

    def write(self, change: Write, lag_s: float) -> None:
        """Commit a change now and show it lag_s seconds later."""
        change(self.committed)
        self.lsn += 1
        self._pending.append((self.clock() + lag_s, self.lsn, change))
        self.seen()

    def seen(self) -> View:
        """What a reader sees at this moment. Changes appear in the order they were committed."""
        now = self.clock()
        while self._pending and self._pending[0][0] <= now:
            _, self.visible_lsn, change = self._pending.popleft()
            change(self.visible)
        return self.visible
