"""Faults on demand and counters, both by protocol and path."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

Json = dict[str, Any]

ACTIONS = ("error", "reset", "delay", "crash")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and for which requests.

    action:      error (an answer of `status`), reset (the connection ends without an
                 answer; gRPC: UNAVAILABLE), delay (a slow answer), crash (`kill -9` of
                 the server itself).
    path:        a regular expression searched in `/collections/...` or `/qdrant.Points/Upsert`.
    method:      the HTTP method; gRPC requests have `POST`.
    protocol:    "rest" or "grpc"; None for both.
    times:       how many requests it hits; None for all until cleared.
    skip:        how many matching requests go through first.
    after:       the request is carried out before, so that only its answer is lost.
    status:      HTTP status; the gRPC code follows from it unless `grpc_code` is given.
    retry_after: sent as it is, as header `Retry-After` or trailing metadata `retry-after`.
    """

    action: str = "error"
    path: str = ""
    method: str | None = None
    protocol: str | None = None
    times: int | None = 1
    skip: int = 0
    after: bool = False
    status: int = 500
    message: str = "Service internal error: injected fault"
    grpc_code: str | None = None
    retry_after: str | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action is one of {', '.join(ACTIONS)}, not {self.action}")

    def as_json(self) -> Json:
        return asdict(self)

    def code(self) -> str:
        """The name of a grpc.StatusCode."""
        codes = {
            400: "INVALID_ARGUMENT",
            401: "UNAUTHENTICATED",
            403: "PERMISSION_DENIED",
            404: "NOT_FOUND",
            408: "DEADLINE_EXCEEDED",
            409: "ALREADY_EXISTS",
            429: "RESOURCE_EXHAUSTED",
            503: "UNAVAILABLE",
        }
        return self.grpc_code or codes.get(self.status, "INTERNAL")


class Faults:
    """The faults that are switched on; the first that matches a request takes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Fault, Json]] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._rules.append((fault, {"left": fault.times, "skip": fault.skip}))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def take(self, protocol: str, method: str, path: str) -> Fault | None:
        """The fault for this request; it is counted as used."""
        with self._lock:
            for fault, state in self._rules:
                if fault.protocol not in (None, protocol) or fault.method not in (None, method):
                    continue
                if state["left"] == 0 or not re.search(fault.path, path):
                    continue
                if state["skip"] > 0:
                    state["skip"] -= 1
                    continue
                if state["left"] is not None:
                    state["left"] -= 1
                return fault
        return None


class Counters:
    """Requests, bytes in and out, and answers by status, for each `PROTOCOL METHOD PATH`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: dict[str, Json] = {}
        self._now = 0
        self._most = 0
        self._started = time.monotonic()

    def begin(self) -> None:
        with self._lock:
            self._now += 1
            self._most = max(self._most, self._now)

    def end(self, key: str, received: int, sent: int, status: str) -> None:
        with self._lock:
            self._now -= 1
            one = self._by_path.setdefault(
                key, {"requests": 0, "bytes_in": 0, "bytes_out": 0, "largest_in": 0, "statuses": {}}
            )
            one["requests"] += 1
            one["bytes_in"] += received
            one["bytes_out"] += sent
            one["largest_in"] = max(one["largest_in"], received)
            one["statuses"][status] = one["statuses"].get(status, 0) + 1

    def as_json(self) -> Json:
        with self._lock:
            paths = {key: {**one, "statuses": dict(one["statuses"])} for key, one in self._by_path.items()}
            return {
                "requests": sum(one["requests"] for one in paths.values()),
                "bytes_in": sum(one["bytes_in"] for one in paths.values()),
                "bytes_out": sum(one["bytes_out"] for one in paths.values()),
                "largest_in": max((one["largest_in"] for one in paths.values()), default=0),
                "most_at_once": self._most,
                "seconds": time.monotonic() - self._started,
                "paths": paths,
            }

    def reset(self) -> None:
        with self._lock:
            self._by_path.clear()
            self._most = self._now
            self._started = time.monotonic()
