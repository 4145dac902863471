"""Records on their way into indexes: cut into requests, as many under way as Pinecone takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from migrate.backends.pacing import Writer
from migrate.backends.pinecone import limits, wire
from migrate.backends.pinecone.indexes import Indexes
from migrate.backends.pinecone.names import Spot
from migrate.backends.pinecone.plane import Request
from migrate.backends.pinecone.wire import Record

STREAMS = 4  # upserts under way at once to one index, at most


def requests(records: Iterable[Record], namespace: str) -> Iterator[Request]:
    """Cut records into upserts within the limits of bytes and records."""
    group: list[Record] = []
    bodies: list[bytes] = []
    room = limits.REQUEST_BYTES - len(namespace) - 100
    size = 0
    for record in records:
        body = wire.packed(record)
        if bodies and (size + len(body) + 1 > room or len(bodies) >= limits.REQUEST_RECORDS):
            yield _request(namespace, group, bodies)
            group, bodies, size = [], [], 0
        group.append(record)
        bodies.append(body)
        size += len(body) + 1
    if bodies:
        yield _request(namespace, group, bodies)


def _request(namespace: str, records: Sequence[Record], bodies: Sequence[bytes]) -> Request:
    billed = sum(record.billed for record in records)
    return Request(namespace, wire.upsert_body(bodies, namespace), len(bodies), billed, records[-1])


class Sender:
    """Sends and deletes records, and remembers what a reader is yet to see.

    mark: is told of each namespace of a table that has many, before anything is sent there.
    """

    def __init__(self, indexes: Indexes, mark: Callable[[Spot, str, str], None]) -> None:
        self._indexes, self._mark = indexes, mark
        self._writers: dict[str, Writer[Request]] = {}

    def _writer(self, index: str) -> Writer[Request]:
        writer = self._writers.get(index)
        if writer is None:
            plane, fresh = self._indexes.plane(index), self._indexes.fresh(index)

            def send(request: Request) -> None:
                fresh.upserted(request.namespace, plane.upsert(request), request.probe)

            writer = self._writers[index] = Writer(send, streams=STREAMS)
        return writer

    def send(self, table: str, spot: Spot, records: Sequence[Record]) -> None:
        """Hand records over; they may be under way until `settle`. Raises what an earlier one met."""
        by_namespace: dict[str, list[Record]] = {}
        for record in records:
            name = record.namespace if spot.namespace is None else spot.namespace
            by_namespace.setdefault(name, []).append(record)
        for name, ours in by_namespace.items():
            if spot.namespace is None:
                self._mark(spot, name, table)
            for request in requests(ours, name):
                self._writer(spot.index).submit(request)

    def settle(self) -> None:
        """Return when all is acknowledged; raise what one of them met."""
        for writer in self._writers.values():
            writer.settle()

    def abandon(self) -> None:
        """Forget what is not yet sent."""
        for writer in self._writers.values():
            writer.abandon()

    def close(self) -> None:
        """End the threads. Idempotent."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def overwrite(self, spot: Spot, ids: Iterable[tuple[str, str]]) -> None:
        """Make room for records of these ids: nothing is to be done, an upsert takes the place of what was."""

    def delete(self, spot: Spot, ids: Iterable[tuple[str, str]]) -> None:
        """Remove records, named by namespace and id; acknowledged on return."""
        by_namespace: dict[str, list[str]] = {}
        for name, one in ids:
            by_namespace.setdefault(name, []).append(one)
        plane, fresh = self._indexes.plane(spot.index), self._indexes.fresh(spot.index)
        for name, ours in by_namespace.items():
            for i in range(0, len(ours), limits.DELETE_IDS):
                part = ours[i : i + limits.DELETE_IDS]
                fresh.deleted(name, plane.delete(name, part), part)
