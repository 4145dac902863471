"""The contract of every backend on the network path, all tables kept as collections of a server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import migrate.backends.qdrant  # noqa: F401 - to be patched
from integration.qdrant.backend_kit import (
    ServerPlace,
    impatient,  # noqa: F401 - a fixture
)
from integration.qdrant_server import QdrantTestServer
from migrate.backends.memory import Memory
from tests.contract import CHECKS, Check

# A stranger's collection reads back as its points are, not as these checks expect (`test_backend_server`).
_ELSEWHERE = {
    "a_table_that_memlift_did_not_make_is_refused_and_left",
    "undo_leaves_nothing_of_ours_and_all_of_theirs",
}


# Dozens of runs, each over new connections; `test_backend_kill` breaks runs off harder and sooner.
_LONG = {"a_run_broken_off_at_any_commit_goes_on_without_gap_or_overlap"}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(c, marks=[pytest.mark.slow] if c.__name__ in _LONG else [], id=c.__name__)
        for c in CHECKS
        if c.__name__ not in _ELSEWHERE
    ],
)
def test_a_server_whose_tables_are_all_collections(
    check: Check, server: QdrantTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory.shelves.clear()
    for module in ("migrate.backends.qdrant", "migrate.backends.qdrant.target"):
        monkeypatch.setattr(sys.modules[module], "is_collection", lambda table: True)
    check(ServerPlace(server, tmp_path), monkeypatch)
