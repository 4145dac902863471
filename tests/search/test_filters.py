"""The filter language: what is a filter, what it means, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.search.filters import DEEPEST, Equals, Field, bound_to, fields, holds, of_tenant, parse
from tests.search import filter_cases

TABLE = Table(
    "traces",
    (
        Column("id", Kind.TEXT),
        Column("type", Kind.TEXT),
        Column("strength", Kind.REAL),
        Column("metadata", Kind.JSON),
        Column("tags", Kind.JSON),
        Column("embedding", Kind.VECTOR, dim=2),
        Column("image", Kind.BLOB),
    ),
    ("id",),
)
ROW = {
    "id": "t1",
    "type": "episodic",
    "strength": 0.5,
    "metadata": {
        "user": {"name": "Ada", "age": 36},
        "a.b": 1,
        "or": True,
        "none": None,
        "list": [1, "x", [2]],
    },
    "tags": ["red", "blue"],
}


@pytest.mark.parametrize(
    ("given_filter", "expected"),
    [
        ({}, True),
        ({"type": "episodic"}, True),
        ({"type": "Episodic"}, False),
        ({"type": {"in": ["semantic", "episodic"]}, "strength": {"gte": 0.5}}, True),
        ({"type": {"$in": []}}, False),
        ({"type": {"nin": []}}, True),
        ({"strength": {"gt": 0.5}}, False),
        ({"strength": {"gte": 0.5, "lt": 1}}, True),
        ({"strength": "0.5"}, False),
        ({"strength": {"gte": "0"}}, False),
        ({"metadata.user.name": "Ada"}, True),
        ({"user.age": 36.0}, True),
        ({"user.age": True}, False),
        ({"user.name.first": None}, True),
        ({'metadata."a.b"': 1}, True),
        ({'"metadata"."a.b"': {"ne": 1}}, False),
        ({'metadata."or"': True}, True),
        ({"metadata.or": 1}, False),
        ({"metadata.none": None}, True),
        ({"metadata.nothing": None}, True),
        ({"metadata.nothing": {"ne": 5}}, True),
        ({"metadata.nothing": {"lt": 5}}, False),
        ({"tags": "blue"}, True),
        ({"tags": {"ne": "blue"}}, False),
        ({"tags": {"gt": "blue"}}, True),
        ({"metadata.list": "x"}, True),
        ({"metadata.list": 2}, False),
        ({"$or": [{"type": "x"}, {"$not": {"type": "y"}}]}, True),
        ({"and": [{"type": "episodic"}, {"strength": {"eq": 1}}]}, False),
        ({"and": []}, True),
        ({"or": []}, False),
        ({"type": {"eq": "episodic", "ne": "semantic", "gt": "a"}}, True),
    ],
)
def test_what_a_filter_means(given_filter: dict[str, Any], expected: bool) -> None:
    of = bound_to(parse(json.dumps(given_filter)), TABLE)
    assert holds(of, ROW) is expected
    assert holds(bound_to(of, TABLE), ROW) is expected
    assert holds(bound_to(parse({"not": given_filter}), TABLE), ROW) is not expected


@pytest.mark.parametrize(
    ("given_filter", "message"),
    [
        ("{", "no JSON"),
        ("[]", "a filter is an object, not a list"),
        ({"or": {}}, "or takes a list"),
        ({"not": []}, "a filter is an object"),
        ({"$near": 1}, r"\$near is no operator"),
        ({"type": {}}, "nothing is asked of type"),
        ({"type": {"like": "e%"}}, "'like' is no test of type"),
        ({"type": ["a"]}, "type cannot be compared with a list"),
        ({"type": {"in": "a"}}, "in takes a list, not a string"),
        ({"type": {"in": [{"a": 1}]}}, "cannot be compared with an object"),
        ({"strength": {"gt": 1, "gte": 2}}, "both gte and gt"),
        ({"strength": {"gt": None}}, "takes a number or a string"),
        ({"strength": {"lt": True}}, "takes a number or a string"),
        ({"strength": {"gt": 1, "lt": "2"}}, "a number and a string"),
        ('{"strength": NaN}', "cannot be compared with nan"),
        ({"": 1}, "part of the name '' is empty"),
        ({"metadata.": 1}, "is empty"),
        ({"metadata..a": 1}, "is empty"),
        ({'metadata."a': 1}, "quote is not closed"),
        ({'metadata."a"b': 1}, "quote is not closed"),
        ({"type.a": 1}, "type is no JSON"),
        ({"embedding": 1}, "holds vectors"),
        ({"image": None}, "holds blobs"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(given_filter: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bound_to(parse(given_filter), TABLE)


def test_a_name_that_leads_nowhere_is_refused_with_the_columns_there_are() -> None:
    bare = Table("bare", (Column("id", Kind.TEXT), Column("embedding", Kind.VECTOR, dim=2)))
    with pytest.raises(ConfigError, match="bare has no column user") as told:
        bound_to(parse({"user": 1}), bare)
    assert told.value.hint == "columns: id"


def test_deeper_than_every_stores_parser_takes_is_refused() -> None:
    nested: dict[str, Any] = {"type": "a"}
    for _ in range(DEEPEST):
        nested = {"not": nested}
    parse(nested)
    with pytest.raises(ConfigError, match="deeper than 32"):
        parse({"not": nested})
    with pytest.raises(ConfigError, match="no JSON"):
        parse("[" * 100_000)


@given(filter_cases.filters)
def test_a_filter_is_the_same_from_text_and_from_data(given_filter: dict[str, Any]) -> None:
    assert parse(json.dumps(given_filter)) == parse(given_filter)
    assert list(fields(parse(given_filter))) == list(fields(parse({"not": given_filter})))


@given(st.lists(st.sampled_from(filter_cases.KEYS), min_size=1, max_size=4))
def test_every_name_can_be_written(path: list[str]) -> None:
    of = parse({filter_cases.written("meta", *path): 1})
    assert of == Equals(Field("meta", tuple(path)), (1,))


@pytest.mark.parametrize(
    ("tenant", "cell", "expected"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("7", 7, True),
        ("7", "7", True),
        ("07", 7, False),
        ("-3", -3, True),
    ],
)
def test_a_tenant_is_named_by_its_text_or_its_digits(tenant: str, cell: Any, expected: bool) -> None:
    assert holds(of_tenant("whose", tenant), {"whose": cell}) is expected
