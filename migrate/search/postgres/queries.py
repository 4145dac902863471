"""The statements of a search, built apart from what runs them. Values are `$n`, collected in `Values`.

Each finds places of rows: `r` (the relation, for a partitioned table has many),
`p` (the ctid), how well they fit, and the cells of the key, which order equals.
"""

from __future__ import annotations

from dataclasses import dataclass

from migrate.backends.postgres.names import ident
from migrate.schema import Metric
from migrate.search.base import RRF_K
from migrate.search.postgres.catalog import Relation, Words
from migrate.search.postgres.where import ALIAS, Held, Values

_MOST_RANKED = 20_000  # rows that share a word with a question: 0.3 s
_MOST_WORDS = 256  # of a question; a page of text has some 200
_MANY_ROWS = 200_000  # a sample looks at every row up to here: some 50 ms
# pgvector's operators (https://github.com/pgvector/pgvector#querying): all give a distance, `<#>` the
# negative inner product.
_OPERATORS = {
    Metric.COSINE: "<=>",
    Metric.DOT: "<#>",
    Metric.EUCLID: "<->",
    Metric.MANHATTAN: "<+>",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a statement is about.

    where:     a condition over `t`. extension: pgvector's schema, quoted.
    values:    what the statement binds.
    """

    relation: Relation
    where: str
    values: Values
    extension: str


def score(metric: Metric, distance: float) -> float:
    """Return what a distance of pgvector's means as a score (`Hit.score`)."""
    return 1.0 - distance if metric is Metric.COSINE else -distance


def nearest(asked: Asked, column: Held, metric: Metric, vector: str, dim: int, n: int, way: str) -> str:
    """Return the n rows nearest to a vector: `r, p, d` (the exact distance) and the key, nearest first.

    vector: as pgvector writes it. way: "exact", or what an index is built on: "column" or "half", a
    cast to halfvec, of whose distances only a shortlist is made, four times as long.
    """
    extension, at = asked.extension, asked.relation.at
    query = asked.values(vector, f"{extension}.vector")
    operator = f"OPERATOR({extension}.{_OPERATORS[metric]})"
    exactly = f"{column.sql}::{extension}.vector" if column.type == "halfvec" else column.sql
    keys = _keys(asked.relation)
    selected = ", ".join([f"{ALIAS}.tableoid AS r", f"{ALIAS}.ctid AS p", *(f"{k} AS k{i}" for i, k in keys)])
    sized = "" if f"({dim})" in column.declared else f" AND {extension}.vector_dims({column.sql}) = {dim}"
    rows = f"FROM {at} {ALIAS} WHERE {column.sql} IS NOT NULL{sized} AND {asked.where}"
    if way == "exact":
        order = ", ".join(["d", *(f"k{i}" for i, _ in keys)])
        return _without_nan(
            f"SELECT {selected}, {exactly} {operator} {query} AS d {rows} ORDER BY {order} LIMIT {n}", keys
        )
    if way == "column" and column.type == "vector":
        near = f"{column.sql} {operator} {query}"
        return _without_nan(f"SELECT {selected}, {near} AS d {rows} ORDER BY {near} LIMIT {n}", keys)
    half = f"{extension}.halfvec({dim})"
    roughly = column.sql if way == "column" else f"{column.sql}::{half}"
    short = f"SELECT {selected}, {exactly} AS v {rows} ORDER BY ({roughly}) {operator} ({query}::{half}) LIMIT {4 * n}"
    inner = f"SELECT r, p{_named(keys)}, v {operator} {query} AS d FROM ({short}) s"
    return f"{_without_nan(inner, keys)} LIMIT {n}"


def _keys(relation: Relation) -> list[tuple[int, str]]:
    """Return expressions that order rows by their key, as every tier does: texts by code point."""
    return [
        (
            i,
            held.sql
            if held.type in ("int2", "int4", "int8", "float8", "bytea")
            else f'({held.text}) COLLATE "C"',
        )
        for i, held in enumerate(relation.key)
    ]


def _named(keys: list[tuple[int, str]], of: str = "") -> str:
    return "".join(f", {of}k{i}" for i, _ in keys)


def _without_nan(inner: str, keys: list[tuple[int, str]]) -> str:
    # An all-zero vector has no direction; it is in no cosine index either.
    return f"SELECT r, p, d{_named(keys)} FROM ({inner}) x WHERE d <> 'NaN' ORDER BY d{_named(keys)}"


def found_words(asked: Asked, words: Words, text: str, n: int) -> tuple[str, str]:
    """Return common table expressions, and the n rows that say most of some words: `r, p, s` and the key.

    Any of the words is enough. Each counts by `ts_rank` (how often, in how long a
    text) times its rarity as in BM25: without that, "the" would weigh as much as
    a name. Words in more than half of the rows weigh nothing beside rarer ones
    and are not asked for; nor are those that would have more rows ranked than
    `_MOST_RANKED`, or one in a hundred, allows: a row costs 13 us where its words
    are made anew, as they are with an index over an expression (0.5 us with a
    column of them, which would make the table another than its source's).
    """
    keys = _keys(asked.relation)
    given = asked.values(_askable(text), "text")
    vectors = [f"to_tsvector({asked.values(config, 'regconfig')}, {given})" for config in words.configs]
    selected = ", ".join([f"{ALIAS}.tableoid AS r", f"{ALIAS}.ctid AS p", *(f"{k} AS k{i}" for i, k in keys)])
    rows = f"FROM {asked.relation.at} {ALIAS}"
    lexeme = r"""('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery"""
    parts = [
        f"words AS MATERIALIZED (SELECT w.lexeme, {lexeme} AS q"
        f" FROM unnest({' || '.join(vectors)}) w LIMIT {_MOST_WORDS})"
    ]
    every = "(SELECT string_agg(q::text, ' | ')::tsquery FROM words)"
    if words.index is None:  # one pass over the table: its words are made anew, which is what costs
        made = f"SELECT {selected}, {words.vector} AS v, ({asked.where}) IS TRUE AS ok {rows} OFFSET 0"
        parts.append(f"said AS MATERIALIZED (SELECT * FROM ({made}) m WHERE v @@ {every})")
        count = "SELECT count(*) FROM said WHERE said.v @@ words.q"
        hits = "SELECT * FROM said WHERE ok AND v @@ (SELECT q FROM asked)"
    else:
        count = f"SELECT count(*) {rows} WHERE {words.vector} @@ words.q"
        hits = f"SELECT {selected}, {words.vector} AS v {rows} WHERE {words.vector} @@ (SELECT q FROM asked) AND {asked.where} OFFSET 0"
    estimate = f"SELECT reltuples FROM pg_catalog.pg_class WHERE oid = {asked.relation.oid}"
    parts += [
        f"counted AS MATERIALIZED (SELECT words.q, ({count}) AS n FROM words)",
        f"sized AS MATERIALIZED (SELECT greatest(CASE WHEN ({estimate}) > 0 THEN ({estimate})"
        f" ELSE (SELECT count(*) {rows}) END, (SELECT max(n) FROM counted)) AS n)",
        "summed AS MATERIALIZED (SELECT q, n, sum(n) OVER (ORDER BY n, q::text) AS upto FROM counted WHERE n > 0)",
        "kept AS MATERIALIZED (SELECT c.q, ln(1 + (s.n - c.n + 0.5) / (c.n + 0.5)) AS rarity FROM summed c, sized s"
        f" WHERE c.upto = c.n OR (2 * c.n <= s.n AND c.upto <= greatest({_MOST_RANKED}, s.n / 100)))",
        "asked AS MATERIALIZED (SELECT string_agg(q::text, ' | ')::tsquery AS q FROM kept)",
    ]
    weight = "SELECT sum(kept.rarity * ts_rank(m.v, kept.q, 1)) FROM kept"
    ranked = (
        f"SELECT r, p, ({weight}) AS s{_named(keys)} FROM ({hits}) m ORDER BY s DESC{_named(keys)} LIMIT {n}"
    )
    return f"WITH {', '.join(parts)}", ranked


def _askable(text: str) -> str:
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def hybrid(asked: Asked, dense: str, words: tuple[str, str], k: int) -> str:
    """Return the k best of two lists fused by rank: `r, p`, the score, and how many were near at all."""
    with_, ranked = words
    keys = _keys(asked.relation)
    first, second = (
        f"{name} AS MATERIALIZED (SELECT r, p{_named(keys)}, row_number() OVER (ORDER BY {by}{_named(keys)}) AS n"
        f" FROM ({rows}) x)"
        for name, rows, by in (("near", dense, "d"), ("told", ranked, "s DESC"))
    )
    total = " + ".join(f"coalesce(1.0::float8 / ({RRF_K} + {part}.n), 0)" for part in ("near", "told"))
    order = "".join(f", coalesce(near.k{i}, told.k{i})" for i, _ in keys)
    return (
        f"{with_}, {first}, {second} SELECT coalesce(near.r, told.r), coalesce(near.p, told.p)::text, {total} AS s,"
        f" (SELECT count(*) FROM near) FROM near FULL JOIN told ON near.r = told.r AND near.p = told.p"
        f" ORDER BY s DESC{order} LIMIT {k}"
    )


def sampled(relation: Relation, condition: str, selected: str, n: int, seed: int, values: Values) -> str:
    """Return up to n rows spread over a table, the same for the same seed while the table stays as it is.

    Rows are drawn by a hash of where they lie; of a large table from some of its pages only.
    """
    some = ""
    if relation.rows is not None and relation.rows > _MANY_ROWS:
        share = min(100.0, max(100.0 * 50 * n / relation.rows, 0.01))
        some = f" TABLESAMPLE SYSTEM ({share:.4f}) REPEATABLE ({values(seed, 'float8')})"
    return (
        f"SELECT {selected} FROM {relation.at} {ALIAS}{some} WHERE {condition}"
        f" ORDER BY hashtextextended({ALIAS}.ctid::text, {values(seed, 'int8')}), {ALIAS}.ctid LIMIT {n}"
    )


def column_list(columns: list[Held]) -> str:
    """Return columns as a SELECT reads them, in the forms of `rows.decoded`."""
    return ", ".join(
        f"{h.sql}::text" if h.codec in ("cast", "timestamptz") or h.type == "json" else h.sql for h in columns
    )


def equal_key(relation: Relation, key: tuple[object, ...], texts: list[str | None], values: Values) -> str:
    """Return a condition for the row of a key. texts: its cells as a cast to the column's type reads them."""
    if not relation.key:
        return f"{ALIAS}.ctid = {values(str(key[0]), 'tid')}"
    return " AND ".join(
        f"{ALIAS}.{ident(held.name)} = {values(text, held.declared)}"
        for held, text in zip(relation.key, texts, strict=True)
    )
