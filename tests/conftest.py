"""Shared by all fast tests: nothing of the user's own environment reaches them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from migrate.backends.memory import Memory
from tests.no_skips import pytest_runtest_makereport  # noqa: F401 - a hook

# A slow machine is no bug, and a test that fails once must fail on the next run as well.
settings.register_profile("memlift", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("memlift")

_ADDRESSES = (
    "DATABASE_URL",
    "QDRANT_URL",
    "QDRANT_API_KEY",
    "PINECONE_API_KEY",
    "PINECONE_INDEX_HOST",
    "MEMLIFT_FAILPOINT",
)


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _ADDRESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shelves() -> Iterator[type[Memory]]:
    """Give an empty set of stores in memory, and empty it again."""
    kept = dict(Memory.shelves)
    Memory.shelves.clear()
    yield Memory
    Memory.shelves.clear()
    Memory.shelves.update(kept)
