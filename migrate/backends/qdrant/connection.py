"""The two ways to a server: REST through the client's own HTTP pool, and a gRPC channel for points."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from qdrant_client import QdrantClient, grpc
from qdrant_client.connection import get_channel

from migrate.backends.qdrant.errors import of_response, translating
from migrate.config import QdrantSettings
from migrate.errors import BackendError, ConfigError

TIMEOUT_S = 60
_GRPC_PROBE_S = 3.0
_LIST = ("GET", "/collections", "list collections")
# A server that comes back is found within seconds (120 s by default), and not through another's socket.
_CHANNEL = {"grpc.max_reconnect_backoff_ms": 5000, "grpc.use_local_subchannel_pool": 1}
_PROBES = 3  # another program may make or drop a collection between the two lists that are compared


class GrpcPoints:
    """The calls for points. `upsert` takes a request as bytes: parsing it here would cost 10 us a point."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.upsert: Callable[..., Any] = channel.unary_unary(
            "/qdrant.Points/Upsert",
            request_serializer=None,
            response_deserializer=grpc.PointsOperationResponse.FromString,
        )
        stub: Any = grpc.PointsStub
        self.scroll: Callable[..., Any] = stub(channel).Scroll


class _Open(NamedTuple):
    client: QdrantClient
    points: GrpcPoints | None


class Connection:
    """Opened by the first request, closed by `close`, and opened anew by the next request."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self._open: _Open | None = None
        self._version: tuple[int, int] | None = None
        self._lock = threading.Lock()  # requests come from several threads

    def describe(self) -> str:
        """Return the address without secrets."""
        return str(self._settings)

    @property
    def grpc(self) -> GrpcPoints | None:
        """Return the calls for points over gRPC; None where the port is closed."""
        return self._opened().points

    def _opened(self) -> _Open:
        with self._lock:
            if self._open is None:
                client = self._http()
                try:
                    self._open = _Open(client, self._probed(client))
                except BaseException:
                    client.close()
                    raise
            return self._open

    def _http(self) -> QdrantClient:
        with warnings.catch_warnings():
            # The client warns of a key over plain HTTP, which is the user's own choice of address.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            # It would also ask for the version in a thread of its own, and warn there.
            try:
                return QdrantClient(
                    url=self._settings.url,
                    api_key=self._settings.api_key,
                    check_compatibility=False,
                    timeout=TIMEOUT_S,
                    verify=urlsplit(self._settings.url or "").scheme
                    == "https",  # reading certificates takes 20 ms
                )
            except ValueError as exc:  # a host that the client cannot read
                raise ConfigError(
                    f"no address of a Qdrant server: {self.describe()}", hint="qdrant+http://host:6333"
                ) from exc

    def _probed(self, client: QdrantClient) -> GrpcPoints | None:
        """Return the gRPC calls if the port answers, and with the collections that REST tells of."""
        where = urlsplit(self._settings.url or "")
        port, host = where.port or 6333, where.hostname or ""
        channel = get_channel(
            host=f"[{host}]" if ":" in host else host,
            port=self._settings.grpc_port or (6334 if port == 6333 else port + 1),
            ssl=where.scheme == "https",
            metadata=[("api-key", self._settings.api_key)] if self._settings.api_key else [],
            options=_CHANNEL,
        )
        stub: Any = grpc.CollectionsStub
        listing = stub(channel).List
        try:
            for _ in range(_PROBES):
                with translating("answer over gRPC"):
                    answer = listing(grpc.ListCollectionsRequest(), timeout=_GRPC_PROBE_S)
                if sorted(c.name for c in answer.collections) == _names(self._answer(client, *_LIST)):
                    return GrpcPoints(channel)
        except (BackendError, ConfigError):
            pass
        channel.close()
        return None

    def close(self) -> None:
        """Let go of both. Idempotent."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            if opened.points is not None:
                opened.points.channel.close()
            opened.client.close()

    def rest(self, method: str, path: str, op: str, body: Any = None, *, none_for: int = 0) -> Any:
        """Send one request and return its `result`; None for the status `none_for`."""
        found = self._answer(self._opened().client, method, path, op, body, none_for)
        return None if found is None else found.get("result")

    def _answer(
        self, client: QdrantClient, method: str, path: str, op: str, body: Any = None, none_for: int = 0
    ) -> Any:
        data = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
        api = client.http.client
        with translating(op, store=self.describe()):
            request = api._client.build_request(  # the client's own, with its key, pool and TLS
                method,
                api.host.rstrip("/") + path,
                content=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
            )
            response = api.send_inner(request)
            if response.status_code == none_for:
                return None
            if response.status_code >= 300:
                raise of_response(op, response, store=self.describe())
            return orjson.loads(response.content)

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        return _names(self._answer(self._opened().client, *_LIST))

    def version(self) -> tuple[int, int]:
        """Return the server's major and minor version; (0, 0) where it does not tell."""
        if self._version is None:
            answer = self._answer(self._opened().client, "GET", "/", "ask for the version", none_for=404)
            told = re.match(r"(\d+)\.(\d+)", str((answer or {}).get("version", "")))
            self._version = (int(told[1]), int(told[2])) if told else (0, 0)
        return self._version


def _names(answer: Any) -> list[str]:
    return sorted(str(c["name"]) for c in answer["result"]["collections"])
