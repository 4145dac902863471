"""Sparse vectors in Qdrant's embedded engine: collections of others, what memlift made of them, and the way elsewhere."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge

import migrate
from migrate import api
from migrate.backends.memory import Memory
from migrate.cli import main
from migrate.config import QdrantSettings
from migrate.errors import ConfigError
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


def _point(row: Row, dense: bool, sparse: tuple[str, ...]) -> Any:
    vectors: dict[str, Any] = {}
    if dense:
        vectors["dense"] = memoryview(array("f", row.dense).tobytes()).cast("f")
    for name in sparse if row.sparse is not None else ():
        assert row.sparse is not None
        vectors[name] = edge.SparseVector(list(row.sparse), list(row.sparse.values()))
    return edge.Point(row.id, vectors, row.payload)


def _collection(folder: Path, name: str, *, dense: bool, sparse: dict[str, Any]) -> None:
    """Make a collection of ROWS, not by memlift."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = {"dense": edge.EdgeVectorParams(DIM, edge.Distance.Cosine)} if dense else {}
    shard = edge.EdgeShard.create(str(folder / name), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse))
    points = [_point(row, dense, tuple(sparse)) for row in ROWS]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "theirs"
    _collection(folder, "hybrid", dense=True, sparse={"terms": edge.EdgeSparseVectorParams()})
    _collection(folder, "alone", dense=False, sparse={"terms": edge.EdgeSparseVectorParams()})
    return folder


@pytest.fixture(scope="module")
def sqlite(folder: Path) -> Path:
    assert api.migrate(QdrantSettings(path=folder), folder.parent / "store.sqlite").verified
    return folder.parent / "store.sqlite"


@pytest.fixture(scope="module", params=["theirs", "ours"])
def store(request: pytest.FixtureRequest, folder: Path, sqlite: Path) -> Iterator[Search]:
    settings = QdrantSettings(path=folder)
    if request.param == "ours":
        settings = QdrantSettings(path=folder.parent / "ours")
        assert api.migrate(sqlite, settings).verified
    with migrate.open_search(settings) as opened:
        yield opened


@pytest.mark.parametrize("table", ["hybrid", "alone"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_folder(store: Search, table: str, check: Check) -> None:
    check(Stand(store, table, lambda i: (i,), dense=table == "hybrid"))


def test_a_question_goes_to_the_tables_that_have_such_vectors(store: Search) -> None:
    both = store.search(vector=ASKED, k=4)
    assert both.how == {"hybrid": "Qdrant sparse index", "alone": "Qdrant sparse index"}
    best = truth(weights(ASKED), ROWS)[:2]
    assert [h.score for h in both.hits] == pytest.approx([best[0][1]] * 2 + [best[1][1]] * 2)
    assert set(store.search(vector=[1.0, 0, 0, 0]).how) == {"hybrid"}
    with pytest.raises(ConfigError, match="alone has sparse vectors alone"):
        store.search(vector=[1.0, 0, 0, 0], table="alone")


@pytest.mark.parametrize(
    ("bm25", "how"),
    [
        ("content", "Qdrant sparse index + BM25, fused by the server"),
        (None, "Qdrant sparse index + BM25 over all texts, fused by rank"),
    ],
)
def test_words_and_a_sparse_vector_are_fused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bm25: str | None, how: str
) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    make_worded(Memory("worded"))
    at = QdrantSettings(path=tmp_path / "store", bm25=bm25)
    assert api.migrate("memory:worded", at).verified
    with migrate.open_search(at) as opened:
        found = opened.search("ninth", vector=ASKED, k=4)
        near = opened.search(vector=ASKED, k=1).hits[0]
    assert (found.mode, found.how) == ("hybrid", {"worded": how})
    keys = {h.key for h in found.hits}
    assert near.key in keys
    assert keys & {("south", f"r{row.id}") for row in ROWS if row.sparse is None}  # found by their word


def test_a_key_may_leave_out_the_tenant_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    make_worded(Memory("worded"))
    at = QdrantSettings(path=tmp_path / "store")
    assert api.migrate("memory:worded", at).verified
    with migrate.open_search(at) as opened:
        mine = opened.search(like="r3", tenant="south", k=3).hits
        assert mine == opened.search(like=("south", "r3"), tenant="south", k=3).hits
        assert {h.key[0] for h in mine} == {"south"}
        with pytest.raises(ConfigError, match="no row with a vector is called r3"):
            opened.search(like="r3", tenant="north")
        with pytest.raises(ConfigError, match="the row south, r9 has no vector"):
            opened.search(like=("south", "r9"))


def test_rare_indices_that_qdrant_weighs_more_are_told_of(tmp_path: Path) -> None:
    rare = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
    _collection(tmp_path, "weighed", dense=False, sparse={"rare": rare})
    with migrate.open_search(QdrantSettings(path=tmp_path)) as store:
        found = store.search(vector=ASKED, k=3)
    assert found.notes == ("rare has the modifier idf: Qdrant weighs rare indices more",)
    assert len(found.hits) == 3


def test_a_store_that_cannot_compare_them_says_so(sqlite: Path) -> None:
    with migrate.open_search(sqlite) as store:
        for question in (
            {"vector": ASKED},
            {"vector": ASKED, "table": "hybrid"},
            {"vector": ASKED, "table": "alone"},
            {"like": 3, "table": "alone"},
            {"vector": [1.0, 0, 0, 0], "table": "alone"},
        ):
            with pytest.raises(ConfigError, match="sparse vectors") as caught:
                store.search(**question)
            assert caught.value.hint
        assert len(store.search(like=3, table="hybrid").hits) == 10


def test_the_command_reads_a_sparse_vector_from_a_file(
    folder: Path, sqlite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "asked.json"
    file.write_text(json.dumps(ASKED))
    words = ["search", f"qdrant:{folder}", "--vector", str(file), "-k", "3", "--table", "alone", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == "vector"
    assert [h["key"] for h in found["hits"]] == [[i] for i, _ in truth(weights(ASKED), ROWS)[:3]]
    assert main(["search", f"qdrant:{folder}", "--like", "3", "--table", "alone", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 10
    assert main(["search", str(sqlite), "--vector", str(file)]) == 2
    told = capsys.readouterr().err
    assert "error: this store has no sparse vectors that it can compare" in told
    assert told.count("\n") == 2
    file.write_text('{"indices": [1, 1], "values": [1, 2]}')
    assert main(["search", f"qdrant:{folder}", "--vector", str(file)]) == 2
    assert "has the index 1 2 times" in capsys.readouterr().err


def test_a_check_of_search_says_that_they_are_not_compared(
    folder: Path, sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stores in ((f"qdrant:{folder}", str(sqlite)), (str(sqlite), f"qdrant:{folder}")):
        assert main(["verify", "--search", *stores, "--json"]) == 0
        search = json.loads(capsys.readouterr().out)["search"]
        tables = {t["name"]: t for t in search["tables"]}
        assert tables["hybrid"]["recall_at_k"] == 1
        assert tables["alone"]["queries"] == 0
        assert all("sparse vectors are not compared: terms" in t["notes"] for t in tables.values())
