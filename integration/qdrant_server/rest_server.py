"""The REST side over the standard library's HTTP server, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from integration.qdrant_server import control, rest_routes
from integration.qdrant_server.app import App, DeniedError
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.faults import Fault

Json = dict[str, Any]
Answer = tuple[int, bytes, dict[str, str]]

_JSON = {"content-type": "application/json"}
_TEXT = {"content-type": "text/plain; charset=utf-8"}


class _ResetError(Exception):
    """End the connection without an answer."""


def _envelope(result: Any, status: Any, seconds: float) -> bytes:
    """`{"result", "status", "time"}`; an error has no result."""
    shown = {} if result is None else {"result": result}
    # Integers beyond 64 bits cannot occur: they were floats since the request was read.
    return orjson.dumps({**shown, "status": status, "time": seconds})


def _parameters(query: str) -> bool:
    """Check `wait`, `ordering`, `consistency`, `timeout`; returns `wait`."""
    given = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    wait = given.get("wait", "false")
    if wait not in ("true", "false"):
        raise QdrantError("query_string", "provided string was not `true` or `false`")
    ordering = given.get("ordering", "weak")
    if ordering not in ("weak", "medium", "strong"):
        raise QdrantError(
            "query_string", f"unknown variant `{ordering}`, expected one of `weak`, `medium`, `strong`"
        )
    consistency = given.get("consistency", "1")
    if consistency not in ("majority", "quorum", "all") and not re.fullmatch(r"\d+", consistency):
        raise QdrantError("query_string", "data did not match any variant of untagged enum ReadConsistency")
    timeout = given.get("timeout", "60")
    if not re.fullmatch(r"\d+", timeout):
        raise QdrantError("query_string", "invalid digit found in string")
    if int(timeout) < 1:
        raise QdrantError("query_validation", "[timeout: value 0 invalid, must be 1 or larger]")
    return wait == "true"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    timeout = 600

    def log_message(self, *_args: Any) -> None:
        """Requests are counted, not logged."""

    def _read(self) -> tuple[bytes, int]:
        """The body (empty when it is over the limit) and its length as announced."""
        length = int(self.headers.get("content-length") or 0)
        limit = self.server.app.max_request_bytes
        if length <= limit or self.path.startswith(control.PREFIX):
            return self.rfile.read(length), length
        left = length
        while left > 0:  # taken in, so that the client reads the refusal and not a reset
            got = self.rfile.read(min(left, 1 << 20))
            if not got:
                break
            left -= len(got)
        return b"", length

    def _serve(self) -> None:
        app = self.server.app
        url = urlsplit(self.path)
        raw, length = self._read()
        if url.path.startswith(control.PREFIX):
            self._send(*control.answer(app, self.command, url.path, raw))
            return
        app.counters.begin()
        status, sent = "reset", 0
        try:
            answer = self._answer(url.path, url.query, raw, length)
            status, sent = str(answer[0]), len(answer[1])
            self._send(*answer)
        except _ResetError:
            self._reset()
        finally:
            app.counters.end(f"rest {self.command} {url.path}", length, sent, status)

    def _answer(self, path: str, query: str, raw: bytes, length: int) -> Answer:
        started = time.perf_counter()
        app = self.server.app
        if self.command == "GET" and path in rest_routes.HEALTH:
            return 200, rest_routes.HEALTH[path].encode(), _TEXT
        found = rest_routes.find(self.command, path)
        try:
            if path != "/":
                headers = {key.lower(): value for key, value in self.headers.items()}
                app.check_key(headers, reads=found is not None and found[0][3])
            fault = app.faults.take("rest", self.command, path)
            if fault is not None and not fault.after and (early := _strike(fault)) is not None:
                return early
            if found is None:
                return 404, b"", {}
            made = self._run(found, query, raw, length, started)
        except DeniedError as exc:
            return 403 if exc.forbidden else 401, exc.message.encode(), _TEXT
        if fault is not None and fault.after and (late := _strike(fault)) is not None:
            return late
        return made

    def _run(
        self,
        found: tuple[rest_routes.Route, tuple[str, ...]],
        query: str,
        raw: bytes,
        length: int,
        started: float,
    ) -> Answer:
        (_, _, handle, _), parts = found
        limit = self.server.app.max_request_bytes
        try:
            wait = _parameters(query)
            if length > limit:
                text = f"JSON payload ({length} bytes) is larger than allowed (limit: {limit} bytes)."
                raise QdrantError("payload", text)
            if length and "json" not in (self.headers.get("content-type") or ""):
                raise QdrantError("payload", "Content type error")
            request = rest_routes.Request(self.server.app, tuple(unquote(part) for part in parts), wait, raw)
            result = handle(request)
        except QdrantError as exc:
            after = {} if exc.retry_after_s is None else {"retry-after": str(exc.retry_after_s)}
            body = _envelope(None, {"error": exc.message}, time.perf_counter() - started)
            return exc.http, body, {**_JSON, **after}
        if found[0][1].pattern == "//?":
            return 200, orjson.dumps(result), _JSON  # the version has no envelope
        return 200, _envelope(result, "ok", time.perf_counter() - started), _JSON

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}", f"content-length: {len(body)}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        with contextlib.suppress(ConnectionError):
            self.wfile.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def _reset(self) -> None:
        """Close with RST, as a dying peer or a broken proxy does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.wfile.close()
        self.rfile.close()
        self.connection.close()

    def __getattr__(self, name: str) -> Any:
        """`do_GET`, `do_PUT`, ...: every method goes the same way."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)


def _strike(fault: Fault) -> Answer | None:
    time.sleep(fault.delay_s)
    if fault.action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.action == "reset":
        raise _ResetError
    if fault.action == "error":
        after = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return fault.status, _envelope(None, {"error": fault.message}, 0.0), {**_JSON, **after}
    return None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; the rest goes to stderr as usual."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
