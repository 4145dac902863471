"""Search in Qdrant's embedded engine: the contract, with BM25 vectors and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migrate import addresses, api
from migrate.config import QdrantSettings
from migrate.search import open_searchable
from migrate.search.qdrant import drawing
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module", params=["bm25", "plain"])
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("search")
    make(folder / "notes.sqlite")
    bm25 = "content,title" if request.param == "bm25" else None
    settings = QdrantSettings(path=folder / "store", bm25=bm25)
    assert api.migrate(folder / "notes.sqlite", settings).verified
    store = open_searchable(addresses.parse(settings))
    own = {"order of equals"} if bm25 else set[str]()
    yield Stand(store, without=frozenset({"text ranges", *own}))
    store.close()
    store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_folder(stand: Stand, check: Check) -> None:
    check(stand)


def test_of_a_large_collection_some_points_of_many_places_are_drawn(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_SMALL", 5)
    for name, least in (("notes", 20), ("papers", 5)):  # ids that are UUIDs, and numbers
        table = stand.table(name)
        once, again = stand.store.sample(table, 20, 1), stand.store.sample(table, 20, 1)
        assert [key for key, _ in once] == [key for key, _ in again]
        assert len({key for key, _ in once}) == len(once) >= least
