"""Which cells a collection can hold of a table, judged before a row moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from migrate.backends.base import Options
from migrate.backends.qdrant import payload
from migrate.backends.qdrant.engine import Limits
from migrate.backends.qdrant.names import MARKS
from migrate.backends.qdrant.shape import Shape, VectorColumn, given_id
from migrate.fit import Fit, Found, Never, Rule, Vectors
from migrate.fit_packed import Packed
from migrate.schema import Column, Kind, Table

_NONE = type(None)


@dataclass(frozen=True, slots=True)
class Payload:
    """Any cell that is not too large, and JSON that is not nested too deep.

    What is either is kept in the sidecar, whole; nothing is lost, so it is no misfit.

    whole: the cell is the whole payload of a point, which has no mark for doubles that the engine
           gives back a little off; those are in the payload and, exactly, in the sidecar.
    """

    limits: Limits
    json: bool = False
    whole: bool = False

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        for i, cell in enumerate(cells):
            if not isinstance(cell, (str, bytes)):
                continue
            size = len(cell) * (4 if isinstance(cell, bytes) else 3) // 3
            if size > self.limits.cell:
                yield Found(i, None, f"{len(cell)} bytes in one payload value", harmless=True)
            elif self.json and isinstance(cell, str) and (reason := self._deep(cell)):
                yield Found(i, None, reason, harmless=True)
            elif self.whole and isinstance(cell, str) and not payload.doubles_kept(cell):
                yield Found(i, None, "a double that Qdrant gives back a little off", cell, harmless=True)

    def _deep(self, text: str) -> str | None:
        if text.count("[") + text.count("{") <= 12:
            return None
        try:
            levels, weight = payload.depth(payload.json_value(text))
        except RecursionError:
            return "JSON nested too deep for a payload"
        if levels > self.limits.depth or (self.limits.weight is not None and weight > self.limits.weight):
            return f"JSON nested {levels} levels deep, too deep for a payload"
        return None

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return cell


@dataclass(frozen=True, slots=True)
class PointIds:
    """Ids as a foreign collection tells them (`shape.given_id`). type: of the column's cells."""

    type: type

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        for i, cell in enumerate(cells):
            if cell is not None and (type(cell) is not self.type or given_id(cell) is None):
                yield Found(i, None, "no id of a point, which is an integer from 0 on or a lower-case UUID")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return cell


def _vector_rule(v: VectorColumn) -> Rule:
    if v.column.kind is Kind.VECTOR:
        return Vectors(v.column.dim or 0, legacy_json=v.column.legacy_json)
    return Packed(v.column.kind, v.column.dim)


def _told(v: VectorColumn) -> str:
    if v.column.kind is Kind.SPARSE:
        return "sparse vector"
    kind = "multivector" if v.column.kind is Kind.MULTI else "vector"
    return f"{kind}({v.params['size']}) {str(v.params['distance']).lower()} {v.params.get('datatype', '')}".rstrip()


def _payload_told(column: Column) -> str:
    return {Kind.BLOB: "payload base64", Kind.JSON: "payload JSON"}.get(column.kind, "payload")


def standing(shape: Shape, limits: Limits, wanted: Table) -> Callable[[int, Any, Any], bool]:
    """Return `Fit.stands_for` for rows of the wanted columns, as they come back from a collection."""
    rules = fit(shape.table, Options(), limits, sharded=shape.sharded)
    usual, names = rules.standing_in(wanted), wanted.column_names
    whole = rules.rules[shape.table.column_names.index("payload")] if shape.foreign else Never("")

    def stands_for(at: int, exact: Any, present: Any) -> bool:
        if shape.foreign and names[at] == "payload":
            instead = next((f.instead for f in whole.check([exact])), None)
            return bool(present == "{}") if instead is None else _near(exact, present)
        return names[at] == MARKS or usual(at, exact, present)

    return stands_for


def _near(exact: str, present: Any) -> bool:
    try:
        return payload.near(orjson.loads(present), orjson.loads(exact))
    except (ValueError, TypeError):
        return False


def fit(table: Table, options: Options, limits: Limits, *, sharded: bool = True) -> Fit:
    """Return what a collection can hold of a table."""
    shape = Shape(table, json_text=options.json == "text", sharded=sharded)
    by_place = {v.at: v for v in shape.vectors}
    rules: list[Rule] = []
    types, notes, problems = [], [], []
    for i, column in enumerate(table.columns):
        if i in by_place:
            rules.append(_vector_rule(by_place[i]))
            types.append((column.name, _told(by_place[i])))
        elif column.name == MARKS and not shape.foreign:
            rules.append(Never(f"the payload key {MARKS!r} is reserved"))
            types.append((column.name, "-"))
        elif shape.foreign and column.name == "id":
            rules.append(PointIds(int if column.kind is Kind.INTEGER else str))
            types.append((column.name, "point id"))
        else:
            whole = shape.foreign and column.name == "payload"
            rules.append(Payload(limits, json=column.kind is Kind.JSON, whole=whole))
            types.append((column.name, _payload_told(column)))
    if MARKS in table.key and not shape.foreign:
        problems.append(f"the key column name {MARKS!r} is reserved")
    for v in shape.vectors:
        if v.unit:
            notes.append(
                f"{v.column.name}: cosine, so Qdrant keeps unit vectors; norms and last bits go into the payload,"
                " vectors come back byte for byte"
            )
        named = v.column.metric is not None or shape.foreign or v.column.kind is Kind.SPARSE
        if not named:
            notes.append(f"{v.column.name}: the source names no metric; cosine is taken")
    mine = {v.column.name for v in shape.vectors}
    notes += [
        f"{c.name}: has no one dimension, kept as bytes in the payload"
        for c in table.columns
        if c.kind is Kind.VECTOR and c.name not in mine
    ]
    key = frozenset(table.key_positions)
    return Fit(
        table,
        tuple(rules),
        key,
        key,
        tuple(problems),
        tuple(notes),
        keyed=bool(table.key),
        types=tuple(types),
    )
