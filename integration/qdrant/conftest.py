"""A running test server and the unmodified `qdrant-client` over either protocol."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from qdrant_client import QdrantClient

from integration.qdrant_server import QdrantTestServer
from integration.qdrant_server.app import VERSION

_NAMES = (f"c{number}" for number in itertools.count(1))

Connect = Callable[..., QdrantClient]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    """One server for the tests of a file."""
    with QdrantTestServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test ends without faults, delays or counts."""
    yield
    if "server" in request.fixturenames:
        running: QdrantTestServer = request.getfixturevalue("server")
        running.clear_faults()
        running.set_optimizer_delay(0)
        running.set_deferred(0)
        running.set_max_request_bytes(32 * 1024 * 1024)
        running.set_version(VERSION)
        running.set_distributed(True)
        running.reset_counters()


@pytest.fixture(scope="module", params=["rest", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def connect(protocol: str) -> Iterator[Connect]:
    """Open clients to any server over the protocol of the test; closed after its file."""
    opened: list[QdrantClient] = []

    def open_client(to: QdrantTestServer, *, api_key: str | None = None) -> QdrantClient:
        with warnings.catch_warnings():
            # The client warns of a key over plain HTTP; there is no TLS on the loopback here.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            made = QdrantClient(
                url=to.url,
                grpc_port=to.grpc_port,
                prefer_grpc=protocol == "grpc",
                api_key=api_key,
                check_compatibility=False,
                timeout=30,
            )
        opened.append(made)
        return made

    yield open_client
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def client(server: QdrantTestServer, connect: Connect) -> QdrantClient:
    return connect(server)


@pytest.fixture
def name() -> str:
    """A collection name that no other test has."""
    return next(_NAMES)
