"""Search on a Qdrant server: the contract, fusion by the server, filters, and what a check must notice."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

import migrate
from integration.qdrant.backend_kit import address
from integration.qdrant_server import QdrantTestServer
from integration.qdrant_server.app import VERSION
from integration.support import stores
from migrate import api
from migrate.backends.qdrant import server as server_module
from migrate.config import QdrantSettings, SqliteSettings
from migrate.errors import ConfigError
from migrate.search import open_searchable
from migrate.search.base import Means, Mode, Query, Searchable
from migrate.search.beside import WithSidecar
from migrate.search.filters import bound_to, parse
from migrate.search.qdrant import words
from migrate.search.qdrant.store import QdrantSearch
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantTestServer]:
    with (
        pytest.MonkeyPatch.context() as patch,
        QdrantTestServer(tmp_path_factory.mktemp("qdrant")) as running,
    ):
        patch.setattr(server_module, "POLL_S", 0.05)
        yield running


def _migrated(server: QdrantTestServer, folder: Path) -> QdrantSettings:
    """Return where the notes of the contract are now, with BM25 vectors."""
    make(folder / "notes.sqlite")
    settings = address(server, folder, bm25="content,title")
    assert api.migrate(folder / "notes.sqlite", settings).verified
    return settings


def _stand(settings: QdrantSettings) -> Stand:
    return Stand(open_searchable(settings), without=frozenset({"text ranges", "order of equals"}))


@pytest.fixture(scope="module")
def stand(server: QdrantTestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = _stand(_migrated(server, tmp_path_factory.mktemp("search")))
    yield made
    made.store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_server(stand: Stand, check: Check) -> None:
    check(stand)


CLOUD = models.StrictModeConfig(
    enabled=True,
    unindexed_filtering_retrieve=False,
    unindexed_filtering_update=False,
    max_payload_index_count=100,
)


@pytest.fixture(scope="module")
def cloud(
    server: QdrantTestServer, client: QdrantClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """Collections in strict mode, as Qdrant Cloud makes them."""
    settings = _migrated(server, tmp_path_factory.mktemp("cloud"))
    for one in client.get_collections().collections:
        if one.name.startswith(settings.prefix):
            client.update_collection(one.name, strict_mode_config=CLOUD)
    made = _stand(settings)
    yield made
    made.store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_server_that_takes_filters_over_indexed_payload_alone(cloud: Stand, check: Check) -> None:
    check(cloud)


def test_many_points_without_a_payload_index_are_not_looked_at(
    cloud: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_READ", 10)
    notes = cloud.table("notes")
    where = bound_to(parse({"kind": "event"}), notes.table)
    with pytest.raises(ConfigError, match="is in strict mode and has no payload index"):
        cloud.store.search(notes, Query(Mode.VECTOR, np.ones(8, np.float32), where=where))
    mine = Query(Mode.VECTOR, np.ones(8, np.float32), where=where, tenant="north")
    assert cloud.store.search(notes, mine).hits


def test_a_server_without_a_constant_for_fusion_is_asked_for_the_parts(
    server: QdrantTestServer, stand: Stand
) -> None:
    notes = stand.table("notes")
    query = Query(Mode.HYBRID, np.ones(8, np.float32), "violin", k=5)
    fused = stand.store.search(notes, query)
    server.set_version("1.15.5")
    old = open_searchable(_own(stand.store)._settings)
    try:
        answer = old.search(notes, query)
    finally:
        old.close()
        server.set_version(VERSION)
    assert answer.how == "Qdrant HNSW + Qdrant BM25, fused by rank"
    assert [(h.key, pytest.approx(h.score)) for h in answer.hits] == [(h.key, h.score) for h in fused.hits]


def _own(store: Searchable) -> QdrantSearch:
    assert isinstance(store, WithSidecar)
    assert isinstance(store.own, QdrantSearch)
    return store.own


def _asked(store: Searchable) -> list[Any]:
    """Record the queries that are sent from now on."""
    engine = _own(store)._engine
    sent: list[Any] = []
    run = engine.query

    def recording(name: str, asked: Any) -> Any:
        sent.extend(asked)
        return run(name, asked)

    engine.query = recording  # type: ignore[method-assign]
    return sent


def test_hybrid_is_fused_by_the_server(stand: Stand) -> None:
    store = stand.store
    sent = _asked(store)
    try:
        notes = stand.table("notes")
        where = bound_to(parse({"user.name": "Ada", "kind": {"ne": "event"}}), notes.table)
        query = Query(Mode.HYBRID, np.ones(8, np.float32), "violin", k=3, where=where)
        answer = store.search(notes, query)
        assert answer.how == "Qdrant HNSW + BM25, fused by the server"
        assert len(sent) == 2
        assert sent[0]["query"] == {"rrf": {"k": 61}}
        assert [p["using"] for p in sent[0]["prefetch"]] == ["embedding", "bm25"]
    finally:
        del _own(store)._engine.query


def test_an_exact_query_asks_for_every_vector(stand: Stand) -> None:
    sent = _asked(stand.store)
    try:
        for exact in (True, False):
            stand.store.search(stand.table("notes"), Query(Mode.VECTOR, np.ones(8, np.float32), exact=exact))
        assert [s["params"] for s in sent] == [{"exact": True}, {"hnsw_ef": 128}]
    finally:
        del _own(stand.store)._engine.query


@pytest.fixture(scope="module")
def client(server: QdrantTestServer) -> Iterator[QdrantClient]:
    opened = QdrantClient(url=server.url, check_compatibility=False)
    yield opened
    opened.close()


def _collection(
    client: QdrantClient, server: QdrantTestServer, folder: Path, distance: models.Distance
) -> tuple[Any, str]:
    """Make a collection that memlift did not make; return its address and its name."""
    settings = address(server, folder)
    name = f"{settings.prefix}mine"
    client.create_collection(name, vectors_config={"v": models.VectorParams(size=2, distance=distance)})
    points = [
        models.PointStruct(
            id=i, vector={"v": [float(i), 1.0]}, payload={"n": i, "text": f"word{i % 3}", "d": i % 2 == 0}
        )
        for i in range(30)
    ]
    client.upsert(name, points, wait=True)
    return (settings.__class__(url=settings.url, grpc_port=settings.grpc_port, prefix=settings.prefix)), name


def test_what_is_no_id_of_a_point_is_found_nowhere(server: QdrantTestServer, client: QdrantClient) -> None:
    client.create_collection("odd_c", models.VectorParams(size=1, distance=models.Distance.DOT))
    client.create_collection("whole_c", models.VectorParams(size=1, distance=models.Distance.DOT))
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    points = [models.PointStruct(id=i, vector=[1], payload={}) for i in (3, uuid)]
    client.upsert("odd_c", points)
    client.upsert("whole_c", points[:1])
    for name, given, keys in (
        ("odd", ["3", uuid], [("3",), (uuid,)]),
        ("odd", ["03", "٣", uuid.upper(), "x" * 36, str(2**64), 3], []),
        ("whole", [3.0, 2**64, 1e300, -1, 0.5, "3"], [(3,)]),
    ):
        there = QdrantSettings(url=server.url, grpc_port=server.grpc_port, prefix=f"{name}_")
        found = migrate.search(there, vector=[1], where={"id": {"in": given}}, table="c")
        assert sorted(h.key for h in found.hits) == keys
        for one in given if not keys else ():
            with pytest.raises(ConfigError, match="no row"):
                migrate.search(there, like=one, table="c")


@pytest.mark.parametrize("distance", ["EUCLID", "MANHATTAN", "DOT"])
def test_any_collection_is_searched_by_its_own_metric(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path, distance: str
) -> None:
    settings, _ = _collection(client, server, tmp_path, models.Distance[distance])
    store = open_searchable(settings)
    (mine,) = store.tables()
    asked = np.array([7, 1], np.float32)
    hits = store.search(mine, Query(Mode.VECTOR, asked, k=3)).hits
    assert hits[0].key == ((29,) if distance == "DOT" else (7,))
    assert hits[0].score == pytest.approx(7 * 29 + 1 if distance == "DOT" else 0)
    assert hits[1].score == pytest.approx(7 * 28 + 1 if distance == "DOT" else -1)
    assert hits[0].metadata["payload"]["n"] == hits[0].key[0]
    for given, n in (
        ({"n": {"lt": 5}}, 5),
        ({"d": True}, 15),
        ({"text": "word1"}, 10),
        ({"id": 3}, 1),
        ({"gone": None}, 30),
    ):
        where = bound_to(parse(given), mine.table)
        assert len(store.search(mine, Query(Mode.VECTOR, asked, k=30, where=where)).hits) == n, given
    assert store.vector_of(mine, (3,)) is not None
    with pytest.raises(KeyError):  # as a key is typed on a command line, where 3 is tried first
        store.vector_of(mine, ("3",))
    assert store.health(mine).problems == ()
    store.close()


def test_what_is_wrong_with_an_index_is_noticed(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, embedding BLOB)")
        db.executemany("INSERT INTO note VALUES (?, ?)", [(i, stores.vector(i + 1, 3)) for i in range(50)])
        db.commit()
    settings = address(server, tmp_path)
    assert api.migrate(tmp_path / "a.sqlite", settings).verified
    store = open_searchable(settings)
    (note,) = store.tables()
    assert store.health(note).problems == ()
    name = f"{settings.prefix}note"
    client.delete_collection(name)
    client.create_collection(
        name, vectors_config={"embedding": models.VectorParams(size=2, distance=models.Distance.EUCLID)}
    )
    assert store.health(note).problems == (
        "embedding is kept for Euclid, the vectors are compared by cosine",
    )
    store.close()


def test_many_points_without_an_index_or_half_indexed_are_noticed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, notes = _own(stand.store), stand.table("notes")
    info = store._info(store._spot(notes))
    hnsw = {**info.settings, "hnsw_config": {"m": 0}}
    for changed, problem in (
        (
            replace(info, points=20_000, settings=hnsw),
            "no vector index: each query compares all 20,000 vectors",
        ),
        (replace(info, points=20_000, indexed=400), "400 of 20,000 points are indexed"),
        (replace(info, status="yellow"), "the collection is yellow: its index is not finished"),
    ):
        monkeypatch.setattr(store, "_info", lambda spot, changed=changed: changed)
        assert store.health(notes).problems == (problem,)


def test_a_range_over_text_is_refused_before_anything_is_asked(stand: Stand) -> None:
    notes = stand.table("notes")
    where = bound_to(parse({"not": {"kind": {"gt": "a"}}}), notes.table)
    with pytest.raises(ConfigError, match="no ranges over text"):
        stand.store.search(notes, Query(Mode.VECTOR, np.ones(8, np.float32), where=where))


def test_tables_of_the_sidecar_are_searched_there_and_the_rest_as_before(tmp_path: Path) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    settings = QdrantSettings(path=tmp_path / "store", bm25="content")
    assert api.migrate(source, settings).verified
    here, there = open_searchable(settings), open_searchable(SqliteSettings(source), Means(hnsw=False))
    try:
        ours, theirs = ({s.name: s for s in store.tables()} for store in (here, there))
        assert set(ours) == set(theirs)
        asked = Query(Mode.KEYWORD, text="exports", k=1000)
        for name, how in (("messages", "FTS5"), ("memory_traces", "Qdrant BM25")):
            answer, before = here.search(ours[name], asked), there.search(theirs[name], asked)
            assert answer.how.startswith(how)
            assert {h.key for h in answer.hits} == {h.key for h in before.hits}
        assert here.texts(ours["messages"], 3, 1) == there.texts(theirs["messages"], 3, 1)
        traces = theirs["memory_traces"]
        key, vector = there.sample(traces, 1, 3)[0]
        where = bound_to(parse({"type": "episodic", "deleted": {"in": [0, False]}}), traces.table)
        near = Query(Mode.VECTOR, vector, k=10, where=where)
        mine, before = here.search(ours["memory_traces"], near), there.search(traces, near)
        assert [h.key for h in mine.hits] == [h.key for h in before.hits]
        assert [h.score for h in mine.hits] == pytest.approx([h.score for h in before.hits], abs=1e-5)
        assert [h.metadata for h in mine.hits] == [h.metadata for h in before.hits]
        assert here.vector_of(ours["memory_traces"], key) is not None
    finally:
        here.close()
        there.close()


def test_filters_find_cells_that_are_kept_in_the_sidecar(server: QdrantTestServer, tmp_path: Path) -> None:
    long, deep = "a" * (5 * 2**20), '{"n": 7, "deep": ' + "[" * 120 + "]" * 120 + "}"
    rows = [("large", long, deep), ("plain", "a", '{"n": 7}'), ("none", None, None)]
    cells = [(*row, stores.vector(1, i + 1)) for i, row in enumerate(rows)]
    ddl = "CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT, meta JSON, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, cells), address(server, tmp_path)
    assert api.migrate(source, there).verified
    for where, keys in (
        ({"body": long}, {"large"}),
        ({"body": {"nin": ["a"]}}, {"large", "none"}),
        ({"body": None}, {"none"}),
        ({"not": {"body": None}}, {"large", "plain"}),
        ({"meta.n": {"gt": 6}}, {"large", "plain"}),
        ({"meta.n": None}, {"none"}),
    ):
        for store in (source, there):
            found = migrate.search(store, vector=[1, 1], where=where, table="t")
            assert {h.key[0] for h in found.hits} == keys, (store, where)


def test_no_more_is_asked_for_than_strict_mode_allows(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, r REAL, body TEXT, embedding BLOB)"
    rows = [(i, i / 7, f"the violin of number {i}", stores.vector(1, i)) for i in range(40)]
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(server, tmp_path, bm25="body")
    assert api.migrate(source, there).verified
    limits = models.StrictModeConfig(
        enabled=True,
        max_query_limit=12,
        search_max_hnsw_ef=20,
        search_allow_exact=False,
        search_max_batchsize=1,
    )
    client.update_collection(f"{there.prefix}t", strict_mode_config=limits)
    for more in ({"vector": [1, 0]}, {"text": "violin"}, {"vector": [1, 0], "text": "violin"}):
        assert len(migrate.search(there, **more, k=10, table="t").hits) == 10
        with pytest.raises(ConfigError, match="tells 12 points a query") as raised:
            migrate.search(there, **more, k=13, table="t")
        assert "max_query_limit" in str(raised.value.hint)
    near = migrate.search(there, vector=[1, 0], where={"r": {"lt": 1}}, k=5, table="t")
    assert {h.key[0] for h in near.hits} == {0, 1, 2, 3, 4}
    with pytest.raises(ConfigError, match="allows no exact search"):
        migrate.search(there, vector=[1, 0], exact=True, table="t")
