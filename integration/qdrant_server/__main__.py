"""`python -m integration.qdrant_server --path P --http-port A --grpc-port B [--api-key K]`.

Prints one line of JSON with the ports once both are open, then serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from integration.qdrant_server import lean_client

lean_client.install()

from integration.qdrant_server import grpc_server, rest_server  # noqa: E402
from integration.qdrant_server.app import App  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="integration.qdrant_server", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="folder of the data; made if missing")
    parser.add_argument("--http-port", type=int, default=0, help="0: any free port")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any free port")
    parser.add_argument("--api-key")
    parser.add_argument("--read-only-api-key")
    given = parser.parse_args()

    app = App(given.path, api_key=given.api_key, read_only_key=given.read_only_api_key)
    rest = rest_server.Server(app, given.http_port)
    grpc_, grpc_port = grpc_server.serve(app, given.grpc_port)
    threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True).start()

    # A pipe and no Event: a handler that sets one may meet the lock that its own thread holds in `wait`.
    asked, ask = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(ask, b"."))
    sys.stdout.write(json.dumps({"http_port": rest.server_address[1], "grpc_port": grpc_port}) + "\n")
    sys.stdout.flush()
    os.read(asked, 1)

    grpc_.stop(grace=1).wait()
    rest.shutdown()
    rest.server_close()
    app.close()


if __name__ == "__main__":
    main()
