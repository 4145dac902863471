"""One listening socket on 127.0.0.1: HTTP/1.1 handled here, HTTP/2 (gRPC) passed on.

A client of the service reaches REST and gRPC at one host, so the first bytes of a connection decide.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from integration.pinecone_emulator.errors import Code, Refusal, body_of, code_for_status, unauthorized
from integration.pinecone_emulator.faults import Counters, Faults, Seen
from integration.pinecone_emulator.rest import Request, Response

_REQUEST_IDS = itertools.count(1)
_MAX_BODY = 64 * 1024 * 1024  # far above every limit: only keeps a mistaken client from filling memory


class Dropped(Exception):  # noqa: N818 - a decision, not a failure
    """The connection is to be reset without an answer."""


class Listener:
    """A port that answers with `answer`. index: its name for faults and counters, '' for the controller."""

    def __init__(
        self,
        port: int,
        answer: Callable[[Request], Response],
        *,
        index: str,
        faults: Faults,
        counters: Counters,
        keys: frozenset[str] | None,
        grpc_port: Callable[[], int] | None = None,
        control_plane: bool = False,
    ) -> None:
        self.answer = answer
        self.index = index
        self.faults, self.counters, self.keys = faults, counters, keys
        self.grpc_port = grpc_port
        self.control_plane = control_plane
        self.stopping = threading.Event()
        self._server = _Server(port, self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name=f"pinecone-{self.port}",
            daemon=True,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every open connection."""
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.cut()
        self._server.server_close()

    def handle(self, request: Request) -> Response:
        """The answer to a request, faults included. Raises Dropped."""
        size, status = len(request.body), 0
        try:
            struck = self.faults.pick(request.method, request.path, self.index)
            for fault in struck:
                self.stopping.wait(fault.delay_s)
            failing = next((one for one in struck if one.status is not None or one.reset), None)
            response = None
            if failing is None or failing.after:
                response = self._served(request)
            if failing is not None:
                if failing.reset:
                    raise Dropped
                response = self._failed(failing.status or 503, failing.message, failing.retry_after)
            assert response is not None
            status = response.status
            return response
        finally:
            self.counters.note(Seen(request.method, request.path, self.index, status, size))

    def _served(self, request: Request) -> Response:
        try:
            if not request.path.startswith("/_emulator/"):
                check_key(request.headers.get("Api-Key"), self.keys)
            return self.answer(request)
        except Refusal as refusal:
            return self._refused(refusal)
        except Exception as exc:  # a bug in the emulator must not look like a lost connection
            traceback.print_exc()
            return self._refused(Refusal(Code.INTERNAL, f"Bug in the emulator: {exc!r}"))

    def _refused(self, refusal: Refusal) -> Response:
        body, kind = body_of(refusal, control_plane=self.control_plane)
        return Response(refusal.status, body, kind)

    def _failed(self, status: int, message: str, retry_after: float | None) -> Response:
        code = code_for_status(status)
        refusal = Refusal(code, message or default_message(status))
        body, kind = body_of(refusal, control_plane=self.control_plane)
        headers = () if retry_after is None else (("Retry-After", f"{retry_after:g}"),)
        return Response(status, body, kind, headers)


def check_key(given: str | None, keys: frozenset[str] | None) -> None:
    """Any non-empty key will do unless keys are listed."""
    if not given or (keys is not None and given not in keys):
        raise unauthorized()


def default_message(status: int) -> str:
    """The sentence of a fault's answer; of 429 as in "Pinecone Database limits", without the namespace."""
    if status == 429:
        return "Request failed. You've reached the QPS limit for this operation. Pace your requests."
    known = {503: "The service is temporarily unavailable", 500: "Internal server error"}
    return known.get(status, "Request failed")


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, listener: Listener) -> None:
        self.listener = listener
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        try:
            if self.listener.stopping.is_set():  # accepted while stop() was cutting the others
                return
            if request.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"PRI":
                if self.listener.grpc_port is not None:
                    _bridge(request, self.listener.grpc_port())
            else:
                super().finish_request(request, client_address)
        except OSError:
            pass  # the client went away, or stop() cut the connection
        finally:
            with self._lock:
                self._open.discard(request)

    def cut(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def _serve(self) -> None:
        listener = self.server.listener
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MAX_BODY:
            self.close_connection = True
            refusal = Refusal(Code.INVALID_ARGUMENT, "payload too large")
            self._send(Response(413, *body_of(refusal, control_plane=False)))
            return
        request = Request(self.command, self.path, self.headers, self.rfile.read(size))  # type: ignore[arg-type]
        try:
            self._send(listener.handle(request))
        except Dropped:
            self.close_connection = True
            linger = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds: closing sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("x-pinecone-request-id", str(next(_REQUEST_IDS)))
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:
        """No log."""


def _bridge(client: socket.socket, port: int) -> None:
    """Copy bytes both ways between a client and the gRPC server until either side ends."""
    with socket.create_connection(("127.0.0.1", port)) as upstream:
        for one in (client, upstream):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
        back.start()
        _pump(client, upstream)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
