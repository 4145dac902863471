"""A small HTTP/1.1 proxy that does to requests and answers what bad networks and bad servers do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request, and what shall happen to it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answer: tuple[int, bytes] | None = None  # instead of asking the server
    retry_after: str | None = None  # goes with that answer
    reset: bool = False  # close with RST, before the server hears of it
    lose_answer: bool = False  # the server does it, the client never learns
    change_answer: Callable[[bytes], bytes] | None = None
    cut_answer: int | None = None  # bytes of the body, then the end


Rule = Callable[[Seen], None]


@dataclass
class FaultProxy:
    """rules: called for each request, in order; seen: every request that came."""

    upstream: tuple[str, int]
    rules: list[Rule] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self) -> FaultProxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def handle_one(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815 - the names it looks for

            def handle_expect_100(self) -> bool:
                self.send_response_only(100)
                self.end_headers()
                self.wfile.flush()
                return True

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was killed is what many tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        seen = Seen(handler.command, handler.path, dict(handler.headers.items()), body)
        self.seen.append((seen.method, seen.path))
        for rule in list(self.rules):
            rule(seen)
        if seen.reset:
            _reset(handler)
            return
        if seen.answer is None:
            status, headers, data = self._ask(seen)
        else:
            status, data = seen.answer
            headers = [("Content-Length", str(len(data))), ("Content-Type", "application/xml")]
            headers += [("Retry-After", seen.retry_after)] if seen.retry_after else []
        if seen.lose_answer:
            _reset(handler)
            return
        if seen.change_answer:
            data = seen.change_answer(data)
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data if seen.cut_answer is None else data[: seen.cut_answer])
        if seen.cut_answer is not None:
            handler.wfile.flush()
            handler.close_connection = True

    def _ask(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        line = http.client.HTTPConnection(*self.upstream, timeout=30)
        try:
            line.request(seen.method, seen.path, seen.body or None, seen.headers)
            answer = line.getresponse()
            data = answer.read()
            drop = ("connection", "transfer-encoding", "keep-alive")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in drop]
            if not any(name.lower() == "content-length" for name, _ in headers):
                headers.append(("Content-Length", str(len(data))))
            return answer.status, headers, data
        finally:
            line.close()


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def flip(data: bytes, bit: int) -> bytes:
    """Return data with one bit turned."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def error(code: str) -> bytes:
    """Return an S3 error document."""
    return f"<Error><Code>{code}</Code><Message>as asked by the test</Message></Error>".encode()
