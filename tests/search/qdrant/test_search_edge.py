"""Search in Qdrant's embedded engine: the contract, with BM25 vectors and without."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import migrate
from migrate import addresses, api
from migrate.backends.memory import Memory
from migrate.config import QdrantSettings
from migrate.schema import Column, Kind, Table
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


def test_json_with_unsigned_integers_is_looked_into(tmp_path: Path) -> None:
    there = QdrantSettings(path=tmp_path / "store")
    hashes = [1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64]
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, meta JSON, embedding BLOB)")
        db.executemany(
            "INSERT INTO t VALUES (?, ?, ?)",
            [
                (i, json.dumps({"tag": "x", "deep": [{"of": n}], "hash": n}), struct.pack("<2f", 1, i))
                for i, n in enumerate(hashes)
            ],
        )
        db.commit()
    assert api.migrate(tmp_path / "a.sqlite", there, verify="full").verified
    assert api.migrate(there, tmp_path / "back.sqlite", verify="full").verified
    assert api.verify(tmp_path / "a.sqlite", tmp_path / "back.sqlite").verified
    with migrate.open_search(there) as store:
        for where, keys in (
            ({"meta.tag": "x"}, {0, 1, 2, 3, 4, 5}),
            ({"meta.tag": {"ne": "x"}}, set()),
            ({"meta.hash": 2**63}, {2}),
            ({"meta.hash": {"in": [2**63 + 1, 2**64 - 1]}}, {3, 4}),
            ({"meta.hash": {"gt": 2**63, "lt": 2**64}}, {3, 4}),
            ({"meta.hash": None}, set()),
        ):
            found = store.search(vector=[1, 0], where=where)
            assert {h.key[0] for h in found.hits} == keys, where


def test_infinity_and_nan_are_not_taken_for_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    there = QdrantSettings(path=tmp_path / "store")
    columns = (
        Column("id", Kind.INTEGER, nullable=False),
        Column("r", Kind.REAL),
        Column("embedding", Kind.VECTOR, dim=2),
    )
    table = Table("t", columns, ("id",))
    reals = [0.5, None, float("nan"), float("inf")]
    shelf = Memory("odd").shelf
    shelf.tables["t"] = table
    shelf.rows["t"] = [(i, r, struct.pack("<2f", 1, i)) for i, r in enumerate(reals)]
    assert api.migrate("memory:odd", there).verified
    with migrate.open_search(there) as store:
        for where, keys in (
            ({"r": None}, {1}),
            ({"r": {"ne": None}}, {0, 2, 3}),
            ({"r": {"ne": 0.5}}, {1, 2, 3}),
        ):
            found = store.search(vector=[1, 0], where=where)
            assert {h.key[0] for h in found.hits} == keys, where
