"""What the backend's tests on a server share: addresses under a prefix of their own."""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.qdrant_server import QdrantTestServer
from migrate.backends.qdrant import server as server_module
from migrate.config import QdrantSettings, Settings

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
POLL_S = 0.05  # a test server is green sooner than a real one
_NUMBERS = itertools.count(1)
CLOSED_PORT = 1  # nobody answers gRPC there, so points travel by REST


def address(server: QdrantTestServer, folder: Path, *, rest: bool = False, **more: Any) -> QdrantSettings:
    """Return a fresh target: a prefix and a sidecar that no other test has."""
    n = next(_NUMBERS)
    return QdrantSettings(
        url=server.url,
        grpc_port=CLOSED_PORT if rest else server.grpc_port,
        prefix=f"b{n}_",
        sidecar=str(folder / f"side{n}.sqlite"),
        **more,
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a collection's state more often."""
    monkeypatch.setattr(server_module, "POLL_S", POLL_S)


def url_of(settings: QdrantSettings) -> str:
    """Return the same as a URL, for a run in another process."""
    return f"qdrant+{settings.url}?prefix={settings.prefix}&sidecar={settings.sidecar}&grpc_port={settings.grpc_port}"


class ServerPlace:
    """Where the contract is kept on a server: a prefix and a sidecar for each target."""

    kind = "qdrant"

    def __init__(self, server: QdrantTestServer, folder: Path, *, rest: bool = False) -> None:
        self._server, self._folder, self._rest = server, folder, rest

    def fresh(self) -> Settings:
        return address(self._server, self._folder, rest=self._rest)

    def names(self, at: Settings) -> set[str]:
        from qdrant_client import QdrantClient

        assert isinstance(at, QdrantSettings)
        client = QdrantClient(url=at.url, check_compatibility=False)
        try:
            found = {c.name for c in client.get_collections().collections if c.name.startswith(at.prefix)}
        finally:
            client.close()
        found = {name.removeprefix(at.prefix) for name in found}
        if at.sidecar is not None and Path(at.sidecar).exists():
            with closing(sqlite3.connect(at.sidecar)) as db:
                found |= {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        return found

    def stranger(self, at: Settings, name: str) -> None:
        """Make a collection with one point, not by memlift."""
        from qdrant_client import QdrantClient, models

        assert isinstance(at, QdrantSettings)
        client = QdrantClient(url=at.url, check_compatibility=False)
        try:
            params = models.VectorParams(size=2, distance=models.Distance.DOT)
            client.create_collection(at.prefix + name, vectors_config=params)
            client.upsert(
                at.prefix + name, [models.PointStruct(id=1, vector=[1.0, 2.0], payload={"v": "theirs"})]
            )
        finally:
            client.close()
