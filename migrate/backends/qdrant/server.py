"""A Qdrant server or Qdrant Cloud: gRPC for points where it is open, REST for all else.

The gRPC port is `grpc_port=`, else 6334 beside the usual 6333, else the port
after the HTTP one; where nobody answers there, or another server than on the
HTTP port, points travel by REST too, which costs about five times the CPU.
Every write waits until the server has applied it and has it in its log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson
from qdrant_client import grpc

from migrate.backends.pacing import Writer, patiently
from migrate.backends.qdrant import rest, wire
from migrate.backends.qdrant.connection import TIMEOUT_S, Connection
from migrate.backends.qdrant.engine import SERVER_LIMITS, Info, Json, Point, PointId, Scored, ShardKey
from migrate.backends.qdrant.errors import translating
from migrate.backends.qdrant.names import own_path
from migrate.config import QdrantSettings
from migrate.errors import BackendError, SchemaError, TransientError

T = TypeVar("T")

# The server takes 32 MiB; smaller ones keep all streams busy, fail cheaper, and six of them are in memory.
REQUEST_BYTES = 2 * 2**20
REQUEST_POINTS = 2000
STREAMS = 4
POLL_S = 0.25  # how often a collection that is being indexed is asked for its state
_SETTLED_POLLS = 3  # green so often in a row: right after a change it is still green
_YELLOW_S = 24 * 3600.0
_NUDGE_S = 5.0  # how long a collection may be grey until it is told to go on
_INSERT_ONLY_SINCE = (1, 17)  # older servers ignore `update_mode` and overwrite
_RRF_SINCE = (1, 16)  # with a constant of one's own; older servers answer 400


class _Request(NamedTuple):
    """An upsert, whole as it is sent."""

    collection: str
    body: bytes
    over_grpc: bool


class _Caps(NamedTuple):
    """What a collection's strict mode allows: points in a write, points in a page, seconds, ids, queries in a request."""

    write: int
    page: int | None
    timeout_s: int
    ids: int
    queries: int


class ServerEngine:
    """A server as an `Engine`."""

    def __init__(self, settings: QdrantSettings) -> None:
        self.limits, self.parallel = SERVER_LIMITS, True
        self._connection = Connection(settings)
        self._distributed: bool | None = None
        self._shard_keys: set[tuple[str, ShardKey]] = set()
        self._caps_of: dict[str, _Caps] = {}
        self._closed = threading.Event()
        self._writer: Writer[_Request] = Writer(self._upsert, streams=STREAMS)

    def describe(self) -> str:
        """See `Engine.describe`."""
        return self._connection.describe()

    def reconnect(self) -> None:
        """See `Engine.reconnect`."""
        self.abandon()
        self._connection.close()

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed.set()
        self._writer.close()
        self._connection.close()

    def _rest(self, method: str, path: str, op: str, body: Any = None, *, none_for: int = 0) -> Any:
        return self._connection.rest(method, path, op, body, none_for=none_for)

    @property
    def distributed(self) -> bool:
        """See `Engine.distributed`: only a cluster, if of one node, has custom shard keys."""
        if self._distributed is None:
            found = self._rest("GET", "/cluster", "ask for the cluster")
            self._distributed = found.get("status") == "enabled"
        return self._distributed

    @property
    def inserts_only(self) -> bool:
        """See `Engine.inserts_only`."""
        return self._connection.version() >= _INSERT_ONLY_SINCE

    @property
    def fuses(self) -> bool:
        """See `Engine.fuses`."""
        return self._connection.version() >= _RRF_SINCE

    # --- collections ----------------------------------------------------------

    def names(self) -> list[str]:
        """See `Engine.names`."""
        return self._connection.names()

    def aliases(self) -> dict[str, str]:
        """See `Engine.aliases`."""
        found = self._rest("GET", "/aliases", "list aliases")
        return {str(a["alias_name"]): str(a["collection_name"]) for a in found["aliases"]}

    def info(self, name: str) -> Info | None:
        """See `Engine.info`."""
        found = self._rest("GET", rest.path(name), "read a collection", none_for=404)
        if found is None:
            return None
        config = found["config"]
        schema = {}
        for field, one in (found.get("payload_schema") or {}).items():
            options = {k: v for k, v in (one.get("params") or {}).items() if v is not None}
            schema[own_path(field)] = {**options, "type": one["data_type"]}
        optimizer = found.get("optimizer_status")
        trouble = str(optimizer["error"]) if isinstance(optimizer, dict) else None
        return Info(
            {k: v for k, v in config.items() if k != "metadata"},
            int(found.get("points_count") or 0),
            int(found.get("indexed_vectors_count") or 0),
            str(found["status"]),
            schema,
            config.get("metadata") or {},
            trouble,
            int((found.get("update_queue") or {}).get("deferred_points") or 0),
        )

    def metadata(self, name: str) -> Json:
        """See `Engine.metadata`."""
        info = self.info(name)
        return info.metadata if info is not None else {}

    def create(self, name: str, settings: Json, metadata: Json) -> None:
        """See `Engine.create`. Servers before 1.16 have no metadata and ignore it."""
        body = {**settings, **({"metadata": metadata} if metadata else {})}
        self._rest("PUT", rest.path(name), "create a collection", body)

    def alias(self, name: str, alias: str) -> None:
        """See `Engine.alias`."""
        action = {"create_alias": {"collection_name": name, "alias_name": alias}}
        self._rest("POST", "/collections/aliases", "create an alias", {"actions": [action]})

    def shard_keys(self, name: str) -> list[ShardKey]:
        """See `Engine.shard_keys`."""
        found = self._rest("GET", rest.path(name, "/cluster"), "list shards")
        shards = [*(found.get("local_shards") or ()), *(found.get("remote_shards") or ())]
        keys: set[ShardKey] = {s["shard_key"] for s in shards if s.get("shard_key") is not None}
        return sorted(keys, key=lambda key: (isinstance(key, str), key))

    def _have_shard_key(self, name: str, key: ShardKey) -> None:
        """Create a shard key unless it is there."""
        if (name, key) in self._shard_keys:
            return
        if key not in self.shard_keys(name):
            try:
                self._rest("PUT", rest.path(name, "/shards"), "create a shard key", {"shard_key": key})
            except SchemaError:  # by somebody else, a moment ago
                if key not in self.shard_keys(name):
                    raise
        self._shard_keys.add((name, key))

    def drop(self, name: str) -> None:
        """See `Engine.drop`."""
        self._rest("DELETE", rest.path(name), "drop a collection", none_for=404)
        self._shard_keys = {known for known in self._shard_keys if known[0] != name}
        self._caps_of.pop(name, None)

    def index_payload(self, name: str, field: str, schema: Json) -> None:
        """See `Engine.index_payload`.

        Over many points it takes longer than a request may. A collection that names the field has
        taken the order, so it is given again, which waits for its turn behind the first.
        """
        body = {"field_name": field, "field_schema": schema if len(schema) > 1 else schema["type"]}
        deadline = time.monotonic() + _YELLOW_S
        while True:
            try:
                self._rest("PUT", rest.path(name, "/index?wait=true"), "build a payload index", body)
            except TransientError:
                info = self.info(name)
                if info is None or field not in info.schema or time.monotonic() > deadline:
                    raise
            else:
                return

    def index(self, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
        """See `Engine.index`. Progress is the server's own count of indexed vectors."""
        self.change(name, settings)
        deadline, greens, nudged = time.monotonic() + _YELLOW_S, 0, time.monotonic()
        while greens < _SETTLED_POLLS:
            info = self.info(name)
            if info is None:
                raise BackendError(f"the collection {name!r} is gone", store=self.describe())
            if info.trouble is not None or info.status == "red":
                raise BackendError(
                    f"Qdrant could not index {name!r}: {info.trouble or 'its status is red'}",
                    hint="look at the server's log, then run the same command again",
                )
            if (info.settings.get("optimizer_config") or {}).get("max_optimization_threads") == 0:
                return  # nothing is ever optimized there, so it stays grey (qdrant/qdrant#7187)
            if info.status == "grey" and time.monotonic() - nudged > _NUDGE_S:
                # After a restart the server waits for any update before it goes on.
                self.change(name, {"optimizers_config": {}})
                nudged = time.monotonic()
            greens = greens + 1 if info.status == "green" else 0
            total = info.points * info.dense
            progress(min(info.indexed, total), total)
            if time.monotonic() > deadline:
                raise BackendError(f"{name!r} is not green after a day", hint="look at the server")
            time.sleep(POLL_S)

    def change(self, name: str, settings: Json) -> None:
        """See `Engine.change`."""
        self._caps_of.pop(name, None)
        self._rest("PATCH", rest.path(name), "change a collection's settings", settings)

    # --- writing --------------------------------------------------------------

    def pack(self, name: str, points: Sequence[Point], *, insert_only: bool = False) -> bytes:
        """See `Engine.pack`: frames of one point each, in the form of the open protocol."""
        over_grpc, formed = self._formed(points)
        out = [bytes((insert_only, over_grpc))]
        for one, data in zip(points, formed, strict=True):
            key = b"" if one.shard is None else orjson.dumps(one.shard)
            out += (len(key).to_bytes(4, "little"), key, len(data).to_bytes(4, "little"), data)
        return b"".join(out)

    def _formed(self, points: Sequence[Point]) -> tuple[bool, list[bytes]]:
        """Return whether points go over gRPC, and their bytes: a foreign payload may have integers it has not."""
        if self._connection.grpc is not None:
            try:
                return True, [wire.point(one) for one in points]
            except OverflowError:
                pass
        return False, [rest.point(one) for one in points]

    def send(self, name: str, packed: bytes) -> None:
        """See `Engine.send`. Requests are cut by bytes, by count, and where the shard key changes."""
        view, at, insert_only, over_grpc = memoryview(packed), 2, packed[0] == 1, packed[1] == 1
        most = min(REQUEST_POINTS, self._caps(name).write)
        held: list[memoryview | bytes] = []
        size, shard = 0, b""

        def flush() -> None:
            nonlocal held, size
            if held:
                key = orjson.loads(shard) if shard else None
                if key is not None:
                    self._have_shard_key(name, key)
                self._writer.submit(self._request(name, held, key, insert_only, over_grpc))
            held, size = [], 0

        while at < len(view):
            n = int.from_bytes(view[at : at + 4], "little")
            key = bytes(view[at + 4 : at + 4 + n])
            at += 4 + n
            n = int.from_bytes(view[at : at + 4], "little")
            if held and (size + n > REQUEST_BYTES or len(held) >= most or key != shard):
                flush()
            shard = key
            held.append(view[at + 4 : at + 4 + n])
            size, at = size + n, at + 4 + n
        flush()

    def _request(
        self,
        name: str,
        points: Sequence[memoryview | bytes],
        shard: ShardKey | None,
        insert_only: bool,
        over_grpc: bool,
    ) -> _Request:
        if over_grpc:
            head = wire.upsert_head(name, self._caps(name).timeout_s) + wire.shard_key(shard)
            head += wire.INSERT_ONLY if insert_only else b""
            return _Request(name, b"".join((head, *points)), True)
        tail: Json = {"shard_key": shard} if shard is not None else {}
        if insert_only:
            tail["update_mode"] = "insert_only"
        more = orjson.dumps(tail)[1:-1]
        ends = b'{"points":[', b"]" + (b"," + more if more else b"") + b"}"
        return _Request(name, ends[0] + b",".join(points) + ends[1], False)

    def _caps(self, name: str) -> _Caps:
        if name not in self._caps_of:
            info = self.info(name)
            strict = info.strict if info is not None else {}
            # Points a minute: more of them in one request are never taken, also to be deleted or looked for
            # (`RateLimitError::AlwaysOverBudget`, a 429 without Retry-After; an id costs as much as a point).
            write_rate = strict.get("write_rate_limit") or REQUEST_POINTS
            self._caps_of[name] = _Caps(
                min(strict.get("upsert_max_batchsize") or REQUEST_POINTS, write_rate),
                strict.get("max_query_limit"),
                min(TIMEOUT_S, strict.get("max_timeout") or TIMEOUT_S),
                min(REQUEST_POINTS, strict.get("read_rate_limit") or REQUEST_POINTS),
                strict.get("search_max_batchsize") or REQUEST_POINTS,
            )
        return self._caps_of[name]

    def _upsert(self, request: _Request) -> None:
        if request.over_grpc:
            points = self._connection.grpc
            if points is None:
                raise TransientError("gRPC was closed meanwhile", store=self.describe())
            with translating("upsert points", store=self.describe(), collection=request.collection):
                answer = points.upsert(request.body, timeout=TIMEOUT_S)
            done = answer.result.status == grpc.UpdateStatus.Completed
        else:
            timeout_s = self._caps(request.collection).timeout_s
            path = rest.path(request.collection, f"/points?wait=true&timeout={timeout_s}")
            done = self._rest("PUT", path, "upsert points", request.body).get("status") == "completed"
        if not done:
            raise TransientError("Qdrant did not apply points in time", store=self.describe())

    def post(self, name: str, point: Point) -> None:
        """See `Engine.post`."""
        over_grpc, (data,) = self._formed([point])
        request = self._request(name, [data], None, False, over_grpc)
        patiently(lambda: self._upsert(request), self._closed)

    def settle(self) -> None:
        """See `Engine.settle`."""
        self._writer.settle()

    def abandon(self) -> None:
        """See `Engine.abandon`."""
        self._writer.abandon()

    def delete(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> None:
        """See `Engine.delete`. Without any id the server would answer 400.

        An answer that was lost is asked for again here: a caller that begins anew may choose other
        points, where rows without a key are equal.
        """
        if ids:
            for part in _parts(ids, self._caps(name).write):
                patiently(partial(self._delete, name, part, shard), self._closed)

    def _delete(self, name: str, ids: Sequence[PointId], shard: ShardKey | None) -> None:
        body: Json = {"points": list(ids), **({} if shard is None else {"shard_key": shard})}
        answer = self._rest("POST", rest.path(name, "/points/delete?wait=true"), "delete points", body)
        if answer.get("status") != "completed":
            raise TransientError("Qdrant did not delete points in time", store=self.describe())

    # --- reading --------------------------------------------------------------

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
        if self._closed.is_set():  # by one who reads ahead and is late
            raise BackendError("the connection to Qdrant is closed", store=self.describe())
        limit = min(limit, self._caps(name).page or limit)
        return patiently(lambda: self._scroll(name, limit, offset, payload, vectors, shard), self._closed)

    def _scroll(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        payload: bool,
        vectors: bool | Sequence[str],
        shard: ShardKey | None,
    ) -> tuple[list[Point], PointId | None]:
        points = self._connection.grpc
        if points is not None:
            request = grpc.ScrollPoints(
                collection_name=name,
                limit=limit,
                offset=None if offset is None else grpc.PointId.FromString(wire.point_id(offset)),
                with_payload=grpc.WithPayloadSelector(enable=payload),
                with_vectors=_vectors_wanted(vectors),
                shard_key_selector=wire.selector(shard),
            )
            with translating("read points", store=self.describe(), collection=name):
                answer = points.scroll(request, timeout=TIMEOUT_S)
            after = wire.unpack_id(answer.next_page_offset) if answer.HasField("next_page_offset") else None
            try:
                return [wire.unpack_point(p) for p in answer.result], after
            except wire.InexactError:
                pass  # REST tells such numbers digit by digit
        return self._scroll_rest(name, limit, offset, payload, vectors, shard)

    def _scroll_rest(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        payload: bool,
        vectors: bool | Sequence[str],
        shard: ShardKey | None,
    ) -> tuple[list[Point], PointId | None]:
        body: Json = {
            "limit": limit,
            "with_payload": payload,
            "with_vector": vectors if isinstance(vectors, bool) else list(vectors) or False,
        }
        if offset is not None:
            body["offset"] = offset
        if shard is not None:
            body["shard_key"] = shard
        found = self._rest("POST", rest.path(name, "/points/scroll"), "read points", body)
        return [rest.unpack_point(p) for p in found["points"]], found.get("next_page_offset")

    def query(self, name: str, asked: Sequence[Json]) -> list[list[Scored]]:
        """See `Engine.query`."""
        path = rest.path(name, "/points/query/batch")
        found: list[Json] = []
        for part in _parts(asked, self._caps(name).queries):
            found += self._rest("POST", path, "search", {"searches": list(part)})
        return [[Scored(rest.unpack_point(p), float(p["score"])) for p in one["points"]] for one in found]

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
        asked = {"with_payload": payload, "with_vector": wanted}
        return [rest.unpack_point(p) for p in self._points(name, ids, "read points", asked)]

    def present(self, name: str, ids: Sequence[PointId], shard: ShardKey | None = None) -> set[PointId]:
        """See `Engine.present`."""
        asked: Json = {"with_payload": False, "with_vector": False}
        if shard is not None:
            asked["shard_key"] = shard
        return {p["id"] for p in self._points(name, ids, "look for points", asked)}

    def _points(self, name: str, ids: Sequence[PointId], op: str, asked: Json) -> list[Json]:
        """Return the records of some ids, as REST tells them."""
        found: list[Json] = []
        for part in _parts(ids, self._caps(name).ids):
            body = {"ids": list(part), **asked}
            found += patiently(
                partial(self._rest, "POST", rest.path(name, "/points"), op, body), self._closed
            )
        return found

    def count(self, name: str) -> int:
        """See `Engine.count`."""
        found = self._rest("POST", rest.path(name, "/points/count"), "count points", {"exact": True})
        return int(found["count"])


def _parts(of: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Yield a sequence in parts of no more than `most`."""
    for at in range(0, len(of), most):
        yield of[at : at + most]


def _vectors_wanted(vectors: bool | Sequence[str]) -> Any:
    if isinstance(vectors, bool) or not vectors:
        return grpc.WithVectorsSelector(enable=bool(vectors))
    return grpc.WithVectorsSelector(include=grpc.VectorsSelector(names=list(vectors)))
