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


@settings(max_examples=200)
@given(given_rows=filter_cases.rows, given_filter=filter_cases.filters)
def test_no_record_is_missed(given_rows: list[tuple[Any, ...]], given_filter: dict[str, Any]) -> None:
    asked = bound_to(parse(given_filter), TABLE)
    translated = where(asked, TABLE, foreign=False)
    for row in given_rows:
        if any(metadata.problem(c, cell) for c, cell in zip(COLUMNS, row, strict=True)):
            continue  # kept as an exact cell, where no filter of Pinecone's looks
        kept = {
            c.name: metadata.encode(c, cell, json_text=False)
            for c, cell in zip(COLUMNS, row, strict=True)
            if cell is not None
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
    assert _said({"kind": {"nin": ["a", "b"]}}) == ({"kind": {"$nin": ["a", "b"]}}, False)
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
    assert _said({"kind": "a", "user.name": "Ada"}) == ({"kind": {"$in": ["a"]}}, False)
    assert _said({"or": []}) is None
    assert _said({"and": []}) == (None, True)
