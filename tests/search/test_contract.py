"""The contract of search on a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migrate.config import SqliteSettings
from migrate.search import open_searchable
from migrate.search.base import Means
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    path = tmp_path_factory.mktemp("search") / "notes.sqlite"
    make(path)
    store = open_searchable(SqliteSettings(path), Means(hnsw=False))
    yield Stand(store)
    store.close()
    store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sqlite_file(stand: Stand, check: Check) -> None:
    check(stand)
