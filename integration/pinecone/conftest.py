"""An emulator for the tests of this folder, and the unmodified SDK pointed at it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from pinecone import Index, Pinecone, ServerlessSpec

from integration.pinecone_emulator import PineconeEmulator

AWS = ServerlessSpec(cloud="aws", region="us-east-1")
VERSION = "2026-07"
_NAMES = (f"index-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def emulator() -> Iterator[PineconeEmulator]:
    with PineconeEmulator() as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(emulator: PineconeEmulator) -> Iterator[None]:
    """Each test starts without faults, lag or counts."""
    yield
    emulator.faults.clear()
    emulator.counters.reset()
    emulator.lag_s = 0.0


@pytest.fixture(scope="module")
def client(emulator: PineconeEmulator) -> Iterator[Pinecone]:
    """The SDK as it is. Its REST index retries three times, and no setting switches that off."""
    with Pinecone(api_key="key", host=emulator.url) as pc:
        yield pc


@pytest.fixture
def new_index(client: Pinecone) -> Iterator[Callable[..., Index]]:
    """Make an index and open it: new_index(dimension=3), new_index(vector_type="sparse")."""
    opened: list[Index] = []
    names: list[str] = []

    def make(**shape: Any) -> Index:
        name = next(_NAMES)
        client.create_index(name=name, spec=AWS, **shape)
        names.append(name)
        opened.append(client.index(name=name))
        return opened[-1]

    yield make
    for index in opened:
        index.close()
    for name in names:
        client.delete_index(name)


@pytest.fixture
def index(new_index: Callable[..., Index]) -> Index:
    """A dense index: three dimensions, cosine."""
    return new_index(dimension=3, metric="cosine")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Plain HTTP with a key and the version, for what the SDK refuses to send."""
    with httpx.Client(headers={"Api-Key": "key", "X-Pinecone-Api-Version": VERSION}) as raw:
        yield raw
