"""Search in Postgres: the contract, and what is pgvector's and tsvector's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from integration.support.servers import Database, Postgres
from migrate import addresses, api
from migrate.schema import Metric
from migrate.search import open_searchable
from migrate.search.base import Answer, Mode, Query, Searchable
from migrate.search.filters import bound_to, parse
from migrate.search.postgres import session as session_module
from migrate.search.postgres import store as store_module
from migrate.search.postgres.where import Values
from migrate.search.postgres.where import where as translated
from tests.search.contract_search import CHECKS, Check, Stand, make


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[Database]:
    with postgres.database() as made:
        yield made


def opened(url: str) -> Searchable:
    return open_searchable(addresses.parse(url))


@pytest.fixture(scope="module", params=["jsonb", "text", "none"])
def stand(
    request: pytest.FixtureRequest, server: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """The contract's store: as `jsonb`, with JSON as text, and without indexes."""
    path, how = tmp_path_factory.mktemp("search") / "notes.sqlite", str(request.param)
    make(path)
    url = server.at(f"contract_{how}")
    json, index = ("text" if how == "text" else "jsonb"), ("none" if how == "none" else "auto")
    assert api.migrate(path, url, json=json, index=index).verified
    store = opened(url)
    yield Stand(store)
    store.close()
    store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_schema(stand: Stand, check: Check) -> None:
    check(stand)


# --- indexes are used ---------------------------------------------------------------------

_METRICS = {"cosine": Metric.COSINE, "l2": Metric.EUCLID, "ip": Metric.DOT, "l1": Metric.MANHATTAN}


def _filled(
    server: Database,
    schema: str,
    *,
    rows: int,
    dim: int,
    type_: str = "vector",
    index: str = "",
    extra: str = "",
) -> str:
    """Make a table that memlift did not make: unit-less random vectors, a tenth without one; return its URL."""
    server.run(
        f'CREATE SCHEMA "{schema}"',
        f'CREATE TABLE "{schema}".item (id int PRIMARY KEY, n int NOT NULL, content text, metadata jsonb,'
        f" embedding public.{type_}({dim}))",
        "SELECT setseed(0.5)",
        f"INSERT INTO \"{schema}\".item SELECT i, i % 100, 'item ' || i, jsonb_build_object('n', i % 100),"
        f" CASE WHEN i % 10 > 0 THEN (SELECT array_agg(sin(i * 12.9898 + j * 78.233) * 3 + cos(i * j))"
        f" FROM generate_series(1, {dim}) j)::public.{type_}({dim}) END FROM generate_series(1, {rows}) i",
        *([f'CREATE INDEX item_vectors ON "{schema}".item USING {index}'] if index else []),
        *([extra] if extra else []),
        f'ANALYZE "{schema}".item',
    )
    return server.at(schema)


def _explained(store: Searchable, query: Query) -> tuple[Answer, str]:
    """Answer a query, and return the plans that its statements had."""
    plans: list[str] = []
    run = session_module.Reading.__call__

    def explaining(self: Any, sql: str, bound: Any) -> Any:
        with psycopg.RawCursor(self.connection) as cursor:
            plans.extend(line for (line,) in cursor.execute(f"EXPLAIN {sql}".encode(), bound))
        return run(self, sql, bound)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module.Reading, "__call__", explaining)
        answer = store.search(store.tables()[0], query)
    return answer, "\n".join(plans)


def _truth(store: Searchable, query: Query, metric: Metric) -> dict[Any, float]:
    """Return all scores by key, computed here."""
    asked = np.asarray(query.vector, np.float64)
    found = {}
    for key, vector in store.sample(store.tables()[0], 10**6, 1):
        v = vector.astype(np.float64)
        match metric:
            case Metric.COSINE:
                found[key] = float(v @ asked / np.linalg.norm(v) / np.linalg.norm(asked))
            case Metric.DOT:
                found[key] = float(v @ asked)
            case Metric.EUCLID:
                found[key] = -float(np.linalg.norm(v - asked))
            case Metric.MANHATTAN:
                found[key] = -float(np.abs(v - asked).sum())
    return found


@pytest.mark.parametrize(
    ("word", "type_", "dim"),
    [*((word, "vector", 12) for word in _METRICS), ("cosine", "halfvec", 12), ("l2", "halfvec", 12)],
)
def test_the_metric_of_the_index_is_asked_of_it(server: Database, word: str, type_: str, dim: int) -> None:
    index = f"hnsw (embedding public.{type_}_{word}_ops)"
    url = _filled(server, f"m_{word}_{type_}", rows=2000, dim=dim, type_=type_, index=index)
    store = opened(url)
    try:
        (item,) = store.tables()
        assert item.metric is _METRICS[word]
        asked = np.linspace(-1, 2, dim, dtype=np.float32)
        answer, plan = _explained(store, Query(Mode.VECTOR, asked, k=10))
        assert "Index Scan using item_vectors" in plan
        assert answer.how == "pgvector HNSW"
        truth = _truth(store, Query(Mode.VECTOR, asked), item.metric)
        best = sorted(truth, key=lambda key: -truth[key])[:10]
        assert len({h.key for h in answer.hits} & set(best)) >= 9
        assert [h.score for h in answer.hits] == pytest.approx(
            [truth[h.key] for h in answer.hits], rel=1e-4, abs=1e-5
        )
        exact, plan = _explained(store, Query(Mode.VECTOR, asked, k=10, exact=True))
        assert "item_vectors" not in plan
        assert [h.key for h in exact.hits] == best
        assert store.health(item).problems == ()
    finally:
        store.close()


def test_over_2000_dimensions_the_index_on_a_half_cast_is_used_and_scores_are_exact(
    server: Database, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(400, 2200)).astype("<f4")
    vectors[7] = vectors[3] * np.float32(1.00001) + random.normal(size=2200).astype("<f4") * np.float32(1e-5)
    with closing(sqlite3.connect(tmp_path / "wide.sqlite")) as db:
        db.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, body TEXT, embedding BLOB)")
        db.executemany(
            "INSERT INTO page VALUES (?, ?, ?)",
            [(i, f"page {i}", v.tobytes()) for i, v in enumerate(vectors)],
        )
        db.commit()
    assert api.migrate(tmp_path / "wide.sqlite", server.at("wide")).verified
    store = opened(server.at("wide"))
    try:
        asked = vectors[3]
        answer, plan = _explained(store, Query(Mode.VECTOR, asked, k=5))
        assert "page_embedding_hnsw" in plan, plan
        truth = _truth(store, Query(Mode.VECTOR, asked), Metric.COSINE)
        assert [h.key for h in answer.hits[:2]] == [(3,), (7,)]  # 1e-10 apart: float16 cannot tell them
        assert [h.score for h in answer.hits] == pytest.approx([truth[h.key] for h in answer.hits], abs=1e-6)
    finally:
        store.close()


def test_a_filter_never_costs_hits_that_there_are(server: Database) -> None:
    store = opened(
        _filled(server, "filtered", rows=5000, dim=8, index="hnsw (embedding public.vector_cosine_ops)")
    )
    try:
        (item,) = store.tables()
        asked = np.ones(8, np.float32)
        for given, n in (
            ({"n": 7}, 50),
            ({"metadata.n": 7}, 50),
            ({"id": {"lte": 3}}, 3),
            ({"metadata.n": {"gte": 50}}, 2250),
        ):
            where = bound_to(parse(given), item.table)
            for k in (10, 40, 2000):
                query = Query(Mode.VECTOR, asked, k=k, where=where, rows=False)
                assert len(store.search(item, query).hits) == min(k, n), (given, k)
        iterative, plan = _explained(
            store,
            Query(Mode.VECTOR, asked, k=10, where=bound_to(parse({"metadata.n": {"gte": 50}}), item.table)),
        )
        assert "Index Scan using item_vectors" in plan
        assert iterative.how == "pgvector HNSW"
    finally:
        store.close()


def test_an_older_pgvector_without_iterative_scans_still_finds_all(
    server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(
        _filled(server, "older", rows=4000, dim=8, index="hnsw (embedding public.vector_cosine_ops)")
    )
    try:
        assert isinstance(store, store_module.PostgresSearch)
        monkeypatch.setattr(store, "_server", replace(store._server, vector_version=(0, 7, 4)))
        (item,) = store.tables()
        where = bound_to(parse({"metadata.n": {"lt": 2}}), item.table)
        hits = store.search(item, Query(Mode.VECTOR, np.ones(8, np.float32), k=30, where=where)).hits
        assert len(hits) == 30
    finally:
        store.close()


def test_words_and_json_are_found_through_gin(server: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "many.sqlite")) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, content TEXT, metadata JSON)")
        db.executemany(
            "INSERT INTO note VALUES (?, ?, ?)",
            [(i, f"the word{i % 500} of {i % 7}", json.dumps({"user": {"n": i % 500}})) for i in range(5000)],
        )
        db.commit()
    assert api.migrate(tmp_path / "many.sqlite", server.at("many")).verified
    store = opened(server.at("many"))
    try:
        (note,) = store.tables()
        answer, plan = _explained(store, Query(Mode.KEYWORD, text="the word17"))
        assert "note_words_gin" in plan
        assert answer.how == "tsvector, GIN"
        assert {h.key[0] % 500 for h in answer.hits} == {17}
        where = bound_to(parse({"user.n": 17}), note.table)
        answer, plan = _explained(store, Query(Mode.KEYWORD, text="word17 word18", where=where))
        assert len(answer.hits) == 10
        condition = "note_metadata_gin"
        with server.connect() as db:
            db.execute("SET enable_seqscan = off")
            values = Values()
            relation = store._relations["note"]  # type: ignore[attr-defined]
            sql = f"EXPLAIN SELECT 1 FROM many.note t WHERE {translated(where, relation.columns, values, 180000)}"
            with psycopg.RawCursor(db) as cursor:
                assert condition in "\n".join(line for (line,) in cursor.execute(sql.encode(), values.bound))
    finally:
        store.close()


def test_a_hybrid_query_is_one_statement(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    run = session_module.Reading.__call__

    def counting(self: Any, sql: str, bound: Any) -> Any:
        asked.append(sql)
        return run(self, sql, bound)

    monkeypatch.setattr(session_module.Reading, "__call__", counting)
    query = Query(Mode.HYBRID, np.ones(8, np.float32), "violin", k=3, exact=True)
    assert len(stand.store.search(stand.table("notes"), query).hits) == 3
    assert len(asked) == 2  # and one for the rows of the hits
