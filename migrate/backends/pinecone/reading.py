"""Reading a namespace whole: pages of ids in order, their records fetched side by side.

Pages come one after another, each with the token of the next, so that listing is what a large
namespace waits for. There ids are listed by their first character instead, several at a time: ids
come in order within a prefix, and prefixes are taken in order, so the rows are the same. Many
small namespaces would be waited for one by one; they are read side by side, and given in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import Full, Queue
from threading import Event
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from migrate.backends.pinecone.limits import LIST_PAGE
from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.wire import Record
from migrate.errors import BackendError, TransientError

STREAMS = 6  # fetches under way at once
LARGE = 20_000  # records, from which on ids are listed by prefix: 127 requests more, at the least
SMALL = 500  # records, up to which whole namespaces are read side by side
LANES = 6  # prefixes listed, or small namespaces read, at once
PREFIXES = tuple(map(chr, range(1, 128)))  # ids are ASCII without NUL
_AHEAD = 3  # groups of pages read ahead of the consumer
_PAGES_AHEAD = 20  # of each prefix


class Place(NamedTuple):
    """Where a reader stands: after an id, and (while it is valid) the token of the next page of a prefix."""

    after: str = ""
    token: str | None = None
    prefix: str = ""


class Read(NamedTuple):
    """Some records, and the place after them."""

    records: list[Record]
    place: Place


Page = tuple[list[str], Place]
T = TypeVar("T")


@runtime_checkable
class Readable(Protocol):
    """What reads itself, instead of being listed and fetched: files."""

    def read(self, namespace: str, size: int, at: Place) -> Iterator[Read]:
        """Yield records from a place on, `size` at most at a time."""
        ...


@dataclass(slots=True)
class _Group:
    parts: list[Future[list[Record]]]
    place: Place


def read(plane: Plane, namespace: str, size: int, at: Place, *, records: int = 0) -> Iterator[Read]:
    """Yield records by ascending id, at most `size` at a time, from a place on.

    records: how many there are, by statistics. An id that is listed and gone when it is fetched
    was deleted meanwhile, and is left out.
    """
    if isinstance(plane, Readable):
        yield from plane.read(namespace, size, at)
        return
    limit = min(size, LIST_PAGE)
    listing = (
        _by_prefix(plane, namespace, limit, at)
        if records >= LARGE
        else _pages(plane, namespace, limit, at if not at.prefix else Place(at.after))
    )
    groups: deque[_Group] = deque()
    with closing(listing) as pages, ThreadPoolExecutor(STREAMS, thread_name_prefix="memlift fetch") as pool:
        try:
            while True:
                while len(groups) < _AHEAD:
                    group = _group(plane, namespace, pages, max(1, size // LIST_PAGE), pool)
                    if group is None:
                        break
                    groups.append(group)
                if not groups:
                    return
                first = groups.popleft()
                yield Read([r for part in first.parts for r in part.result()], first.place)
        finally:
            for group in groups:
                for part in group.parts:
                    part.cancel()


def _group(
    plane: Plane, namespace: str, pages: Iterator[Page], n: int, pool: ThreadPoolExecutor
) -> _Group | None:
    """Take the next n pages and begin to fetch what they name; None where there are none."""
    parts: list[Future[list[Record]]] = []
    found: _Group | None = None
    for _ in range(n):
        page = next(pages, None)
        if page is None:
            break
        ids, place = page
        parts += [pool.submit(plane.fetched, namespace, part) for part in plane.parts(ids)]
        found = _Group(parts, place)
    return found


def _pages(plane: Plane, namespace: str, limit: int, at: Place) -> Generator[Page, None, None]:
    """Yield the pages of ids of a prefix, and the place after each.

    A token that the service takes no more (they are opaque, and how long they last is not
    documented) is done without: ids come in order, so listing from the start and leaving out
    what is not after the place leads to the same rows.
    """
    after, token, prefix = at
    fresh = token is None
    while True:
        try:
            ids, following = plane.listed(namespace, limit, token, prefix)
        except TransientError:
            raise
        except BackendError:
            if fresh:
                raise
            token, fresh = None, True
            continue
        fresh = True  # a token of this listing; if it fails, that is an error
        kept = [one for one in ids if one > after]
        if kept:
            after = kept[-1]
            yield kept, Place(after, following, prefix)
        if following is None:
            return
        if following == token:
            raise BackendError("Pinecone lists the same page again and again", namespace=namespace)
        token = following


# --- several at a time ------------------------------------------------------------------


def _by_prefix(plane: Plane, namespace: str, limit: int, at: Place) -> Generator[Page, None, None]:
    starts = [Place(at.after, at.token if p == at.prefix else None, p) for p in PREFIXES if p >= at.after[:1]]
    return in_order([partial(_pages, plane, namespace, limit, start) for start in starts], ahead=_PAGES_AHEAD)


@dataclass(slots=True)
class _Lane(Generic[T]):
    """What one reading yields, made in a thread: None after the last, or what went wrong."""

    read: Callable[[], Iterator[T]]
    items: Queue[T | BaseException | None]

    def fill(self, over: Event) -> None:
        try:
            for item in self.read():
                if not self._put(item, over):
                    return
            self._put(None, over)
        except BaseException as exc:  # raised again in the thread that reads
            self._put(exc, over)

    def _put(self, item: T | BaseException | None, over: Event) -> bool:
        """Hand an item over; False where nobody reads any more."""
        while not over.is_set():
            try:
                self.items.put(item, timeout=0.2)
                return True
            except Full:
                continue
        return False


def in_order(readings: Sequence[Callable[[], Iterator[T]]], *, ahead: int) -> Generator[T, None, None]:
    """Yield what readings yield, one after another, while up to LANES of them go on side by side.

    ahead: items of each that wait to be taken, at most.
    """
    over = Event()
    lanes: list[_Lane[T]] = [_Lane(reading, Queue(ahead)) for reading in readings]
    with ThreadPoolExecutor(LANES, thread_name_prefix="memlift list") as pool:
        try:
            for lane in lanes:
                pool.submit(lane.fill, over)
            for lane in lanes:
                while (item := lane.items.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield item
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
