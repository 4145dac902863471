"""Search on the Pinecone emulator: the contract, foreign indexes, and filters that Pinecone cannot say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from pinecone import Pinecone, ServerlessSpec

import migrate
from integration.pinecone.backend_kit import KEY, address
from integration.pinecone_emulator import PineconeEmulator
from integration.support import comparing, stores
from migrate import api
from migrate.backends.pinecone import control, fresh
from migrate.config import PineconeSettings
from migrate.errors import ConfigError
from migrate.search import open_searchable
from migrate.search.base import Mode, Query
from migrate.search.filters import bound_to, parse
from migrate.search.pinecone import store as store_module
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module")
def emulator() -> Iterator[PineconeEmulator]:
    with pytest.MonkeyPatch.context() as patch, PineconeEmulator() as running:
        patch.setattr(control, "POLL_S", 0.05)
        patch.setattr(fresh, "_FIRST_S", 0.01)
        yield running


@pytest.fixture(scope="module")
def stand(emulator: PineconeEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("search")
    make(folder / "notes.sqlite")
    settings = address(emulator, folder)
    assert api.migrate(folder / "notes.sqlite", settings).verified
    store = open_searchable(settings)
    yield Stand(store, without=frozenset({"keyword"}))
    store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_index(stand: Stand, check: Check) -> None:
    check(stand)


def test_a_filter_that_pinecone_cannot_say_is_refused_where_too_few_are_near(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_FOUND", 20)
    notes = stand.table("notes")
    where = bound_to(parse({"user.name": "Ada"}), notes.table)
    asked = np.ones(8, np.float32)
    assert len(stand.store.search(notes, Query(Mode.VECTOR, asked, k=2, where=where)).hits) == 2
    with pytest.raises(ConfigError, match="cannot say this filter"):
        stand.store.search(notes, Query(Mode.VECTOR, asked, k=15, where=where))


def test_filters_find_cells_that_are_no_metadata(emulator: PineconeEmulator, tmp_path: Path) -> None:
    rows = [
        ("large", 10**18, -0.0, '["x", 1]', "a"),
        ("plain", 5, 1.5, '[ "x" ]', "a" * 40_960),
        ("none", None, None, None, None),
    ]
    cells = [(*row, stores.vector(1, i + 1)) for i, row in enumerate(rows)]
    ddl = "CREATE TABLE t (id TEXT PRIMARY KEY, ns INTEGER, r REAL, tags JSON, body TEXT, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, cells), address(emulator, tmp_path)
    assert api.migrate(source, there, verify="full").verified
    for where, keys in (
        ({"ns": {"gt": 4}}, {"large", "plain"}),
        ({"ns": {"gt": 5}}, {"large"}),
        ({"r": {"lte": 0}}, {"large"}),
        ({"tags": "x"}, {"large", "plain"}),
        ({"body": "a" * 40_960}, {"plain"}),
        ({"ns": None}, {"none"}),
    ):
        for store in (source, there):
            found = migrate.search(store, vector=[1, 1], where=where, table="t")
            assert {h.key[0] for h in found.hits} == keys, (store, where)


def test_lists_whose_text_is_kept_are_found_by_their_members(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    ddl = "CREATE TABLE t (id TEXT PRIMARY KEY, tags JSON, embedding BLOB)"
    rows = [("a", '["x", "y"]', stores.vector(1, 1)), ("b", '["y"]', stores.vector(1, 2))]
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(emulator, tmp_path)
    assert api.migrate(source, there, verify="full", json="text").verified
    found = migrate.search(there, vector=[1, 1], where={"tags": "x"})
    assert [h.key for h in found.hits] == [("a",)]
    api.migrate(there, tmp_path / "b.sqlite", json="text")
    assert comparing.sqlite_rows(tmp_path / "b.sqlite") == comparing.sqlite_rows(source)


def test_an_index_of_others_is_searched_in_all_its_namespaces(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    with Pinecone(api_key=KEY, host=emulator.url) as client:
        client.create_index(
            "theirs", dimension=2, metric="euclidean", spec=ServerlessSpec(cloud="aws", region="us-east-1")
        )
        with client.Index(host=str(client.describe_index("theirs").host)) as index:
            for namespace, start in (("", 0), ("agent", 10)):
                index.upsert(
                    vectors=[
                        {
                            "id": f"r{i}",
                            "values": [float(i + 1), 1.0],
                            "metadata": {"n": i, "tag": ["x", f"t{i % 2}"]},
                        }
                        for i in range(start, start + 10)
                    ],
                    namespace=namespace,
                )
    settings = PineconeSettings(index="theirs", api_key=KEY, controller=emulator.url)
    store = open_searchable(settings)
    (theirs,) = store.tables()
    asked = np.array([10.5, 1], np.float32)
    hits = store.search(theirs, Query(Mode.VECTOR, asked, k=2)).hits
    assert {h.key for h in hits} == {("", "r9"), ("agent", "r10")}
    assert [h.score for h in hits] == pytest.approx([-0.5, -0.5])
    for given, n in (
        ({"n": {"gte": 15}}, 5),
        ({"tag": "t1"}, 10),
        ({"namespace": "agent"}, 10),
        ({"n": {"ne": 3}}, 19),
    ):
        where = bound_to(parse(given), theirs.table)
        assert len(store.search(theirs, Query(Mode.VECTOR, asked, k=20, where=where)).hits) == n, given
    assert store.vector_of(theirs, ("agent", "r12")) is not None
    assert store.health(theirs).problems == ()
    store.close()


def test_a_record_is_named_by_its_id_however_many_records_there_are(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_FOUND", 3)
    with Pinecone(api_key=KEY, host=emulator.url) as client:
        client.create_index("many", dimension=2, spec=ServerlessSpec(cloud="aws", region="us-east-1"))
        with client.Index(host=str(client.describe_index("many").host)) as index:
            for namespace in ("a", "b"):
                records = [{"id": f"{namespace}{i}", "values": [float(i + 1), 1.0]} for i in range(9)]
                index.upsert(vectors=records, namespace=namespace)
                index.upsert(vectors=[{"id": "both", "values": [1.0, 1.0]}], namespace=namespace)
    with migrate.open_search(PineconeSettings(index="many", api_key=KEY, controller=emulator.url)) as store:
        hits = store.search(like="b0", k=2).hits
        assert [h.score for h in hits] == pytest.approx([1, 1])
        assert ("b", "b0") not in {h.key for h in hits}
        with pytest.raises(ConfigError, match="both names several rows"):
            store.search(like="both")
        assert store.search(like="both", tenant="a", k=1).hits[0].key == ("a", "a0")
