"""Qdrant's own engine without a server: one shard folder a collection, served by a process of ours.

    folder/<collection>/edge_config.json, segments/, wal/   the engine's
    folder/<collection>/memlift.json                        settings and metadata, as a server would tell them

The write-ahead log is on and never shrinks, so a folder takes about twice its
data. `kill -9` loses nothing that was acknowledged; `settle` also writes the log
to the disk, which is what outlives a power cut.
"""

from __future__ import annotations

import json
import marshal
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from migrate.backends.qdrant.edge_channel import UPSERT, Channel
from migrate.backends.qdrant.edge_files import ENGINE_SETTINGS, as_rest, check_folder, disk_error
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
from migrate.backends.qdrant.names import own_path
from migrate.errors import BackendError, SchemaError

_SETTINGS = "memlift.json"
_REQUEST_BYTES = 400_000


class EdgeEngine:
    """A folder of shards as an `Engine`."""

    def __init__(self, folder: Path, *, writing: bool) -> None:
        check_folder(folder, writing=writing)
        self.limits, self.parallel = Limits(), False
        self.distributed, self.inserts_only, self.fuses = False, True, True
        self._folder = folder.absolute()
        # A folder that is one shard itself is shown as one collection of the folder's name.
        self._single = self._folder.name if (self._folder / ENGINE_SETTINGS).exists() else None
        self._channel = Channel(self._folder.parent if self._single else self._folder, self.describe())

    def describe(self) -> str:
        """See `Engine.describe`."""
        return f"qdrant:{self._folder}"

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
        seen = self._channel.call("info", name)
        schema = {own_path(field): one for field, one in seen["schema"].items()}
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
            self._channel.call("drop", name)
        self._channel.call("create", name, settings)
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
            self._channel.call("drop", name)

    # --- points ---------------------------------------------------------------

    def pack(self, name: str, points: Sequence[Point], *, insert_only: bool = False) -> bytes:
        """See `Engine.pack`: requests as the engine's process reads them, each after its length."""
        out: list[bytes] = []
        for part in _parts(points):
            sent = [(p.id, {n: _plain(v) for n, v in p.vectors.items()}, p.payload) for p in part]
            request = marshal.dumps((UPSERT, (name, sent, insert_only)))
            out += (len(request).to_bytes(4, "little"), request)
        return b"".join(out)

    def send(self, name: str, packed: bytes) -> None:
        """See `Engine.send`."""
        self._channel.upsert(_requests(packed))

    def settle(self) -> None:
        """See `Engine.settle`."""
        self._channel.settle()

    def post(self, name: str, point: Point) -> None:
        """See `Engine.post`."""
        self.send(name, self.pack(name, [point]))
        self.settle()

    def abandon(self) -> None:
        """See `Engine.abandon`."""
        self._channel.abandon()

    def reconnect(self) -> None:
        """See `Engine.reconnect`."""
        self.abandon()

    def close(self) -> None:
        """See `Engine.close`."""
        self._channel.close()

    def delete(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> None:
        """See `Engine.delete`."""
        self._channel.call("delete", name, list(ids))

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
        records, after = self._channel.call(
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
        found = self._channel.call("query", name, list(asked), idle=lambda: None)
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
        records = self._channel.call("retrieve", name, list(ids), payload, wanted)
        return [Point(i, {n: _typed(v) for n, v in named.items()}, body) for i, named, body in records]

    def present(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> set[PointId]:
        """See `Engine.present`."""
        return set(self._channel.call("present", name, list(ids)))

    def count(self, name: str) -> int:
        """See `Engine.count`."""
        return int(self._channel.call("count", name))

    def index_payload(self, name: str, field: str, schema: Json) -> None:
        """See `Engine.index_payload`."""
        self._channel.call("index_payload", name, field, schema, idle=lambda: None)
        kept = self._kept(name)
        self._keep(name, {**kept, "schema": {**(kept.get("schema") or {}), field: schema}})

    def index(self, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
        """See `Engine.index`. The engine does not say how far it is; progress only shows that it goes on."""
        total = self.count(name)
        kept = self._kept(name)
        base = kept.get("settings") or as_rest(json.loads((self._path(name) / ENGINE_SETTINGS).read_text()))
        merged = {**base, **settings}
        self._channel.call("index", name, merged, idle=lambda: progress(0, total))
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


def _requests(packed: bytes) -> Iterator[memoryview]:
    """Part what `pack` has put together."""
    view, at = memoryview(packed), 0
    while at < len(view):
        n = int.from_bytes(view[at : at + 4], "little")
        yield view[at + 4 : at + 4 + n]
        at += 4 + n


def _plain(vector: Packed) -> Any:
    if isinstance(vector, Sparse):
        return ("s", vector.indices, vector.values)
    return ("m", vector.dim, vector.data) if isinstance(vector, Multi) else vector


def _typed(vector: Any) -> Packed:
    if isinstance(vector, bytes):
        return vector
    return Sparse(vector[1], vector[2]) if vector[0] == "s" else Multi(vector[1], vector[2])
