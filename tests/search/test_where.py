"""A filter as SQL of SQLite finds what its meaning says, whatever the cells are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given, settings

from migrate import values
from migrate.backends.sqlite.ddl import create_table
from migrate.backends.sqlite.names import ident
from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.search import cells, filters
from migrate.search.sqlite import where
from tests.search import filter_cases

TABLE = filter_cases.TABLE


def _filled(connection: sqlite3.Connection, table: Table, rows: list[tuple[Any, ...]]) -> None:
    sql = create_table(table).replace("lax TEXT", "lax TEXT COLLATE NOCASE")
    connection.execute(sql)
    marks = ", ".join("?" * len(table.columns))
    for number, row in enumerate(rows):
        connection.execute(f"INSERT INTO {ident(table.name)} VALUES ({marks})", (number, *row))


def _meant(connection: sqlite3.Connection, table: Table, of: filters.Filter) -> list[int]:
    connection.text_factory = values.bytes_text
    found = []
    for row in connection.execute(f"SELECT * FROM {ident(table.name)} ORDER BY 1"):
        seen = {c.name: cells.meaning(c.kind, cell) for c, cell in zip(table.columns, row, strict=True)}
        if filters.holds(of, seen):
            found.append(row[0])
    return found


def _found(connection: sqlite3.Connection, table: Table, of: filters.Filter, utf8: bool = True) -> list[int]:
    where.register(connection)
    allowed = where.allowed(of, table, table, utf8=utf8)
    sql = f"SELECT t.id, {allowed.sql} IS NULL FROM {ident(table.name)} AS t WHERE {allowed.sql} ORDER BY 1"
    rows = connection.execute(sql, allowed.bindings * 2).fetchall()
    assert not any(null for _, null in rows)
    return [number for number, _ in rows]


def _check(rows: list[tuple[Any, ...]], given_filter: Any, encoding: str = "UTF-8") -> list[int]:
    of = filters.bound_to(filters.parse(given_filter), TABLE)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        _filled(connection, TABLE, rows)
        found = _found(connection, TABLE, of, encoding == "UTF-8")
        assert found == _meant(connection, TABLE, of)
        return found


@settings(max_examples=400)
@given(filter_cases.rows, filter_cases.filters)
@example([(None,) * 7 + ('{"a":{"a":1e400}}',)], {"meta.a.a": {"gt": 10**30}})
def test_sql_finds_what_a_filter_means(rows: list[tuple[Any, ...]], given_filter: dict[str, Any]) -> None:
    _check(rows, given_filter)


@settings(max_examples=100)
@given(filter_cases.rows, filter_cases.filters)
def test_also_in_a_file_that_keeps_utf16(rows: list[tuple[Any, ...]], given_filter: dict[str, Any]) -> None:
    _check(rows, given_filter, "UTF-16le")


def _metas(*texts: Any) -> list[tuple[Any, ...]]:
    return [(None,) * 7 + (text,) for text in texts]


@pytest.mark.parametrize(
    ("metas", "given_filter", "expected"),
    [
        (['{"a":1}', '{"a":true}', '{"a":1.0}', '{"a":"1"}'], {"meta.a": 1}, [0, 2]),
        (['{"a":1}', '{"a":true}'], {"meta.a": True}, [1]),
        (['{"a":null}', "{}", None, "no JSON", '{"a":0}'], {"meta.a": None}, [0, 1, 2, 3]),
        (['{"a":9223372036854775809}', '{"a":9223372036854775808}'], {"meta.a": 2**63 + 1}, [0]),
        (['{"a":"x\\u0000y"}', '{"a":"x"}'], {"meta.a": "x"}, [1]),
        (['{"\\u00e9":1}', '{"é":1}'], {"meta.é": 1}, [0, 1]),
        (['{"a.b":{"c":1}}', '{"a":{"b":{"c":1}}}'], {'meta."a.b".c': 1}, [0]),
        (['{"a":[1,"b"]}', '{"a":["c"]}'], {"meta.a": {"in": ["b", "d"]}}, [0]),
        (['{"a":1,"a":2}'], {"meta.a": 2}, [0]),
        (['{"who":"Ada"}', '{"who":"\\u0041da"}'], {"who": "Ada"}, [0, 1]),
        (["{", b'{"a":1}', 7], {"meta.a": 1}, []),
    ],
)
def test_json_is_compared_as_it_was_written(
    metas: list[Any], given_filter: dict[str, Any], expected: list[int]
) -> None:
    assert _check(_metas(*metas), given_filter) == expected


def test_text_that_is_no_utf8_is_compared_and_no_error() -> None:
    table = Table(
        "x",
        (
            Column("id", Kind.INTEGER, "INTEGER"),
            Column("s", Kind.TEXT, "TEXT"),
            Column("j", Kind.JSON, "TEXT"),
        ),
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE x (id INTEGER, s TEXT, j TEXT)")
        connection.execute(
            """INSERT INTO x VALUES (1, CAST(x'61ff' AS TEXT), CAST(x'5b2261ff225d' AS TEXT))"""
        )
        for column in ("s", "j"):
            of = filters.Equals(filters.Field(column), ("a\udcff",))
            assert _found(connection, table, of) == [1]
            assert _found(connection, table, filters.Not(of)) == []
            assert _found(connection, table, filters.Equals(filters.Field(column), ("a\ud800",))) == []


def test_a_thousand_parts_and_the_deepest_nesting_are_no_problem() -> None:
    wide = {"or": [{"n": n} for n in range(2000)]}
    assert _check([(5, None, None, None, None, None, None, None)], wide) == [0]
    deep: dict[str, Any] = {"n": 5}
    for _ in range(filters.DEEPEST - 1):
        deep = {"and": [{"not": {"s": "x"}}, deep]}
    assert _check([(5, None, None, None, None, None, None, None)], deep) == [0]


def test_more_values_than_a_statement_takes_are_refused() -> None:
    of = filters.parse({"n": {"in": list(range(40_000))}})
    with pytest.raises(ConfigError, match="40,000 values"):
        where.allowed(of, TABLE, TABLE)


def test_an_index_is_used_for_plain_equality() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        _filled(connection, TABLE, [])
        connection.execute("CREATE INDEX by_s ON things (s)")
        allowed = where.allowed(filters.parse({"s": "a"}), TABLE, TABLE)
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT rowid FROM things AS t WHERE {allowed.sql}", allowed.bindings
        ).fetchall()
    assert "by_s" in plan[0][3]
