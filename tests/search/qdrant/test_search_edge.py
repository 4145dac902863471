"""Search in Qdrant's embedded engine: the contract, with BM25 vectors and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migrate import api, config
from migrate.config import QdrantSettings
from migrate.search import open_searchable
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module", params=["bm25", "plain"])
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("search")
    make(folder / "notes.sqlite")
    bm25 = "content,title" if request.param == "bm25" else None
    settings = QdrantSettings(path=folder / "store", bm25=bm25)
    assert api.migrate(folder / "notes.sqlite", settings).verified
    store = open_searchable(config.parse(settings))
    own = {"order of equals"} if bm25 else set[str]()
    yield Stand(store, without=frozenset({"text ranges", *own}))
    store.close()
    store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_folder(stand: Stand, check: Check) -> None:
    check(stand)
