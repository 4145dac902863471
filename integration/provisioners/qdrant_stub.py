"""Answers like Qdrant to the few requests that setting one up needs. It stores nothing: it is not Qdrant.

The key comes from config/local.yaml, as Qdrant's own; without a key nothing is asked for. SLEEP: seconds
before it listens.
"""

import json
import os
import signal
import socket
import sys
import time


def secret() -> str | None:
    try:
        with open("/qdrant/config/local.yaml") as file:
            return next(line.split(":", 1)[1].strip() for line in file if "api_key" in line)
    except FileNotFoundError:
        return None


def answer(request: str, key: str | None) -> tuple[str, object]:
    first, *rest = request.split("\r\n")
    path = first.split(" ")[1] if first.count(" ") == 2 else "?"
    headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in rest if ":" in line}
    if path == "/":
        return "200 OK", {"title": "qdrant - vector search engine", "version": "1.19.1"}
    if key is not None and headers.get("api-key") != key:
        return "401 Unauthorized", {"status": {"error": "Must provide an API key"}}
    if path == "/collections":
        return "200 OK", {"result": {"collections": [{"name": "notes"}]}, "status": "ok", "time": 0}
    if path == "/collections/notes/points/count":
        return "200 OK", {"result": {"count": 7}, "status": "ok", "time": 0}
    return "404 Not Found", {"status": {"error": "Not found"}}


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.makedirs("/qdrant/storage", exist_ok=True)
with open("/qdrant/storage/starts", "a") as log:
    log.write("started\n")
time.sleep(float(os.environ.get("SLEEP", "0")))
sys.stdout.write("Qdrant stub listens\n")
sys.stdout.flush()
with socket.create_server(("0.0.0.0", 6333)) as server:  # noqa: S104
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            try:
                status, document = answer(connection.recv(65536).decode(errors="replace"), secret())
                body = json.dumps(document).encode()
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                )
                connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
            except OSError as exc:
                sys.stdout.write(f"a client went away: {exc}\n")
