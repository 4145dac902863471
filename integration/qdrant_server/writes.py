"""Point updates: routing to shards, what is refused at once, and what `wait` means.

With `wait=false` the server logs an update and answers; an update that the engine
then declines (a wrong dimension, say) is lost without an error. It is so here too
(public documentation: "Awaiting result").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from integration.qdrant_server import paths, strict_mode, vectors
from integration.qdrant_server.collection import Collection
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.store import Store

Json = dict[str, Any]
Point = tuple[int | str, dict[str, vectors.Packed], Json | None]

# Payloads nested deeper poison the engine's write-ahead log: it could never be opened again.
MAX_PAYLOAD_DEPTH = 120


class Writes:
    """One method per update. `selector` is the request's `shard_key`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def upsert(self, name: str, points: list[Point], request: Json, *, wait: bool) -> Json:
        """request: `shard_key`, `update_filter`, `update_mode` of the REST body."""
        found = self._store.get(name)
        strict_mode.check_upsert(found, len(points), request.get("update_filter"))
        paths = found.for_write(request.get("shard_key"), by_id=True)
        _not_empty(points)
        for _, _, payload in points:
            check_payload(payload)
        mode = request.get("update_mode")

        def ops() -> Iterable[tuple[str, Json, int]]:
            ready = self._encoded(found, points)
            op = {"kind": "upsert", "points": ready, "filter": request.get("update_filter"), "mode": mode}
            written = sum(vectors.size_bytes(one) for _, one, _ in ready)
            return [(path, op, written) for path in paths]

        return _write(found, ops, wait)

    def update_vectors(self, name: str, points: list[Point], request: Json, *, wait: bool) -> Json:
        found = self._store.get(name)
        strict_mode.check_upsert(found, len(points), request.get("update_filter"))
        paths = found.for_write(request.get("shard_key"), by_id=True)
        _not_empty(points)

        def ops() -> Iterable[tuple[str, Json, int]]:
            ready = self._encoded(found, points)
            shared = {"kind": "update_vectors", "filter": request.get("update_filter")}
            by_path = _present(found, paths, [pid for pid, _, _ in ready])
            for path, ids in by_path.items():
                mine = [(pid, one) for pid, one, _ in ready if pid in ids]
                yield path, {**shared, "points": mine}, sum(vectors.size_bytes(one) for _, one in mine)

        return _write(found, ops, wait)

    def by_selector(self, name: str, kind: str, request: Json, extra: Json, *, wait: bool) -> Json:
        """Deletes and payload updates: by `points` (ids, canonical) or by `filter`."""
        found = self._store.get(name)
        ids, where = request.get("points"), request.get("filter")
        if ids is None and where is None:
            raise QdrantError("bad_request", "No filter or points were provided")
        if where is None:
            _not_empty(ids)
        strict_mode.check_filter(found, where, update=True)
        strict_mode.check_rate(
            found, "write", max(1, len(ids or ()))
        )  # of a filter: an estimate of its points
        if "payload" in extra:
            check_payload(extra["payload"])
        paths = found.for_write(request.get("shard_key"), by_id=where is None)

        def ops() -> Iterable[tuple[str, Json, int]]:
            if where is not None:
                return [(path, {"kind": kind, "filter": where, **extra}, 0) for path in paths]
            if kind == "delete":
                return [(path, {"kind": kind, "ids": ids, **extra}, 0) for path in paths]
            by_path = _present(found, paths, ids or [])
            return [(path, {"kind": kind, "ids": mine, **extra}, 0) for path, mine in by_path.items()]

        return _write(found, ops, wait)

    def create_index(self, name: str, field: str, schema: Json | str | None, *, wait: bool) -> Json:
        found = self._store.get(name)
        if schema is None:
            raise QdrantError("bad_request", "field_schema is not specified")
        field = paths.canonical(field)
        strict_mode.check_index_count(found, field)
        entry = (
            {"data_type": schema, "params": None}
            if isinstance(schema, str)
            else {"data_type": schema["type"], "params": {k: v for k, v in schema.items() if v is not None}}
        )
        op = {"kind": "create_index", "field": field, "schema": schema}
        done = _write(found, lambda: [(path, op, 0) for path, _ in found.for_read(None)], wait)
        found.set_schema(field, entry)
        return done

    def delete_index(self, name: str, field: str, *, wait: bool) -> Json:
        found, field = self._store.get(name), paths.canonical(field)
        op = {"kind": "delete_index", "field": field}
        done = _write(found, lambda: [(path, op, 0) for path, _ in found.for_read(None)], wait)
        found.set_schema(field, None)
        return done

    def _encoded(self, found: Collection, points: list[Point]) -> list[Point]:
        """Texts through the BM25 encoder, then every vector checked."""
        ready: list[Point] = []
        for pid, named, payload in points:
            for vector_name, packed in list(named.items()):
                if packed[0] == "t":
                    indices, values = self._store.engine.call("bm25", packed[1], False)
                    named = {**named, vector_name: ("s", indices, values)}
            vectors.check(named, found.settings)
            ready.append((pid, named, payload))
        return ready


def _not_empty(points: Sequence[Any] | None) -> None:
    """Nothing to do is an error (seen in qdrant/rust-client#174)."""
    if not points:
        raise QdrantError("bad_request", "Empty update request")


def check_payload(payload: Json | None) -> None:
    """Nesting that the engine could store and never read again."""
    level: list[Any] = [payload]
    for _ in range(MAX_PAYLOAD_DEPTH):
        level = [
            value
            for node in level
            for value in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(value, (dict, list))
        ]
        if not level:
            return
    raise QdrantError("format", "recursion limit exceeded")


def _present(found: Collection, paths: list[str], ids: list[Any]) -> dict[str, list[Any]]:
    """Which shard has which of the ids. The engine refuses an id it does not have."""
    if len(paths) == 1:
        return {paths[0]: ids}
    by_path = {
        path: [point["id"] for point in found.call(path, "retrieve", ids, False, False)] for path in paths
    }
    missing = set(ids) - {pid for mine in by_path.values() for pid in mine}
    if missing:
        raise QdrantError("not_found", f"No point with id {min(missing, key=str)}")
    return {path: mine for path, mine in by_path.items() if mine}


def _write(found: Collection, ops: Any, wait: bool) -> Json:
    """Run the updates; flushed to disk before the answer when the caller waits."""
    try:
        for path, op, written in ops():
            found.update(path, op, flush=wait, written=written)
    except QdrantError as exc:
        if wait or exc.kind == "service":
            raise
    return {"operation_id": found.next_operation(), "status": "completed" if wait else "acknowledged"}
