"""Filters in Postgres mean what `filters.holds` says, for any row and any filter."""

from __future__ import annotations

import json
import math
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

# Few values, so that filters meet rows; a little of anything beside them.
_BIG = 2**53 + 1
words = st.sampled_from(["", "a", "b", "ab", "1", "true", "ä", "😀", "a\\b", '"', "'", "%", "$1", "ab "])
texts = words | words | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
names = st.sampled_from(["a", "a", "a", "b", "b", "a.b", "0", "x y", '"', "ä", "'", "\\", "$"])
whole = st.sampled_from([0, 1, 1, 2, -1, _BIG, _BIG - 1, 2**63 - 1, -(2**63)]) | st.integers(-3, 3)
reals = st.sampled_from([0.0, -0.0, 1.0, 0.5, 0.1, 1e300, float(_BIG - 1), 1e23]) | st.floats(-2, 2)
scalars = st.none() | st.booleans() | whole | st.just(2**70) | reals | texts
leaves = scalars | st.lists(scalars, max_size=3) | st.just([[1, "a"], "b"])
objects = st.dictionaries(names, leaves, min_size=1, max_size=3)
documents = st.one_of(
    leaves,
    objects,
    objects,
    st.dictionaries(names, st.dictionaries(names, leaves, max_size=2), min_size=1, max_size=2),
    st.lists(st.dictionaries(names, leaves, max_size=2), max_size=2),
    st.dictionaries(names, st.lists(st.dictionaries(names, scalars, max_size=2), max_size=2), max_size=2),
)
odd = st.sampled_from(["{broken", "", "NaN", '{"a": 1', "[1,]", "null", "'a'", "{'a': 1}", "\\u0000"])

rows = st.fixed_dictionaries(
    {
        "i": whole | st.none(),
        "s": st.none() | st.sampled_from([-32768, 32767, 0, 1, 2]),
        "r": st.none() | reals | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
        "t": st.none() | texts,
        "c": st.none() | st.sampled_from(["a", "ab ", "", "abc"]),
        "b": st.none() | st.booleans(),
        "w": st.none()
        | st.sampled_from(
            [
                "2024-02-29 12:34:56.789012+05:30",
                "infinity",
                "-infinity",
                "0044-03-15 12:00:00+00 BC",
                "12345-06-07 00:00:00+00",
                "2024-01-01 00:00:00+00",
            ]
        ),
        "j": documents | documents | st.none(),
        "k": documents.map(json.dumps) | odd | st.none(),
    }
)
numbers = whole | st.sampled_from([2**70, -(2**70), 2**1100]) | reals
strings = texts | st.sampled_from(
    ["a\0b", "\0", "a\ud800", "\ud83d", "2024-01-01T00:00:00.000000+00:00", "infinity"]
)


def seen(column: str, cell: Any) -> Any:
    """Return a cell as a filter sees it, before the server has seen it."""
    return cells.meaning(COLUMNS[column].kind, cell) if column == "k" else cell


@st.composite
def a_test(draw: Any, given_rows: list[dict[str, Any]]) -> Filter:
    """Return a test that has to do with the rows: of a place that is there, and of values near to those."""
    column = draw(st.sampled_from("isrtcbwjjjjkk"))
    value, path = seen(column, draw(st.sampled_from(given_rows))[column]), []
    if column in "jk":
        while isinstance(value, dict) and value and draw(st.integers(0, 9)):
            path.append(draw(st.sampled_from(sorted(value))))
            value = value[path[-1]]
        if not draw(st.integers(0, 3)):
            inner = (
                [n for item in value if isinstance(item, dict) for n in item]
                if isinstance(value, list)
                else []
            )
            path.append(draw(st.sampled_from(inner) if inner else names | st.sampled_from(["a\0", "\ud800"])))
    field = Field(column, tuple(path))
    near = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str | int | float)]
    near = [v for v in near if not isinstance(v, float) or math.isfinite(v)]
    one = st.sampled_from(near) if near and draw(st.integers(0, 2)) else scalars | strings
    if draw(st.integers(0, 2)):
        return Equals(field, tuple(draw(st.lists(one, min_size=1, max_size=2))))
    kind = draw(st.sampled_from([str, int]))
    # Whole doubles beyond 2^53 have other digits in JSON text than the integers they are.
    few = st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) if column == "k" else numbers
    near = [
        v for v in near if isinstance(v, kind) and not isinstance(v, bool) and (kind is str or abs(v) < 9)
    ]
    side = st.tuples(
        st.sampled_from(near) if near and draw(st.booleans()) else strings if kind is str else few,
        st.booleans(),
    )
    low, high = draw(st.none() | side), draw(side)
    return Between(field, low, high) if draw(st.booleans()) else Between(field, high, low)


@st.composite
def rows_and_filters(draw: Any) -> tuple[list[dict[str, Any]], list[Filter]]:
    given_rows = draw(st.lists(rows, min_size=3, max_size=6))
    tests = draw(st.lists(a_test(given_rows), min_size=8, max_size=16))
    pairs = list(zip(tests[::2], tests[1::2], strict=False))
    joined = [f for a, b in pairs for f in (All((a, Not(b))), Some((Not(a), b)), Not(Some((a, All((b,))))))]
    return given_rows, [*tests, *map(Not, tests), *joined, All(()), Some(()), Equals(Field("j"), ())]


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

    found = connection.execute(
        "SELECT i, s, r, t, concat(c) || repeat('', 0), c IS NULL, b, w::text, j::text, k FROM rows ORDER BY n"
    )
    out = []
    for i, s, r, t, c, none, b, w, j, k in found:
        row = {
            "i": i,
            "s": s,
            "r": r,
            "t": t,
            "c": None if none else c,
            "b": b,
            "w": w and iso_utc(w),
            "j": j,
            "k": k,
        }
        out.append({name: cells.meaning(COLUMNS[name].kind, cell) for name, cell in row.items()})
    return out


@settings(max_examples=100)
@given(case=rows_and_filters())
def test_a_filter_finds_the_rows_for_which_it_holds(
    connection: psycopg.Connection[tuple[Any, ...]], case: tuple[list[dict[str, Any]], list[Filter]]
) -> None:
    given_rows, asked = case
    connection.execute("TRUNCATE rows")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rows VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    n,
                    *(row[c] for c in "isrtcbw"),
                    None if row["j"] is None else json.dumps(row["j"]),
                    row["k"],
                )
                for n, row in enumerate(given_rows)
            ],
        )
    kept = _cells(connection)
    for one in asked:
        values = Values()
        sql = f"SELECT n FROM rows t WHERE {where(one, COLUMNS, values, 180000)} ORDER BY n"
        with psycopg.RawCursor(connection) as cursor:
            found = [n for (n,) in cursor.execute(sql.encode(), values.bound)]
        assert found == [n for n, row in enumerate(kept) if holds(one, row)], (one, sql, values.bound)


@pytest.mark.parametrize(
    ("column", "row", "asked", "expected"),
    [
        ("j", {"a": [{"b": 1}]}, Equals(Field("j", ("a", "b")), (None,)), True),
        ("j", {"a": [{"b": 1}]}, Equals(Field("j", ("a", "b")), (1,)), False),
        ("j", {"a": [{"b": 1}]}, Between(Field("j", ("a", "b")), (0, True), None), False),
        ("j", {"a": ["x", 1]}, Between(Field("j", ("a",)), (0, True), None), True),
        ("j", {"a": []}, Equals(Field("j", ("a",)), (None,)), False),
        ("j", ["x"], Equals(Field("j", ("0",)), ("x",)), False),
        ("j", True, Equals(Field("j"), (1,)), False),
        ("j", 1, Equals(Field("j"), (1.0,)), True),
        ("r", float(2**53), Between(Field("r"), (2**53 - 1, False), (2**53 + 1, False)), True),
        ("r", float(2**53), Between(Field("r"), (2**53 + 1, True), None), False),
        ("r", float(2**53), Equals(Field("r"), (2**53 + 1,)), False),
        ("r", float("nan"), Between(Field("r"), (0, True), None), False),
        ("i", 2**63 - 1, Between(Field("i"), (2**63, True), None), False),
        ("i", 2**63 - 1, Between(Field("i"), None, (1e30, True)), True),
        ("i", 3, Between(Field("i"), (2.5, False), (3.5, False)), True),
    ],
)
def test_what_is_easily_taken_for_something_else_is_not(
    connection: psycopg.Connection[tuple[Any, ...]], column: str, row: Any, asked: Filter, expected: bool
) -> None:
    assert holds(asked, {column: row}) is expected
    connection.execute("TRUNCATE rows")
    cell = json.dumps(row) if column == "j" else row
    connection.execute(f"INSERT INTO rows (n, {column}) VALUES (0, %s)".encode(), (cell,))
    values = Values()
    sql = f"SELECT n FROM rows t WHERE {where(asked, COLUMNS, values, 180000)}"
    with psycopg.RawCursor(connection) as cursor:
        assert bool(cursor.execute(sql.encode(), values.bound).fetchall()) is expected
