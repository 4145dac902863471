"""A Qdrant server or Qdrant Cloud: gRPC for points where it is open, REST for all else.

The gRPC port is `grpc_port=`, else 6334 beside the usual 6333, else the port
after the HTTP one; where nobody answers there, or another server than on the
HTTP port, points travel by REST too, which costs about five times the CPU.
Every write waits until the server has applied it and has it in its log.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
import orjson
from qdrant_client import QdrantClient, grpc

from migrate.backends.pacing import Writer
from migrate.backends.qdrant import wire
from migrate.backends.qdrant.engine import SERVER_LIMITS, Info, Json, Multi, Packed, Point, PointId, Sparse
from migrate.backends.qdrant.errors import of_response, translating
from migrate.config import QdrantSettings
from migrate.errors import BackendError, ConfigError, SchemaError, TransientError

REQUEST_BYTES = 3 * 2**20  # the server takes 32 MiB; smaller ones keep all streams busy and fail cheaper
REQUEST_POINTS = 2000
STREAMS = 4
TIMEOUT_S = 60
_GRPC_PROBE_S = 3.0
POLL_S = 0.25  # how often a collection that is being indexed is asked for its state
_SETTLED_POLLS = 3  # green so often in a row: right after a change it is still green
_YELLOW_S = 24 * 3600.0


class _Request(NamedTuple):
    collection: str
    body: bytes
    shard: int | str | None
    insert_only: bool


class ServerEngine:
    """A server as an `Engine`."""

    def __init__(self, settings: QdrantSettings) -> None:
        self.limits, self.sharded = SERVER_LIMITS, True
        self._shard_keys: set[tuple[str, int | str]] = set()
        self._settings = settings
        self._client: QdrantClient | None = None
        self._grpc: Any = None
        self._writer: Writer[_Request] = Writer(self._upsert, streams=STREAMS)

    def describe(self) -> str:
        """See `Engine.describe`."""
        return str(self._settings)

    # --- connection -----------------------------------------------------------

    @property
    def client(self) -> QdrantClient:
        """Return the client, connected when first asked for."""
        if self._client is None:
            self._connect()
        if self._client is None:
            raise BackendError("no connection to Qdrant")
        return self._client

    def _connect(self) -> None:
        url = self._settings.url or ""
        port = urlsplit(url).port or 6333
        grpc_port = self._settings.grpc_port or (6334 if port == 6333 else port + 1)
        with warnings.catch_warnings():
            # The client warns of a key over plain HTTP, which is the user's own choice of address.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            # It would also ask for the version in a thread of its own, and warn there.
            client = QdrantClient(
                url=url,
                grpc_port=grpc_port,
                prefer_grpc=True,
                api_key=self._settings.api_key,
                check_compatibility=False,
                timeout=TIMEOUT_S,
            )
        self._client = client
        try:
            self._grpc = client.grpc_points if self._grpc_open(client) else None
        except BaseException:
            self._client = None
            client.close()
            raise

    def _grpc_open(self, client: QdrantClient) -> bool:
        """Whether the gRPC port answers, and with the collections that REST tells of."""
        try:
            with translating("answer over gRPC"):
                answer = client.grpc_collections.List(grpc.ListCollectionsRequest(), timeout=_GRPC_PROBE_S)
        except (BackendError, ConfigError):
            return False
        return sorted(c.name for c in answer.collections) == self.names()

    def reconnect(self) -> None:
        """See `Engine.reconnect`."""
        self.abandon()
        client, self._client = self._client, None
        if client is not None:
            client.close()
        self._connect()

    def close(self) -> None:
        """See `Engine.close`."""
        self._writer.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _rest(self, method: str, path: str, op: str, body: Any = None, *, none_for: int = 0) -> Any:
        """Send one REST request and return its `result`; None for the status `none_for`."""
        data = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
        api = self.client.http.client
        with translating(op, store=self.describe()):
            request = api._client.build_request(  # the client's own, with its key, pool and TLS
                method,
                api.host.rstrip("/") + path,
                content=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
            )
            response = api.send_inner(request)
            if response.status_code == none_for:
                return None
            if response.status_code >= 300:
                raise of_response(op, response, store=self.describe())
            answer = orjson.loads(response.content)
        return answer.get("result")

    # --- collections ----------------------------------------------------------

    def names(self) -> list[str]:
        """See `Engine.names`."""
        found = self._rest("GET", "/collections", "list collections")
        return sorted(str(c["name"]) for c in found["collections"])

    def aliases(self) -> dict[str, str]:
        """See `Engine.aliases`."""
        found = self._rest("GET", "/aliases", "list aliases")
        return {str(a["alias_name"]): str(a["collection_name"]) for a in found["aliases"]}

    def info(self, name: str) -> Info | None:
        """See `Engine.info`."""
        found = self._rest("GET", _path(name), "read a collection", none_for=404)
        if found is None:
            return None
        config = found["config"]
        schema = {}
        for field, one in (found.get("payload_schema") or {}).items():
            options = {k: v for k, v in (one.get("params") or {}).items() if v is not None}
            schema[field] = {**options, "type": one["data_type"]}
        optimizer = found.get("optimizer_status")
        trouble = str(optimizer["error"]) if isinstance(optimizer, dict) else None
        return Info(
            {k: v for k, v in config.items() if k != "metadata"},
            int(found.get("points_count") or 0),
            int(found.get("indexed_vectors_count") or 0),
            found["status"] == "green",
            schema,
            config.get("metadata") or {},
            trouble,
        )

    def metadata(self, name: str) -> Json:
        """See `Engine.metadata`."""
        info = self.info(name)
        return info.metadata if info is not None else {}

    def create(self, name: str, settings: Json, metadata: Json) -> None:
        """See `Engine.create`."""
        self._rest("PUT", _path(name), "create a collection", {**settings, "metadata": metadata})

    def alias(self, name: str, alias: str) -> None:
        """See `Engine.alias`."""
        action = {"create_alias": {"collection_name": name, "alias_name": alias}}
        self._rest("POST", "/collections/aliases", "create an alias", {"actions": [action]})

    def _have_shard_key(self, name: str, key: int | str) -> None:
        """Create a shard key unless it is there."""
        if (name, key) in self._shard_keys:
            return
        try:
            self._rest("PUT", _path(name, "/shards"), "create a shard key", {"shard_key": key})
        except (SchemaError, BackendError) as exc:
            if "already exists" not in exc.message:
                raise
        self._shard_keys.add((name, key))

    def set_metadata(self, name: str, metadata: Json) -> None:
        """See `Engine.set_metadata`."""
        self._rest("PATCH", _path(name), "describe a collection", {"metadata": metadata})

    def drop(self, name: str) -> None:
        """See `Engine.drop`."""
        self._rest("DELETE", _path(name), "drop a collection", none_for=404)

    def index_payload(self, name: str, field: str, schema: Json) -> None:
        """See `Engine.index_payload`."""
        body = {"field_name": field, "field_schema": schema if len(schema) > 1 else schema["type"]}
        self._rest("PUT", _path(name, "/index?wait=true"), "build a payload index", body)

    def index(self, name: str, settings: Json, progress: Callable[[int, int], None]) -> None:
        """See `Engine.index`. Progress is the server's own count of indexed vectors."""
        self._rest("PATCH", _path(name), "switch indexing on", settings)
        deadline, greens = time.monotonic() + _YELLOW_S, 0
        while greens < _SETTLED_POLLS:
            info = self.info(name)
            if info is None:
                raise BackendError(f"the collection {name!r} is gone", store=self.describe())
            if info.trouble is not None:
                raise BackendError(
                    f"Qdrant could not index {name!r}: {info.trouble}",
                    hint="look at the server's log, then run the same command again",
                )
            greens = greens + 1 if info.green else 0
            progress(min(info.indexed, info.points), info.points)
            if time.monotonic() > deadline:
                raise BackendError(f"{name!r} is not green after a day", hint="look at the server")
            time.sleep(POLL_S)

    # --- writing --------------------------------------------------------------

    def pack(self, name: str, points: Sequence[Point], *, insert_only: bool = False) -> bytes:
        """See `Engine.pack`: frames of one point each, in the form of the open protocol."""
        self.client  # noqa: B018 - decides which protocol is open
        form = wire.point if self._grpc is not None else _rest_point
        out = [b"\x01" if insert_only else b"\x00"]
        for one in points:
            data, key = form(one), b"" if one.shard is None else orjson.dumps(one.shard)
            out += (len(key).to_bytes(4, "little"), key, len(data).to_bytes(4, "little"), data)
        return b"".join(out)

    def send(self, name: str, packed: bytes) -> None:
        """See `Engine.send`. Requests are cut by bytes, by count, and where the shard key changes."""
        view, at, insert_only = memoryview(packed), 1, packed[:1] == b"\x01"
        held: list[memoryview] = []
        size, shard = 0, b""

        def flush() -> None:
            nonlocal held, size
            if held:
                joiner = b"" if self._grpc is not None else b","
                key = orjson.loads(shard) if shard else None
                if key is not None:
                    self._have_shard_key(name, key)
                self._writer.submit(_Request(name, joiner.join(held), key, insert_only))
            held, size = [], 0

        while at < len(view):
            n = int.from_bytes(view[at : at + 4], "little")
            key = bytes(view[at + 4 : at + 4 + n])
            at += 4 + n
            n = int.from_bytes(view[at : at + 4], "little")
            if held and (size + n > REQUEST_BYTES or len(held) >= REQUEST_POINTS or key != shard):
                flush()
            shard = key
            held.append(view[at + 4 : at + 4 + n])
            size, at = size + n, at + 4 + n
        flush()

    def _upsert(self, request: _Request) -> None:
        if self._grpc is not None:
            head = wire.upsert_head(request.collection, TIMEOUT_S) + wire.shard_key(request.shard)
            head += wire.INSERT_ONLY if request.insert_only else b""
            with translating("upsert points", store=self.describe(), collection=request.collection):
                message = grpc.UpsertPoints.FromString(head + request.body)
                answer = self._grpc.Upsert(message, timeout=TIMEOUT_S)
                if answer.result.status != grpc.UpdateStatus.Completed:
                    raise TransientError("Qdrant did not apply points in time", store=self.describe())
            return
        tail: Json = {"shard_key": request.shard} if request.shard is not None else {}
        if request.insert_only:
            tail["update_mode"] = "insert_only"
        more = orjson.dumps(tail)[1:-1]
        body = b'{"points":[' + request.body + b"]" + (b"," + more if more else b"") + b"}"
        path = _path(request.collection, f"/points?wait=true&timeout={TIMEOUT_S}")
        answer = self._rest("PUT", path, "upsert points", body)
        if answer.get("status") != "completed":
            raise TransientError("Qdrant did not apply points in time", store=self.describe())

    def settle(self) -> None:
        """See `Engine.settle`."""
        self._writer.settle()

    def abandon(self) -> None:
        """See `Engine.abandon`."""
        self._writer.abandon()

    def delete(self, name: str, ids: Sequence[PointId]) -> None:
        """See `Engine.delete`."""
        self._rest("POST", _path(name, "/points/delete?wait=true"), "delete points", {"points": list(ids)})

    # --- reading --------------------------------------------------------------

    def scroll(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool | Sequence[str] = True,
    ) -> tuple[list[Point], PointId | None]:
        """See `Engine.scroll`."""
        self.client  # noqa: B018 - decides which protocol is open
        if self._grpc is None:
            return self._scroll_rest(name, limit, offset, payload, vectors)
        some = not isinstance(vectors, bool) and bool(vectors)
        with translating("read points", store=self.describe(), collection=name):
            request = grpc.ScrollPoints(
                collection_name=name,
                limit=limit,
                offset=None if offset is None else grpc.PointId.FromString(wire.point_id(offset)),
                with_payload=_payload_wanted(payload),
                with_vectors=grpc.WithVectorsSelector(include=grpc.VectorsSelector(names=list(vectors)))
                if some and not isinstance(vectors, bool)
                else grpc.WithVectorsSelector(enable=bool(vectors)),
            )
            answer = self._grpc.Scroll(request, timeout=TIMEOUT_S)
            after = wire.unpack_id(answer.next_page_offset) if answer.HasField("next_page_offset") else None
            return [wire.unpack_point(p) for p in answer.result], after

    def _scroll_rest(
        self,
        name: str,
        limit: int,
        offset: PointId | None,
        payload: bool | Sequence[str],
        vectors: bool | Sequence[str],
    ) -> tuple[list[Point], PointId | None]:
        body: Json = {
            "limit": limit,
            "with_payload": payload if isinstance(payload, bool) else list(payload),
            "with_vector": vectors if isinstance(vectors, bool) else list(vectors) or False,
        }
        if offset is not None:
            body["offset"] = offset
        found = self._rest("POST", _path(name, "/points/scroll"), "read points", body)
        points = [
            Point(p["id"], _from_rest(p.get("vector")), p.get("payload") or {}, p.get("shard_key"))
            for p in found["points"]
        ]
        return points, found.get("next_page_offset")

    def count(self, name: str) -> int:
        """See `Engine.count`."""
        found = self._rest("POST", _path(name, "/points/count"), "count points", {"exact": True})
        return int(found["count"])


def _path(name: str, tail: str = "") -> str:
    return f"/collections/{quote(name, safe='')}{tail}"


def _payload_wanted(payload: bool | Sequence[str]) -> Any:
    if isinstance(payload, bool):
        return grpc.WithPayloadSelector(enable=payload)
    return grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=list(payload)))


def _rest_point(one: Point) -> bytes:
    """Return a point as JSON; float32 in its shortest digits, half the bytes of doubles."""
    named: Any = {name: _to_rest(v) for name, v in one.vectors.items()}
    if list(named) == [""]:
        named = named[""]
    return orjson.dumps(
        {"id": one.id, "vector": named, "payload": one.payload}, option=orjson.OPT_SERIALIZE_NUMPY
    )


def _to_rest(packed: Packed) -> Any:
    if isinstance(packed, Sparse):
        return {
            "indices": np.frombuffer(packed.indices, np.uint32),
            "values": np.frombuffer(packed.values, np.float32),
        }
    if isinstance(packed, Multi):
        return np.frombuffer(packed.data, np.float32).reshape(-1, packed.dim)
    return np.frombuffer(packed, np.float32)


def _from_rest(vector: Any) -> dict[str, Packed]:
    if vector is None:
        return {}
    named = vector if isinstance(vector, dict) and "indices" not in vector else {"": vector}
    return {name: _packed(one) for name, one in named.items()}


def _packed(one: Any) -> Packed:
    if isinstance(one, dict):
        order = np.argsort(np.asarray(one["indices"], np.uint32))
        indices, numbers = np.asarray(one["indices"], np.uint32), np.asarray(one["values"], np.float32)
        return Sparse(indices[order].tobytes(), numbers[order].tobytes())
    if one and isinstance(one[0], list):
        return Multi(len(one[0]), np.asarray(one, np.float32).tobytes())
    return np.asarray(one, np.float32).tobytes()
