"""Filters in Postgres mean what `filters.holds` says, for any row and any filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.support.servers import Postgres
from migrate.schema import Kind
from migrate.search import cells
from migrate.search.filters import All, Between, Equals, Field, Filter, Not, Some, holds
from migrate.search.postgres.where import Held, Values, where

COLUMNS = {
    "i": Held("i", Kind.INTEGER, "int8", "bigint", "int8"),
    "s": Held("s", Kind.INTEGER, "int2", "smallint", "int2"),
    "r": Held("r", Kind.REAL, "float8", "double precision", "float8"),
    "t": Held("t", Kind.TEXT, "text", "text", "text"),
    "c": Held("c", Kind.TEXT, "bpchar", "character(3)", "text"),
    "b": Held("b", Kind.BOOL, "bool", "boolean", "bool"),
    "w": Held("w", Kind.TIMESTAMP, "timestamptz", "timestamp with time zone", "timestamptz"),
    "j": Held("j", Kind.JSON, "jsonb", "jsonb", "cast"),
    "k": Held("k", Kind.JSON, "text", "text", "text"),
}

words = st.sampled_from(["", "a", "b", "ab", "Ada", "ä", "é", "😀", "日", "z", "0", "1", "true", "null", "a b", "a\\b", '"', "'", "%", "$1"])
texts = words | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
names = st.sampled_from(["a", "b", "a.b", "0", "x y", '"', "ä", "'", "\\", "$"])
whole = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
reals = st.sampled_from([0.0, -0.0, 1.0, 0.5, 0.1, 1e300, 2.0**53, 1e23]) | st.floats(-4, 4)
scalars = st.none() | st.booleans() | whole | st.integers(-(2**70), 2**70) | reals | texts
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
odd = st.sampled_from(["{broken", "", "NaN", '{"a": 1', "[1,]", "null", "'a'", "{'a': 1}", "\\u0000"])

rows = st.fixed_dictionaries(
    {
        "i": st.none() | whole,
        "s": st.none() | st.integers(-32768, 32767) | st.integers(-2, 2),
        "r": st.none() | reals | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
        "t": st.none() | texts,
        "c": st.none() | st.sampled_from(["a", "ab ", "", "abc"]),
        "b": st.none() | st.booleans(),
        "w": st.none() | st.sampled_from(["2024-02-29 12:34:56.789012+05:30", "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12345-06-07 00:00:00+00", "2024-01-01 00:00:00+00"]),
        "j": st.none() | documents,
        "k": st.none() | documents.map(json.dumps) | odd,
    }
)
fields = st.sampled_from([*"isrtcbw"]).map(Field) | st.builds(
    Field, st.sampled_from(["j", "k"]), st.lists(names | st.sampled_from(["a\0", "\ud800"]), max_size=2).map(tuple)
)
numbers = whole | st.integers(-(2**70), 2**70) | reals
strings = texts | st.sampled_from(["a\0b", "\0", "a\ud800", "\ud83d", "2024-01-01T00:00:00.000000+00:00", "ab ", "infinity"])


def _between(kind: Any) -> st.SearchStrategy[Filter]:
    side = st.tuples(kind, st.booleans())
    return st.builds(Between, fields, st.none() | side, side) | st.builds(Between, fields, side, st.none())


tests = st.one_of(
    st.builds(Equals, fields, st.lists(scalars | strings, max_size=3).map(tuple)), _between(numbers), _between(strings)
)
wanted = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: All(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Some(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def connection(postgres: Postgres) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with postgres.database() as made, made.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        opened.execute("SET client_min_messages = 'warning'")
        declared = ", ".join(f"{h.name} {h.declared}" for h in COLUMNS.values())
        opened.execute(f"CREATE TEMP TABLE rows (n int, {declared})".encode())
        yield opened


def _cells(connection: psycopg.Connection[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the rows as the source gives them, and as a filter sees them."""
    from migrate.backends.postgres.wire import iso_utc

    found = connection.execute("SELECT i, s, r, t, concat(c) || repeat('', 0), c IS NULL, b, w::text, j::text, k FROM rows ORDER BY n")
    out = []
    for i, s, r, t, c, none, b, w, j, k in found:
        row = {"i": i, "s": s, "r": r, "t": t, "c": None if none else c, "b": b, "w": w and iso_utc(w), "j": j, "k": k}
        out.append({name: cells.meaning(COLUMNS[name].kind, cell) for name, cell in row.items()})
    return out


@settings(max_examples=150)
@given(given_rows=st.lists(rows, min_size=1, max_size=4), asked=st.lists(wanted, min_size=1, max_size=4))
def test_a_filter_finds_the_rows_for_which_it_holds(
    connection: psycopg.Connection[tuple[Any, ...]], given_rows: list[dict[str, Any]], asked: list[Filter]
) -> None:
    connection.execute("TRUNCATE rows")
    for n, row in enumerate(given_rows):
        document = None if row["j"] is None else json.dumps(row["j"])
        connection.execute(
            "INSERT INTO rows VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (n, row["i"], row["s"], row["r"], row["t"], row["c"], row["b"], row["w"], document, row["k"]),
        )
    kept = _cells(connection)
    for one in asked:
        values = Values()
        sql = f"SELECT n FROM rows t WHERE {where(one, COLUMNS, values, 180000)} ORDER BY n"
        with psycopg.RawCursor(connection) as cursor:
            found = [n for (n,) in cursor.execute(sql.encode(), values.bound)]
        assert found == [n for n, row in enumerate(kept) if holds(one, row)], (one, sql, values.bound)
