"""The control endpoint: faults, counters and switches of a running server.

Under a path that the real server does not have, on the same port, without the API
key, and neither counted nor hit by faults.
"""

from __future__ import annotations

from typing import Any

import orjson

from integration.qdrant_server.app import App
from integration.qdrant_server.faults import Fault

PREFIX = "/_test/"
_JSON = {"content-type": "application/json"}


def answer(app: App, method: str, path: str, raw: bytes) -> tuple[int, bytes, dict[str, str]]:
    """`POST|DELETE faults`, `GET|DELETE counters`, `POST settings`."""
    try:
        result = _run(app, method, path.removeprefix(PREFIX), raw)
    except (KeyError, TypeError, ValueError) as exc:
        return 400, str(exc).encode(), {}
    return 200, orjson.dumps(result), _JSON


def _run(app: App, method: str, name: str, raw: bytes) -> Any:
    if (method, name) == ("POST", "faults"):
        app.faults.add(Fault(**orjson.loads(raw)))
    elif (method, name) == ("DELETE", "faults"):
        app.faults.clear()
    elif (method, name) == ("GET", "counters"):
        return app.counters.as_json()
    elif (method, name) == ("DELETE", "counters"):
        app.counters.reset()
    elif (method, name) == ("POST", "settings"):
        given = orjson.loads(raw)
        if "optimizer_delay_s" in given:
            app.store.optimizer.delay_s = float(given["optimizer_delay_s"])
        if "deferred" in given:
            app.store.optimizer.deferred = int(given["deferred"])
        if "max_request_bytes" in given:
            app.max_request_bytes = int(given["max_request_bytes"])
        if "version" in given:
            app.version = str(given["version"])
        if "distributed" in given:
            app.distributed = bool(given["distributed"])
    else:
        raise KeyError(f"no such control: {method} {name}")
    return {}
