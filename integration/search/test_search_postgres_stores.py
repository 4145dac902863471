"""Search in Postgres stores as they are met: through a pooler, with odd names, half-built, AgentOS's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psycopg
import pytest

import migrate
from integration.agentos import pgdumps
from integration.support import stores
from integration.support.pooler import pooled
from integration.support.servers import Database, Postgres
from migrate import addresses, api
from migrate.backends.memory import Memory
from migrate.errors import ConfigError, TransientError
from migrate.schema import Column, Kind, Metric, Table
from migrate.search import open_searchable
from migrate.search.base import Mode, Query, Searchable
from migrate.search.filters import bound_to, parse
from migrate.search.postgres.store import PostgresSearch
from migrate.vectors import pack_sparse
from tests.search.contract_search import CHECKS, Stand, make

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "agentos"


def opened(url: str) -> PostgresSearch:
    store = open_searchable(addresses.parse(url))
    assert isinstance(store, PostgresSearch)
    return store


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[Database]:
    with postgres.database() as made:
        yield made


def test_the_contract_is_kept_through_a_pooler_and_nothing_leaks(database: Database, tmp_path: Path) -> None:
    make(tmp_path / "a.sqlite")
    with pooled(database, tmp_path / "pooler", size=1) as behind:
        assert api.migrate(tmp_path / "a.sqlite", behind.at("store")).verified
        store = opened(behind.at("store"))
        with psycopg.connect(behind.url, prepare_threshold=None, autocommit=True) as other:
            asked = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' AND name !~ '^(hnsw|ivfflat)'"
            before = other.execute(asked).fetchall()
            for check in CHECKS:
                check(Stand(store))
            assert other.execute(asked).fetchall() == before
            assert other.execute("SELECT current_setting('hnsw.ef_search', true)").fetchone() in (
                ("40",),
                (None,),
            )
        store.close()


def test_names_and_extensions_may_be_anything(bare_database: Database, tmp_path: Path) -> None:
    bare_database.run('CREATE SCHEMA "Ext ""1"""', 'CREATE EXTENSION vector SCHEMA "Ext ""1"""')
    path, odd = tmp_path / "odd.sqlite", 'Odd "t" %s $1'
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            """CREATE TABLE "Odd ""t"" %s $1" ("k ""1"" %" TEXT PRIMARY KEY NOT NULL, "select" INTEGER, content TEXT,
               "%s" JSON, ctid INTEGER, "Vec ""%s"" embedding" BLOB)"""
        )
        rows = [
            (f"k{i}", i, f"word{i} said", json.dumps({"%s": i, '"q"': i % 2}), i, stores.vector(i + 1, 1, 2))
            for i in range(300)
        ]
        db.executemany(f"INSERT INTO {comparing_ident(odd)} VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.commit()
    url = f"{bare_database.url}?schema={quote('My %s Schema')}"
    assert api.migrate(path, url, on_misfit="quarantine").verified  # `ctid` gets another name
    store = opened(url)
    (table,) = store.tables()
    assert table.name == odd
    vector = np.array([8, 1, 2], np.float32)
    for given in ({"select": 7}, {'"%s"."%s"': 7}, {"ctid": 7}):
        query = Query(Mode.HYBRID, vector, "word7", where=bound_to(parse(given), table.table))
        (hit,) = store.search(table, query).hits
        assert hit.key == ("k7",)
        assert hit.metadata == {"select": 7, "%s": {"%s": 7, '"q"': 1}, "ctid": 7}
    assert store.search(table, Query(Mode.VECTOR, vector, k=1)).hits[0].key == ("k7",)
    assert store.vector_of(table, ("k7",)) is not None
    assert store.health(table).problems == ()
    store.close()


def comparing_ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- what a check of a migrated store must notice ------------------------------------------


def _items(server: Database, schema: str, *statements: str) -> str:
    server.run(
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.item (id int PRIMARY KEY, content text, embedding public.vector(2))",
        f"INSERT INTO {schema}.item SELECT i, 'item', ARRAY[i, 1]::public.vector(2) FROM generate_series(1, 50) i",
        *statements,
    )
    return server.at(schema)


def _problems(store: PostgresSearch) -> tuple[str, ...]:
    return store.health(store.tables()[0]).problems


def test_an_index_of_another_metric_is_noticed_and_not_used(server: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, content TEXT, embedding BLOB)")
        vectors = [(i, "note", stores.vector(i + 1, 3 - i % 5)) for i in range(40)]
        db.executemany("INSERT INTO note VALUES (?, ?, ?)", vectors)
        db.commit()
    assert api.migrate(tmp_path / "a.sqlite", server.at("wrong")).verified
    store = opened(server.at("wrong"))
    assert store.health(store.tables()[0]).metric is Metric.COSINE
    assert _problems(store) == ()
    server.run(
        "DROP INDEX wrong.note_embedding_hnsw",
        "CREATE INDEX note_embedding_hnsw ON wrong.note USING hnsw (embedding public.vector_l2_ops)",
    )
    assert _problems(store) == (
        "note_embedding_hnsw is built for euclid, the vectors are compared by cosine",
    )
    fresh = opened(server.at("wrong"))
    asked = np.array([1, 2], np.float32)
    answer = fresh.search(fresh.tables()[0], Query(Mode.VECTOR, asked, k=5))
    assert answer.how == "pgvector, every vector"
    assert answer.hits == fresh.search(fresh.tables()[0], Query(Mode.VECTOR, asked, k=5, exact=True)).hits
    store.close()
    fresh.close()


def test_an_index_that_was_never_finished_is_noticed(server: Database) -> None:
    index = "CREATE INDEX item_vectors ON half.item USING hnsw (embedding public.vector_cosine_ops)"
    broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half.item_vectors'::regclass"
    store = opened(_items(server, "half", index, broken))
    assert [p for p in _problems(store) if "half built" in p]
    asked = np.array([3, 1], np.float32)
    assert store.search(store.tables()[0], Query(Mode.VECTOR, asked, k=3)).how == "pgvector, every vector"
    server.run("UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'half.item_vectors'::regclass")
    assert _problems(store) == ()
    store.close()


def test_an_index_over_some_rows_is_noticed_and_not_used(server: Database) -> None:
    index = "CREATE INDEX some_rows ON partial.item USING hnsw (embedding public.vector_l2_ops) WHERE id < 10"
    store = opened(_items(server, "partial", index))
    assert _problems(store) == ("some_rows has only some of the rows",)
    hits = store.search(store.tables()[0], Query(Mode.VECTOR, np.array([40, 1], np.float32), k=1)).hits
    assert hits[0].key == (40,)
    store.close()


def test_a_lack_of_an_index_is_noticed_where_it_matters(server: Database) -> None:
    more = "INSERT INTO lacking.item SELECT i, '', ARRAY[i, 1]::public.vector(2) FROM generate_series(51, 10050) i"
    store = opened(_items(server, "lacking", more, "ANALYZE lacking.item"))
    assert _problems(store) == ("no vector index: each query compares all 10,050 vectors",)
    answer = store.search(store.tables()[0], Query(Mode.VECTOR, np.array([7, 1], np.float32), k=1))
    assert answer.notes == ("no vector index for cosine: every vector was compared",)
    store.close()


# --- connections, rows, and what is derived ---------------------------------------------------


def test_a_lost_connection_is_told_once_and_opened_again(server: Database) -> None:
    store = opened(_items(server, "lost"))
    query = Query(Mode.VECTOR, np.array([7, 1], np.float32), k=1)
    server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'memlift' AND datname = current_database()"
    )
    with pytest.raises(TransientError):
        store.search(store.tables()[0], query)
    assert store.search(store.tables()[0], query).hits
    store.close()


def test_a_query_that_fits_no_vector_is_refused(server: Database) -> None:
    store = opened(_items(server, "refused"))
    (item,) = store.tables()
    for vector in (None, np.ones(3, np.float32), np.array([1, np.nan], np.float32), np.zeros(2, np.float32)):
        with pytest.raises(ConfigError):
            store.search(item, Query(Mode.VECTOR, vector, k=1))
    store.close()


def test_exact_cells_come_back_in_hits(server: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, content TEXT, extra TEXT, embedding BLOB)")
        db.executemany(
            "INSERT INTO note VALUES (?, ?, ?, ?)",
            [(i, f"note {i}", "a\0b" if i == 3 else "plain", stores.vector(i, 1)) for i in range(9)],
        )
        db.commit()
    assert api.migrate(tmp_path / "a.sqlite", server.at("exact"), on_misfit="quarantine").verified
    store = opened(server.at("exact"))
    (note,) = store.tables()
    hits = store.search(note, Query(Mode.VECTOR, np.array([3, 1], np.float32), k=9)).hits
    assert {h.key[0]: h.metadata["extra"] for h in hits} == {
        i: "a\0b" if i == 3 else "plain" for i in range(9)
    }
    store.close()


def test_what_is_built_for_searches_is_derived_and_can_be_left_out(server: Database, tmp_path: Path) -> None:
    source, back = stores.brain(tmp_path / "a.sqlite"), tmp_path / "b.sqlite"

    def gin(schema: str) -> set[str]:
        sql = (
            f"SELECT indexname FROM pg_indexes WHERE schemaname = '{schema}' AND indexdef LIKE '%USING gin%'"
        )
        return {name for (name,) in server.run(sql)}

    assert api.migrate(source, server.at("plain"), index="none").verified
    assert gin("plain") == set()
    assert api.migrate(source, server.at("built")).verified
    built = gin("built")
    assert {"memory_traces_words_gin", "memory_traces_metadata_gin", "messages_words_gin"} <= built
    assert api.migrate(source, server.at("built")).verified
    assert gin("built") == built
    assert api.migrate(server.at("built"), back).verified
    assert api.verify(source, back).verified
    with closing(sqlite3.connect(back)) as db, closing(sqlite3.connect(source)) as first:
        names = (
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND name NOT LIKE '%memlift%' ORDER BY name"
        )
        assert db.execute(names).fetchall() == first.execute(names).fetchall()
    assert api.undo(server.at("built"))
    assert server.run("SELECT 1 FROM pg_indexes WHERE schemaname = 'built'") == []


def test_long_texts_can_still_be_written_where_words_are_indexed(server: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, content TEXT)")
        db.execute("INSERT INTO note VALUES (1, ?)", (" ".join(f"w{i}é" for i in range(400_000)),))
        db.commit()
    assert api.migrate(tmp_path / "a.sqlite", server.at("long")).verified
    long = "(SELECT string_agg(md5(i::text), ' ') FROM generate_series(1, 100000) i)"
    server.run(f"INSERT INTO long.note VALUES (2, {long})")
    store = opened(server.at("long"))
    hits = store.search(store.tables()[0], Query(Mode.KEYWORD, text="w17é")).hits
    assert [h.key for h in hits] == [(1,)]
    store.close()


# --- AgentOS ---------------------------------------------------------------------------------


def test_a_brain_that_agentos_keeps_in_postgres_is_searched_as_it_is(database: Database) -> None:
    pgdumps.load(database.url, FIXTURES / "postgres-brain.sql")
    store = opened(database.url)
    traces = {s.name: s for s in store.tables()}["memory_traces"]
    key, vector = store.sample(traces, 1, 5)[0]
    near = store.search(traces, Query(Mode.VECTOR, vector, k=3))
    assert near.how == "every vector, read from the server"  # AgentOS keeps them as bytea
    assert near.hits[0].key == key
    assert near.hits[0].score == pytest.approx(1, abs=1e-6)
    told = store.search(traces, Query(Mode.KEYWORD, text="scheduling exports"))  # stemmed by AgentOS
    assert told.how == "tsvector, GIN"
    assert all("schedule" in str(h.text) or "export" in str(h.text) for h in told.hits)
    assert told.hits
    both = store.search(traces, Query(Mode.HYBRID, vector, "exports", k=3, tenant="pg-agent"))
    assert both.hits
    assert store.vector_of(traces, key) is not None
    where = bound_to(parse({"metadata.decay.stability": {"gt": 0}, "tags": "pg"}), traces.table)
    assert store.search(traces, Query(Mode.VECTOR, vector, k=3, where=where)).hits == near.hits
    store.close()


def test_a_vector_store_of_agentos_is_searched_through_its_own_indexes(database: Database) -> None:
    pgdumps.load(database.url, FIXTURES / "postgres-vector-store.sql")
    store: Searchable = opened(database.url)
    docs = {s.name: s for s in store.tables()}["tenant1_docs"]
    key, vector = store.sample(docs, 1, 5)[0]
    answer = store.search(docs, Query(Mode.VECTOR, vector, k=3))
    assert (answer.how, answer.hits[0].key) == ("pgvector HNSW", key)
    text = store.texts(docs, 1, 1)[0][1]
    told = store.search(docs, Query(Mode.KEYWORD, text=text, k=1))
    assert (told.how, told.hits[0].text) == ("tsvector, GIN", text)
    assert store.health({s.name: s for s in store.tables()}["l2"]).metric is Metric.EUCLID
    store.close()


@pytest.mark.parametrize(
    ("declared", "cells", "weights"),
    [
        (
            "text",
            ["'0.25'", "'-1e-2'", "'high'", "''", "'1e999'", "'3.'", "NULL"],
            [0.25, -0.01, None, None, None, 3.0, None],
        ),
        ("numeric(5, 2)", ["1.50"], [1.5]),
        ("real", ["0.5"], [0.5]),
        ("smallint", ["2"], [2.0]),
        ("boolean", ["true"], [None]),
        ("jsonb", ["'0.5'", """'"high"'"""], [0.5, None]),
    ],
)
def test_a_weight_of_an_edge_is_a_number_or_none(
    server: Database, declared: str, cells: list[str], weights: list[float | None]
) -> None:
    server.run(
        "DROP SCHEMA IF EXISTS g CASCADE",
        "CREATE SCHEMA g",
        f"CREATE TABLE g.edges (id int PRIMARY KEY, source_id text, target_id text, confidence {declared})",
        *(f"INSERT INTO g.edges VALUES ({i}, 'a', 'n{i}', {cell})" for i, cell in enumerate(cells)),
    )
    store = opened(server.at("g"))
    assert [e.weight for e in store.neighbours("a")] == weights
    assert [p[0].weight for n in range(len(cells)) for p in store.paths("a", f"n{n}")] == weights
    store.close()


def test_sparse_vectors_are_told_of_and_not_compared(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    columns = (Column("id", Kind.INTEGER, nullable=False), Column("terms", Kind.SPARSE, dim=9))
    shelf = Memory("sparse").shelf
    shelf.tables["alone"] = Table("alone", columns, ("id",))
    shelf.rows["alone"] = [(i, pack_sparse([i, 8], [1, 0.5], 9)) for i in range(1, 6)]
    assert api.migrate("memory:sparse", database.at("store")).verified
    report = api.migrate(database.at("store"), tmp_path / "store.sqlite", check_search=True)
    assert report.search is not None
    assert [t["notes"] for t in report.search["tables"]] == [("sparse vectors are not compared: terms",)]
    with migrate.open_search(database.at("store")) as store:
        for question in ({"vector": {"indices": [8], "values": [1]}}, {"like": 3}, {"vector": [1.0] * 9}):
            with pytest.raises(ConfigError, match="sparse vectors"):
                store.search(**question)
