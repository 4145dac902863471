"""Walks over a knowledge graph in SQL, against the same walks in plain Python."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.backends.sqlite.names import ident
from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.search import graph_sql
from migrate.search.base import Direction, Edge
from migrate.search.graph_sql import SQLITE, edges_of
from migrate.search.sqlite import graph
from migrate.search.sqlite.reading import SqliteFile

NODES = ["a", "b", "c", "d", "e,", 'f"', "1", "é"]
TENANTS = ["x", "y"]
TABLE = Table(
    "knowledge_edges",
    (
        Column("brain_id", Kind.TEXT, "TEXT"),
        Column("id", Kind.TEXT, "TEXT"),
        Column("source_id", Kind.TEXT, "TEXT"),
        Column("target_id", Kind.TEXT, "TEXT"),
        Column("type", Kind.TEXT, "TEXT"),
        Column("weight", Kind.REAL, "REAL"),
        Column("bidirectional", Kind.INTEGER, "INTEGER"),
    ),
    ("brain_id", "id"),
)
Row = tuple[str, str, str, str, str, float, int]

_nodes = st.sampled_from(NODES)
_row = st.tuples(
    st.sampled_from(TENANTS), _nodes, _nodes, st.sampled_from(["k", "l"]), st.sampled_from([0, 1])
)
graphs = st.lists(_row, max_size=14).map(
    lambda rows: [(t, str(i), s, g, kind, i / 8, both) for i, (t, s, g, kind, both) in enumerate(rows)]
)


def _made(rows: Sequence[Row]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    names = ", ".join(c.name for c in TABLE.columns)
    connection.execute(f"CREATE TABLE knowledge_edges ({names})")
    connection.executemany("INSERT INTO knowledge_edges VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    return connection


def _hops(rows: Sequence[Row], tenant: str | None, way: Direction) -> list[tuple[str, str, str, Row]]:
    """Return (tenant, from, to, edge) for every way to cross an edge."""
    found = []
    for row in rows:
        whose, _, source, target, *_, both = row
        if tenant not in (None, whose):
            continue
        if both or way in (Direction.BOTH, Direction.OUT):
            found.append((whose, source, target, row))
        if both or way in (Direction.BOTH, Direction.IN):
            found.append((whose, target, source, row))
    return found


def _near(rows: Sequence[Row], node: str, depth: int, tenant: str | None, way: Direction) -> list[Edge]:
    hops = _hops(rows, tenant, way)
    reached = {(whose, node): 0 for whose in TENANTS}
    for step in range(1, depth):
        for whose, here, there, _ in hops:
            if reached.get((whose, here), depth) < step:
                reached.setdefault((whose, there), step)
    depths: dict[Row, int] = {}
    for whose, here, _, row in hops:
        if (whose, here) in reached:
            depths[row] = min(depths.get(row, depth), reached[whose, here] + 1)
    edges = [Edge(r[2], r[3], r[4], at, r[5]) for r, at in depths.items()]
    return sorted(edges, key=lambda e: (e.depth, e.source.encode(), e.target.encode(), e.kind))


def _paths(
    rows: Sequence[Row], start: str, goal: str, depth: int, tenant: str | None, way: Direction
) -> list[list[tuple[str, str, float]]]:
    hops = _hops(rows, tenant, way)

    def from_here(whose: str, seen: list[str], edges: list[Row]) -> Iterator[list[Row]]:
        if seen[-1] == goal:
            yield edges
            return
        if len(edges) < depth:
            for owner, here, there, row in hops:
                if owner == whose and here == seen[-1] and there not in seen:
                    yield from from_here(whose, [*seen, there], [*edges, row])

    found = [path for whose in TENANTS for path in from_here(whose, [start], []) if path]
    return [[(r[2], r[3], r[5]) for r in path] for path in found]


questions = st.tuples(
    _nodes, _nodes, st.integers(1, 4), st.sampled_from([None, *TENANTS]), st.sampled_from(list(Direction))
)


@settings(max_examples=300)
@given(graphs, questions)
def test_sql_walks_as_python_does(
    rows: list[Row], question: tuple[str, str, int, str | None, Direction]
) -> None:
    start, goal, depth, tenant, way = question
    edges = edges_of([TABLE])
    with closing(_made(rows)) as connection:
        statement = graph_sql.neighbours(edges, TABLE.name, ident, SQLITE, start, depth, tenant, way)
        near = [graph_sql.edge(row) for row in connection.execute(*statement)]
        paths = list(
            graph_sql.paths(
                lambda s: connection.execute(*s),
                edges,
                TABLE.name,
                ident,
                SQLITE,
                start,
                goal,
                depth,
                tenant,
                way,
            )
        )
    meant = _near(rows, start, depth, tenant, way)
    order = [(e.depth, e.source, e.target, e.kind) for e in near]
    assert order == [(e.depth, e.source, e.target, e.kind) for e in meant]
    assert sorted(map(str, near)) == sorted(map(str, meant))
    found = [[(e.source, e.target, e.weight) for e in path] for path in paths]
    # An edge of a node to itself is crossed in two ways, which are one; paths never use it.
    assert sorted(map(str, found)) == sorted(map(str, _paths(rows, start, goal, depth, tenant, way)))
    lengths = [len(path) for path in paths]
    assert lengths == sorted(lengths)
    assert all([e.depth for e in path] == list(range(1, len(path) + 1)) for path in paths)


def test_the_shortest_paths_between_hubs_come_at_once() -> None:
    hub = [
        ("x", f"{i}{j}", a, b, "k", 0.0, 0)
        for i in range(300)
        for j, (a, b) in enumerate((("a", f"m{i}"), (f"m{i}", "b")))
    ]
    with closing(_made(hub)) as connection:
        walked = graph_sql.paths(
            lambda s: connection.execute(*s), edges_of([TABLE]), TABLE.name, ident, SQLITE, "a", "b", 16
        )
        assert [len(p) for p in islice(walked, 300)] == [2] * 300


@pytest.mark.parametrize(
    ("columns", "name", "expected"),
    [
        (
            ("id", "source_id", "target_id", "edge_type"),
            "db0_memory_edges",
            ("source_id", "target_id", "edge_type"),
        ),
        (("Source", "Target", "relation"), "relations", ("Source", "Target", "relation")),
        (("from_id", "to_id"), "links", ("from_id", "to_id", None)),
    ],
)
def test_edges_are_known_by_their_columns(
    columns: tuple[str, ...], name: str, expected: tuple[str | None, ...]
) -> None:
    found = edges_of([Table(name, tuple(Column(c, Kind.TEXT) for c in columns))])
    assert (found.source, found.target, found.kind) == expected


@pytest.mark.parametrize("name", ["messages", "syncs"])
def test_other_tables_with_sources_and_targets_are_no_graph(name: str) -> None:
    with pytest.raises(ConfigError, match="no knowledge graph"):
        edges_of([Table(name, (Column("source_id", Kind.TEXT), Column("target_id", Kind.TEXT)))])


@pytest.mark.parametrize("depth", [0, -1, 17])
def test_a_walk_has_a_depth_that_ends(depth: int) -> None:
    edges = edges_of([TABLE])
    with pytest.raises(ConfigError, match="steps deep"):
        graph_sql.neighbours(edges, TABLE.name, ident, SQLITE, "a", depth)
    with pytest.raises(ConfigError, match="steps deep"):
        list(graph_sql.paths(lambda s: [], edges, TABLE.name, ident, SQLITE, "a", "b", depth))


def test_a_weight_is_a_number_or_none() -> None:
    weights = [0.5, 3, "0.25", "-1e-2", "high", "", "10 %", b"1", None]
    rows: list[Any] = [("x", str(i), "a", f"n{i}", "k", w, 0) for i, w in enumerate(weights)]
    with closing(_made(rows)) as connection:
        statement = graph_sql.neighbours(edges_of([TABLE]), TABLE.name, ident, SQLITE, "a", 1)
        near = [graph_sql.edge(row) for row in connection.execute(*statement)]
    assert [e.weight for e in near] == [0.5, 3.0, 0.25, -0.01, None, None, None, None, None]


def test_views_of_a_hostile_file_are_never_run(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE knowledge_edges (id TEXT PRIMARY KEY, source_id TEXT, target_id TEXT)"
        )
        connection.execute("INSERT INTO knowledge_edges VALUES ('1', 'a', 'b'), ('2', 'b', 'c')")
        for name in graph_sql.NAMES:
            connection.execute(f"CREATE VIEW {name} AS {endless}")
        connection.commit()
    file = SqliteFile(path)
    with file.reading() as reading:
        near: list[Any] = list(graph.neighbours(reading, "a", 2, None, Direction.BOTH))
        assert [(e.source, e.target) for e in near] == [("a", "b"), ("b", "c")]
        assert len(list(graph.paths(reading, "a", "c", 4, None, Direction.BOTH))) == 1
        for name in graph_sql.NAMES:
            with pytest.raises(sqlite3.DatabaseError, match=r"prohibited|not authorized"):
                reading.connection.execute(f"SELECT * FROM {name} LIMIT 1").fetchall()
    file.close()
