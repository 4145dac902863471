"""The gRPC side: raw bytes in, the key, faults and counters, then the method tables."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from qdrant_client import grpc as messages

from integration.qdrant_server import grpc_collections, grpc_points
from integration.qdrant_server.app import App, DeniedError
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.faults import Fault

METHODS: Mapping[str, tuple[Any, Any]] = {
    **{f"/qdrant.Collections/{name}": one for name, one in grpc_collections.METHODS.items()},
    **{f"/qdrant.Points/{name}": one for name, one in grpc_points.METHODS.items()},
    "/qdrant.Qdrant/HealthCheck": (messages.HealthCheckRequest, grpc_collections.health),
}
READS = {"Get", "List", "CollectionExists", "ListAliases", "ListCollectionAliases", "ListShardKeys"}
READS |= {"CollectionClusterInfo", "Scroll", "Count", "Query", "QueryBatch", "Facet", "HealthCheck"}

WORKERS = 16


class _StatusError(Exception):
    """Ends a call with a status and trailing metadata."""

    def __init__(self, code: str, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.code = getattr(grpc.StatusCode, code)
        self.message, self.retry_after = message, retry_after


class _Front(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, app: App) -> None:
        self._app = app

    def service(self, details: Any) -> Any:
        path = details.method
        if path not in METHODS:
            return None  # UNIMPLEMENTED

        def call(raw: bytes, context: Any) -> bytes:
            return self._call(path, raw, context)

        return grpc.unary_unary_rpc_method_handler(call)

    def _call(self, path: str, raw: bytes, context: Any) -> bytes:
        app, sent, status = self._app, 0, "OK"
        app.counters.begin()
        try:
            try:
                answer = self._answer(path, raw, context)
                sent = len(answer)
                return answer
            except QdrantError as exc:
                after = None if exc.retry_after_s is None else str(exc.retry_after_s)
                raise _StatusError(exc.grpc, exc.message, after) from exc
            except DeniedError as exc:
                code = "PERMISSION_DENIED" if exc.forbidden else "UNAUTHENTICATED"
                raise _StatusError(code, exc.message) from exc
            except DecodeError as exc:
                # prost's words; both it and this library stop at 100 nested messages.
                raise _StatusError("INTERNAL", f"failed to decode Protobuf message: {exc}") from exc
        except _StatusError as exc:
            status = exc.code.name
            if exc.retry_after is not None:
                context.set_trailing_metadata((("retry-after", exc.retry_after),))
            context.abort(exc.code, exc.message)
            raise
        finally:
            app.counters.end(f"grpc POST {path}", len(raw), sent, status)

    def _answer(self, path: str, raw: bytes, context: Any) -> bytes:
        app = self._app
        given = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        app.check_key(given, reads=path.rpartition("/")[2] in READS)
        fault = app.faults.take("grpc", "POST", path)
        if fault is not None and not fault.after:
            _strike(fault)
        kind, handle = METHODS[path]
        started = time.perf_counter()
        made = handle(app, kind.FromString(raw))
        if "time" in made.DESCRIPTOR.fields_by_name:
            made.time = time.perf_counter() - started
        if fault is not None and fault.after:
            _strike(fault)
        return bytes(made.SerializeToString())


def _strike(fault: Fault) -> None:
    time.sleep(fault.delay_s)
    if fault.action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.action == "reset":
        raise _StatusError("UNAVAILABLE", "Connection reset by peer")
    if fault.action == "error":
        raise _StatusError(fault.code(), fault.message, fault.retry_after)


def serve(app: App, port: int) -> tuple[Any, int]:
    """Start on 127.0.0.1; the server object and its port."""
    server = grpc.server(
        futures.ThreadPoolExecutor(WORKERS),
        # The server takes gRPC messages of any size; two servers never share a port.
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers((_Front(app),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound
