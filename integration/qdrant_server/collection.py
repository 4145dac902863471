"""One collection: its settings on disk, its shards in the engine, its optimizer's status."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from integration.qdrant_server import settings as settings_
from integration.qdrant_server.engine import Engine, EngineBusyError
from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]
ShardKey = int | str


class Optimizer:
    """Switches for tests, shared by all collections of a server.

    delay_s:  how long an optimization lasts at least, so that a test can see `yellow`.
    deferred: how many points a collection with `prevent_unoptimized` says it hides.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.deferred = 0


class Collection:
    """Shards hold the points: one for automatic sharding, one for each shard key otherwise.

    Automatic sharding over `shard_number` shards is kept in the settings and served
    by one shard of the engine: what a client sees is the same.
    """

    def __init__(self, folder: Path, engine: Engine, optimizer: Optimizer, stored: Json) -> None:
        self.folder = folder
        self.name: str = stored["name"]
        self.settings: Json = stored["settings"]
        self.schema: Json = stored["schema"]  # field: {"data_type", "params"}
        self.shards: list[Json] = stored["shards"]  # {"id", "key"}
        self.lock = threading.RLock()
        self._engine = engine
        self._optimizer = optimizer
        self._unindexed = 0  # bytes of dense vectors written since the last optimization
        self._running: threading.Thread | None = None
        self._again = False
        self._grey = False
        self._error: str | None = None
        self._last: Json = {
            "segments_count": 0,
            "points_count": 0,
            "indexed_vectors_count": 0,
            "index_points": {},
        }
        self._operation = 0
        self.dropped = False

    @classmethod
    def create(
        cls, folder: Path, engine: Engine, optimizer: Optimizer, name: str, settings: Json
    ) -> Collection:
        made = cls(
            folder, engine, optimizer, {"name": name, "settings": settings, "schema": {}, "shards": []}
        )
        folder.mkdir(parents=True)
        if not settings_.is_custom_sharding(settings):
            made._add_shard(None)
        made.save()
        return made

    @classmethod
    def load(cls, folder: Path, engine: Engine, optimizer: Optimizer) -> Collection:
        made = cls(folder, engine, optimizer, json.loads((folder / "config.json").read_text()))
        for shard in made.shards:
            engine.call("open", made._path(shard), made.settings, False)
        made._last = made._count()
        made._unindexed = made._estimate()
        # After a start the server waits for an update before it optimizes: grey.
        made._grey = made._over_threshold()
        return made

    def save(self) -> None:
        """Written aside, synced and renamed: a crash leaves the old or the new settings."""
        text = json.dumps(
            {"name": self.name, "settings": self.settings, "schema": self.schema, "shards": self.shards}
        )
        aside = self.folder / "config.json.new"
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / "config.json")

    # Shards

    def _path(self, shard: Json) -> str:
        return str(self.folder / str(shard["id"]))

    def _add_shard(self, key: ShardKey | None) -> None:
        shard = {"id": max((one["id"] for one in self.shards), default=-1) + 1, "key": key}
        path = self._path(shard)
        self._engine.call("open", path, self.settings, True)
        for field, one in self.schema.items():
            index = {"kind": "create_index", "field": field, "schema": one["params"] or one["data_type"]}
            self._engine.call("update", path, index, True)
        self.shards.append(shard)

    def create_shard_key(self, key: ShardKey) -> None:
        with self.lock:
            if not settings_.is_custom_sharding(self.settings):
                raise QdrantError("bad_request", "Shard Key cannot be created with Auto sharding method")
            if any(shard["key"] == key for shard in self.shards):
                raise QdrantError("bad_request", f"Shard key {key} already exists")
            self._add_shard(key)
            self.save()

    def delete_shard_key(self, key: ShardKey) -> None:
        with self.lock:
            if not settings_.is_custom_sharding(self.settings):
                raise QdrantError(
                    "bad_request", f"Shard Key {key} cannot be removed with Auto sharding method"
                )
            found = [shard for shard in self.shards if shard["key"] == key]
            if not found:
                raise QdrantError("bad_request", f"Shard key {key} does not exist")
            self.shards.remove(found[0])
            self.save()
            self._engine.call("close", self._path(found[0]))
            shutil.rmtree(self._path(found[0]))

    def for_read(self, selector: Any) -> list[tuple[str, ShardKey | None]]:
        """Folders and keys of the shards that a read goes to. No selector: all."""
        keys = _keys(selector)
        if keys is None:
            return [(self._path(shard), shard["key"]) for shard in self.shards]
        return [self._selected(key) for key in keys]

    def for_write(self, selector: Any, *, by_id: bool) -> list[str]:
        """Folders that a write goes to. With custom sharding one by ids must name its key."""
        keys = _keys(selector)
        if keys is None:
            if by_id and settings_.is_custom_sharding(self.settings):
                raise QdrantError("bad_input", "Shard key not specified")
            return [self._path(shard) for shard in self.shards]
        return [self._selected(key)[0] for key in keys]

    def _selected(self, key: ShardKey) -> tuple[str, ShardKey | None]:
        for shard in self.shards:
            if shard["key"] == key and key is not None:
                return self._path(shard), shard["key"]
        raise QdrantError("bad_input", f"Shard key {key} not found")

    # Writes

    def next_operation(self) -> int:
        with self.lock:
            self._operation += 1
            return self._operation - 1

    def update(self, path: str, op: Json, *, flush: bool, written: int = 0) -> None:
        """Apply one update in one shard; a large backlog starts the optimizer."""
        self._engine.call("update", path, op, flush)
        with self.lock:
            self._unindexed += written
            self._grey = False
        if written and self._over_threshold():
            self.optimize()

    def apply(self, settings: Json) -> None:
        """New settings after PATCH. The optimizer runs, as the server's does."""
        with self.lock:
            self.settings = settings
            self.save()
            self._grey = False
        self.optimize(reload=True)

    def set_schema(self, field: str, entry: Json | None) -> None:
        with self.lock:
            self.schema.pop(field, None)
            if entry is not None:
                self.schema[field] = entry
            self.save()

    # Optimizer

    def _threshold(self) -> int:
        """kB; 0 means that indexing is off."""
        value: int | None = self.settings["optimizer_config"]["indexing_threshold"]
        if value is None:
            return settings_.INDEXING_THRESHOLD_KB
        return int(value)

    def _over_threshold(self) -> bool:
        threshold = self._threshold()
        return threshold > 0 and self._unindexed / 1024 > threshold

    def _estimate(self) -> int:
        dense = settings_.dense_vectors(self.settings)
        missing = max(0, self._last["points_count"] * len(dense) - self._last["indexed_vectors_count"])
        largest: int = max((one["size"] for one in dense.values()), default=0)
        return int(missing) * 4 * largest

    def _without_threads(self) -> bool:
        """Whether nothing may ever be optimized: `grey` for as long as there would be something to do."""
        return bool(self.settings["optimizer_config"].get("max_optimization_threads") == 0)

    def optimize(self, *, reload: bool = False) -> None:
        """Run the engine's optimizer in the background; `yellow` until it is done."""
        if self._running is None:
            self._last = self._count()  # what is told while the engine is busy
        with self.lock:
            if self._running is not None:
                self._again = self._again or reload
                return
            self._running = threading.Thread(target=self._optimize, args=(reload,), daemon=True)
        self._running.start()

    def _optimize(self, reload: bool) -> None:
        while True:
            until = time.monotonic() + self._optimizer.delay_s
            try:
                for shard in [] if self.dropped else list(self.shards):
                    if reload:
                        self._engine.call("reload", self._path(shard), self.settings)
                    if self._threshold() > 0 and not self._without_threads():
                        self._engine.call("optimize", self._path(shard))
                self._error = None
            except QdrantError as exc:
                if not self.dropped:
                    self._error = exc.message
            while (left := until - time.monotonic()) > 0 and not self.dropped:
                time.sleep(min(left, 0.02))
            with self.lock:
                if self._again and not self.dropped:
                    self._again, reload = False, True
                    continue
                if self._threshold() > 0 and not self._without_threads():
                    self._unindexed = 0
                self._running = None
                return

    # What is told about it

    def _count(self) -> Json:
        total: Json = {"segments_count": 0, "points_count": 0, "indexed_vectors_count": 0, "index_points": {}}
        for shard in list(self.shards):
            path = self._path(shard)
            if self._running is None:
                info = self._engine.call("info", path)
            else:
                info = self._engine.call_within(0.02, "info", path)
            for key in ("segments_count", "points_count", "indexed_vectors_count"):
                total[key] += info[key]
            for field, points in info["index_points"].items():
                total["index_points"][field] = total["index_points"].get(field, 0) + points
        return total

    def status(self) -> str:
        if self._error is not None:
            return "red"
        if self._running is not None:
            return "yellow"
        idle = self._without_threads() and self._over_threshold()
        return "grey" if self._grey or idle else "green"

    def info(self) -> Json:
        """`CollectionInfo`. While the engine optimizes, the counts are the last known ones."""
        with contextlib.suppress(EngineBusyError):
            self._last = self._count()
        counts = self._last
        schema = {
            field: {
                "data_type": one["data_type"],
                **({"params": one["params"]} if one["params"] else {}),
                "points": counts["index_points"].get(field, 0),
            }
            for field, one in self.schema.items()
        }
        return {
            "status": self.status(),
            "optimizer_status": "ok" if self._error is None else {"error": self._error},
            "indexed_vectors_count": counts["indexed_vectors_count"],
            "points_count": counts["points_count"],
            "segments_count": counts["segments_count"],
            "config": self.settings,
            "payload_schema": schema,
            "update_queue": {"length": 0, **self._deferred()},
        }

    def _deferred(self) -> Json:
        hides = self.settings["optimizer_config"].get("prevent_unoptimized")
        return {"deferred_points": self._optimizer.deferred} if hides else {}

    def drop(self) -> None:
        """Close the shards and remove the folder."""
        self.dropped = True
        for shard in self.shards:
            self._engine.call("close", self._path(shard))
        shutil.rmtree(self.folder)

    def call(self, path: str, name: str, *args: Any) -> Any:
        return self._engine.call(name, path, *args)


def _keys(selector: Any) -> list[ShardKey] | None:
    """A `shard_key` of a request: one key, a list, or `{"target", "fallback"}`."""
    if selector is None:
        return None
    if isinstance(selector, dict):
        return [selector["target"]]
    return list(selector) if isinstance(selector, list) else [selector]
