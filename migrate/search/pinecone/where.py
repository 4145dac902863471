"""Filters as Pinecone's, from above: they let through all records that satisfy ours, and perhaps more.

Metadata is flat and has no null, and JSON other than lists of strings is text in
it, so what Pinecone cannot say it is not asked; what it finds is looked at again
(`filters.holds`). Operators: "Filter by metadata" in Pinecone's documentation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from migrate.backends.pinecone.limits import EXACT_INTEGER
from migrate.backends.pinecone.metadata import is_name
from migrate.schema import Kind, Table
from migrate.search.filters import All, Between, Equals, Filter, Not, Scalar, Some

Json = dict[str, Any]
_MOST_VALUES = 1000
"""Of one `$in` or `$nin`; more are looked at here."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A filter of Pinecone's, None for all records; not `exact`: it lets more through than it should."""

    filter: Json | None
    exact: bool


_ALL = Translated(None, exact=True)
_UNSURE = Translated(None, exact=False)


def where(
    of: Filter, table: Table, *, foreign: bool, aside: frozenset[str] = frozenset()
) -> Translated | None:
    """Translate a filter whose names are resolved; None where no row satisfies it.

    foreign: the table is an index that memlift did not write: its metadata are one JSON column.
    aside: columns some of whose cells are not in the metadata but in the sidecar.
    """
    if isinstance(of, All):
        parts = [where(part, table, foreign=foreign, aside=aside) for part in of.parts]
        return None if None in parts else _joined("$and", [p for p in parts if p is not None])
    if isinstance(of, Some):
        given = [where(part, table, foreign=foreign, aside=aside) for part in of.parts]
        found = [p for p in given if p is not None]
        if not found:
            return None
        whole = next((p for p in found if p.filter is None), None)
        return Translated(None, whole.exact) if whole is not None else _joined("$or", found)
    if isinstance(of, Not):
        return _negated(of.part, table, foreign, aside)
    name = _field(of, table, foreign)
    if name is None:
        return _UNSURE
    said = _equals(of, name, table) if isinstance(of, Equals) else _between(of, name, table)
    if said is None or said.filter is None or of.field.column not in aside:
        return said
    return Translated({"$or": [said.filter, _absent(name)]}, exact=False)


def _absent(name: str) -> Json:
    return {name: {"$exists": False}}


def _joined(word: str, parts: Sequence[Translated]) -> Translated:
    said = [p.filter for p in parts if p.filter is not None]
    exact = all(p.exact for p in parts)
    return Translated(None if not said else said[0] if len(said) == 1 else {word: said}, exact)


def _negated(part: Filter, table: Table, foreign: bool, aside: frozenset[str]) -> Translated | None:
    """Return what does not satisfy a filter: said for plain texts, else everything, looked at again."""
    if isinstance(part, All) and not part.parts:
        return None
    if isinstance(part, Some) and not part.parts:
        return _ALL
    if isinstance(part, Not):
        return where(part.part, table, foreign=foreign, aside=aside)
    few = isinstance(part, Equals) and 0 < len(part.values) <= _MOST_VALUES
    if few and isinstance(part, Equals) and all(isinstance(v, str) for v in part.values):
        name = _field(part, table, foreign)
        if name is not None and table.column(part.field.column).kind is Kind.TEXT:
            # Whether `$nin` finds records without the field, the documentation does not say.
            said = {"$or": [{name: {"$nin": list(part.values)}}, _absent(name)]}
            return Translated(said, exact=False)
    return _UNSURE


def _field(node: Equals | Between, table: Table, foreign: bool) -> str | None:
    """Return the field of the metadata that a test is of, None for what metadata does not tell."""
    column, path = node.field.column, node.field.path
    if foreign:
        name = path[0] if column == "metadata" and len(path) == 1 else ""
    else:
        name = column if not path and column not in table.key else ""
    return name if is_name(name) else None


def _equals(node: Equals, name: str, table: Table) -> Translated | None:
    kind = table.column(node.field.column).kind
    parts: list[Translated] = []
    if None in node.values:
        parts.append(Translated(_absent(name), exact=False))
    wanted: list[Scalar] = []
    for value in node.values:
        if isinstance(value, bool):
            wanted += [value, int(value)] if kind is Kind.BOOL else [value]
        elif isinstance(value, int | float):
            if abs(value) > EXACT_INTEGER:
                return _UNSURE
            wanted.append(value)
        elif isinstance(value, str):
            forms = [json.dumps(value), json.dumps(value, ensure_ascii=False)] if kind is Kind.JSON else []
            wanted += [value, *forms]
    if len(wanted) > _MOST_VALUES or any(isinstance(v, str) and not _is_utf8(v) for v in wanted):
        return _UNSURE
    if kind is Kind.JSON and not node.field.path and any(not isinstance(v, str) for v in node.values):
        return _UNSURE  # a number by itself is kept as its text
    # `$in` takes strings and numbers only; a boolean is asked for by itself.
    parts += [Translated({name: {"$eq": flag}}, exact=False) for flag in wanted if isinstance(flag, bool)]
    plain = [value for value in wanted if not isinstance(value, bool)]
    if plain:
        parts.append(Translated({name: {"$in": plain}}, exact=kind is Kind.TEXT))
    return _joined("$or", parts) if parts else None


def _is_utf8(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _between(node: Between, name: str, table: Table) -> Translated:
    kind = table.column(node.field.column).kind
    if node.of_text or (kind is Kind.JSON and len(node.field.path) != 1):
        return _UNSURE
    bounds: Json = {}
    for side, (closed, opened) in ((node.low, ("$gte", "$gt")), (node.high, ("$lte", "$lt"))):
        if side is not None and isinstance(side[0], int | float):
            if abs(side[0]) > EXACT_INTEGER:
                return _UNSURE
            bounds[closed if side[1] else opened] = side[0]
    return Translated({"$and": [{name: {op: bound}} for op, bound in bounds.items()]}, exact=False)
