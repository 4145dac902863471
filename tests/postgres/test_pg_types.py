"""How columns are kept in Postgres, and which cells fit them."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from migrate.backends.base import Options
from migrate.backends.postgres.types import MAX_KEY_BYTES, MAX_ROW_BYTES, column_here, fit, too_wide
from migrate.schema import Column, Index, IndexPart, Kind, Table
from migrate.vectors import pack_sparse

OPTIONS = Options()


def here(column: Column, dialect: str = "sqlite", *, key: bool = False, options: Options = OPTIONS) -> str:
    table = Table("t", (column,), (column.name,) if key else (), dialect=dialect)
    made = column_here(column, table, options)
    return f"{made.type} / {made.codec}"


INF = float("inf")


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (Column("a", Kind.INTEGER), "bigint / int8"),
        (Column("a", Kind.REAL), "double precision / float8"),
        (Column("a", Kind.TEXT, "VARCHAR(20)"), "text / text"),
        (Column("a", Kind.BLOB), "bytea / bytea"),
        (Column("a", Kind.BOOL), "boolean / bool"),
        (Column("a", Kind.JSON), "jsonb / jsonb"),
        (Column("a", Kind.TIMESTAMP), "timestamptz / native"),
        (Column("a", Kind.VECTOR, dim=3), "vector(3) / vector"),
        (Column("a", Kind.VECTOR), "vector / vector"),
        (Column("a", Kind.VECTOR, dim=16000), "vector(16000) / vector"),
        (Column("a", Kind.VECTOR, dim=16001), "bytea / bytea"),
        (Column("a", Kind.HALF, dim=3), "halfvec(3) / halfvec"),
        (Column("a", Kind.HALF, dim=16001), "bytea / bytea"),
        (Column("a", Kind.SPARSE, dim=9), "sparsevec(9) / sparsevec"),
        (Column("a", Kind.SPARSE, dim=10**9 + 1), "bytea / bytea"),
        (Column("a", Kind.SPARSE), "bytea / bytea"),
        (Column("a", Kind.MULTI), "bytea / bytea"),
        (Column("a", Kind.U8), "bytea / bytea"),
    ],
)
def test_every_kind_from_elsewhere_has_a_type(column: Column, wanted: str) -> None:
    assert here(column) == wanted


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (Column("a", Kind.TEXT, "character varying(20)"), "character varying(20) / text"),
        (Column("a", Kind.TEXT, "citext"), "text / text"),
        (Column("a", Kind.JSON, "json"), "json / text"),
        (Column("a", Kind.JSON, "jsonb"), "jsonb / jsonb"),
        (Column("a", Kind.NATIVE, "numeric(10,2)"), "numeric(10,2) / native"),
        (Column("a", Kind.NATIVE, "text[]"), "text[] / native"),
        (
            Column("a", Kind.TIMESTAMP, "timestamp(3) with time zone"),
            "timestamp(3) with time zone / native",
        ),
    ],
)
def test_types_of_postgres_itself_stay(column: Column, wanted: str) -> None:
    assert here(column, "postgres") == wanted


def test_json_may_be_kept_as_text() -> None:
    assert here(Column("a", Kind.JSON), options=Options(json="text")) == "text / text"


def test_text_keys_from_elsewhere_compare_byte_by_byte() -> None:
    assert here(Column("a", Kind.TEXT), key=True) == 'text COLLATE "C" / text'
    assert here(Column("a", Kind.TEXT, "text"), "postgres", key=True) == "text / text"


def found(column: Column, cells: list[Any], dialect: str = "sqlite", *, key: bool = False) -> dict[int, str]:
    table = Table("t", (column,), (column.name,) if key else (), dialect=dialect)
    return {f.row: f.reason for f in fit(table, OPTIONS).check([cells])}


@pytest.mark.parametrize(
    ("column", "cells", "wanted"),
    [
        (Column("a", Kind.INTEGER), [2**63 - 1, 2**63, "1", 1.0, True], {1, 2, 3, 4}),
        (Column("a", Kind.REAL, "REAL"), [1.0, -0.0, float("nan"), float("inf"), 1, "1"], {4, 5}),
        (Column("a", Kind.REAL, "DECIMAL(10,2)"), [1, 1.5, 2**53 + 1, 1.0, "x"], {2, 3, 4}),
        (Column("a", Kind.TEXT), ["é😀", "a\0", "\udcff", "\ud800", b"x", 1], {1, 2, 3, 4, 5}),
        (Column("a", Kind.BLOB), [b"", b"\0\xff", "x", 1], {2, 3}),
        (Column("a", Kind.BOOL), [True, 1], {1}),
        (Column("a", Kind.JSON), ['{"a":1}', "{", '"\\u0000"', "1e5", b"{}", 1], {1, 2, 3, 4, 5}),
        (
            Column("a", Kind.VECTOR, dim=1),
            [struct.pack("<f", 0), struct.pack("<f", float("nan")), b"", "[1]"],
            {1, 2, 3},
        ),
        (
            Column("a", Kind.VECTOR),
            [bytes(4), b"", bytes(5), struct.pack("<f", INF), bytes(64_004)],
            {1, 2, 3, 4},
        ),
        (Column("a", Kind.HALF, dim=2), [bytes(4), bytes(2), "x", b"\0\0\0\x7c"], {1, 2, 3}),
        (
            Column("a", Kind.SPARSE, dim=9),
            [
                pack_sparse([0, 8], [1, -1], 9),
                pack_sparse([], [], 9),
                pack_sparse([9], [1], 9),
                pack_sparse([1], [1], 8),
                pack_sparse([1], [1]),
                pack_sparse([1], [0], 9),
                pack_sparse([1], [INF], 9),
                b"x",
                "x",
            ],
            {2, 3, 4, 5, 6, 7, 8},
        ),
        (
            Column("a", Kind.SPARSE, dim=20_000),
            [
                pack_sparse(range(16_000), [1] * 16_000, 20_000),
                pack_sparse(range(16_001), [1] * 16_001, 20_000),
            ],
            {1},
        ),
        (Column("a", Kind.SPARSE), [bytes(8), pack_sparse([4_000_000_000], [0.5]), "x"], {2}),
        (Column("a", Kind.U8), [b"x", 1], {1}),
    ],
)
def test_cells_that_the_server_would_refuse_or_change_are_found(
    column: Column, cells: list[Any], wanted: set[int]
) -> None:
    assert set(found(column, cells)) == wanted
    assert found(replace(column), [None, None]) == {}


def test_keys_that_no_index_entry_holds_are_found() -> None:
    fits, too_long = "x" * MAX_KEY_BYTES, "x" * (MAX_KEY_BYTES + 1)
    assert found(Column("a", Kind.TEXT), [fits, too_long, "é" * 1301], key=True) == {
        1: "a key of 2601 bytes, too long for an index",
        2: "a key of 2602 bytes, too long for an index",
    }
    assert found(Column("a", Kind.TEXT), [too_long]) == {}
    assert list(found(Column("a", Kind.BLOB), [too_long.encode()], key=True)) == [0]


def test_a_null_in_a_key_is_found() -> None:
    assert found(Column("a", Kind.INTEGER), [1, None], key=True) == {1: "NULL in a key"}
    assert found(Column("a", Kind.TEXT, nullable=False), ["", None]) == {
        1: "NULL where the column allows none"
    }


def test_cells_that_name_a_row_are_its_key_and_its_unique_columns_that_may_not_be_null() -> None:
    columns = (Column("k", Kind.INTEGER), Column("u", Kind.TEXT, nullable=False), Column("w", Kind.TEXT))
    indexes = (Index("i", (IndexPart("u"), IndexPart("w")), unique=True), Index("j", (IndexPart("w"),)))
    judged = fit(Table("t", columns, ("k",), indexes=indexes), OPTIONS)
    assert (judged.not_null, judged.key, judged.keyed) == (frozenset({0, 1}), frozenset({0, 1}), True)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (Table("x" * 64, (Column("a", Kind.TEXT),)), "over 63 bytes"),
        (Table("t", (Column("é" * 32, Kind.TEXT),)), "over 63 bytes"),
        (Table("", (Column("a", Kind.TEXT),)), "empty"),
        (Table("t", (Column("ctid", Kind.TEXT),)), "reserved by the server"),
        (Table("memlift_x", (Column("a", Kind.TEXT),)), "reserved"),
        (Table("t", tuple(Column(f"c{i}", Kind.INTEGER) for i in range(1601))), "1601 columns"),
    ],
)
def test_names_and_widths_that_do_not_fit_are_problems_of_the_plan(table: Table, word: str) -> None:
    problems = fit(table, OPTIONS).problems
    assert len(problems) == 1
    assert word in problems[0]


def test_cells_beyond_the_last_column_are_kept_beside() -> None:
    judged = fit(Table("t", tuple(Column(f"c{i}", Kind.INTEGER) for i in range(1601)), ("c0",)), OPTIONS)
    cells: list[list[Any]] = [[n, None] for n in range(1601)]
    cells[0] = [0, 1]
    assert {(f.row, f.column) for f in judged.check(cells)} == {(0, 1600)} | {
        (f.row, None) for f in judged.check(cells) if f.column is None
    }
    assert dict(judged.types)["c1600"] == "-"


def test_a_row_that_no_page_holds_is_found() -> None:
    wide = [[7, None]] * 1100
    (only,) = list(too_wide(wide))
    assert (only.row, only.column) == (0, None)
    assert f"a page of Postgres holds {MAX_ROW_BYTES}" in only.reason
    assert list(too_wide([["x" * 10**6]] * 10)) == []


def test_vectors_too_long_for_a_type_are_noted() -> None:
    judged = fit(Table("t", (Column("v", Kind.VECTOR, dim=16001),)), OPTIONS)
    assert judged.notes == ("v: over 16000 dimensions, kept as bytea",)
    assert judged.check([[bytes(4 * 16001), b"anything"]]) == []
