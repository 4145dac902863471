"""Sparse vectors on the Pinecone emulator: an index that has no others is asked, one of both kinds is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pinecone import Pinecone, ServerlessSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

import migrate
from integration.pinecone.backend_kit import KEY, address
from integration.pinecone_emulator import PineconeEmulator
from migrate import api
from migrate.backends.memory import Memory
from migrate.backends.pinecone import control, fresh
from migrate.cli import main
from migrate.config import PineconeSettings
from migrate.errors import ConfigError
from migrate.search.base import Key
from migrate.search.service import Search
from tests.search.sparse_rows import (
    ASKED,
    CHECKS,
    DIM,
    ROWS,
    Check,
    Row,
    Stand,
    make_worded,
    truth,
    weights,
)

_SPEC = ServerlessSpec(cloud="aws", region="us-east-1")
_SPACES = ("", "agent")  # rows by turns


def _key(i: int) -> Key:
    return (_SPACES[i % 2], f"r{i}")


def _record(row: Row, **more: Any) -> dict[str, Any]:
    assert row.sparse is not None
    sparse = {"indices": list(row.sparse), "values": list(row.sparse.values())}
    return {"id": f"r{row.id}", "sparse_values": sparse, "metadata": row.payload, **more}


@pytest.fixture(scope="module")
def emulator() -> Iterator[PineconeEmulator]:
    with pytest.MonkeyPatch.context() as patch, PineconeEmulator() as running:
        patch.setattr(control, "POLL_S", 0.05)
        patch.setattr(fresh, "_FIRST_S", 0.01)
        with Pinecone(api_key=KEY, host=running.url) as client:
            client.create_index("sparse-index", metric="dotproduct", vector_type="sparse", spec=_SPEC)
            client.create_index("hybrid-index", metric="dotproduct", dimension=DIM, spec=_SPEC)
            rows = [row for row in ROWS if row.sparse is not None]
            for space in _SPACES:
                mine = [row for row in rows if _key(row.id)[0] == space]
                alone, both = (
                    client.Index(host=str(client.describe_index(name).host))
                    for name in ("sparse-index", "hybrid-index")
                )
                alone.upsert(vectors=[_record(row) for row in mine], namespace=space)
                both.upsert(vectors=[_record(row, values=row.dense) for row in mine], namespace=space)
                alone.close()
                both.close()
        yield running


@pytest.fixture(scope="module")
def at(emulator: PineconeEmulator) -> Callable[[str], PineconeSettings]:
    return lambda index: PineconeSettings(index=index, api_key=KEY, controller=emulator.url)


@pytest.fixture(scope="module")
def store(at: Callable[[str], PineconeSettings]) -> Iterator[Search]:
    with migrate.open_search(at("sparse-index")) as opened:
        yield opened


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_index_of_sparse_vectors(store: Search, check: Check) -> None:
    check(Stand(store, "sparse-index", _key, dense=False))


def test_a_namespace_is_a_tenant(store: Search) -> None:
    hits = store.search(vector=ASKED, k=100, tenant="agent").hits
    mine = truth(weights(ASKED), [r for r in ROWS if r.id % 2])
    assert [h.key for h in hits] == [_key(i) for i, _ in mine]


def test_a_row_is_named_without_its_namespace(store: Search) -> None:
    assert store.search(like="r3").hits == store.search(like=_key(3)).hits
    assert store.search(like="r3", tenant="agent", k=2).hits
    with pytest.raises(ConfigError, match="no row with a vector is called r3"):
        store.search(like="r3", tenant="nobody")
    with pytest.raises(ConfigError, match="no row with a vector is called r9999"):
        store.search(like="r9999")


def test_more_values_than_pinecone_takes_are_refused_before_anything_is_sent(store: Search) -> None:
    with pytest.raises(ConfigError, match="has 2,049 values, Pinecone takes 2,048"):
        store.search(vector={"indices": range(2049), "values": [1.0] * 2049})


def test_sparse_vectors_beside_dense_ones_are_not_asked_by_themselves(
    at: Callable[[str], PineconeSettings],
) -> None:
    with migrate.open_search(at("hybrid-index")) as store:
        for table in (None, "hybrid-index"):
            with pytest.raises(ConfigError, match="sparse vectors that"):
                store.search(vector=ASKED, table=table)
        assert len(store.search(vector=[1.0] * DIM, k=5).hits) == 5
        assert len(store.search(like="r3", k=5).hits) == 5


def test_the_command_says_the_same(
    emulator: PineconeEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", KEY)
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
    file = tmp_path / "asked.json"
    file.write_text(json.dumps(ASKED))
    assert main(["search", "pinecone:sparse-index", "--vector", str(file), "-k", "2", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [h["key"] for h in hits] == [list(_key(i)) for i, _ in truth(weights(ASKED), ROWS)[:2]]
    assert main(["search", "pinecone:sparse-index", "--like", "r3", "-k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    assert main(["search", "pinecone:hybrid-index", "--vector", str(file)]) == 2
    assert "error: this store has no sparse vectors that it can compare" in capsys.readouterr().err


def test_a_tenant_column_sets_tenants_apart(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    make_worded(Memory("worded"))
    ours = address(emulator, tmp_path)
    assert api.migrate("memory:worded", ours).verified
    with migrate.open_search(ours) as store:
        found = store.search(vector=ASKED, k=3, tenant="south").hits
        mine = truth(weights(ASKED), [r for r in ROWS if r.id % 2])[:3]
        assert [h.key for h in found] == [("south", f"r{i}") for i, _ in mine]
        assert found[0].text == "The other of many words"
        assert store.search(like="r3", tenant="south").hits
        with pytest.raises(ConfigError, match="has no vector"):  # the row is in the sidecar
            store.search(like="r9", tenant="south")


def test_tables_that_memlift_wrote_are_asked_and_those_beside_them_checked(
    emulator: PineconeEmulator, at: Callable[[str], PineconeSettings], tmp_path: Path
) -> None:
    sqlite, ours = tmp_path / "store.sqlite", address(emulator, tmp_path)
    assert api.migrate(at("sparse-index"), sqlite).verified
    assert api.migrate(at("hybrid-index"), sqlite).verified
    report = api.migrate(sqlite, ours, check_search=True)
    assert report.verified
    assert report.search is not None
    tables = {t["name"]: t for t in report.search["tables"]}
    assert tables["sparse-index"]["notes"] == ("sparse vectors are not compared: sparse_values",)
    assert tables["hybrid-index"]["recall_at_k"] == 1
    with migrate.open_search(ours) as store:
        found = store.search(vector=ASKED, k=5)
        assert list(found.how) == ["sparse-index"]
        assert [h.key for h in found.hits] == [_key(i) for i, _ in truth(weights(ASKED), ROWS)[:5]]
        near = store.search(like=_key(3), table="sparse-index", k=5)
        assert [h.key for h in near.hits] == [
            _key(i) for i, _ in truth(ROWS[3].sparse or {}, ROWS) if i != 3
        ][:5]
