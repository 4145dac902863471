"""Walks over the knowledge graph of a Postgres schema.

A walk has a connection of its own: its rows are taken as they are found, and
whoever takes them may ask other things meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from migrate.backends.postgres.connect import connect, qualified
from migrate.backends.postgres.names import ident, translating
from migrate.backends.postgres.source import PostgresSource
from migrate.config import PostgresSettings
from migrate.errors import ConfigError
from migrate.search import graph_sql
from migrate.search.base import Direction, Edge
from migrate.search.graph_sql import POSTGRES, Edges, Statement


@dataclass(frozen=True, slots=True)
class Graph:
    """Where a store's edges are. at: the table's qualified name; here: its columns' names."""

    edges: Edges
    at: str
    here: dict[str, str]

    def ident(self, column: str) -> str:
        """Return a column's name as a statement with placeholders has it."""
        return ident(self.here[column]).replace("%", "%%")


def found(source: PostgresSource) -> Graph | None:
    """Return the graph of an open store, None where it has none."""
    try:
        edges = graph_sql.edges_of(source.tables())
    except ConfigError:
        return None
    stored, here = source.stands(edges.table)
    return Graph(edges, qualified(stored.schema, stored.name).replace("%", "%%"), here)


def neighbours(
    settings: PostgresSettings,
    graph: Graph | None,
    node: str,
    depth: int,
    tenant: str | None,
    direction: Direction,
) -> Iterator[Edge]:
    """Yield the edges within `depth` steps of a node. Raises ConfigError where there is no graph."""
    known = _known(graph)
    if not _may_stand(node, tenant):
        return
    statement = graph_sql.neighbours(
        known.edges, known.at, known.ident, POSTGRES, node, depth, tenant, direction
    )
    yield from map(graph_sql.edge, _rows(settings, statement))


def paths(
    settings: PostgresSettings,
    graph: Graph | None,
    start: str,
    goal: str,
    depth: int,
    tenant: str | None,
    direction: Direction,
) -> Iterator[tuple[Edge, ...]]:
    """Yield the paths between two nodes, shortest first. Raises ConfigError where there is no graph."""
    known = _known(graph)
    if not _may_stand(start, goal, tenant):
        return

    def run(statement: Statement) -> Iterator[tuple[Any, ...]]:
        return _rows(settings, statement)

    yield from graph_sql.paths(
        run, known.edges, known.at, known.ident, POSTGRES, start, goal, depth, tenant, direction
    )


def _may_stand(*texts: str | None) -> bool:
    """Whether Postgres may hold texts; a NUL stands in none of its own."""
    return graph_sql.may_stand(*texts) and not any("\0" in str(text) for text in texts)


def _known(graph: Graph | None) -> Graph:
    if graph is None:
        graph_sql.edges_of([])  # says what was looked for
        raise ConfigError("there is no knowledge graph in this store")
    return graph


def _rows(settings: PostgresSettings, statement: Statement) -> Iterator[tuple[Any, ...]]:
    sql, bindings = statement
    with translating("walk over the graph"):
        connection = connect(settings)
        try:
            connection.execute("BEGIN READ ONLY")
            with connection.cursor() as cursor:
                yield from cursor.stream(sql.encode(), bindings)
        finally:
            connection.close()
