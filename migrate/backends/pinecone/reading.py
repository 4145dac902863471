"""Reading a namespace whole: pages of ids one after another, their records fetched side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from migrate.backends.pinecone.limits import LIST_PAGE
from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.wire import Record
from migrate.errors import BackendError, TransientError

STREAMS = 6  # fetches under way at once
_AHEAD = 3  # groups of pages read ahead of the consumer


class Place(NamedTuple):
    """Where a reader stands in a namespace: after an id, and (while it is valid) the token of the next page."""

    after: str = ""
    token: str | None = None


class Read(NamedTuple):
    """Some records, and the place after them; `last`: there are no more."""

    records: list[Record]
    place: Place
    last: bool


@dataclass(slots=True)
class _Group:
    parts: list[Future[list[Record]]]
    place: Place
    last: bool


def read(plane: Plane, namespace: str, size: int, at: Place) -> Iterator[Read]:
    """Yield records by ascending id, at most `size` at a time, from a place on.

    An id that is listed and gone when it is fetched was deleted meanwhile, and is left out.
    """
    pages = _pages(plane, namespace, min(size, LIST_PAGE), at)
    groups: deque[_Group] = deque()
    with ThreadPoolExecutor(STREAMS, thread_name_prefix="memlift fetch") as pool:
        try:
            exhausted = False
            while True:
                while not exhausted and len(groups) < _AHEAD:
                    group = _group(plane, namespace, pages, max(1, size // LIST_PAGE), pool)
                    if group is None:
                        exhausted = True
                    else:
                        groups.append(group)
                        exhausted = group.last
                if not groups:
                    return
                first = groups.popleft()
                records = [r for part in first.parts for r in part.result()]
                yield Read(records, first.place, first.last)
        finally:
            for group in groups:
                for part in group.parts:
                    part.cancel()


def _group(
    plane: Plane,
    namespace: str,
    pages: Iterator[tuple[list[str], Place, bool]],
    n: int,
    pool: ThreadPoolExecutor,
) -> _Group | None:
    """List the next n pages and begin to fetch what they name."""
    parts: list[Future[list[Record]]] = []
    found: _Group | None = None
    for _ in range(n):
        page = next(pages, None)
        if page is None:
            return found
        ids, place, last = page
        parts += [pool.submit(plane.fetched, namespace, part) for part in plane.parts(namespace, ids)]
        found = _Group(parts, place, last)
        if last:
            break
    return found


def _pages(plane: Plane, namespace: str, limit: int, at: Place) -> Iterator[tuple[list[str], Place, bool]]:
    """Yield pages of ids, the place after each, and whether it is the last.

    A token that the service takes no more (they are opaque, and how long they last is not
    documented) is done without: ids come in order, so listing from the start and leaving out
    what is not after the place leads to the same rows.
    """
    after, token = at
    fresh = token is None
    while True:
        try:
            ids, following = plane.listed(namespace, limit, token)
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
        yield kept, Place(after, following), following is None
        if following is None:
            return
        if following == token:
            raise BackendError("Pinecone lists the same page again and again", namespace=namespace)
        token = following
