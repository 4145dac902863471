"""Filters as Qdrant's, from above and from below.

Qdrant's conditions are near to the filter language, not the same: numbers are
compared as doubles, which the engine may have moved by some units in the last
place (see `migrate.backends.qdrant.payload`); an empty array cannot be told from what
is not there; keys with quotes cannot be named; the embedded engine's binding
cannot ask for a boolean. So a filter has two translations: `above` lets through
all rows that satisfy it, and perhaps some more, `below` only such rows, and
perhaps not all. What is negated needs the other one. Where the two are equal
the translation is exact; where not, what was found is looked at again
(`filters.holds`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrate.backends.qdrant.engine import Json
from migrate.backends.qdrant.names import MARKS, field_path
from migrate.backends.qdrant.payload import DRIFT, INT64
from migrate.backends.qdrant.shape import given_id
from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.search.filters import All, Between, Equals, Filter, Not, Scalar, Some

_EXACT = 2**53  # integers up to here are doubles
_OFF = DRIFT + 2  # units in the last place by which a stored double has moved and its bound is misread
TRUE: Json = {"must": []}
FALSE: Json = {"must_not": [{"must": []}]}


@dataclass(frozen=True, slots=True)
class Translated:
    """A filter of Qdrant's; not `exact`: it lets more rows through than it should."""

    filter: Json | None
    exact: bool


def where(
    of: Filter, table: Table, *, foreign: bool, booleans: bool, aside: frozenset[str] = frozenset()
) -> Translated:
    """Translate a filter whose names are resolved.

    foreign:  the table is a collection that memlift did not make: its payload is one JSON column.
    booleans: whether the engine can be asked for a boolean.
    aside:    columns some of whose cells are not in the payload but in the sidecar.
    Raises ConfigError for a range over text.
    """
    above = _Translation(table, foreign, booleans, aside, above=True).of(of)
    below = _Translation(table, foreign, booleans, aside, above=False).of(of)
    return Translated(None if above == TRUE else above, above == below)


@dataclass(frozen=True, slots=True)
class _Translation:
    table: Table
    foreign: bool
    booleans: bool
    aside: frozenset[str]
    above: bool

    def of(self, node: Filter) -> Json:
        if isinstance(node, All):
            return _all([self.of(part) for part in node.parts])
        if isinstance(node, Some):
            return _some([self.of(part) for part in node.parts])
        if isinstance(node, Not):
            return _not(replace(self, above=not self.above).of(node.part))
        if isinstance(node, Between) and node.of_text:
            raise ConfigError(
                f"{node.field}: Qdrant has no ranges over text",
                hint='compare numbers, or name the values: {"in": [...]}',
            )
        column = self.table.column(node.field.column)
        if self.foreign and column.name != "payload":
            return self._id(node) if column.name == "id" else self._unsure
        key = self._key(node.field.column, node.field.path)
        if key is None or (column.name == MARKS and not self.foreign):
            return self._unsure
        if isinstance(node, Between):
            said = self._between(column, node, key)
        else:
            said = self._equals(column, node.values, key, inside=bool(node.field.path))
        if column.name not in self.aside:
            return said
        empty = _one({"is_empty": {"key": key}})  # what a cell of the sidecar leaves here, and NULL too
        return _some([said, empty]) if self.above else _all([said, _not(empty)])

    @property
    def _unsure(self) -> Json:
        return TRUE if self.above else FALSE

    def _key(self, column: str, path: Sequence[str]) -> str | None:
        parts = [*path] if self.foreign else [column, *path]
        names = [field_path(part) for part in parts]
        return None if not names or None in names else ".".join(map(str, names))

    def _id(self, node: Equals | Between) -> Json:
        if isinstance(node, Between):
            return self._unsure
        whole = self.table.column("id").kind is Kind.INTEGER
        given: list[Any] = [int(v) for v in _numbers(node.values) if v == int(v)] if whole else []
        given += [v for v in node.values if isinstance(v, str) and not whole]
        ids = [
            i for v in given if (i := given_id(v)) is not None
        ]  # the server refuses a filter with any other
        return {"must": [{"has_id": ids}]} if ids else FALSE

    # --- equality -------------------------------------------------------------

    def _equals(self, column: Column, values: Sequence[Scalar], key: str, *, inside: bool) -> Json:
        scalar = column.kind is Kind.JSON and not inside  # kept as its JSON text
        parts: list[Json] = []
        if None in values:
            parts.append(self._null(column.kind, key, scalar=scalar))
        for value in values:
            if isinstance(value, bool):
                parts.append(self._boolean(column, key, value, scalar=scalar))
            elif isinstance(value, int | float):
                parts.append(self._number(column, key, value, scalar=scalar))
        texts = [v for v in values if isinstance(v, str) and _is_utf8(v)]
        if texts and scalar:
            written = [form for t in texts for form in (t, json.dumps(t), json.dumps(t, ensure_ascii=False))]
            parts.append(_any(key, written) if self.above else FALSE)
        elif texts:
            parts.append(_any(key, texts))
        return _some(parts)

    def _null(self, kind: Kind, key: str, *, scalar: bool) -> Json:
        is_null, is_empty = {"is_null": {"key": key}}, {"is_empty": {"key": key}}
        if kind is Kind.REAL and not self.above:
            return FALSE  # NaN and infinity are null in a payload
        if kind is not Kind.JSON:
            return _some([_one(is_empty)])
        if not self.above:  # an empty array is empty too, and no null
            return _one(is_null)
        return _some([_one(is_null), _one(is_empty), *([_any(key, ["null"])] if scalar else [])])

    def _boolean(self, column: Column, key: str, value: bool, *, scalar: bool) -> Json:
        if column.kind not in (Kind.BOOL, Kind.JSON):
            return FALSE  # no cell of another column is a boolean
        if not self.booleans:
            return _not(_one({"is_empty": {"key": key}})) if self.above else FALSE
        parts = [_one({"key": key, "match": {"value": value}})]
        if column.kind is Kind.BOOL:  # 0 and 1 of a dynamically typed store
            parts.append(_range(key, {"gte": int(value), "lte": int(value)}))
        if scalar and self.above:
            parts.append(_any(key, [json.dumps(value)]))
        return _some(parts)

    def _number(self, column: Column, key: str, value: int | float, *, scalar: bool) -> Json:
        whole = value == int(value) and INT64[0] <= value <= INT64[1]
        if column.kind is Kind.INTEGER and abs(value) < _EXACT:
            return _range(key, {"gte": value, "lte": value}) if whole else FALSE
        if not self.above:
            sure = whole and column.kind is not Kind.BOOL
            return _one({"key": key, "match": {"value": int(value)}}) if sure else FALSE
        near = _range(key, {"gte": _moved(value, -1), "lte": _moved(value, 1)})
        written = [json.dumps(value), str(int(value))] if value == int(value) else [json.dumps(value)]
        large = column.kind is Kind.INTEGER and not whole  # kept as its digits
        return _some([near, *([_any(key, written)] if scalar or large else [])])

    # --- ranges ---------------------------------------------------------------

    def _between(self, column: Column, node: Between, key: str) -> Json:
        if column.kind is Kind.BOOL:
            return self._unsure
        bounds: Json = {}
        sure = column.kind is Kind.INTEGER
        for side, (inclusive, exclusive), outwards in (
            (node.low, ("gte", "gt"), -1),
            (node.high, ("lte", "lt"), 1),
        ):
            limit, closed = side if side is not None else ("", False)
            if isinstance(limit, str):
                continue
            if sure and abs(limit) < _EXACT:
                bounds[inclusive if closed else exclusive] = limit
            else:
                bounds[inclusive if self.above else exclusive] = _moved(
                    limit, outwards if self.above else -outwards
                )
        if column.kind is Kind.JSON and not node.field.path and self.above and not self.foreign:
            return _not(_one({"is_empty": {"key": key}}))  # a number by itself is kept as its text
        return _range(key, bounds)


def _moved(value: int | float, steps: int) -> float:
    """Return the double a little beside a number, so that misread ones are on the near side."""
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    for _ in range(_OFF):
        near = math.nextafter(near, math.copysign(math.inf, steps))
    return max(-1.7976931348623157e308, min(near, 1.7976931348623157e308))


def _numbers(values: Sequence[Scalar]) -> list[int | float]:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _one(condition: Json) -> Json:
    return {"must": [condition]}


def _any(key: str, values: Sequence[str]) -> Json:
    return _one({"key": key, "match": {"any": list(values)}})


def _range(key: str, bounds: Json) -> Json:
    return _one({"key": key, "range": bounds})


def _all(parts: Sequence[Json]) -> Json:
    if FALSE in parts:
        return FALSE
    kept = [part for part in parts if part != TRUE]
    return TRUE if not kept else kept[0] if len(kept) == 1 else {"must": kept}


def _some(parts: Sequence[Json]) -> Json:
    if TRUE in parts:
        return TRUE
    kept = [part for part in parts if part != FALSE]
    return FALSE if not kept else kept[0] if len(kept) == 1 else {"should": kept}


def _not(part: Json) -> Json:
    if part in (TRUE, FALSE):
        return FALSE if part == TRUE else TRUE
    return {"must_not": [part]}
