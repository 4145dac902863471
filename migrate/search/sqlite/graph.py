"""Walks over the knowledge graph of a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.hostile import allow_reading_only
from migrate.backends.sqlite.names import ident, translating
from migrate.search import graph_sql
from migrate.search.base import Direction, Edge
from migrate.search.graph_sql import SQLITE
from migrate.search.sqlite.reading import Reading


def neighbours(
    reading: Reading, node: str, depth: int, tenant: str | None, direction: Direction
) -> Iterator[Edge]:
    """Yield the edges within `depth` steps of a node. Raises ConfigError where there is no graph."""
    edges = graph_sql.edges_of(reading.tables)
    if not graph_sql.may_stand(node, tenant):
        return
    name = relation(reading.places[edges.table.name].table)
    statement = graph_sql.neighbours(edges, name, ident, SQLITE, node, depth, tenant, direction)
    yield from map(graph_sql.edge, _rows(reading, statement))


def paths(
    reading: Reading, start: str, goal: str, depth: int, tenant: str | None, direction: Direction
) -> Iterator[tuple[Edge, ...]]:
    """Yield the paths between two nodes, shortest first. Raises ConfigError where there is no graph."""
    edges = graph_sql.edges_of(reading.tables)
    if not graph_sql.may_stand(start, goal, tenant):
        return
    name = relation(reading.places[edges.table.name].table)

    def run(statement: graph_sql.Statement) -> Iterator[tuple[object, ...]]:
        return _rows(reading, statement)

    yield from graph_sql.paths(run, edges, name, ident, SQLITE, start, goal, depth, tenant, direction)


def _rows(reading: Reading, statement: graph_sql.Statement) -> Iterator[tuple[object, ...]]:
    allow_reading_only(reading.connection, graph_sql.NAMES)
    try:
        with translating("walk over the graph", file=str(reading.path)):
            yield from reading.connection.execute(*statement)
    finally:
        allow_reading_only(reading.connection)
