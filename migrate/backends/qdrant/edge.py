"""Qdrant's own engine without a server: one shard folder a collection, served by a process of ours.

    folder/<collection>/edge_config.json, segments/, wal/   the engine's
    folder/<collection>/memlift.json                        settings and metadata, as a server would tell them

The write-ahead log is on and never shrinks, so a folder takes about twice its
data. `kill -9` loses nothing that was acknowledged; `settle` also writes the log
to the disk, which is what outlives a power cut.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from migrate.backends.qdrant.edge_files import ENGINE_SETTINGS, as_rest, check_folder, disk_error, translated
from migrate.backends.qdrant.engine import (
    Info,
    Json,
    Limits,
    Multi,
    Packed,
    Point,
    PointId,
    Scored,
    ShardKey,
    Sparse,
)
from migrate.errors import BackendError, SchemaError, TransientError

_SETTINGS = "memlift.json"
_UNDER_WAY = 8  # requests sent and not yet answered
_REQUEST_BYTES = 400_000
_END_S = 2.0  # how long an engine that nobody needs may take to end
_BUSY_S = 30.0  # how long a folder that another process holds is waited for


@dataclass(slots=True)
class _Process:
    """The engine's process of one folder, shared by all that read and write it here."""

    child: subprocess.Popen[bytes]
    pipe: Connection[Any, Any]
    alive: int
    users: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    waiting: list[str] = field(default_factory=list)  # what was sent and is not yet answered
    trouble: BackendError | None = None

    def end(self) -> int:
        """End it, if it has not ended; return its exit code. Idempotent."""
        self.waiting.clear()
        self.pipe.close()
        alive, self.alive = self.alive, -1
        if alive >= 0:
            os.close(alive)  # the kernel ends it now at the latest
        try:
            return self.child.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


_processes: dict[tuple[int, Path], _Process] = {}
_guard = threading.Lock()


def _start(folder: Path) -> _Process:
    ours, theirs = socket.socketpair()
    alive, watched = socket.socketpair()
    script = Path(__file__).with_name("edge_process.py")
    child = subprocess.Popen(
        [sys.executable, str(script), str(theirs.fileno()), str(watched.fileno()), str(folder)],
        pass_fds=(theirs.fileno(), watched.fileno()),
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    watched.close()
    return _Process(child, Connection(ours.detach()), alive.detach())


class EdgeEngine:
    """A folder of shards as an `Engine`."""

    def __init__(self, folder: Path, *, writing: bool) -> None:
        check_folder(folder, writing=writing)
        self.limits, self.parallel = Limits(), False
        self.distributed, self.inserts_only, self.fuses = False, True, True
        self._folder = folder.absolute()
        # A folder that is one shard itself is shown as one collection of the folder's name.
        self._single = self._folder.name if (self._folder / ENGINE_SETTINGS).exists() else None
        self._process: _Process | None = None

    def describe(self) -> str:
        """See `Engine.describe`."""
        return f"qdrant:{self._folder}"

    # --- the process ----------------------------------------------------------

    def _running(self) -> _Process:
        if self._process is None or self._process.pipe.closed:
            root = self._folder.parent if self._single else self._folder
            key = (os.getpid(), root)
            with _guard:
                found = _processes.get(key)
                if found is None or found.child.poll() is not None or found.pipe.closed:
                    root.mkdir(parents=True, exist_ok=True)
                    found = _processes[key] = _start(root)
                if found is not self._process:
                    found.users += 1
                self._process = found
        return self._process

    def _send(self, process: _Process, name: str, *args: Any) -> None:
        self._send_bytes(process, name, marshal.dumps((name, args)))

    def _send_bytes(self, process: _Process, name: str, request: bytes | memoryview) -> None:
        while len(process.waiting) >= _UNDER_WAY:
            self._answered(process)
        try:
            process.pipe.send_bytes(request)
        except (OSError, ValueError) as exc:
            raise self._gone(process) from exc
        process.waiting.append(name)

    def _answered(self, process: _Process) -> Any:
        """Take the answer to the oldest request; what an upsert met is kept for `settle`."""
        try:
            answer = marshal.loads(process.pipe.recv_bytes())  # noqa: S302 - plain values, from our own process
        except (EOFError, OSError) as exc:
            raise self._gone(process) from exc
        name = process.waiting.pop(0)
        if answer[0] == "ok":
            return answer[1]
        error = translated(name, answer[1], answer[2], self.describe())
        if name != "upsert":
            raise error
        process.trouble = process.trouble or error
        return None

    def _gone(self, process: _Process) -> BackendError:
        """Return the error of a process that ended by itself."""
        code = process.end()
        if code == -signal.SIGBUS:  # a page of a mapped file that no disk could be found for
            return BackendError(
                "Qdrant's engine ended for want of room: the disk is full",
                hint="make room and run the same command again, it goes on from its checkpoint",
                store=self.describe(),
            )
        return TransientError(
            f"the process of Qdrant's engine ended with {code}",
            hint="is there memory left?",
            store=self.describe(),
        )

    def _call(self, name: str, *args: Any, idle: Callable[[], None] | None = None) -> Any:
        """Run one call and return its result. `idle` is called about each second meanwhile."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            process = self._running()
            with process.lock:
                while process.waiting:
                    self._answered(process)
                self._send(process, name, *args)
                while idle is not None and not process.pipe.poll(1.0):
                    idle()
                try:
                    return self._answered(process)
                except TransientError as exc:
                    if "another process" not in exc.message or time.monotonic() > deadline:
                        raise
            time.sleep(0.2)  # an engine whose parent was killed a moment ago ends by itself

    def reconnect(self) -> None:
        """See `Engine.reconnect`."""
        self.abandon()

    def close(self) -> None:
        """See `Engine.close`."""
        process, self._process = self._process, None
        if process is None:
            return
        with _guard:
            process.users -= 1
            if process.users > 0:
                return
            for key, found in list(_processes.items()):
                if found is process:
                    del _processes[key]
        with process.lock:
            if self._stuck(process):
                process.end()  # its log keeps what was acknowledged
            with contextlib.suppress(BackendError):  # it ends in any case
                if not process.pipe.closed:
                    self._send(process, "close")
                    while process.waiting:
                        self._answered(process)
            process.end()

    def _stuck(self, process: _Process) -> bool:
        """Whether an interrupted call, perhaps a long one, is still unanswered."""
        return any(name != "upsert" for name in process.waiting)

    # --- collections ----------------------------------------------------------

    def names(self) -> list[str]:
        """See `Engine.names`."""
        if self._single:
            return [self._single]
        if not self._folder.exists():
            return []
        return sorted(
            p.name
            for p in self._folder.iterdir()
            if (p / ENGINE_SETTINGS).exists() and not p.name.startswith(".")
        )

    def aliases(self) -> dict[str, str]:
        """See `Engine.aliases`: the engine has none; those carried from a server are kept beside."""
        found = {}
        for name in self.names():
            for alias in self._kept(name).get("aliases") or ():
                found[alias] = name
        return found

    def alias(self, name: str, alias: str) -> None:
        """See `Engine.alias`."""
        kept = self._kept(name)
        self._keep(name, {**kept, "aliases": sorted({*(kept.get("aliases") or ()), alias})})

    def _path(self, name: str) -> Path:
        return self._folder if self._single else self._folder / name

    def _kept(self, name: str) -> Json:
        path = self._path(name) / _SETTINGS
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise BackendError(f"cannot read {path}: {exc}", hint="restore it from a backup") from exc
        return found if isinstance(found, dict) else {}

    def _keep(self, name: str, kept: Json) -> None:
        """Written aside, synced and renamed: a crash leaves the old or the new."""
        path = self._path(name) / _SETTINGS
        aside = path.with_suffix(".new")
        try:
            with aside.open("w") as file:
                file.write(json.dumps(kept))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as exc:
            raise disk_error(f"write {path}", exc) from exc

    def info(self, name: str) -> Info | None:
        """See `Engine.info`."""
        path = self._path(name)
        if not (path / ENGINE_SETTINGS).exists():
            return None
        kept = self._kept(name)
        settings = kept.get("settings")
        if settings is None:
            try:
                settings = as_rest(json.loads((path / ENGINE_SETTINGS).read_text()))
            except (OSError, ValueError) as exc:
                raise BackendError(f"cannot read {path / ENGINE_SETTINGS}: {exc}") from exc
        seen = self._call("info", name)
        schema = dict(seen["schema"])
        schema.update({f: s for f, s in (kept.get("schema") or {}).items() if f in schema})
        told = {
            "params": {
                k: settings[k] for k in ("vectors", "sparse_vectors", "on_disk_payload") if k in settings
            },
            "hnsw_config": settings.get("hnsw_config") or {},
            "optimizer_config": settings.get("optimizers_config") or {},
            "quantization_config": settings.get("quantization_config"),
            **{k: settings[k] for k in ("wal_config", "strict_mode_config") if k in settings},
        }
        return Info(told, seen["points"], seen["indexed"], "green", schema, kept.get("metadata") or {})

    def metadata(self, name: str) -> Json:
        """See `Engine.metadata`."""
        found = self._kept(name).get("metadata")
        return found if isinstance(found, dict) else {}

    def create(self, name: str, settings: Json, metadata: Json) -> None:
        """See `Engine.create`."""
        path = self._path(name)
        if (path / ENGINE_SETTINGS).exists():
            raise SchemaError(f"there already is a collection {name!r}", hint="choose another prefix")
        if path.exists() and any(p.name != _SETTINGS for p in path.iterdir()):
            # The engine would write into any folder, also one full of strangers' files.
            if not self._half_made(path):
                raise SchemaError(
                    f"the folder {path} is not empty and no shard", hint="choose another prefix"
                )
            self._call("drop", name)
        self._call("create", name, settings)
        self._keep(name, {"settings": settings, "metadata": metadata})

    def _half_made(self, path: Path) -> bool:
        return {p.name for p in path.iterdir()} <= {"segments", "wal", _SETTINGS, "memlift.new"}

    def shard_keys(self, name: str) -> list[ShardKey]:
        """See `Engine.shard_keys`: a folder has none."""
        return []

    def change(self, name: str, settings: Json) -> None:
        """See `Engine.change`: kept for the way back to a server; the engine has no such settings."""
        kept = self._kept(name)
        self._keep(name, {**kept, "settings": {**(kept.get("settings") or {}), **settings}})

    def drop(self, name: str) -> None:
        """See `Engine.drop`."""
        if (self._folder / name).exists():
            self._call("drop", name)

    # --- points ---------------------------------------------------------------

    def pack(self, name: str, points: Sequence[Point], *, insert_only: bool = False) -> bytes:
        """See `Engine.pack`: requests as the engine's process reads them, each after its length."""
        out: list[bytes] = []
        for part in _parts(points):
            sent = [(p.id, {n: _plain(v) for n, v in p.vectors.items()}, p.payload) for p in part]
            request = marshal.dumps(("upsert", (name, sent, insert_only)))
            out += (len(request).to_bytes(4, "little"), request)
        return b"".join(out)

    def send(self, name: str, packed: bytes) -> None:
        """See `Engine.send`."""
        view, at = memoryview(packed), 0
        process = self._running()
        with process.lock:
            while at < len(view):
                self._raise_trouble(process)
                n = int.from_bytes(view[at : at + 4], "little")
                self._send_bytes(process, "upsert", view[at + 4 : at + 4 + n])
                at += 4 + n

    def settle(self) -> None:
        """See `Engine.settle`."""
        self._call("sync")
        process = self._running()
        with process.lock:
            self._raise_trouble(process)

    def post(self, name: str, point: Point) -> None:
        """See `Engine.post`."""
        self.send(name, self.pack(name, [point]))
        self.settle()

    def _raise_trouble(self, process: _Process) -> None:
        trouble, process.trouble = process.trouble, None
        if trouble is not None:
            raise trouble

    def abandon(self) -> None:
        """See `Engine.abandon`."""
        process = self._process
        if process is None:
            return
        with process.lock:
            if self._stuck(process):
                process.end()  # its log keeps what was acknowledged
            try:
                while process.waiting and not process.pipe.closed:
                    self._answered(process)
            except BackendError:
                process.waiting.clear()  # what was not acknowledged is sent again
            process.trouble = None

    def delete(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> None:
        """See `Engine.delete`."""
        self._call("delete", name, list(ids))

    def scroll(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        *,
        payload: bool = True,
        vectors: bool | Sequence[str] = True,
        shard: ShardKey | None = None,
    ) -> tuple[list[Point], PointId | None]:
        """See `Engine.scroll`."""
        records, after = self._call(
            "scroll",
            name,
            limit,
            offset,
            payload,
            vectors if isinstance(vectors, bool) else list(vectors) or False,
        )
        points = [Point(i, {n: _typed(v) for n, v in named.items()}, body) for i, named, body in records]
        return points, after

    def query(self, name: str, asked: Sequence[Json]) -> list[list[Scored]]:
        """See `Engine.query`."""
        found = self._call("query", name, list(asked), idle=lambda: None)
        return [[Scored(Point(i, {}, body), score) for i, _, body, score in one] for one in found]

    def retrieve(
        self,
        name: str,
        ids: Sequence[PointId],
        *,
        payload: bool = True,
        vectors: bool | Sequence[str] = False,
    ) -> list[Point]:
        """See `Engine.retrieve`."""
        wanted = vectors if isinstance(vectors, bool) else list(vectors)
        records = self._call("retrieve", name, list(ids), payload, wanted)
        return [Point(i, {n: _typed(v) for n, v in named.items()}, body) for i, named, body in records]

    def present(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> set[PointId]:
        """See `Engine.present`."""
        return set(self._call("present", name, list(ids)))

    def count(self, name: str) -> int:
        """See `Engine.count`."""
        return int(self._call("count", name))

    def index_payload(self, name: str, field: str, schema: Json) -> None:
        """See `Engine.index_payload`."""
        self._call("index_payload", name, field, schema, idle=lambda: None)
        kept = self._kept(name)
        self._keep(name, {**kept, "schema": {**(kept.get("schema") or {}), field: schema}})

    def index(self, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
        """See `Engine.index`. The engine does not say how far it is; progress only shows that it goes on."""
        total = self.count(name)
        kept = self._kept(name)
        base = kept.get("settings") or as_rest(json.loads((self._path(name) / ENGINE_SETTINGS).read_text()))
        merged = {**base, **settings}
        self._call("index", name, merged, idle=lambda: progress(0, total))
        self._keep(name, {**kept, "settings": merged})
        progress(total, total)


def _parts(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    """Cut points into requests of about `_REQUEST_BYTES`: a large one is read in many small pieces, slowly."""
    if not points:
        return
    one = sum(len(v) if isinstance(v, bytes) else 4000 for v in points[0].vectors.values()) + 1000
    step = max(1, _REQUEST_BYTES // one)
    for i in range(0, len(points), step):
        yield points[i : i + step]


def _plain(vector: Packed) -> Any:
    if isinstance(vector, Sparse):
        return ("s", vector.indices, vector.values)
    return ("m", vector.dim, vector.data) if isinstance(vector, Multi) else vector


def _typed(vector: Any) -> Packed:
    if isinstance(vector, bytes):
        return vector
    return Sparse(vector[1], vector[2]) if vector[0] == "s" else Multi(vector[1], vector[2])
