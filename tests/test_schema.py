"""Tables as data: through JSON and back, and the questions one asks of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, Metric, Table, affinity

FULL = Table(
    'odd "name" 😀',
    (
        Column("id", Kind.INTEGER, "INTEGER", nullable=False, identity=True),
        Column("v", Kind.VECTOR, "F32_BLOB(3)", dim=3, metric=Metric.COSINE, legacy_json=True),
        Column("mood", Kind.NATIVE, "mood", default="'ok'::mood", labels=("ok", "sad")),
        Column("name", Kind.TEXT, "TEXT", collation="NOCASE", generated="upper(mood)"),
    ),
    ("id",),
    (
        ForeignKey(("mood", "name"), "parent", ("a", "b"), "CASCADE", "SET NULL", deferrable=True),
        ForeignKey(("id",), "other", ("id",)),
    ),
    (
        Index("by_name", (IndexPart("name", True, "NOCASE"), IndexPart("id")), True, "name IS NOT NULL"),
        Index("sqlite_autoindex_1", (IndexPart("mood"),), unique=True, constraint=True),
    ),
    "sqlite",
    "traces",
    sequence=7,
    without_rowid=True,
    strict=True,
    address="public.odd",
)

columns = st.builds(
    Column,
    st.text(max_size=5),
    st.sampled_from(Kind),
    st.text(max_size=5),
    st.booleans(),
    st.none() | st.text(max_size=5),
    st.none() | st.integers(0, 99),
    st.none() | st.sampled_from(Metric),
    st.none() | st.text(max_size=5),
    st.booleans(),
    st.none() | st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
    st.booleans(),
)


def through_json(table: Table) -> Table:
    return Table.from_dict(json.loads(json.dumps(table.to_dict())))


def test_a_table_comes_back_from_json_as_it_was() -> None:
    back = through_json(FULL)
    assert back == FULL
    assert {type(c.kind) for c in back.columns} == {Kind}
    assert type(back.columns[1].metric) is Metric


@given(st.lists(columns, max_size=4).map(tuple))
def test_any_columns_come_back_from_json_as_they_were(given_columns: tuple[Column, ...]) -> None:
    table = Table("t", given_columns, tuple(c.name for c in given_columns[:2]))
    assert through_json(table) == table


def test_a_table_stored_by_an_older_version_is_read_with_the_defaults() -> None:
    old = {"name": "t", "columns": [{"name": "id", "kind": "integer"}], "key": ["id"]}
    assert Table.from_dict(old) == Table("t", (Column("id", Kind.INTEGER),), ("id",))


def test_key_positions_follow_the_order_of_the_key() -> None:
    table = replace(FULL, key=("name", "id"))
    assert table.key_positions == (3, 0)
    assert replace(FULL, key=()).key_positions == ()


def test_columns_are_found_by_name() -> None:
    assert FULL.column_names == ("id", "v", "mood", "name")
    assert FULL.column("mood") is FULL.columns[2]
    assert [c.name for c in FULL.vectors] == ["v"]
    with pytest.raises(KeyError):
        FULL.column("Mood")


# https://www.sqlite.org/datatype3.html, sections 3.1 and 3.1.1
@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ("INT", "INTEGER"),
        ("UNSIGNED BIG INT", "INTEGER"),
        ("CHARINT", "INTEGER"),
        ("FLOATING POINT", "INTEGER"),
        ("VARCHAR(255)", "TEXT"),
        ("native character(70)", "TEXT"),
        ("CLOB", "TEXT"),
        ("BLOB", "BLOB"),
        ("", "BLOB"),
        ("DOUBLE PRECISION", "REAL"),
        ("FLOAT", "REAL"),
        ("NUMERIC", "NUMERIC"),
        ("DECIMAL(10,5)", "NUMERIC"),
        ("BOOLEAN", "NUMERIC"),
        ("DATETIME", "NUMERIC"),
        ("STRING", "NUMERIC"),
        ("JSON", "NUMERIC"),
        ("interval", "INTEGER"),
    ],
)
def test_affinity_follows_sqlites_five_rules(declared: str, wanted: str) -> None:
    assert affinity(declared) == wanted
