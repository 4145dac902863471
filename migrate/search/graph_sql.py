"""Walks over a knowledge graph as recursive CTEs, in SQL that SQLite and Postgres both take.

An edge can be crossed from either end unless a direction is asked for: agents
write "Ada works at Acme" once and ask from both sides. Two edges belong
together only where they are of one tenant, as ids are unique only there.

Every statement first reads the edges once (a hundred thousand take some 0.2 s);
after that a walk visits no more than nodes x depth, however the edges cycle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migrate import tenants
from migrate.errors import ConfigError
from migrate.schema import Kind, Table
from migrate.search.base import Direction, Edge

DEEPEST = 16
NAMES = ("memlift_hops", "memlift_near", "memlift_reached", "memlift_back", "memlift_far", "memlift_path")
"""The names that the statements give to their parts (SQLite's authorizer is told of them)."""

_ENDS = (("source_id", "target_id"), ("source", "target"), ("from_id", "to_id"), ("from_node", "to_node"))
_KINDS = ("type", "edge_type", "relation", "relationship", "kind", "label")
_WEIGHTS = ("weight", "strength", "confidence")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two databases differ.

    number: returns an expression for a column of some kind: its cells that are numbers, else NULL.
    deep_first: what makes a recursion follow each path to its end before the next, where that can be said.
    """

    mark: str
    real: str
    number: Callable[[str, Kind], str]
    hexed: Callable[[str], str]
    array: Callable[[str], str]
    deep_first: str


def _number_in_sqlite(name: str, _: Kind) -> str:
    looks_like_one = f"{name} GLOB '*[0-9]*' AND {name} NOT GLOB '*[^0-9.eE+-]*'"
    return (
        f"CASE typeof({name}) WHEN 'integer' THEN CAST({name} AS REAL) WHEN 'real' THEN {name}"
        f" WHEN 'text' THEN CASE WHEN {looks_like_one} THEN CAST({name} AS REAL) END END"
    )


def _number_in_postgres(name: str, kind: Kind) -> str:
    if kind in (Kind.INTEGER, Kind.REAL):
        return f"CAST({name} AS double precision)"
    # No more digits than a double has room for: a cast of 1e999 is an error.
    form = "^[+-]?[0-9]{1,200}([.][0-9]{0,90})?([eE][+-]?[0-9]{1,2})?$"
    text = f"CAST({name} AS TEXT)"
    return f"CASE WHEN {text} ~ '{form}' THEN CAST({text} AS double precision) END"


SQLITE = Dialect(
    "?", "REAL", _number_in_sqlite, "hex({0})".format, "json_array({0})".format, "\n  ORDER BY 3 DESC"
)
POSTGRES = Dialect(
    "%s",
    "double precision",
    _number_in_postgres,
    "encode(convert_to({0}, 'UTF8'), 'hex')".format,
    "json_build_array({0})::text".format,
    "",
)


@dataclass(frozen=True, slots=True)
class Edges:
    """The table of a store's edges. Columns that it does not have are None.

    both: a flag that an edge counts in both directions.
    """

    table: Table
    source: str
    target: str
    kind: str | None
    weight: str | None
    both: str | None
    tenant: str | None


Statement = tuple[str, list[Any]]


def may_stand(*texts: str | None) -> bool:
    """Whether texts can be asked for: halves of surrogate pairs, as a shell's odd bytes become, stand in no store."""
    return not any("\ud800" <= character <= "\udfff" for text in texts for character in str(text))


def edges_of(tables: Sequence[Table]) -> Edges:
    """Return the edges among a store's tables. Raises ConfigError where no table holds any."""
    for table in sorted(tables, key=lambda t: t.name != "knowledge_edges"):
        names = {name.lower(): name for name in table.column_names}
        ends = next((pair for pair in _ENDS if set(pair) <= set(names)), None)
        if ends is None or not any(
            word in table.name.lower() for word in ("edge", "relation", "link", "graph")
        ):
            continue

        def first(wanted: Sequence[str], names: dict[str, str] = names) -> str | None:
            return next((names[w] for w in wanted if w in names), None)

        return Edges(
            table,
            names[ends[0]],
            names[ends[1]],
            first(_KINDS),
            first(_WEIGHTS),
            first(("bidirectional",)),
            next((c for c in tenants.COLUMNS if c in table.column_names), None),
        )
    raise ConfigError(
        "there is no knowledge graph in this store",
        hint="looked for a table of edges with columns source_id and target_id, such as knowledge_edges",
    )


def neighbours(
    edges: Edges,
    quoted: str,
    ident: Callable[[str], str],
    dialect: Dialect,
    node: str,
    depth: int,
    tenant: str | None = None,
    direction: Direction = Direction.BOTH,
) -> Statement:
    """Return the statement for the edges within `depth` steps of a node; `edge` reads its rows.

    quoted: the table's name as SQL. Each edge comes once, nearest first; its depth is the
    distance of its nearer end, plus one.
    """
    hops, bindings = _hops(edges, quoted, ident, dialect, tenant, direction)
    sql = f"""WITH RECURSIVE {hops},
memlift_near(node, tenant, depth) AS (
  SELECT CAST({dialect.mark} AS TEXT), tenant, 0 FROM (SELECT DISTINCT tenant FROM memlift_hops) AS whose
  UNION
  SELECT h.there, h.tenant, n.depth + 1
  FROM memlift_near AS n JOIN memlift_hops AS h ON h.here = n.node AND h.tenant = n.tenant
  WHERE n.depth < {dialect.mark}
),
memlift_reached(node, tenant, depth) AS (SELECT node, tenant, min(depth) FROM memlift_near GROUP BY node, tenant)
SELECT h.source, h.target, h.kind, h.weight, min(r.depth) + 1
FROM memlift_hops AS h JOIN memlift_reached AS r ON r.node = h.here AND r.tenant = h.tenant
WHERE r.depth < {dialect.mark}
GROUP BY h.edge, h.tenant, h.source, h.target, h.kind, h.weight
ORDER BY 5, 1, 2, 3"""
    return sql, [*bindings, node, _checked(depth) - 1, depth]


def paths(
    run: Callable[[Statement], Iterable[Sequence[Any]]],
    edges: Edges,
    quoted: str,
    ident: Callable[[str], str],
    dialect: Dialect,
    start: str,
    goal: str,
    depth: int,
    tenant: str | None = None,
    direction: Direction = Direction.BOTH,
) -> Iterator[tuple[Edge, ...]]:
    """Yield the paths between two nodes of at most `depth` edges, shortest first, none through a node twice.

    run: runs a statement and gives its rows one by one.

    There may be more long paths than anyone can wait for (two agents' hubs), so
    those of each length are asked for by themselves, when the shorter ones have
    been taken, and nodes that are too far from the goal are not entered.
    """
    _checked(depth)
    if start == goal:
        return
    hops, bindings = _hops(edges, quoted, ident, dialect, tenant, direction)
    back = f"""WITH RECURSIVE {hops},
memlift_back(node, tenant, depth) AS (
  SELECT CAST({dialect.mark} AS TEXT), tenant, 0 FROM (SELECT DISTINCT tenant FROM memlift_hops) AS whose
  UNION
  SELECT h.here, h.tenant, b.depth + 1
  FROM memlift_back AS b JOIN memlift_hops AS h ON h.there = b.node AND h.tenant = b.tenant
  WHERE b.depth < {dialect.mark}
)"""
    nearest = f"{back} SELECT min(depth) FROM memlift_back WHERE node = CAST({dialect.mark} AS TEXT)"
    ((least,),) = run((nearest, [*bindings, goal, depth, start]))
    sql = f"{back},{_of_length(dialect)}"
    for length in range(least or depth + 1, depth + 1):
        cells = [*bindings, goal, length, start, length, goal, length, goal]
        yield from map(path, run((sql, cells)))


def _of_length(dialect: Dialect) -> str:
    """Return what follows the distances to the goal: the paths of one length, a row of JSON each."""
    hexed = dialect.hexed("h.there")
    array = dialect.array("h.source, h.target, h.kind, h.weight")
    return f"""
memlift_far(node, tenant, depth) AS (SELECT node, tenant, min(depth) FROM memlift_back GROUP BY node, tenant),
memlift_path(node, tenant, depth, trail, edges) AS (
  SELECT f.node, f.tenant, 0, ',' || {dialect.hexed("f.node")} || ',', ''
  FROM memlift_far AS f WHERE f.node = CAST({dialect.mark} AS TEXT)
  UNION ALL
  SELECT h.there, h.tenant, p.depth + 1, p.trail || {hexed} || ',',
    p.edges || CASE WHEN p.edges = '' THEN '' ELSE ',' END || {array}
  FROM memlift_path AS p
  JOIN memlift_hops AS h ON h.here = p.node AND h.tenant = p.tenant
  JOIN memlift_far AS f ON f.node = h.there AND f.tenant = h.tenant
  WHERE p.depth + 1 + f.depth <= {dialect.mark} AND p.node <> CAST({dialect.mark} AS TEXT)
    AND replace(p.trail, ',' || {hexed} || ',', '') = p.trail{dialect.deep_first}
)
SELECT edges FROM memlift_path WHERE depth = {dialect.mark} AND node = CAST({dialect.mark} AS TEXT)"""


def edge(row: Sequence[Any]) -> Edge:
    """Return an edge from a row of `neighbours`."""
    source, target, kind, weight, depth = row
    return Edge(source, target, kind, int(depth), weight)


def path(row: Sequence[Any]) -> tuple[Edge, ...]:
    """Return the edges of a path, in its order, from a row of `paths`."""
    return tuple(
        Edge(source, target, kind, depth, weight)
        for depth, (source, target, kind, weight) in enumerate(json.loads(f"[{row[0]}]"), 1)
    )


def _checked(depth: int) -> int:
    if not 1 <= depth <= DEEPEST:
        raise ConfigError(f"a walk cannot be {depth} steps deep", hint=f"from 1 to {DEEPEST}")
    return depth


def _weight(edges: Edges, ident: Callable[[str], str], dialect: Dialect) -> str:
    if edges.weight is None:
        return f"CAST(NULL AS {dialect.real})"
    return dialect.number(f"e.{ident(edges.weight)}", edges.table.column(edges.weight).kind)


def _hops(
    edges: Edges,
    quoted: str,
    ident: Callable[[str], str],
    dialect: Dialect,
    tenant: str | None,
    direction: Direction,
) -> Statement:
    """Return the part that lists every way to cross an edge: from `here` to `there`."""
    if tenant is not None and edges.tenant is None:
        raise ConfigError(f"{edges.table.name} has no column that names a tenant", hint="leave --tenant out")

    def texts(name: str | None) -> str:
        return f"CAST(e.{ident(name)} AS TEXT)" if name is not None else "''"

    source, target, whose = texts(edges.source), texts(edges.target), f"COALESCE({texts(edges.tenant)}, '')"
    weight = _weight(edges, ident, dialect)
    names = [texts(name) for name in edges.table.key]
    edge_id = f" || '{chr(31)}' || ".join(f"COALESCE({name}, '')" for name in names) if names else "''"
    both = f"{texts(edges.both)} IN ('1', 'true', 't')" if edges.both else "1 = 0"
    test = f" AND {whose} = {dialect.mark}" if tenant is not None else ""
    parts = []
    for here, there, plain in ((source, target, Direction.OUT), (target, source, Direction.IN)):
        crossed = "1 = 1" if direction in (Direction.BOTH, plain) else both
        parts.append(
            f"SELECT {here}, {there}, {whose}, {source}, {target}, COALESCE({texts(edges.kind)}, ''), {weight}, {edge_id}"
            f" FROM {quoted} AS e WHERE {crossed}{test}"
        )
    head = "memlift_hops(here, there, tenant, source, target, kind, weight, edge) AS"
    bindings = [tenant, tenant] if tenant is not None else []
    return f"{head} MATERIALIZED (\n  {parts[0]}\n  UNION ALL\n  {parts[1]}\n)", bindings
