"""Filters of Pinecone's miss no record that they should find, as the emulator reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from integration.pinecone_emulator import filters as theirs
from integration.pinecone_emulator.limits import Limits
from migrate.backends.pinecone import metadata
from migrate.schema import Column, Kind, Table
from migrate.search import cells
from migrate.search.filters import bound_to, holds, parse
from migrate.search.pinecone.where import where
from tests.search import filter_cases
from tests.search.filter_cases import TABLE

COLUMNS = TABLE.columns[1:]
NOTES = Table(
    "notes",
    (
        Column("id", Kind.TEXT),
        Column("kind", Kind.TEXT),
        Column("n", Kind.INTEGER),
        Column("metadata", Kind.JSON),
    ),
    ("id",),
)


@settings(max_examples=400)
@given(given_rows=filter_cases.rows, given_filter=filter_cases.filters)
def test_no_record_is_missed(given_rows: list[tuple[Any, ...]], given_filter: dict[str, Any]) -> None:
    asked = bound_to(parse(given_filter), TABLE)
    for row in given_rows:
        cells_of = list(zip(COLUMNS, row, strict=True))
        # Kept as exact cells, where no filter of Pinecone's looks.
        aside = frozenset(c.name for c, cell in cells_of if metadata.problem(c, cell))
        translated = where(asked, TABLE, foreign=False, aside=aside)
        kept = {
            c.name: metadata.encode(c, cell, json_text=False)
            for c, cell in cells_of
            if cell is not None and c.name not in aside
        }
        meant = holds(asked, {c.name: cells.meaning(c.kind, v) for c, v in zip(COLUMNS, row, strict=True)})
        found = translated is not None and (
            translated.filter is None or theirs.compiled(translated.filter, Limits())(kept)
        )
        assert found or not meant, (translated, kept)
        if translated is not None and translated.exact:
            assert found == meant, (translated, kept)


def _said(given_filter: Any) -> Any:
    found = where(bound_to(parse(given_filter), NOTES), NOTES, foreign=False)
    return None if found is None else (found.filter, found.exact)


def test_what_pinecone_can_say_is_asked_of_it() -> None:
    assert _said({"kind": "a"}) == ({"kind": {"$in": ["a"]}}, True)
    absent = {"kind": {"$exists": False}}
    assert _said({"kind": {"nin": ["a", "b"]}}) == ({"$or": [{"kind": {"$nin": ["a", "b"]}}, absent]}, False)
    assert _said({"n": {"gte": 3, "lt": 9}})[0] == {"$and": [{"n": {"$gte": 3}}, {"n": {"$lt": 9}}]}
    assert _said({"kind": None}) == ({"kind": {"$exists": False}}, False)
    assert _said({"or": [{"kind": "a"}, {"n": 1}]})[0] == {
        "$or": [{"kind": {"$in": ["a"]}}, {"n": {"$in": [1]}}]
    }


def test_what_it_cannot_say_is_looked_at_again() -> None:
    for given_filter in (
        {"user.name": "Ada"},
        {"kind": {"gt": "a"}},
        {"not": {"n": {"lt": 3}}},
        {"n": 2**60},
    ):
        assert _said(given_filter) == (None, False)
    assert _said({"kind": {"nin": [str(i) for i in range(1001)]}}) == (None, False)
    assert _said({"kind": "a", "user.name": "Ada"}) == ({"kind": {"$in": ["a"]}}, False)
    assert _said({"or": []}) is None
    assert _said({"and": []}) == (None, True)


def test_records_whose_cell_is_aside_are_looked_at_again() -> None:
    asked = bound_to(parse({"n": {"gte": 3}}), NOTES)
    found = where(asked, NOTES, foreign=False, aside=frozenset({"n"}))
    absent = {"n": {"$exists": False}}
    assert found is not None
    assert (found.filter, found.exact) == ({"$or": [{"$and": [{"n": {"$gte": 3}}]}, absent]}, False)
