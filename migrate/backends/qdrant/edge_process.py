"""Qdrant's engine in a process of its own, started as a script with the number of a socket.

The engine holds the interpreter's lock while it works: a 10 ms ticker ran twice in
3.5 s of index building. Here it may, and the process that migrates keeps its
signals, its progress and its other threads. This process ends with its parent.

A request is (name, arguments); the answer ("ok", result) or ("error", class, text). Both travel by
`marshal`: plain values only, no class can come in by it, and it is as quick as pickle (2 us a point).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import marshal
import os
import shutil
import signal
import sys
from array import array
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

import qdrant_edge as edge

edge_config: Any = importlib.import_module("edge_config")  # beside this script
edge_query: Any = importlib.import_module("edge_query")
_AT_ONCE = 500  # points in one update; no size from 50 to 2,000 was faster
_LOGGED_BYTES = 128 * 2**20  # what only the log has, at most: so much is read again after a kill


def _floats(data: bytes) -> Any:
    return memoryview(data).cast("f")  # a third faster than a list of floats; bytes would be one number each


def _vector(packed: Any) -> Any:
    """A vector as the parent packed it: bytes, ("s", indices, values) or ("m", dim, rows)."""
    if isinstance(packed, bytes):
        return _floats(packed)
    if packed[0] == "s":
        numbers: Any = memoryview(packed[2]).cast("f").tolist()
        return edge.SparseVector(memoryview(packed[1]).cast("I").tolist(), numbers)
    step = 4 * packed[1]
    return [_floats(packed[2][i : i + step]) for i in range(0, len(packed[2]), step)]


def _packed(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return ("s", array("I", vector.indices).tobytes(), array("f", vector.values).tobytes())
    if vector and isinstance(vector[0], list):
        return ("m", len(vector[0]), b"".join(array("f", row).tobytes() for row in vector))
    return array("f", vector).tobytes()


def _record(record: Any) -> tuple[Any, ...]:
    found = record.vector
    named = found if isinstance(found, dict) else {} if found is None else {"": found}
    point_id = str(record.id) if isinstance(record.id, UUID) else record.id
    return point_id, {n: _packed(v) for n, v in named.items() if n != "memlift_none"}, record.payload or {}


class Shards:
    """The shards of a folder, opened when first asked for."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._open: dict[str, Any] = {}
        self._dirty: dict[str, int] = {}  # bytes that only a shard's log has for sure
        self.request_bytes = 0  # of the request that is being answered

    def _shard(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = edge.EdgeShard.load(str(self._folder / name))
        return self._open[name]

    def create(self, name: str, settings: Any) -> None:
        self._open[name] = edge.EdgeShard.create(str(self._folder / name), edge_config.config(settings))
        self._open[name].flush()

    def upsert(self, name: str, points: Any, insert_only: bool) -> None:
        mode = edge.UpdateMode.InsertOnly if insert_only else None
        shard = self._shard(name)
        self._dirty[name] = self._dirty.get(name, 0) + self.request_bytes
        for i in range(0, len(points), _AT_ONCE):
            made = [
                edge.Point(p[0], {n: _vector(v) for n, v in p[1].items()}, p[2])
                for p in points[i : i + _AT_ONCE]
            ]
            shard.update(edge.UpdateOperation.upsert_points(made, update_mode=mode))

    def delete(self, name: str, ids: Any) -> None:
        self._shard(name).update(edge.UpdateOperation.delete_points(ids))
        self._shard(name).flush()

    def sync(self) -> None:
        """Make all that was applied outlive a power cut.

        The log alone does that: the engine reads it again when it opens a shard. Its files take 2 ms,
        where `flush` writes out every file of the segments (20 ms and more), so that is done seldom.
        """
        for name, size in sorted(self._dirty.items()):
            if size > _LOGGED_BYTES:
                self._shard(name).flush()
                del self._dirty[name]
            else:
                _sync_folder(self._folder / name / "wal")

    def scroll(self, name: str, limit: int, offset: Any, payload: Any, vectors: Any) -> Any:
        request = edge.ScrollRequest(limit=limit, offset=offset, with_payload=payload, with_vector=vectors)
        records, after = self._shard(name).scroll(request)
        return [_record(r) for r in records], str(after) if isinstance(after, UUID) else after

    def query(self, name: str, asked: Any) -> list[Any]:
        shard = self._shard(name)
        return [[(*_record(p), p.score) for p in shard.query(edge_query.request(one))] for one in asked]

    def retrieve(self, name: str, ids: Any, payload: Any, vectors: Any) -> list[Any]:
        return [_record(r) for r in self._shard(name).retrieve(ids, payload, vectors)]

    def present(self, name: str, ids: Any) -> list[Any]:
        found = self._shard(name).retrieve(ids, False, False)
        return [_record(r)[0] for r in found]

    def count(self, name: str) -> int:
        return int(self._shard(name).count(edge.CountRequest(exact=True)))

    def info(self, name: str) -> dict[str, Any]:
        found = self._shard(name).info()
        return {
            "points": found.points_count,
            "indexed": found.indexed_vectors_count,
            "schema": {k: edge_config.schema_of(v) for k, v in found.payload_schema.items()},
        }

    def index_payload(self, name: str, field: str, schema: Any) -> None:
        shard = self._shard(name)
        shard.update(edge.UpdateOperation.create_field_index(field, edge_config.index_params(schema)))
        self._dirty.setdefault(name, 0)

    def index(self, name: str, settings: Any) -> None:
        """Open again with other settings and build what they ask for."""
        self.close_one(name)
        self._open[name] = edge.EdgeShard.load(str(self._folder / name), edge_config.config(settings))
        self._open[name].optimize()
        self._open[name].flush()

    def close_one(self, name: str) -> None:
        shard = self._open.pop(name, None)
        if shard is not None:
            shard.flush()
            shard.close()

    def drop(self, name: str) -> None:
        """Renamed first, so that a folder is never half a shard."""
        shard = self._open.pop(name, None)
        self._dirty.pop(name, None)
        if shard is not None:
            shard.close()
        gone = self._folder / f".dropped-{name}"
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._folder / name, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        for name in list(self._open):
            self.close_one(name)


def _sync_folder(folder: Path) -> None:
    """Write the files of a folder, and which ones there are, to the disk."""
    for path in (*folder.iterdir(), folder):
        with contextlib.suppress(FileNotFoundError):  # the log makes its next file aside and renames it
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _end_with_the_parent(descriptor: int) -> None:
    """Have the kernel end this process when the parent is gone, even in the middle of a long call.

    The socket's hang-up raises SIGIO, whose default is to end the process; no Python code need run.
    """
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def serve(descriptor: int, alive: int, folder: str) -> None:
    """Answer requests until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes us in order
    _end_with_the_parent(alive)
    pipe: Connection[Any, Any] = Connection(descriptor)
    shards = Shards(folder)
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            break
        name, args = marshal.loads(request)  # noqa: S302 - plain values, over a socket that the parent made
        shards.request_bytes = len(request)
        try:
            answer: tuple[Any, ...] = ("ok", getattr(shards, name)(*args))
        except BaseException as exc:  # told to the parent, which knows what it means
            answer = ("error", type(exc).__name__, str(exc))
        try:
            pipe.send_bytes(marshal.dumps(answer))
        except OSError:
            break
        if name == "close":
            return
    with contextlib.suppress(Exception):  # nobody is left to be told
        shards.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
