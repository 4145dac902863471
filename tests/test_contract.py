"""The contract of every backend, on the stores that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.backends import REGISTRY
from tests.contract import CHECKS, Check
from tests.places import LOCAL, local


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.usefixtures("shelves")
def test_a_target(kind: str, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = local(kind, tmp_path)
    assert place is not None
    check(place, monkeypatch)


def test_the_stores_tested_here_are_registered() -> None:
    assert set(LOCAL) <= set(REGISTRY)
