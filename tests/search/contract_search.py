"""What every store keeps that can be searched: functions of a `Stand`, run on every tier.

A tier's test makes the source (`make`), moves it into its store, opens that as
a `Searchable`, and runs every function of `CHECKS`. Truth is computed here, from
the rows as they were written.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.errors import ConfigError
from migrate.search.base import (
    MOST_HITS,
    RRF_K,
    Direction,
    Graph,
    Hit,
    Key,
    Mode,
    Query,
    Searchable,
    Searched,
    Vector,
)
from migrate.search.filters import Filter, bound_to, holds, parse
from migrate.search.fuse import depth

DIM = 8
ROWS = 60
_WORDS = ("kestrel", "lighthouse", "marzipan", "gearbox", "violin", "harbour", "tundra", "pepper")
_PEOPLE = ("Ada", "Bob", "Zoë")


@dataclass(frozen=True, slots=True)
class Stand:
    """A store to be checked, holding what `make` writes.

    without: abilities that it lacks, so that they are checked to be refused with a ConfigError:
             "text ranges", "keyword"; "order of equals": its own fusion ranks rows of equal scores
             in an order of its own.
    """

    store: Searchable
    without: frozenset[str] = frozenset()

    def table(self, name: str) -> Searched:
        """Return one of its tables."""
        return {s.name: s for s in self.store.tables()}[name]


Check = Callable[[Stand], None]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


# --- the rows ------------------------------------------------------------------------


def _notes() -> list[dict[str, Any]]:
    random = np.random.default_rng(7)
    vectors = random.normal(size=(ROWS, DIM)).astype("<f4")
    vectors[11] = vectors[10] * 2  # the same direction, so the same cosine
    rows: list[dict[str, Any]] = []
    for i in range(ROWS):
        words = [_WORDS[i % 8], _WORDS[(i // 8 + 3) % 8], "alpha" if i % 2 else "omega"]
        metadata: dict[str, Any] = {"user": {"name": _PEOPLE[i % 3]}, "page": i % 5, "done": i % 4 == 0}
        if i % 6 == 0:
            metadata["labels"] = ["red", "blue"][: 1 + i // 6 % 2]
        if i % 7 == 0:
            metadata["page"] = float(i % 5) + 0.5
        if i % 10 == 3:
            metadata["reviewer"] = None
        rows.append(
            {
                "id": f"note-{i:03d}",
                "tenant_id": ("north", "south")[i % 2],
                "content": f"The {words[0]} and the {words[1]} of {words[2]} {i}",
                "kind": None if i % 9 == 0 else ("fact", "event", "Fact")[i % 3],
                "strength": round(i / ROWS, 4),
                "uses": i % 11,
                "metadata": json.dumps(metadata, ensure_ascii=i % 2 == 0),
                "embedding": vectors[i].tobytes(),
            }
        )
    rows[ROWS - 1]["embedding"] = None
    rows[ROWS - 2]["embedding"] = bytes(4 * DIM)
    rows[ROWS - 3]["content"] = 'A "quoted" basilisk OR NOT NEAR(kestrel) — naïve 😀 content:*'
    return rows


NOTES = _notes()
_EDGES = [
    ("e1", "ada", "acme", "works at", 0.9, 0),
    ("e2", "acme", "berlin", "is in", 0.5, 0),
    ("e3", "berlin", "ada", "is home of", 0.1, 0),
    ("e4", "bob", "acme", "works at", 0.8, 0),
    ("e5", "bob", "zoe", "knows", 0.7, 1),
    ("e6", "lone", "lone", "thinks of", 0.2, 0),
    ("e7", "zoe", "odd \"node\", 'x'", "dreams of", 0.3, 0),
]


def make(path: Path) -> None:
    """Write the SQLite file that every store is filled from."""
    random = np.random.default_rng(8)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE notes (
              id TEXT PRIMARY KEY NOT NULL, tenant_id TEXT NOT NULL, content TEXT NOT NULL, kind TEXT,
              strength REAL NOT NULL, uses INTEGER NOT NULL, metadata JSON NOT NULL, embedding BLOB
            );
            CREATE TABLE papers (id INTEGER PRIMARY KEY, title TEXT NOT NULL, embedding BLOB NOT NULL);
            CREATE TABLE knowledge_edges (
              id TEXT PRIMARY KEY NOT NULL, source_id TEXT NOT NULL, target_id TEXT NOT NULL, type TEXT NOT NULL,
              weight REAL NOT NULL, bidirectional INTEGER NOT NULL
            );
            """
        )
        names = list(NOTES[0])
        marks = ", ".join("?" * len(names))
        connection.executemany(
            f"INSERT INTO notes ({', '.join(names)}) VALUES ({marks})", [tuple(r.values()) for r in NOTES]
        )
        connection.executemany(
            "INSERT INTO papers VALUES (?, ?, ?)",
            [
                (i, f"On the {_WORDS[i % 8]}", random.normal(size=DIM).astype("<f4").tobytes())
                for i in range(1, 13)
            ],
        )
        connection.executemany("INSERT INTO knowledge_edges VALUES (?, ?, ?, ?, ?, ?)", _EDGES)
        connection.commit()


def _vector(i: int) -> Vector:
    return np.frombuffer(NOTES[i]["embedding"], "<f4")


def _cosines(asked: Vector, among: Sequence[dict[str, Any]]) -> list[tuple[Key, float]]:
    """Return all rows with a direction, nearest first."""
    found = []
    for row in among:
        if row["embedding"] is None or not any(row["embedding"]):
            continue
        v, w = np.frombuffer(row["embedding"], "<f4").astype(float), asked.astype(float)
        found.append(((row["id"],), float(v @ w / math.sqrt((v @ v) * (w @ w)))))
    return sorted(found, key=lambda pair: (-round(pair[1], 6), pair[0]))


def _meant(of: Filter) -> list[dict[str, Any]]:
    return [row for row in NOTES if holds(of, {**row, "metadata": json.loads(row["metadata"])})]


def _keys(hits: Sequence[Hit]) -> list[Key]:
    return [h.key for h in hits]


def _agrees(hits: Sequence[Hit], truth: Sequence[tuple[Key, float]], k: int) -> None:
    assert _keys(hits) == [key for key, _ in truth[:k]]
    assert [h.score for h in hits] == pytest.approx([score for _, score in truth[:k]], abs=1e-5)


ASKED = np.random.default_rng(9).normal(size=DIM).astype(np.float32)

# --- what there is ---------------------------------------------------------------------


@_check
def tables_tell_what_can_be_searched(stand: Stand) -> None:
    notes, papers = stand.table("notes"), stand.table("papers")
    assert notes.vector is not None
    assert (notes.vector.name, notes.vector.dim) == ("embedding", DIM)
    assert (notes.text, notes.tenant) == (("content",), "tenant_id")
    assert (papers.text, papers.tenant) == (("title",), None)
    assert "knowledge_edges" not in {s.name for s in stand.store.tables()}


@_check
def its_name_is_told_without_secrets(stand: Stand) -> None:
    assert stand.store.describe()
    assert "secret" not in stand.store.describe()


# --- vectors ---------------------------------------------------------------------------


@_check
def the_nearest_are_found_exactly(stand: Stand) -> None:
    truth = _cosines(ASKED, NOTES)
    for exact in (True, False):
        answer = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, ASKED, k=10, exact=exact))
        _agrees(answer.hits, truth, 10)
        assert answer.how


@_check
def a_direction_is_all_that_counts_of_a_question(stand: Stand) -> None:
    truth = _cosines(ASKED, NOTES)
    for length in (1e-30, 1e-5, 1e25):
        asked = (ASKED.astype(float) * length).astype(np.float32)
        for exact in (True, False):
            answer = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, asked, k=10, exact=exact))
            _agrees(answer.hits, truth, 10)


@_check
def more_hits_than_there_are_rows_may_be_asked_for(stand: Stand) -> None:
    for mode in Mode:
        if mode is not Mode.VECTOR and "keyword" in stand.without:
            continue
        query = Query(mode, ASKED, "alpha omega", k=MOST_HITS, rows=False)
        assert len(stand.store.search(stand.table("notes"), query).hits) >= ROWS - 2


@_check
def a_row_is_nearest_to_itself(stand: Stand) -> None:
    first = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, _vector(5), k=1)).hits[0]
    assert (first.key, first.table) == (("note-005",), "notes")
    assert first.score == pytest.approx(1, abs=1e-5)
    assert first.text == NOTES[5]["content"]


@_check
def rows_without_a_direction_are_in_no_answer(stand: Stand) -> None:
    hits = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, ASKED, k=1000, exact=True)).hits
    assert len(hits) == ROWS - 2
    assert {("note-058",), ("note-059",)}.isdisjoint(_keys(hits))


@_check
def equal_scores_come_in_the_order_of_keys(stand: Stand) -> None:
    hits = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, _vector(11), k=2)).hits
    assert _keys(hits) == [("note-010",), ("note-011",)]


@_check
def keys_of_numbers_come_back_as_numbers(stand: Stand) -> None:
    hits = stand.store.search(stand.table("papers"), Query(Mode.VECTOR, ASKED, k=12)).hits
    assert sorted(_keys(hits)) == [(i,) for i in range(1, 13)]


@_check
def without_rows_only_keys_and_scores_come(stand: Stand) -> None:
    query = Query(Mode.VECTOR, ASKED, k=3, rows=False)
    hits = stand.store.search(stand.table("notes"), query).hits
    assert _keys(hits) == [key for key, _ in _cosines(ASKED, NOTES)[:3]]
    assert all(h.text is None and h.metadata == {} for h in hits)


@_check
def metadata_is_ready_for_json(stand: Stand) -> None:
    (first,) = stand.store.search(stand.table("notes"), Query(Mode.VECTOR, _vector(6), k=1)).hits
    row = NOTES[6]
    assert json.loads(json.dumps(first.metadata)) == {
        "tenant_id": row["tenant_id"],
        "kind": row["kind"],
        "strength": row["strength"],
        "uses": row["uses"],
        "metadata": json.loads(row["metadata"]),
    }


# --- filters ---------------------------------------------------------------------------

FILTERS: list[Any] = [
    {"kind": "fact"},
    {"kind": None},
    {"kind": {"ne": "fact"}},
    {"kind": {"in": ["fact", None]}},
    {"kind": {"nin": ["event"]}},
    {"uses": 3},
    {"uses": 3.0},
    {"uses": "3"},
    {"strength": {"gte": 0.25, "lt": 0.5}},
    {"uses": {"gt": 2.5, "lte": 7}},
    {"user.name": "Zoë"},
    {"metadata.user.name": {"in": ["Ada", "Bob"]}},
    {"metadata.page": 2},
    {"metadata.page": {"gte": 2.5}},
    {"metadata.done": True},
    {"metadata.done": 1},
    {"metadata.labels": "blue"},
    {"metadata.labels": None},
    {"metadata.reviewer": None},
    {"not": {"metadata.page": {"lt": 3}}},
    {"metadata.user.name.first": None},
    {"or": [{"kind": "event"}, {"and": [{"uses": {"lt": 3}}, {"not": {"metadata.user.name": "Ada"}}]}]},
    {"and": []},
    {"or": []},
]
TEXT_RANGES: list[Any] = [{"kind": {"gte": "F", "lt": "f"}}, {"metadata.user.name": {"gt": "B"}}]


@_check
def filters_let_through_what_they_mean(stand: Stand) -> None:
    for given in FILTERS:
        _filtered(stand, given)


@_check
def ranges_over_text_go_by_code_point(stand: Stand) -> None:
    for given in TEXT_RANGES:
        if "text ranges" in stand.without:
            with pytest.raises(ConfigError):
                _filtered(stand, given)
        else:
            _filtered(stand, given)


def _filtered(stand: Stand, given: Any) -> None:
    notes = stand.table("notes")
    where = bound_to(parse(given), notes.table)
    for exact in (True, False):
        query = Query(Mode.VECTOR, ASKED, k=ROWS, where=where, exact=exact, rows=False)
        hits = stand.store.search(notes, query).hits
        assert _keys(hits) == [key for key, _ in _cosines(ASKED, _meant(where))], given


@_check
def a_tenant_sees_its_own_rows_only(stand: Stand) -> None:
    query = Query(Mode.VECTOR, ASKED, k=ROWS, tenant="south", exact=True)
    hits = stand.store.search(stand.table("notes"), query).hits
    _agrees(hits, _cosines(ASKED, [r for r in NOTES if r["tenant_id"] == "south"]), ROWS)
    assert not stand.store.search(stand.table("notes"), Query(Mode.VECTOR, ASKED, k=5, tenant="nobody")).hits


@_check
def a_tenant_of_a_table_without_tenants_is_refused(stand: Stand) -> None:
    with pytest.raises(ConfigError):
        stand.store.search(stand.table("papers"), Query(Mode.VECTOR, ASKED, k=5, tenant="south"))


# --- words -----------------------------------------------------------------------------


def _with_words(*words: str) -> set[Key]:
    return {(r["id"],) for r in NOTES if any(w in r["content"].lower().split() for w in words)}


def _worded(stand: Stand, text: str, k: int = ROWS, **more: Any) -> list[Hit]:
    return list(stand.store.search(stand.table("notes"), Query(Mode.KEYWORD, text=text, k=k, **more)).hits)


@_check
def words_are_found_wherever_one_of_them_stands(stand: Stand) -> None:
    if "keyword" in stand.without:
        with pytest.raises(ConfigError):
            _worded(stand, "violin")
        return
    hits = _worded(stand, "Violin tundra")
    assert set(_keys(hits)) - {("note-057",)} == _with_words("violin", "tundra")
    assert all(h.score > 0 for h in hits)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    both = _with_words("violin") & _with_words("tundra")
    assert set(_keys(hits)[: len(both)]) == both  # rows with both words come first
    assert not _worded(stand, "nonsuchword")


@_check
def words_are_never_a_query_language(stand: Stand) -> None:
    if "keyword" in stand.without:
        return
    for text in (
        *('"', "'", "*", "(", "violin OR", "NOT", "NEAR(a b", "content:violin", "violin*", "-violin", "^a"),
        *(
            "'; DROP TABLE notes; --",
            "%",
            "\\",
            "violin & | ! <->",
            "a\0b",
            "a\udcff",
            "",
            " ",
            "😀",
            "{}",
            "$1",
            "?",
        ),
    ):
        _worded(stand, text, k=5)
    assert _keys(_worded(stand, 'basilisk"', k=1)) == [("note-057",)]
    assert set(_keys(_worded(stand, "violin NOT tundra"))) >= _with_words("violin")


@_check
def words_heed_filters_and_tenants(stand: Stand) -> None:
    if "keyword" in stand.without:
        return
    where = bound_to(parse({"uses": {"lt": 4}, "user.name": "Ada"}), stand.table("notes").table)
    hits = _worded(stand, "violin omega", where=where, tenant="north")
    meant = {(r["id"],) for r in _meant(where) if r["tenant_id"] == "north"}
    assert set(_keys(hits)) == meant & _with_words("violin", "omega")
    assert len(hits) > 1
    assert len(_worded(stand, "violin omega", k=1, where=where)) == 1


# --- both ------------------------------------------------------------------------------


@_check
def hybrid_is_the_fusion_of_both_lists_by_rank(stand: Stand) -> None:
    if "keyword" in stand.without:
        return
    notes, text = stand.table("notes"), "violin gearbox"
    near = stand.store.search(notes, Query(Mode.VECTOR, ASKED, k=depth(5))).hits
    worded = stand.store.search(notes, Query(Mode.KEYWORD, text=text, k=depth(5))).hits
    found = stand.store.search(notes, Query(Mode.HYBRID, ASKED, text, k=5)).hits
    if "order of equals" in stand.without:
        best, worst = (_fused((near, worded), of) for of in (min, max))
        assert len(found) == 5
        assert all(worst[h.key] - 1e-6 <= h.score <= best[h.key] + 1e-6 for h in found)
        assert min(h.score for h in found) >= sorted(worst.values())[-5] - 1e-6
        return
    sums = _fused((near, worded), lambda ranks: ranks[0])
    _agrees(found, sorted(sums.items(), key=lambda pair: (-pair[1], pair[0])), 5)


def _fused(lists: Sequence[Sequence[Hit]], of: Callable[[list[int]], int]) -> dict[Key, float]:
    """Fuse lists by rank. of: chooses from a hit's own rank and those of the hits of equal score."""
    sums: dict[Key, float] = {}
    for ranked in lists:
        for rank, hit in enumerate(ranked, 1):
            equals = [r for r, h in enumerate(ranked, 1) if h.score == pytest.approx(hit.score, abs=1e-6)]
            sums[hit.key] = sums.get(hit.key, 0) + 1 / (RRF_K + of([rank, *equals]))
    return sums


@_check
def hybrid_heeds_filters_and_tenants(stand: Stand) -> None:
    if "keyword" in stand.without:
        return
    notes = stand.table("notes")
    where = bound_to(parse({"metadata.page": {"lte": 2}}), notes.table)
    query = Query(Mode.HYBRID, ASKED, "omega alpha", k=ROWS, where=where, tenant="north")
    hits = stand.store.search(notes, query).hits
    assert set(_keys(hits)) == {(r["id"],) for r in _meant(where) if r["tenant_id"] == "north"}


# --- single rows, samples, health -----------------------------------------------------------


@_check
def a_vector_is_found_by_its_key(stand: Stand) -> None:
    notes = stand.table("notes")
    found = stand.store.vector_of(notes, ("note-004",))
    assert found is not None
    assert np.asarray(found).tolist() == pytest.approx(_vector(4).tolist(), rel=1e-5)
    assert stand.store.vector_of(notes, ("note-059",)) is None
    with pytest.raises(KeyError):
        stand.store.vector_of(notes, ("nobody",))
    assert stand.store.vector_of(stand.table("papers"), (3,)) is not None


@_check
def samples_are_rows_and_the_same_again(stand: Stand) -> None:
    notes = stand.table("notes")
    once, again = stand.store.sample(notes, 20, 1), stand.store.sample(notes, 20, 1)
    assert [key for key, _ in once] == [key for key, _ in again]
    assert len({key for key, _ in once}) == 20
    for key, vector in once:
        row = next(r for r in NOTES if (r["id"],) == key)
        assert np.asarray(vector).tolist() == pytest.approx(
            np.frombuffer(row["embedding"], "<f4").tolist(), rel=1e-5
        )
    assert len(stand.store.sample(notes, 1000, 2)) >= ROWS - 2


@_check
def texts_are_those_of_their_rows(stand: Stand) -> None:
    found = stand.store.texts(stand.table("notes"), 10, 3)
    assert len(found) == 10
    assert found == stand.store.texts(stand.table("notes"), 10, 3)
    by_key = {(r["id"],): r["content"] for r in NOTES}
    assert all(by_key[key] == text for key, text in found)


@_check
def a_sound_store_has_no_problems(stand: Stand) -> None:
    health = stand.store.health(stand.table("notes"))
    assert health.problems == ()


# --- the graph -------------------------------------------------------------------------


def _graph(stand: Stand) -> Graph:
    assert isinstance(stand.store, Graph)
    return stand.store


@_check
def neighbours_come_nearest_first_and_each_once(stand: Stand) -> None:
    graph = _graph(stand)
    near = list(graph.neighbours("ada"))
    assert [(e.source, e.target, e.kind, e.depth) for e in near] == [
        ("ada", "acme", "works at", 1),
        ("berlin", "ada", "is home of", 1),
    ]
    assert [e.weight for e in near] == pytest.approx([0.9, 0.1])
    further = [(e.source, e.target, e.depth) for e in graph.neighbours("ada", depth=3)]
    assert further == [
        ("ada", "acme", 1),
        ("berlin", "ada", 1),
        ("acme", "berlin", 2),
        ("bob", "acme", 2),
        ("bob", "zoe", 3),
    ]
    assert [(e.target, e.depth) for e in graph.neighbours("lone", depth=5)] == [("lone", 1)]
    for nobody in ("nobody", "a\0b", "a\udcff"):
        assert list(graph.neighbours(nobody, depth=2)) == []
        assert list(graph.paths("ada", nobody)) == []


@_check
def a_direction_is_heeded_and_so_is_an_edge_of_both(stand: Stand) -> None:
    graph = _graph(stand)
    out = [(e.source, e.target) for e in graph.neighbours("ada", depth=2, direction=Direction.OUT)]
    assert out == [("ada", "acme"), ("acme", "berlin")]
    into = [(e.source, e.target) for e in graph.neighbours("acme", direction=Direction.IN)]
    assert into == [("ada", "acme"), ("bob", "acme")]
    assert [e.source for e in graph.neighbours("zoe", direction=Direction.IN)] == ["bob"]
    assert ("bob", "zoe") in {(e.source, e.target) for e in graph.neighbours("zoe", direction=Direction.OUT)}


@_check
def paths_come_shortest_first_without_loops(stand: Stand) -> None:
    graph = _graph(stand)
    found = [[(e.source, e.target) for e in path] for path in graph.paths("ada", "bob")]
    assert found == [
        [("ada", "acme"), ("bob", "acme")],
        [("berlin", "ada"), ("acme", "berlin"), ("bob", "acme")],
    ]
    one_way = list(graph.paths("ada", "berlin", direction=Direction.OUT))
    assert [[(e.source, e.target, e.depth) for e in path] for path in one_way] == [
        [("ada", "acme", 1), ("acme", "berlin", 2)]
    ]
    assert list(graph.paths("ada", "lone")) == []
    assert [len(p) for p in graph.paths("ada", "odd \"node\", 'x'", depth=4)] == [4]
    assert list(graph.paths("ada", "odd \"node\", 'x'", depth=3)) == []


@_check
def a_tenant_of_a_graph_without_tenants_is_refused(stand: Stand) -> None:
    with pytest.raises(ConfigError):
        list(_graph(stand).neighbours("ada", tenant="south"))
