"""The servers that the tests of pairs of stores share, one of each for a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.pinecone_emulator import PineconeEmulator
from integration.qdrant_server import QdrantTestServer


@pytest.fixture(scope="module")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    with QdrantTestServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(scope="module")
def pinecone() -> Iterator[PineconeEmulator]:
    with PineconeEmulator() as running:
        yield running
