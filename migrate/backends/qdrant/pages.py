"""Reading a collection by pages, several streams at once.

A scroll goes on where the last page ended, so one stream asks for one page after
another. But it may start at any id, and ids are ordered (numbers, then UUIDs), so
a large collection is cut into ranges of ids that are read side by side, each a
page ahead of what is taken. Pages are taken from the ranges in turn: the order
is the same each time, and a cursor says where each range stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Queue
from threading import Event, Semaphore, Thread
from typing import Any

from migrate.backends.qdrant.engine import Engine, Info, Point, PointId, ShardKey

STREAMS = 4
SPLIT_POINTS = 20_000  # smaller collections are read in one range
AHEAD_BYTES = 4 * 2**20  # of all pages under way: as Python objects they take some four times as much
_FIRST_PAGE = 16  # till the size of rows is known: of 4 MiB cells no more than fit into memory
_UUIDS = 2**128


@dataclass(slots=True)
class Range:
    """Points of one shard key (None: of all) from `next` on, up to and without `end` (None: to the last)."""

    next: PointId | None = None
    end: PointId | None = None
    shard: ShardKey | None = None

    def holds(self, point: PointId) -> bool:
        """Whether an id is before the end."""
        if self.end is None or isinstance(point, int) is not isinstance(self.end, int):
            return self.end is None or isinstance(point, int)
        return point < self.end  # type: ignore[operator]  # both numbers or both texts

    def to_json(self) -> list[Any]:
        """Return it as part of a cursor."""
        return [self.next, self.end, self.shard]


def ranges(engine: Engine, name: str, info: Info) -> list[Range]:
    """Return the ranges to read a collection in, in the order of their ids."""
    if info.custom_shards:
        return [Range(shard=key) for key in engine.shard_keys(name)]
    if info.points < SPLIT_POINTS or not engine.parallel:
        return [Range()]
    first, _ = engine.scroll(name, 1, None, payload=False, vectors=False)
    if not first:
        return [Range()]
    lowest = first[0].id
    if isinstance(lowest, int):  # most likely they count up from there
        cuts: list[PointId] = [lowest + k * info.points // STREAMS for k in range(1, STREAMS)]
    else:
        cuts = [_uuid(k * _UUIDS // STREAMS) for k in range(1, STREAMS)]
    starts: list[PointId | None] = [None, *cuts]
    return [Range(start, end) for start, end in zip(starts, [*cuts, None], strict=True)]


def _uuid(number: int) -> str:
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(slots=True)
class _Stream:
    """One range being read a page ahead, in a thread of its own."""

    left: Range
    pages: Queue[Any] = field(default_factory=Queue)
    room: Semaphore = field(default_factory=lambda: Semaphore(1))  # for a page that is asked for or waits


class Pages:
    """Pages of a collection, taken in turn from its ranges.

    keys:    what is asked for, as `Engine.scroll` takes it.
    at_once: the most points of a page.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        left: Sequence[Range],
        *,
        payload: bool,
        vectors: Sequence[str],
        at_once: int,
    ) -> None:
        self._engine, self._name, self._payload, self._vectors = engine, name, payload, vectors
        self._at_once, self._limit = at_once, min(at_once, _FIRST_PAGE)
        self._streams = [_Stream(one) for one in left]
        self._over = Event()

    def seen(self, rows: int, size: int) -> None:
        """Choose the size of further pages by the bytes that some rows took."""
        if rows and size:
            fits = AHEAD_BYTES // min(STREAMS, max(1, len(self._streams))) * rows // size
            self._limit = max(1, min(self._at_once, fits, 4 * self._limit))

    def __iter__(self) -> Iterator[tuple[list[Point], list[Any]]]:
        """Yield points that are not empty, and where all ranges stand after them, as JSON."""
        waiting, open_ = deque(self._streams), list[_Stream]()
        try:
            while waiting or open_:
                while waiting and len(open_) < STREAMS:
                    open_.append(self._opened(waiting.popleft()))
                for stream in list(open_):
                    page = stream.pages.get()
                    stream.room.release()
                    if isinstance(page, BaseException):
                        raise page
                    points, after = page
                    if after is None:
                        open_.remove(stream)
                    stream.left = Range(after, stream.left.end, stream.left.shard)
                    if points:
                        yield points, [s.left.to_json() for s in (*open_, *waiting)]
        finally:
            self._over.set()

    def _opened(self, stream: _Stream) -> _Stream:
        Thread(target=self._read, args=(stream,), name=f"scroll {self._name}", daemon=True).start()
        return stream

    def _read(self, stream: _Stream) -> None:
        left = stream.left
        offset = left.next
        try:
            while self._has_room(stream):
                points, after = self._engine.scroll(
                    self._name,
                    self._limit,
                    offset,
                    payload=self._payload,
                    vectors=self._vectors,
                    shard=left.shard,
                )
                inside = [p for p in points if left.holds(p.id)]
                offset = after if after is not None and left.holds(after) else None
                stream.pages.put((inside, offset))
                if offset is None:
                    return
        except BaseException as exc:  # raised again by the one who takes pages
            stream.pages.put(exc)

    def _has_room(self, stream: _Stream) -> bool:
        """Wait until the page before has been taken; False when nobody takes any more."""
        while not self._over.is_set():
            if stream.room.acquire(timeout=0.2):
                return True
        return False
