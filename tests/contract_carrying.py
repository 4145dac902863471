"""Part of the contract: rows of every kind are carried and read again."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from migrate import api
from migrate.batch import Row
from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, Table
from tests.contract_kit import (
    INEXACT,
    INEXACT_ROWS,
    KIND_ROWS,
    KINDS,
    ROWS,
    T,
    check,
    filled,
    holds,
)
from tests.places import Place, source
from tests.small_stores import multiset, pairs


@check
def an_empty_table_is_carried(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    report = api.migrate(filled((T, []), (pairs("u", key=()), [])), at)
    assert report.verified
    assert (report.total_rows, [t.rows_written for t in report.tables]) == (0, [0, 0])
    holds(place, at, T, [])
    assert {"t", "u"} <= place.names(at)


ODD = [
    "select",
    "we ird",
    'quo"te',
    "it's",
    "semi;colon",
    "per%cent",
    "%s",
    "brace{}",
    "back\\slash",
    "?",
    "😀",
    "a.b",
]


@check
def odd_names_of_tables_and_columns_are_carried(place: Place, patch: pytest.MonkeyPatch) -> None:
    columns = (Column("Id", Kind.INTEGER), *(Column(name, Kind.TEXT) for name in ODD))
    tables = [(Table(name, columns, ("Id",)), [(1, *ODD), (2, *reversed(ODD))]) for name in ODD]
    at = place.fresh()
    assert api.migrate(filled(*tables), at).verified
    for table, rows in tables:
        holds(place, at, table, cast("list[Row]", rows))


@check
def every_kind_of_cell_comes_back_as_it_was(place: Place, patch: pytest.MonkeyPatch) -> None:
    assert {c.kind for c in KINDS.columns} == set(Kind)
    at = place.fresh()
    assert api.migrate(filled((KINDS, KIND_ROWS)), at).verified
    holds(place, at, KINDS, KIND_ROWS)


@check
def exact_cells_come_back_as_they_were(place: Place, patch: pytest.MonkeyPatch) -> None:
    at, origin = place.fresh(), filled((INEXACT, INEXACT_ROWS))
    report = api.migrate(origin, at, on_misfit="quarantine")
    assert report.verified
    holds(place, at, INEXACT, INEXACT_ROWS)
    assert api.verify(origin, at).verified
    again = api.migrate(origin, at, on_misfit="quarantine")
    assert (again.verified, [t.rows_written for t in again.tables]) == (True, [0])


@check
def exact_rows_without_a_key_come_back_as_often_as_they_were(place: Place, patch: pytest.MonkeyPatch) -> None:
    loose = pairs(key=())
    rows: list[Row] = [(1, "a\0"), (1, "a\0"), (1, "b"), (1, "b"), ("one", "c"), (None, None)]
    at = place.fresh()
    assert api.migrate(filled((loose, rows)), at, on_misfit="quarantine").verified
    holds(place, at, loose, rows)


@check
def links_and_indexes_do_not_stand_in_the_way_of_rows_in_any_order(
    place: Place, patch: pytest.MonkeyPatch
) -> None:
    child = Table(
        "child",
        (Column("id", Kind.INTEGER), Column("parent", Kind.INTEGER), Column("boss", Kind.INTEGER)),
        ("id",),
        (ForeignKey(("parent",), "parent", ("id",)), ForeignKey(("boss",), "child", ("id",))),
        (Index("child_by_parent", (IndexPart("parent", descending=True), IndexPart("boss")), unique=True),),
    )
    rows: list[Row] = [(1, 2, 2), (2, 1, 1), (3, None, 3)]
    at = place.fresh()
    parents: list[Row] = [(1, "a"), (2, "b")]
    assert api.migrate(filled((child, rows), (pairs("parent"), parents)), at).verified
    holds(place, at, child, rows)
    holds(place, at, pairs("parent"), parents)


# --- reading ------------------------------------------------------------------------


@check
def reading_after_a_cursor_continues_without_gap_or_overlap(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    text_keyed, loose = pairs("text_keyed", key=("v",)), pairs("loose", key=())
    tables = [
        (T, ROWS),
        (text_keyed, [(1, v) for v in ("b", "B", "ä", "", "a")]),
        (loose, [(1, "x")] * 5),
        (INEXACT, INEXACT_ROWS),
    ]
    origin = filled(*cast("Any", tables))
    assert api.migrate(origin, at, on_misfit="quarantine").verified
    opened = source(place, at)
    try:
        here = {t.name: t for t in opened.tables()}
        for table, rows in tables:
            for size in (1, 2, 3, 100):
                batches = list(opened.batches(here[table.name], size=size))
                whole = [row for batch in batches for row in batch.rows]
                assert multiset(whole) == multiset(cast("Any", rows)) or table is INEXACT
                assert len(whole) == len(rows) == opened.count(here[table.name])
                assert all(0 < len(b.rows) <= size for b in batches)
                read = 0
                for batch in batches:
                    read += len(batch.rows)
                    cursor = json.loads(json.dumps(batch.cursor))
                    rest = [
                        r for b in opened.batches(here[table.name], size=size, after=cursor) for r in b.rows
                    ]
                    assert multiset(rest) == multiset(whole[read:]), (table.name, size, cursor)
    finally:
        opened.close()


@check
def a_reader_may_stop_in_the_middle_and_begin_again(place: Place, patch: pytest.MonkeyPatch) -> None:
    at = place.fresh()
    api.migrate(filled((T, ROWS)), at)
    opened = source(place, at)
    try:
        table = opened.tables()[0]
        for _ in range(3):
            reading = opened.batches(table, size=2)
            assert len(next(reading).rows) == 2
            cast("Any", reading).close()
        assert opened.count(table) == 7
        assert sum(len(b.rows) for b in opened.batches(table, size=2)) == 7
    finally:
        opened.close()
