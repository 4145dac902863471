"""Filters of Qdrant's let through what they should, from above and from below, as its own engine reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import qdrant_edge as edge
from hypothesis import HealthCheck, given, settings

from migrate.backends.qdrant import edge_query, payload
from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.search import cells
from migrate.search.filters import Not, bound_to, holds, parse
from migrate.search.qdrant.where import FALSE, TRUE, where
from tests.search import filter_cases
from tests.search.filter_cases import TABLE

COLUMNS = TABLE.columns[1:]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("shard") / "one"
    made = edge.EdgeShard.create(
        str(folder), edge.EdgeConfig(vectors=edge.EdgeVectorParams(1, edge.Distance.Dot))
    )
    yield made
    made.close()


def _fill(shard: Any, given_rows: list[tuple[Any, ...]]) -> None:
    bodies = payload.encode(COLUMNS, list(zip(*given_rows, strict=True)), len(given_rows), json_text=False)
    for body in bodies:
        body.pop("memlift", None)
    shard.update(edge.UpdateOperation.delete_points_by_filter(edge.Filter()))
    shard.update(
        edge.UpdateOperation.upsert_points([edge.Point(i, {}, body) for i, body in enumerate(bodies)])
    )


def _found(shard: Any, given_filter: dict[str, Any] | None) -> set[int]:
    request = edge.ScrollRequest(
        limit=100, filter=edge_query.filter_of(given_filter), with_payload=False, with_vector=False
    )
    return {point.id for point in shard.scroll(request)[0]}


def _looked_into(row: tuple[Any, ...]) -> bool:
    """Whether the payload has a row's JSON as JSON: larger integers and the like keep its text."""
    text = row[-1]
    return not isinstance(text, str) or isinstance(cells.from_json(text), dict | list) == isinstance(
        payload.json_value(text), dict | list
    )


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(given_rows=filter_cases.rows, given_filter=filter_cases.filters)
def test_no_row_is_missed_and_none_too_many_where_it_says_so(
    shard: Any, given_rows: list[tuple[Any, ...]], given_filter: dict[str, Any]
) -> None:
    kept = [row for row in given_rows if _looked_into(row)]
    if not kept:
        return
    asked = bound_to(parse(given_filter), TABLE)
    try:
        above = where(asked, TABLE, foreign=False, booleans=False)
        below = where(Not(asked), TABLE, foreign=False, booleans=False)
    except ConfigError:
        return  # a range over text
    _fill(shard, kept)
    meant = {i for i, row in enumerate(kept) if holds(asked, _row(row))}
    found = _found(shard, above.filter)
    assert found >= meant, (above, kept)
    assert _found(shard, below.filter) >= set(range(len(kept))) - meant
    if above.exact:
        assert found == meant, (above, kept)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(given_rows=filter_cases.rows, given_filter=filter_cases.filters)
def test_no_row_is_missed_whose_cells_are_in_the_sidecar(
    shard: Any, given_rows: list[tuple[Any, ...]], given_filter: dict[str, Any]
) -> None:
    asked, aside = bound_to(parse(given_filter), TABLE), frozenset(c.name for c in COLUMNS)
    try:
        above = where(asked, TABLE, foreign=False, booleans=False, aside=aside)
        below = where(Not(asked), TABLE, foreign=False, booleans=False, aside=aside)
    except ConfigError:
        return  # a range over text
    kept = [row for row in given_rows if _looked_into(row)]
    if not kept:
        return
    _fill(shard, [tuple(None if (i + n) % 2 else c for n, c in enumerate(r)) for i, r in enumerate(kept)])
    meant = {i for i, row in enumerate(kept) if holds(asked, _row(row))}
    assert _found(shard, above.filter) >= meant, (above, kept)
    assert _found(shard, below.filter) >= set(range(len(kept))) - meant, (below, kept)


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    return {c.name: cells.meaning(c.kind, cell) for c, cell in zip(COLUMNS, row, strict=True)}


NOTES = Table(
    "notes",
    (
        Column("id", Kind.TEXT),
        Column("kind", Kind.TEXT),
        Column("n", Kind.INTEGER),
        Column("r", Kind.REAL),
        Column("ok", Kind.BOOL),
        Column("metadata", Kind.JSON),
    ),
    ("id",),
)


def _of(given_filter: Any, *, booleans: bool = True) -> Any:
    return where(bound_to(parse(given_filter), NOTES), NOTES, foreign=False, booleans=booleans)


@pytest.mark.parametrize(
    ("given_filter", "exact"),
    [
        ({"kind": "a"}, True),
        ({"kind": {"nin": ["a", "b"]}}, True),
        ({"kind": None}, True),
        ({"n": 3}, True),
        ({"n": {"in": [0, False]}}, True),
        ({"n": {"gte": 3, "lt": 9}}, True),
        ({"n": 2**60}, False),
        ({"r": 0.5}, False),
        ({"r": None}, False),
        ({"r": {"ne": None}}, False),
        ({"ok": True}, True),
        ({"user": "Ada"}, True),
        ({"metadata.user.name": {"ne": "Ada"}}, True),
        ({"user": None}, False),
        ({"page": 3}, False),
        ({'"a\\b"': 1}, False),
        ({"and": []}, True),
        ({"or": []}, True),
    ],
)
def test_it_says_whether_the_engine_answers_exactly(given_filter: Any, exact: bool) -> None:
    assert _of(given_filter).exact is exact


def test_what_is_true_or_false_of_all_rows_asks_nothing_of_them() -> None:
    assert _of({"and": []}).filter is None
    assert _of({"or": []}).filter == FALSE
    assert _of({"not": {"or": []}}).filter is None
    assert _of({"or": [{"kind": "a"}, {"and": []}]}).filter is None
    assert TRUE != FALSE


def test_keys_in_the_payload_are_named_as_the_engine_reads_them() -> None:
    assert _of({"metadata": "x"}).filter is not None
    assert _of({'"a.b".c': "x"}).filter == {"must": [{"key": 'metadata."a.b".c', "match": {"any": ["x"]}}]}


def test_a_boolean_that_the_engine_cannot_be_asked_for_is_looked_at_again() -> None:
    assert _of({"ok": True}, booleans=False).exact is False


def test_a_range_over_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="no ranges over text"):
        _of({"kind": {"gt": "a"}})


FOREIGN = Table("points", (Column("id", Kind.TEXT), Column("payload", Kind.JSON)), ("id",))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("7", [7]),
        ("18446744073709551615", [2**64 - 1]),
        ("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", ["1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"]),
        ("007", []),
        ("\u0661", []),
        ("18446744073709551616", []),
        ("1B9D6BCD-BBFD-4B2D-9B5D-AB8DFBBD4BED", []),
        ("1b9d6bcdbbfd4b2d9b5dab8dfbbd4bed", []),
        ("00000000000000000000000000000001", []),
        ("x" * 36, []),
        ("", []),
    ],
)
def test_an_id_is_named_by_its_own_text_alone(text: str, ids: list[Any]) -> None:
    asked = bound_to(parse({"id": text}), FOREIGN)
    said = where(asked, FOREIGN, foreign=True, booleans=True)
    assert said.exact
    assert said.filter == ({"must": [{"has_id": ids}]} if ids else FALSE)


def test_a_number_beyond_all_ids_is_none() -> None:
    numbered = Table("points", (Column("id", Kind.INTEGER), Column("payload", Kind.JSON)), ("id",))
    asked = bound_to(parse({"id": {"in": [7, 2**64, -1, 0.5]}}), numbered)
    said = where(asked, numbered, foreign=True, booleans=True)
    assert said.filter == {"must": [{"has_id": [7]}]}
