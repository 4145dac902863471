"""Texts of Postgres' types: what is judged without a server, and what a server is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from migrate.backends.base import Options
from migrate.backends.postgres.native import Length, Native, is_type
from migrate.backends.postgres.types import column_here, fit
from migrate.schema import Column, Kind, Table

TZ = "timestamp with time zone"


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (TZ, "2024-05-01T10:00:00.000000+00:00"),
        (TZ, "infinity"),
        (TZ, "0044-03-15 12:00:00+00 BC"),
        ("timestamp without time zone", "2024-05-01 10:00:00.12"),
        ("date", "4713-01-01 BC"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("numeric", "12345678901234567890.12"),
        ("numeric(10,2)", "-5.00"),
        ("interval", "1 year -2 mons"),
        ("integer[]", "{1,NULL}"),
        ("int4range", "empty"),
        ("inet", "::1/128"),
        ("bit varying", ""),
        ("json", '{"a": 1, "a": 1e999}'),
        ("tsvector", "'cat':3"),
    ],
)
def test_what_postgres_gave_is_taken_back(kind: str, good: str) -> None:
    assert list(Native(kind).check([good, None])) == []


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (TZ, "not a date"),
        (TZ, ""),
        (TZ, 5),
        (TZ, "2024\0"),
        ("date", "soon"),
        ("uuid", "a0eebc99"),
        ("numeric(10,2)", "two"),
        ("interval", "long"),
        ("integer[]", "1,2"),
        ("int4range", "1-2"),
        ("inet", "xyz"),
        ("bit(3)", "102"),
        ("money", "much"),
        ("json", "{"),
        ("json", "NaN"),
    ],
)
def test_what_no_server_would_take_is_found_without_one(kind: str, bad: object) -> None:
    (found,) = Native(kind).check([None, bad])
    assert (found.row, found.instead, found.harmless) == (1, None, False)


@pytest.mark.parametrize(
    ("kind", "cell", "instead"),
    [
        (TZ, "2024-05-01 10:00:00", "2024-05-01T10:00:00.000000+00:00"),
        (TZ, "2024-05-01T12:00:00.5+02:00", "2024-05-01T10:00:00.500000+00:00"),
        (TZ, "2024-05-01T10:00:00Z", "2024-05-01T10:00:00.000000+00:00"),
        ("timestamp without time zone", "2024-05-01T10:00:00.120", "2024-05-01 10:00:00.12"),
        ("uuid", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("numeric(10,2)", "5", "5.00"),
    ],
)
def test_another_spelling_of_a_value_is_the_value_and_is_kept_beside_it(
    kind: str, cell: str, instead: str
) -> None:
    (found,) = Native(kind).check([cell])
    assert (found.instead, found.harmless) == (instead, True)
    assert list(Native(kind).check([instead])) == []
    (found,) = Native(kind, key=True).check([cell])  # where it would be another key
    assert not found.harmless


def test_a_label_that_an_enum_has_not_is_found() -> None:
    found = list(Native("mood", ("sad", "ok")).check(["sad", "glad", None, ""]))
    assert [f.row for f in found] == [1, 3]
    assert Native("mood", ("sad", "ok")).nearest("glad") == "sad"


def test_a_server_is_asked_only_for_what_is_not_sure() -> None:
    asked: list[str] = []

    def ask(kind: str, labels: Sequence[str], texts: Sequence[str]) -> list[str | None]:
        asked.extend(texts)
        return [{"1 day": "1 day", "24:60": None, "90 min": "01:30:00"}[t] for t in texts]

    found = list(Native("interval", ask=ask).check(["1 day", "long", "24:60", None, "90 min"]))
    assert asked == ["1 day", "24:60", "90 min"]
    assert sorted(f.row for f in found) == [1, 2, 4]
    assert list(Native("uuid", ask=ask).check(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"])) == []


@pytest.mark.parametrize(
    "kind", ["numeric(10,2)", "bit(3)", TZ, "int4range", "nummultirange", "uuid[]", "json"]
)
def test_what_stands_in_for_a_value_fits(kind: str) -> None:
    rule = Native(kind)
    assert list(rule.check([rule.nearest("x")])) == []


def test_texts_that_a_length_cuts_or_pads_are_found() -> None:
    assert [f.row for f in Length(3).check(["abc", "abcd", "", None])] == [1]
    assert [f.row for f in Length(3, exact=True).check(["abc", "abcd", "ab ", "ab"])] == [1, 3]
    assert Length(3, exact=True).nearest("a") == "a  "


def test_columns_that_came_from_postgres_are_judged_by_their_types() -> None:
    table = Table(
        "t",
        (
            Column("id", Kind.INTEGER, "bigint"),
            Column("at", Kind.TIMESTAMP, TZ),
            Column("code", Kind.TEXT, "character varying(3)"),
            Column("data", Kind.JSON, "json"),
        ),
        ("id",),
        dialect="postgres",
    )
    cells = [[1], ["never"], ["abcd"], ["{"]]
    assert [f.column for f in fit(table, Options()).check(cells)] == [1, 2, 3]


@pytest.mark.parametrize(
    "declared",
    [
        *("uuid", "numeric(10,2)", 'src."Mood"[]', "timestamp(0) with time zone", "geometry(Point,4326)"),
        *('"char"', "interval day to second(3)", "double precision", "bit varying(3)[]", "character varying"),
    ],
)
def test_types_of_every_form_are_types(declared: str) -> None:
    assert is_type(declared)


@pytest.mark.parametrize(
    "declared",
    [
        *("text); DROP TABLE t; --", "text, x text", "", 'text"', "text DEFAULT (now())", "text--"),
        *("bool OR pg_terminate_backend(1)", "text COLLATE x", "text IS NULL"),
    ],
)
def test_a_type_that_a_crafted_file_made_up_is_not_written_into_a_statement(declared: str) -> None:
    assert not is_type(declared)
    for kind in (Kind.NATIVE, Kind.TIMESTAMP):
        column = Column("v", kind, declared)
        here = column_here(column, Table("t", (column,), dialect="postgres"), Options())
        assert here.type in ("text", "timestamptz")
