"""Which cells fit, judged a column at a time, and what becomes of those that do not."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from migrate import values
from migrate.batch import ExactCell
from migrate.fit import (
    Anything,
    Fit,
    Found,
    Integers,
    Jsonb,
    Never,
    Numbers,
    Rule,
    Texts,
    Typed,
    Vectors,
    size_of,
)
from migrate.schema import Column, Kind, Table

NAN, INF = float("nan"), float("inf")


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def reasons(rule: Rule, cells: list[Any]) -> dict[int, str]:
    found = list(rule.check(cells))
    assert len({f.row for f in found}) == len(found)
    return {f.row: f.reason for f in found}


@pytest.mark.parametrize(
    ("rule", "cells", "wanted"),
    [
        (Anything(), [1, "x", None, b""], {}),
        (Never("no place"), [None, 0, ""], {1: "no place", 2: "no place"}),
        (
            Typed(float, "reals", 0.0),
            [1.0, None, NAN, 1, "x", b"", True],
            {
                3: "an integer in a column of reals",
                4: "a text in a column of reals",
                5: "a blob in a column of reals",
                6: "a boolean in a column of reals",
            },
        ),
        (Typed(bool, "booleans", False), [True, False, 1], {2: "an integer in a column of booleans"}),
        (
            Integers(),
            [2**63 - 1, -(2**63), None, 2**63, -(2**63) - 1, 1.0, True],
            {
                3: "an integer beyond 64-bit integers",
                4: "an integer beyond 64-bit integers",
                5: "a real in a column of integers",
                6: "a boolean in a column of integers",
            },
        ),
        (Integers(0, 255, "bytes"), [0, 255, 256], {2: "an integer beyond bytes"}),
        (
            Numbers(),
            [1.5, 2**53, -(2**53), NAN, INF, 1e300, None, 1.0, -0.0, 2**53 + 1, "1"],
            {
                7: "a whole real in a column of numbers",
                8: "a whole real in a column of numbers",
                9: "an integer that a double cannot hold exactly",
                10: "a text in a column of numbers",
            },
        ),
        (
            Texts(),
            ["é😀", None, "a\0b", "\udcff", "\ud800", 1],
            {
                2: "a NUL character in text",
                3: "bytes that are no UTF-8 in text",
                4: "a lone surrogate in text",
                5: "an integer in a column of texts",
            },
        ),
        (Texts(nul=True), ["a\0b", "\udcff"], {1: "bytes that are no UTF-8 in text"}),
        (Texts(nul=True, invalid=True), ["a\0b", "\udcff", "\ud800"], {2: "a lone surrogate in text"}),
        (Texts(invalid=True), ["\udcff", "\0"], {1: "a NUL character in text"}),
        (
            Jsonb(),
            ['{"a":1}', None, "{", '{"a":1,"a":2}', b"{}", 1],
            {
                2: "not valid JSON",
                3: "jsonb keeps only the last of repeated keys",
                4: "a blob in a column of JSON",
                5: "an integer in a column of JSON",
            },
        ),
        (
            Vectors(2),
            [
                vector(1, 2),
                None,
                vector(NAN, 1),
                vector(1, -INF),
                vector(1, 2, 3),
                b"",
                b"abc",
                "[1,2]",
                7,
                vector(0, 0),
            ],
            {
                2: "NaN or infinity in a vector",
                3: "NaN or infinity in a vector",
                4: "a vector of 3 dimensions in a column of 2",
                5: "0 bytes, which is no float32 vector, in a column of vectors",
                6: "3 bytes, which is no float32 vector, in a column of vectors",
                7: "a text in a column of vectors",
                8: "an integer in a column of vectors",
            },
        ),
        (Vectors(2, finite=False), [vector(NAN, INF)], {}),
        (Vectors(2, nonzero=True), [vector(0, 0), vector(0, 1)], {0: "an all-zero vector"}),
    ],
)
def test_each_rule_names_the_cells_that_do_not_fit(
    rule: Rule, cells: list[Any], wanted: dict[int, str]
) -> None:
    assert reasons(rule, cells) == wanted
    assert list(rule.check([])) == []


@pytest.mark.parametrize(
    "rule",
    [
        Typed(float, "reals", 0.0),
        Typed(bool, "booleans", False),
        Typed(bytes, "bytes", b""),
        Integers(),
        Integers(0, 255),
        Texts(),
        Texts(nul=True),
        Jsonb(),
        Vectors(2),
        Vectors(3, nonzero=True),
    ],
)
def test_the_nearest_value_of_anything_fits(rule: Rule) -> None:
    odd = [2**70, -(2**70), 2**1100, 1, 1.0, 1.5, NAN, INF, True, "", "a\0\udcff", "\ud800", "{", b"", b"x"]
    for cell in odd:
        nearest = rule.nearest(cell)
        assert nearest is not None
        assert list(rule.check([nearest])) == []


def test_the_nearest_number_is_a_double() -> None:
    assert [Numbers().nearest(c) for c in (2**60, 2**1100, "x", 1.0)] == [float(2**60), 0.0, 0.0, 0.0]


def test_a_vector_written_as_json_is_packed_and_kept_as_text_beside() -> None:
    rule = Vectors(2, legacy_json=True)
    cells = ["[1, 2.5]", b"[3, 4]", "[1]", "[NaN, 1]", vector(5, 6)]
    assert list(rule.check(cells))[:2] == [
        Found(0, None, "a vector written as JSON text", vector(1, 2.5), harmless=True),
        Found(2, None, "a text in a column of vectors"),
    ]
    by_row = {f.row: f for f in rule.check(cells)}
    assert by_row[1] == Found(1, None, "a vector written as JSON text", vector(3, 4), harmless=True)
    assert sorted(by_row) == [0, 1, 2, 3]


# --- a whole table ----------------------------------------------------------------

TABLE = Table(
    "t",
    (
        Column("id", Kind.INTEGER, nullable=False),
        Column("v", Kind.TEXT),
        Column("w", Kind.TEXT, nullable=False),
    ),
    ("id",),
)
KINDS = [c.kind for c in TABLE.columns]
RULES: tuple[Rule, ...] = (Integers(), Texts(), Texts())
FIT = Fit(TABLE, RULES, frozenset({0, 2}), frozenset({0}))


def checked(fit: Fit, rows: list[tuple[Any, ...]]) -> tuple[list[Any], list[Any], list[Any]]:
    found = fit.check(list(zip(*rows, strict=True)))
    return (*fit.split(rows, found), [(f.row, f.column, f.reason) for f in found])


def test_rows_that_fit_are_left_as_they_are() -> None:
    rows = [(1, "a", "b"), (2, None, "")]
    assert checked(FIT, rows) == (rows, [], [])


def test_a_misfit_cell_becomes_null_or_the_nearest_value_and_is_kept_beside_its_row() -> None:
    rows = [(1, "a\0", "b"), (2, "c", "d\0e"), (3, "ok", "ok")]
    kept, exact, found = checked(FIT, rows)
    key1, key2 = (values.key_bytes([Kind.INTEGER], [n]) for n in (1, 2))
    reason = "a NUL character in text"
    assert kept == [(1, None, "b"), (2, "c", "de"), (3, "ok", "ok")]
    assert exact == [
        ExactCell("t", key1, "v", reason, values.exact(Kind.TEXT, "a\0")),
        ExactCell("t", key2, "w", reason, values.exact(Kind.TEXT, "d\0e")),
    ]
    assert found == [(0, 1, reason), (1, 2, reason)]


def test_null_where_the_column_allows_none_is_kept_beside_as_null() -> None:
    kept, exact, found = checked(FIT, [(1, "a", None)])
    assert kept == [(1, "a", "")]
    assert [(c.column, values.from_exact(c.value)) for c in exact] == [("w", None)]
    assert found == [(0, 2, "NULL where the column allows none")]


def test_a_row_whose_key_does_not_fit_is_kept_beside_whole() -> None:
    rows = [(2**64, "a", "b"), (None, "c\0", "d"), (3, "ok", "ok")]
    kept, exact, found = checked(FIT, rows)
    assert kept == [(3, "ok", "ok")]
    assert [(c.key, c.column, c.reason) for c in exact] == [
        (values.key_bytes([Kind.INTEGER], [2**64]), None, "an integer beyond 64-bit integers"),
        (None, None, "NULL in a key; a NUL character in text"),
    ]
    assert [values.from_exact_row(c.value) for c in exact] == rows[:2]
    assert sorted(found) == [
        (0, 0, "an integer beyond 64-bit integers"),
        (1, 0, "NULL in a key"),
        (1, 1, "a NUL character in text"),
    ]


def test_without_a_key_every_row_with_a_misfit_is_kept_beside_whole() -> None:
    loose = Fit(Table("t", TABLE.columns), RULES, keyed=False)
    rows = [(1, "a\0", "b"), (1, "a\0", "b"), (2, "c", "d")]
    kept, exact, _ = checked(loose, rows)
    assert kept == [(2, "c", "d")]
    assert [(c.key, c.column) for c in exact] == [(None, None)] * 2
    assert [values.from_exact_row(c.value) for c in exact] == rows[:2]


def test_a_row_that_does_not_fit_as_a_whole_is_kept_beside_whole() -> None:
    fit = Fit(TABLE, RULES, whole_rows=lambda columns: iter([Found(1, None, "too wide")]))
    kept, exact, found = checked(fit, [(1, "a", "b"), (2, "c", "d")])
    assert kept == [(1, "a", "b")]
    assert [(c.key, c.column, c.reason) for c in exact] == [
        (values.key_bytes([Kind.INTEGER], [2]), None, "too wide")
    ]
    assert found == [(1, None, "too wide")]


def test_a_harmless_find_writes_the_other_form_and_keeps_the_exact_one() -> None:
    table = Table("t", (Column("id", Kind.INTEGER), Column("v", Kind.VECTOR, dim=2)), ("id",))
    fit = Fit(table, (Integers(), Vectors(2, legacy_json=True)), key=frozenset({0}))
    rows: list[tuple[Any, ...]] = [(1, "[1,2]"), (2, vector(3, 4))]
    found = fit.check(list(zip(*rows, strict=True)))
    kept, exact = fit.split(rows, found)
    assert kept == [(1, vector(1, 2)), (2, vector(3, 4))]
    assert [(c.column, values.from_exact(c.value)) for c in exact] == [("v", "[1,2]")]
    assert [f.harmless for f in found] == [True]


def test_sizes_are_lengths_of_texts_and_blobs_and_eight_for_all_else() -> None:
    assert size_of([["ab", "c"], [b"xyz", b""], [1, 2], ["a", None], [None, None]]) == 3 + 3 + 16 + 1 + 16
    assert size_of([]) == 0
    assert size_of([["abc", 5, None, b"xy"]]) == 3 + 8 + 2
