"""One question to a store of several tables: which are asked, how, and what comes back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import migrate
from migrate.errors import ConfigError
from migrate.search.base import Answer, Hit, Means, Mode, Query, Searched
from migrate.search.filters import All, Equals, Field, parse
from migrate.search.question import KEYWORDS_INSTEAD, Question, effective, merged
from migrate.search.service import Search

BRAIN = Path(__file__).parents[2] / "migrate" / "samples" / "brain.sqlite"


def _f32(*numbers: float) -> bytes:
    return np.array([*numbers, *[0.0] * (17 - len(numbers))], "<f4").tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "store.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE notes (
              tenant_id TEXT, id TEXT, content TEXT, page INTEGER, embedding BLOB, PRIMARY KEY (tenant_id, id)
            );
            CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, embedding BLOB);
            CREATE TABLE wide (id INTEGER PRIMARY KEY, title TEXT, embedding BLOB);
            CREATE TABLE talks (id INTEGER PRIMARY KEY, content TEXT);
            CREATE TABLE bare (id TEXT PRIMARY KEY, number INTEGER);
            """
        )
        notes = [
            ("north", "a", "honey and wine", 1, _f32(1, 0.1)),
            ("north", "b", "wine", 2, _f32(0.9, 0.5)),
            ("south", "b", "salt and honey", 3, _f32(0, 1)),
            ("south", "c", "nothing", 4, None),
        ]
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", notes)
        connection.executemany(
            "INSERT INTO books VALUES (?, ?, ?)",
            [(1, "On honey", _f32(1)), (2, "On salt", _f32(0, 0, 1)), (3, "On bread", _f32(0.5, 0.5))],
        )
        connection.executemany(
            "INSERT INTO wide VALUES (?, ?, ?)",
            [(i, "wide", np.arange(i, i + 20).astype("<f4").tobytes()) for i in range(1, 4)],
        )
        connection.execute("INSERT INTO talks VALUES (1, 'talk of honey')")
        connection.commit()
    return path


@pytest.fixture
def store(path: Path) -> Iterator[Search]:
    with migrate.open_search(path, means=Means(hnsw=False)) as opened:
        yield opened


def _asked(*numbers: float) -> list[float]:
    return [*numbers, *[0.0] * (17 - len(numbers))]


def _places(hits: Sequence[Hit]) -> list[tuple[str, Any]]:
    return [(h.table, h.key[-1]) for h in hits]


def test_tables_of_one_metric_are_merged_by_score(store: Search) -> None:
    found = store.search(vector=_asked(1), k=4)
    assert found.mode is Mode.VECTOR
    assert _places(found.hits) == [("books", 1), ("notes", "a"), ("notes", "b"), ("books", 3)]
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)
    assert set(found.how) == {"notes", "books"}
    assert any("wide.embedding has 20 dimensions, the question 17" in note for note in found.notes)


def test_words_of_several_tables_are_merged_by_rank(store: Search) -> None:
    found = store.search("honey", mode="keyword")
    assert set(_places(found.hits)) == {("notes", "a"), ("notes", "b"), ("books", 1), ("talks", 1)}
    assert [h.score for h in found.hits] == [1 / 61, 1 / 61, 1 / 61, 1 / 62]
    assert any("merged by rank" in note for note in found.notes)


def test_a_text_without_an_embedder_is_searched_by_words_and_that_is_said(store: Search) -> None:
    found = store.search("honey", table="notes")
    assert found.mode is Mode.KEYWORD
    assert found.notes == (KEYWORDS_INSTEAD,)
    assert KEYWORDS_INSTEAD not in store.search("honey", table="notes", mode="keyword").notes


def test_with_an_embedder_a_text_is_searched_by_both(path: Path) -> None:
    asked: list[list[str]] = []

    def embedder(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [_asked(0, 1) for _ in texts]

    with migrate.open_search(path, embedder=embedder, means=Means(hnsw=False)) as opened:
        found = opened.search("honey", table="notes")
        assert found.mode is Mode.HYBRID
        assert found.hits[0].key == ("south", "b")
        assert opened.search("honey", mode="vector", table=["notes"]).hits[0].key == ("south", "b")
        assert opened.search("honey", mode="keyword").mode is Mode.KEYWORD
    assert asked == [["honey"], ["honey"]]


def test_an_embedder_of_other_dimensions_is_one_clear_error(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"notes\.embedding has 17 dimensions, the question 3"):
        migrate.search(path, "honey", embedder=lambda texts: [[1, 2, 3]], table="notes")
    with pytest.raises(ConfigError, match="no table can be asked this") as told:
        migrate.search(path, vector=[1.0, 2.0])
    assert "17 dimensions" in str(told.value)
    assert "20 dimensions" in str(told.value)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "nothing is asked"),
        ({"text": "a", "mode": "near"}, "mode cannot be 'near'"),
        ({"text": "a", "mode": "vector"}, "there is no embedder"),
        ({"text": "a", "mode": "hybrid"}, "there is no embedder"),
        ({"vector": [1.0], "mode": "keyword"}, "keyword mode needs a text"),
        ({"vector": [1.0], "mode": "hybrid"}, "hybrid mode needs a text"),
        ({"text": "a", "k": 0}, "0 is no number of hits"),
        ({"text": "a", "k": True}, "True is no number"),
        ({"text": "a", "table": "nope"}, "no table nope"),
        ({"text": "a", "table": "bare"}, "no table bare"),
        ({"vector": ["x"]}, "no list of numbers"),
        ({"vector": [[1.0]]}, "no list of finite numbers"),
        ({"vector": [float("inf")]}, "no list of finite numbers"),
        ({"vector": [1.0], "like": "a"}, "two questions"),
        ({"text": "a", "table": "books", "tenant": "north"}, "books has no column that names a tenant"),
        ({"text": "a", "where": {"nowhere": 1}}, "no table can be asked this"),
        ({"text": "a", "where": {"nowhere": 1}, "table": "books"}, "books has no column nowhere"),
        ({"text": "a", "table": "wide", "mode": "keyword", "where": "{"}, "no JSON"),
        ({"vector": [1.0], "table": "talks"}, "talks has no vectors"),
        ({"like": "nobody"}, "no row with a vector is called nobody"),
        ({"like": "c"}, "no row with a vector is called c"),
        ({"like": ("south", "c")}, "the row south, c has no vector"),
        ({"like": "b"}, "b names several rows: notes"),
    ],
)
def test_what_cannot_be_asked_is_refused(store: Search, question: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.search(**question)


def test_a_filter_leaves_out_the_tables_it_does_not_fit(store: Search) -> None:
    found = store.search("honey", where={"page": {"lt": 3}})
    assert _places(found.hits) == [("notes", "a")]
    assert {n for n in found.notes if n.startswith("not searched")} == {
        "not searched: books has no column page",
        "not searched: wide has no column page",
        "not searched: talks has no column page",
    }


def test_a_table_that_its_store_cannot_ask_keeps_no_other_from_answering(
    store: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.store.search

    def picky(searched: Searched, query: Query) -> Answer:
        if searched.name == "notes":
            raise ConfigError("the index of notes has no words to search")
        return real(searched, query)

    monkeypatch.setattr(store.store, "search", picky)
    found = store.search("honey", mode="keyword")
    assert {h.table for h in found.hits} == {"books", "talks"}
    assert "not searched: the index of notes has no words to search" in found.notes
    assert "notes" not in found.how
    with pytest.raises(ConfigError, match="no words to search"):
        store.search("honey", mode="keyword", table=["notes", "books"])


def test_a_tenant_leaves_out_the_tables_without_tenants(store: Search) -> None:
    assert _places(store.search("honey", tenant="south").hits) == [("notes", "b")]


def test_a_tenant_that_is_a_number_is_named_by_it_or_by_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (id TEXT PRIMARY KEY, user_id INTEGER, content TEXT)")
        connection.execute("INSERT INTO notes VALUES ('a', 5, 'honey'), ('b', 6, 'honey')")
        connection.execute("CREATE TABLE edges (user_id INTEGER, source_id TEXT, target_id TEXT)")
        connection.execute("INSERT INTO edges VALUES (5, 'x', 'y'), (6, 'x', 'z')")
        connection.commit()
    with migrate.open_search(path) as store:
        for tenant in (5, "5"):
            assert _places(store.search("honey", tenant=tenant).hits) == [("notes", "a")]
            assert [e.target for e in store.neighbours("x", tenant=tenant)] == ["y"]
            assert [len(p) for p in store.paths("x", "y", tenant=tenant)] == [1]


def test_any_number_of_hits_may_be_asked_for(store: Search) -> None:
    for question in ({"text": "honey"}, {"like": "a", "table": "notes"}):
        few, all_there_are = (store.search(**question, k=k) for k in (50, 10**30))
        assert _places(all_there_are.hits) == _places(few.hits)


@pytest.mark.parametrize(
    ("like", "more"),
    [
        ("a", {}),
        (("north", "a"), {}),
        ('["north", "a"]', {}),
        ("b", {"tenant": "north"}),
    ],
)
def test_like_a_row_finds_its_neighbours_and_not_itself(
    store: Search, like: Any, more: dict[str, Any]
) -> None:
    found = store.search(like=like, k=3, **more)
    own = ("notes", "b") if like == "b" else ("notes", "a")
    assert own not in _places(found.hits)
    assert len(found.hits) == (1 if more else 3)


def test_a_number_on_the_command_line_is_a_number_in_the_key(store: Search) -> None:
    assert _places(store.search(like="1", table="books").hits) == [("books", 3), ("books", 2)]
    assert _places(store.search(like=1, table="books").hits) == [("books", 3), ("books", 2)]


def test_the_document_is_that_of_the_public_contract(store: Search) -> None:
    found = store.search(vector=_asked(1), table="notes", k=1).to_dict()
    assert json.loads(json.dumps(found)) == {
        "mode": "vector",
        "hits": [
            {
                "table": "notes",
                "key": ["north", "a"],
                "score": pytest.approx(0.995, abs=1e-3),
                "text": "honey and wine",
                "metadata": {"page": 1},
            }
        ],
        "how": {"notes": "every vector"},
        "notes": ["notes: not compared: 1 without a vector"],
    }


def test_metrics_that_differ_are_merged_by_rank() -> None:
    from migrate.schema import Column, Kind, Metric, Table

    def searched(name: str, metric: Metric) -> Searched:
        column = Column("v", Kind.VECTOR, dim=2, metric=metric)
        return Searched(Table(name, (Column("id", Kind.TEXT), column), ("id",)), column)

    near = Answer((Hit("a", ("x",), 0.9), Hit("a", ("y",), 0.8)), "a")
    far = Answer((Hit("b", ("z",), -100.0),), "b")
    answers = [(searched("a", Metric.COSINE), near), (searched("b", Metric.EUCLID), far)]
    question = Question(Mode.VECTOR, None, np.ones(2, np.float32), 2, None, None, False, ())
    hits, notes = merged(answers, question)
    assert [(h.table, h.key, h.score) for h in hits] == [("a", ("x",), 1 / 61), ("b", ("z",), 1 / 61)]
    assert "merged by rank" in notes[0]


def test_what_an_agent_has_forgotten_is_not_found_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "brain.sqlite"
    path.write_bytes(BRAIN.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT id, content FROM memory_traces WHERE deleted = 0 LIMIT 1").fetchone()
        connection.execute("UPDATE memory_traces SET deleted = 1 WHERE id = ?", row[:1])
        connection.commit()
    with migrate.open_search(path) as store:
        found = store.search(row[1], table="memory_traces", k=500)
        assert row[0] not in {h.key[1] for h in found.hits}
        forgotten = store.search(row[1], table="memory_traces", k=500, where={"deleted": 1})
        assert row[0] in {h.key[1] for h in forgotten.hits}
        traces = next(s for s in store.tables() if s.name == "memory_traces")
    where = parse({"type": "episodic"})
    assert effective(traces, where) == All((Equals(Field("deleted"), (0, False)), where))


def test_the_package_can_be_called(path: Path) -> None:
    assert migrate.search(path, "honey", table="talks").hits[0].text == "talk of honey"
    import_module("migrate.search.fuse")  # makes `migrate.search` the package, if it was not before
    assert migrate.search(path, "honey", table="talks").hits[0].key == (1,)


def test_importing_the_package_of_search_imports_no_driver() -> None:
    heavy = ["numpy", "psycopg", "qdrant_client", "hnswlib", "pinecone"]
    program = (
        f"import sys, migrate.search; print([m for m in {heavy!r} if m in sys.modules and m != 'numpy'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_that_cannot_be_searched_is_named() -> None:
    with pytest.raises(ConfigError, match="memory:x cannot be searched"):
        migrate.open_search("memory:x")


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot open"):
        migrate.open_search(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_tiers_are_asked_for_one_more_row_where_one_is_left_out(
    store: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}
    search = store.store.search

    def watching(searched: Searched, query: Query) -> Answer:
        asked[searched.name] = query.k
        return search(searched, query)

    monkeypatch.setattr(store.store, "search", watching)
    store.search(like=("north", "a"), k=2)
    assert asked == {"notes": 3, "books": 2}
