"""What a run is going to do: its fingerprint, and what may not change before it resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from migrate.errors import CheckpointError, SchemaError
from migrate.plan import Plan, choose, table_same_as
from migrate.schema import Column, Kind, NotCarried
from tests.small_stores import pairs

A, B = pairs("a"), pairs("b")
PLAN = Plan("brain.sqlite", "postgresql://h/db", "generic", "jsonb", (A, B))
STORED = json.loads(json.dumps(PLAN.to_dict()))


def test_a_stored_plan_is_plain_json_and_resumes_itself() -> None:
    assert STORED["fingerprint"] == PLAN.fingerprint
    assert [t["name"] for t in STORED["tables"]] == ["a", "b"]
    PLAN.check_resumes(STORED)


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, target="postgresql://other/db"),
        replace(PLAN, notes=("a note",)),
        replace(PLAN, not_carried=(NotCarried("v", "a view"),)),
        replace(PLAN, tables=(replace(A, sequence=9), B)),
    ],
)
def test_what_does_not_shape_the_rows_may_change(plan: Plan) -> None:
    assert plan.fingerprint == PLAN.fingerprint
    plan.check_resumes(STORED)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (replace(PLAN, source="other.sqlite"), "it reads brain.sqlite, this one other.sqlite"),
        (replace(PLAN, tables=(A,)), "its tables differ: b"),
        (replace(PLAN, tables=(A, B, pairs("c"))), "its tables differ: c"),
        (replace(PLAN, json="text"), "it keeps JSON as jsonb"),
        (replace(PLAN, tables=(replace(A, key=()), B)), "a table's columns or keys have changed since"),
        (
            replace(PLAN, tables=(A.with_columns((*A.columns, Column("new", Kind.TEXT))), B)),
            "a table's columns or keys have changed since",
        ),
        (
            replace(PLAN, tables=(A.with_columns((A.columns[0], Column("v", Kind.JSON))), B)),
            "a table's columns or keys have changed since",
        ),
    ],
)
def test_another_plan_is_refused_and_says_why(plan: Plan, why: str) -> None:
    with pytest.raises(CheckpointError, match="another plan") as raised:
        plan.check_resumes(STORED)
    assert why in str(raised.value)
    assert "--restart" in str(raised.value.hint)


def test_the_fingerprint_is_the_one_that_was_stored() -> None:
    assert PLAN.fingerprint == "cd9c8f7dc624dd0293e07158c7cde4781b83a90b15c4e81e257c63aecf7a67f0"


def test_tables_are_chosen_by_name_in_the_sources_order() -> None:
    tables = [A, B, pairs("c")]
    assert choose(tables, None, ()) == tables
    assert choose(tables, ["c", "a"], ()) == [A, tables[2]]
    assert choose(tables, None, ["b"]) == [A, tables[2]]
    assert choose(tables, ["a", "b"], ["a"]) == [B]
    assert choose(tables, [], ()) == []


@pytest.mark.parametrize(("only", "exclude"), [(["z"], ()), (None, ["z"]), (["a", "A"], ())])
def test_a_name_that_is_not_there_is_refused(only: list[str] | None, exclude: list[str]) -> None:
    with pytest.raises(SchemaError, match="the source has no table") as raised:
        choose([A, B], only, exclude)
    assert raised.value.hint == "tables: a, b"


def test_a_table_must_be_what_an_earlier_migration_made_of_it() -> None:
    table_same_as(A, None)
    table_same_as(A, replace(A, sequence=3))
    for changed in (replace(A, key=("v",)), A.with_columns(A.columns[:1])):
        with pytest.raises(SchemaError, match="not those of the earlier migration"):
            table_same_as(changed, A)
