"""The child process that holds the engine.

The engine keeps the interpreter's lock during updates, flushes and optimizations,
so it lives in a process of its own and the sockets stay responsive. Requests and
answers are pickled tuples over one pipe, one at a time.

When the parent dies, also by `kill -9`, the kernel kills this process through
SIGIO on a second pipe: no lock of the interpreter is needed for that, and the
engine's file locks are free at once for the next server.
"""

from __future__ import annotations

import array
import fcntl
import os
import signal
import sys
import time
import uuid
from multiprocessing.connection import Connection
from typing import Any

import qdrant_edge as edge

from integration.qdrant_server import edge_bools, edge_config, edge_query

Json = dict[str, Any]
Update = edge.UpdateOperation

# A restart may meet the lock of a predecessor that is still being taken down.
OPEN_SECONDS = 30.0


def die_with_parent(fd: int) -> None:
    """Let the kernel end this process once the other end of the pipe `fd` is closed."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # the default action is to terminate
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def _vector(packed: tuple[Any, ...]) -> Any:
    """`("d", bytes)`, `("m", dim, bytes)` or `("s", indices, values)` -> the engine's form."""
    if packed[0] == "d":
        return memoryview(packed[1]).cast("f")
    if packed[0] == "m":
        flat, dim = memoryview(packed[2]).cast("f").tolist(), packed[1]
        return [flat[i : i + dim] for i in range(0, len(flat), dim)]
    return edge.SparseVector(packed[1], packed[2])


def _vectors(named: dict[str, Any]) -> dict[str, Any]:
    return {name: _vector(packed) for name, packed in named.items()}


def _unvector(vector: Any) -> tuple[Any, ...]:
    """The engine's form -> the packed tuples of `_vector`."""
    if isinstance(vector, edge.SparseVector):
        return ("s", list(vector.indices), list(vector.values))
    if vector and isinstance(vector[0], list):
        flat = array.array("f")
        for one in vector:
            flat.extend(one)
        return ("m", len(vector[0]), flat.tobytes())
    return ("d", array.array("f", vector).tobytes())


def _id(given: Any) -> Any:
    return str(given) if isinstance(given, uuid.UUID) else given


def _record(point: Any) -> Json:
    vectors = point.vector
    if vectors is not None and not isinstance(vectors, dict):
        vectors = {"": vectors}
    return {
        "id": _id(point.id),
        "payload": point.payload,
        "vectors": None if vectors is None else {name: _unvector(v) for name, v in vectors.items()},
        "order_value": point.order_value,
    }


def _scored(point: Any) -> Json:
    return {**_record(point), "version": point.version, "score": point.score}


def _operation(op: Json) -> Any:
    """One update as a plain dict -> the engine's operation."""
    kind, ids = op["kind"], op.get("ids")
    where = edge_query.filter_of(op.get("filter"))
    if kind == "upsert":
        points = [edge.Point(pid, _vectors(vectors), payload) for pid, vectors, payload in op["points"]]
        modes = {"insert_only": edge.UpdateMode.InsertOnly, "update_only": edge.UpdateMode.UpdateOnly}
        return Update.upsert_points(points, where, modes.get(op.get("mode") or ""))
    if kind == "update_vectors":
        return Update.update_vectors([edge.PointVectors(pid, _vectors(v)) for pid, v in op["points"]], where)
    if kind == "delete":
        return Update.delete_points(ids) if ids is not None else Update.delete_points_by_filter(where)
    if kind == "delete_vectors":
        if ids is not None:
            return Update.delete_vectors(ids, op["names"])
        return Update.delete_vectors_by_filter(where, op["names"])
    if kind == "set_payload":
        if ids is not None:
            return Update.set_payload(ids, op["payload"], op.get("key"))
        return Update.set_payload_by_filter(where, op["payload"], op.get("key"))
    if kind == "overwrite_payload":
        if ids is not None:
            return Update.overwrite_payload(ids, op["payload"], op.get("key"))
        return Update.overwrite_payload_by_filter(where, op["payload"], op.get("key"))
    if kind == "delete_payload":
        if ids is not None:
            return Update.delete_payload(ids, op["keys"])
        return Update.delete_payload_by_filter(where, op["keys"])
    if kind == "clear_payload":
        return Update.clear_payload(ids) if ids is not None else Update.clear_payload_by_filter(where)
    if kind == "create_index":
        return Update.create_field_index(op["field"], edge_config.index_params(op["schema"]))
    if kind == "delete_index":
        return Update.delete_field_index(op["field"])
    raise ValueError(f"unknown operation {kind}")


class Shards:
    """The open shards by folder. Every public method is one kind of request."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def open(self, path: str, collection: Json, create: bool) -> None:
        config = edge_config.edge_config(collection)
        if create:
            os.makedirs(path, exist_ok=True)
            self._open[path] = edge.EdgeShard.create(path, config)
            self._open[path].flush()
            return
        until = time.monotonic() + OPEN_SECONDS
        while True:
            try:
                self._open[path] = edge.EdgeShard.load(path, config)
                return
            except Exception as exc:
                if "WouldBlock" not in str(exc) or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def close(self, path: str) -> None:
        shard = self._open.pop(path, None)
        if shard is not None:
            shard.close()

    def reload(self, path: str, collection: Json) -> None:
        self.close(path)
        self.open(path, collection, False)

    def optimize(self, path: str) -> bool:
        done = bool(self._open[path].optimize())
        self._open[path].flush()
        return done

    def update(self, path: str, op: Json, flush: bool) -> None:
        shard = self._open[path]
        shard.update(_operation(edge_bools.without(shard, op)))
        if flush:
            shard.flush()

    def info(self, path: str) -> Json:
        info = self._open[path].info()
        return {
            "segments_count": info.segments_count,
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "index_points": {key: one.points for key, one in info.payload_schema.items()},
        }

    def retrieve(self, path: str, ids: list[Any], payload: Any, vector: Any) -> list[Json]:
        got = self._open[path].retrieve(ids, edge_query.selector(payload), vector)
        return [_record(point) for point in got]

    def scroll(self, path: str, ask: Json) -> tuple[list[Json], Any]:
        ask = edge_bools.without(self._open[path], ask)
        request = edge.ScrollRequest(
            limit=ask["limit"],
            offset=ask.get("offset"),
            filter=edge_query.filter_of(ask.get("filter")),
            with_payload=edge_query.selector(ask["with_payload"]),
            with_vector=ask["with_vector"],
            order_by=edge_query.order_by(ask["order_by"]) if ask.get("order_by") else None,
        )
        points, following = self._open[path].scroll(request)
        return [_record(point) for point in points], _id(following)

    def query(self, path: str, asks: list[Json]) -> list[list[Json]]:
        shard = self._open[path]
        requests = [edge_query.request(edge_bools.without(shard, ask)) for ask in asks]
        return [[_scored(point) for point in shard.query(request)] for request in requests]

    def count(self, path: str, where: Json | None, exact: bool) -> int:
        where = edge_bools.without(self._open[path], where)
        return int(self._open[path].count(edge.CountRequest(exact=exact, filter=edge_query.filter_of(where))))

    def facet(
        self, path: str, key: str, limit: int, exact: bool, where: Json | None
    ) -> list[tuple[Any, int]]:
        where = edge_bools.without(self._open[path], where)
        request = edge.FacetRequest(key, limit, exact, edge_query.filter_of(where))
        return [(_id(hit.value), hit.count) for hit in self._open[path].facet(request).hits]

    def bm25(self, text: str, is_query: bool) -> tuple[list[int], list[float]]:
        encoder = edge.Bm25()
        made = encoder.embed_query(text) if is_query else encoder.embed_document(text)
        return list(made.indices), list(made.values)


def main() -> None:
    """Serve the pipe given by file number until its other end closes."""
    pipe, alive = Connection(int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(alive)
    shards = Shards()
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, ...]
        try:
            answer = (True, getattr(shards, name)(*args))
        except Exception as exc:
            answer = (False, type(exc).__name__, str(exc))
        except BaseException as exc:
            # A Rust panic derives from BaseException; KeyboardInterrupt ends us as usual.
            if type(exc).__name__ != "PanicException":
                raise
            answer = (False, "PanicException", str(exc))
        pipe.send(answer)


if __name__ == "__main__":
    main()
