"""gRPC: the operations of `rest.OPERATIONS` under /VectorService/, one small server per index.

Refusals become gRPC status codes; faults and counters see a call as its REST twin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]

from integration.pinecone_emulator import wire_proto
from integration.pinecone_emulator.errors import Code, Refusal, code_for_status
from integration.pinecone_emulator.faults import Seen
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.rest import OPERATIONS, Operation, check_namespace_version, check_size
from integration.pinecone_emulator.server import Listener, check_key, default_message

_PREFIX = "/VectorService/"
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
_VERSION = "2026-07"


class GrpcServer:
    """Started at the first HTTP/2 connection to an index's port. listener: for faults, keys and counters."""

    def __init__(self, index: Index, listener: Callable[[], Listener]) -> None:
        self._index = index
        self._listener = listener
        self._lock = threading.Lock()
        self._server: Any = None
        self._port = 0

    def port(self) -> int:
        with self._lock:
            if self._server is None:
                options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
                self._server = grpc.server(ThreadPoolExecutor(16), options=options)
                self._server.add_generic_rpc_handlers((_Handlers(self),))
                self._port = self._server.add_insecure_port("127.0.0.1:0")
                self._server.start()
            return self._port

    def stop(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.stop(grace=0).wait()
                self._server = None

    def call(self, operation: Operation, data: bytes, context: Any) -> bytes:
        """One call, faults included; ends in context.abort where REST would answer with an error."""
        listener = self._listener()
        struck = listener.faults.pick(operation.method, operation.path, listener.index)
        status = 0
        try:
            for fault in struck:
                listener.stopping.wait(fault.delay_s)
            failing = next((one for one in struck if one.status is not None or one.reset), None)
            answer = (
                self._served(operation, data, context, listener) if failing is None or failing.after else b""
            )
            if failing is not None:
                status = 0 if failing.reset else failing.status or 503
                code = code_for_status(failing.status or 503)
                _abort(context, code.value.grpc, failing.message or default_message(status))
            status = 200
            return answer
        except Refusal as refusal:
            status = refusal.status
            _abort(context, refusal.code.value.grpc, refusal.message)
        finally:
            listener.counters.note(Seen(operation.method, operation.path, listener.index, status, len(data)))

    def _served(self, operation: Operation, data: bytes, context: Any, listener: Listener) -> bytes:
        sent = dict(context.invocation_metadata())
        check_key(sent.get("api-key"), listener.keys)
        check_size(self._index, operation, len(data))
        try:
            message = wire_proto.decode(operation.request, data)
        except wire_proto.ProtoError as exc:
            raise Refusal(Code.INTERNAL, f"failed to decode Protobuf message: {exc}") from exc
        check_namespace_version(message, sent.get("x-pinecone-api-version", _VERSION))
        return wire_proto.encode(operation.response, operation.run(self._index, message))


def _abort(context: Any, number: int, message: str) -> NoReturn:
    context.abort(_BY_NUMBER[number], message)
    raise AssertionError("abort raises")


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, server: GrpcServer) -> None:
        self._methods = {
            _PREFIX + operation.grpc: grpc.unary_unary_rpc_method_handler(_bound(server, operation))
            for operation in OPERATIONS
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)


def _bound(server: GrpcServer, operation: Operation) -> Callable[[bytes, Any], bytes]:
    return lambda data, context: server.call(operation, data, context)
