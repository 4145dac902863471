"""The emulator: a controller port, a port for each index, and the switches tests turn."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from integration.pinecone_emulator import wire_json
from integration.pinecone_emulator.control import ControlPlane
from integration.pinecone_emulator.errors import Code, Refusal, not_found
from integration.pinecone_emulator.faults import Counters, Faults
from integration.pinecone_emulator.grpc_server import GrpcServer
from integration.pinecone_emulator.imports import Imports
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.limits import Limits
from integration.pinecone_emulator.rest import Request, Response, data_plane
from integration.pinecone_emulator.schema import Definition
from integration.pinecone_emulator.server import Listener
from integration.pinecone_emulator.state import State

_LEGACY_UNTIL = "2026-04"
_INDEX = re.compile("/indexes/(?P<name>[^/]+)")


class _Hosted:
    """An index and what serves it."""

    def __init__(self, emulator: PineconeEmulator, definition: Definition) -> None:
        self.index = Index(definition, emulator.state, emulator.limits, lambda: emulator.lag_s)
        self.imports = Imports(self.index)
        self.grpc = GrpcServer(self.index, lambda: self.listener)
        try:
            self.listener = self._listen(emulator, definition.port)
        except OSError:  # someone took the port while the emulator was down: describe will name the new one
            self.listener = self._listen(emulator, 0)
        definition.port = self.listener.port
        self.listener.start()

    def _listen(self, emulator: PineconeEmulator, port: int) -> Listener:
        return emulator.listen(
            port,
            lambda request: data_plane(self.index, self.imports, request),
            index=self.index.definition.name,
            grpc_port=self.grpc.port,
        )

    def stop(self) -> None:
        self.listener.stop()
        self.grpc.stop()


class PineconeEmulator:
    """Pinecone on 127.0.0.1, for tests. Use as a context manager, or start() and stop().

    port: of the controller, 0 for a free one; each index gets a port of its own, kept over restarts
    unless another program has taken it.
    api_keys: the valid keys; None takes any. lag_s: seconds until reads see a write, changeable at any time.
    persist: a state file; the same file brings back the same indexes, ports and records.
    limits: the documented ones, unless a test needs smaller numbers.
    """

    def __init__(
        self,
        port: int = 0,
        api_keys: Iterable[str] | None = None,
        lag_s: float = 0.0,
        persist: str | Path | None = None,
        *,
        limits: Limits | None = None,
        ready_after_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.lag_s = lag_s
        self.limits = limits or Limits()
        self.faults = Faults(seed)
        self.counters = Counters()
        self._keys = None if api_keys is None else frozenset(api_keys)
        self.state = State(None if persist is None else Path(persist))
        self._hosted: dict[str, _Hosted] = {}
        self._lock = threading.RLock()
        self._control = ControlPlane(
            self.limits,
            open_port=lambda: 0,
            opened=self._opened,
            changed=lambda definition: self.state.save_index(definition.name, definition.document()),
            closed=self._closed,
            ready_after_s=ready_after_s,
        )
        self._controller = self.listen(port, self._answer, control_plane=True)

    def listen(self, port: int, answer: Any, **more: Any) -> Listener:
        more.setdefault("index", "")
        return Listener(port, answer, faults=self.faults, counters=self.counters, keys=self._keys, **more)

    @property
    def url(self) -> str:
        """What PINECONE_CONTROLLER_HOST is set to."""
        return f"http://127.0.0.1:{self._controller.port}"

    @property
    def controller_url(self) -> str:
        return self.url

    def index_host(self, name: str) -> str:
        """The host of an index, as describe gives it."""
        return self._control.definitions[name].host

    def imports(self, name: str) -> Imports:
        """The imports of an index, to say how they ended."""
        return self._hosted[name].imports

    def start(self) -> Self:
        with self._lock:
            for document in self.state.indexes():
                definition = Definition(**document)
                self._control.definitions[definition.name] = definition
                self._opened(definition)
        self._controller.start()
        return self

    def stop(self) -> None:
        """Close all ports. With a state file, another emulator can continue."""
        self._controller.stop()
        with self._lock:
            for hosted in self._hosted.values():
                hosted.stop()
            self._hosted.clear()
        self.state.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _opened(self, definition: Definition) -> None:
        self._hosted[definition.name] = _Hosted(self, definition)
        self.state.save_index(definition.name, definition.document())

    def _closed(self, definition: Definition) -> None:
        self._hosted.pop(definition.name).stop()
        self.state.drop_index(definition.name, definition.uid)

    def _answer(self, request: Request) -> Response:
        if request.path.startswith("/_emulator/"):
            return self._switch(request)
        legacy = request.version() <= _LEGACY_UNTIL
        with self._lock:
            status, body = self._route(request, legacy)
        return Response(status, b"" if body is None else _dump(body))

    def _route(self, request: Request, legacy: bool) -> tuple[int, dict[str, Any] | None]:
        control, method, path = self._control, request.method, request.path
        if path == "/indexes" and method == "GET":
            return control.list_all(legacy)
        if path == "/indexes" and method == "POST":
            return control.create(wire_json.parse(request.body), legacy)
        if path == "/indexes/create-for-model" and method == "POST":
            return control.create_for_model(wire_json.parse(request.body), legacy)
        match = _INDEX.fullmatch(path)
        if match is None:
            raise not_found(f"Resource {path} not found")
        name = unquote(match["name"])
        if method == "GET":
            return control.describe(name, legacy)
        if method == "PATCH":
            return control.configure(name, wire_json.parse(request.body), legacy)
        if method == "DELETE":
            return control.delete(name)
        raise Refusal(Code.UNIMPLEMENTED, f"Method {method} is not allowed for {path}")

    def _switch(self, request: Request) -> Response:
        """The switches over HTTP, for an emulator in another process: /_emulator/faults, counters, lag."""
        what = request.path.removeprefix("/_emulator/")
        given = wire_json.parse(request.body) if request.method == "POST" else {}
        if what == "faults":
            if request.method == "POST":
                with contextlib.suppress(KeyError):
                    self.faults.seed(given.pop("seed"))
                if given:
                    self.faults.add(**given)
            elif request.method == "DELETE":
                self.faults.clear()
        elif what == "counters":
            if request.method == "DELETE":
                self.counters.reset()
            counted = self.counters.by_path().items()
            return Response(200, _dump([[*key, number] for key, number in sorted(counted)]))
        elif what == "lag" and request.method == "POST":
            self.lag_s = float(given["lag_s"])
        elif what != "ready":
            raise not_found(f"Not found: {request.path}")
        return Response(200, b"{}")


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
