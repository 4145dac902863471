"""What the fit says of SQLite, held against a real file: affinities convert, NaN becomes NULL."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from migrate.backends.base import Options
from migrate.backends.sqlite.ddl import create_table, fit
from migrate.backends.sqlite.names import looks_like_number
from migrate.schema import Column, Index, IndexPart, Kind, Table
from tests.small_stores import cell

numbers = st.one_of(
    st.sampled_from(
        ["1", " 1 ", "1.", ".5", "+5", "-0", "1e5", "1E+5", "1e", "0x10", "1_0", "٣", "\x1c1", "1\xa0", "1\0"]
    ),
    st.sampled_from(
        ["", " ", ".", "-", "1e400", "9" * 30, "1 2", "½", "1.5.2", "\t1\n", "inf", "nan", "1e-400"]
    ),
)
cells = st.one_of(
    st.none(),
    st.integers(-(2**64), 2**64),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**53 + 1]),
    st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack(">d", b)[0]),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0**63, -(2.0**63), 2.0**53, 1e300, float("nan"), float("inf")]),
    st.text(st.characters(codec="utf-8"), max_size=5),
    numbers,
    st.binary(max_size=5),
)
DECLARED = [
    "",
    "INTEGER",
    "TEXT",
    "BLOB",
    "REAL",
    "NUMERIC",
    "DECIMAL(5)",
    "VARCHAR",
    "BOOLEAN",
    "DOUBLE",
    "INT8",
]


def stored(table: Table, value: Any) -> Any:
    """Return a value after a trip through a file's column, or `sqlite3`'s refusal."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(create_table(table))
        try:
            db.execute('INSERT INTO "t" VALUES (?)', (value,))
        except (OverflowError, sqlite3.Error) as exc:
            return exc
        return db.execute('SELECT v FROM "t"').fetchone()[0]


def fits(table: Table, value: Any) -> bool:
    return not fit(table, Options()).check([[value]])


@given(st.sampled_from(DECLARED), cells)
@example("REAL", -0.0)
@example("", -0.0)
@example("INTEGER", "٣")
@example("NUMERIC", "1\xa0")
@example("INTEGER", 2.0**63)
@example("INTEGER", -(2.0**63))
@example("TEXT", 2**64)
def test_a_cell_fits_a_column_from_sqlite_if_and_only_if_it_comes_back(declared: str, value: Any) -> None:
    table = Table("t", (Column("v", Kind.TEXT, declared),), dialect="sqlite")
    assert fits(table, value) == (cell(stored(table, value)) == cell(value))


@given(
    st.sampled_from([Kind.INTEGER, Kind.REAL, Kind.TEXT, Kind.BLOB, Kind.JSON, Kind.NATIVE, Kind.VECTOR]),
    cells,
)
@example(Kind.REAL, -0.0)
def test_a_cell_that_fits_a_column_from_elsewhere_comes_back(kind: Kind, value: Any) -> None:
    table = Table("t", (Column("v", kind, "numeric(20,2)", dim=2),), dialect="postgres")
    if fits(table, value):
        assert cell(stored(table, value)) == cell(value)


@given(st.one_of(numbers, st.text(st.sampled_from("0123456789.eE+- \t\n\f\v\x1c\xa0٣x"), max_size=6)))
def test_a_text_looks_like_a_number_where_sqlite_makes_it_one(text: str) -> None:
    table = Table("t", (Column("v", Kind.TEXT, "NUMERIC"),), dialect="sqlite")
    assert looks_like_number(text) == (type(stored(table, text)) is not str)


def test_one_cell_is_one_misfit() -> None:
    for declared in DECLARED:
        table = Table("t", (Column("v", Kind.TEXT, declared),), dialect="sqlite")
        for value in (2**64, -0.0, float("nan"), "1"):
            assert len(fit(table, Options()).check([[value]])) <= 1


A = Column("a", Kind.INTEGER)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (Table("memlift_runs", (A,)), "reserved"),
        (Table("MemLift_x", (A,)), "reserved"),
        (Table("sqlite_x", (A,)), "sqlite_x"),
        (Table("t\0x", (A,)), "NUL"),
        (Table("t", (A, Column("A", Kind.TEXT))), "differ only in case"),
        (Table("t", (Column("a\0b", Kind.TEXT),)), "NUL"),
        (Table("t", tuple(Column(f"c{i}", Kind.TEXT) for i in range(2001))), "2001 columns"),
    ],
)
def test_a_table_that_no_file_can_hold_is_a_problem_of_the_plan(table: Table, word: str) -> None:
    problems = fit(table, Options()).problems
    assert len(problems) == 1
    assert word in problems[0]


def test_keys_and_what_may_not_be_null_are_told() -> None:
    columns = (
        Column("k", Kind.TEXT),
        Column("u", Kind.TEXT, nullable=False),
        Column("v", Kind.TEXT, nullable=False),
    )
    unique = Index("i", (IndexPart("u"),), unique=True)
    judged = fit(Table("t", columns, ("k",), indexes=(unique,)), Options())
    assert (judged.not_null, judged.key, judged.keyed) == (frozenset({1, 2}), frozenset({0, 1}), True)
    bare = fit(Table("t", columns[:1]), Options())
    assert (bare.not_null, bare.key, bare.keyed) == (frozenset(), frozenset(), False)
    assert judged.types == (("k", "TEXT"), ("u", "TEXT"), ("v", "TEXT"))
