"""Filters as SQL of SQLite, true for exactly the rows for which `filters.holds` is.

Columns are compared in SQL. Into JSON a function of ours looks, for SQLite's
own JSON functions see other values than were written (all of it measured on
3.40): a text ends at its first `\\u0000`, an integer beyond 64 bits is rounded,
a key written with escapes (as Python's `json.dumps` writes every key beyond
ASCII) is not found by `json_extract`, of a repeated key the first counts, a
text that is no JSON is an error, and later versions accept JSON5. It costs
1.0 us a row against 0.4 us; rows that cannot match are sorted out by `instr`
before, which brings the usual equality to 0.5 us.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from migrate import values
from migrate.backends.sqlite.names import bound, ident
from migrate.errors import ConfigError
from migrate.fit import INT64
from migrate.schema import Kind, Table, affinity
from migrate.search import cells
from migrate.search.filters import All, Between, Equals, Field, Filter, Not, Scalar, Some, holds, values_at

ALIAS = "t"
FUNCTION = "memlift_holds"
_MOST_VALUES = 30_000
"""SQLite takes 32,766 values a statement unless it was built otherwise (https://www.sqlite.org/limits.html)."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which rows may be found: a boolean expression over a table called `t`, never NULL, and what it binds.

    Equal ones allow the same rows as long as the store is the same.
    """

    sql: str
    bindings: tuple[Any, ...] = ()


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the function that looks into JSON. A file of any origin may use it: it only compares."""
    connection.create_function(FUNCTION, 2, _holds, deterministic=True)


def allowed(of: Filter, table: Table, here: Table, *, utf8: bool = True) -> Allowed:
    """Translate a filter whose fields are resolved (`filters.bound_to`).

    table: as a layout has understood it. here: as the file declares it, for the affinities.
    utf8:  whether the file keeps text as UTF-8, so that SQLite compares it by code point.
    Raises ConfigError for more values than a statement takes.
    """
    sql, bindings = _Translation(table, here, utf8).of(of)
    if len(bindings) > _MOST_VALUES:
        raise ConfigError(
            f"the filter names {len(bindings):,} values", hint=f"{_MOST_VALUES:,} at most for a SQLite file"
        )
    return Allowed(f"({sql})", tuple(bindings))


_Part = tuple[str, list[Any]]
_GROUP = 16


def _joined(word: str, parts: Sequence[_Part]) -> _Part:
    """Join parts in groups of groups.

    SQLite takes expressions of 1,000 levels, of which a chain has one a part,
    and its parser keeps 100 things open, of which a group has three.
    """
    while len(parts) > _GROUP:
        parts = [_joined(word, parts[i : i + _GROUP]) for i in range(0, len(parts), _GROUP)]
    if len(parts) == 1:
        return parts[0]
    return f"({f' {word} '.join(sql for sql, _ in parts)})", [v for _, values_ in parts for v in values_]


def _depth(of: Filter) -> int:
    if isinstance(of, Not):
        return 1 + _depth(of.part)
    return 1 + max(map(_depth, of.parts), default=0) if isinstance(of, All | Some) else 0


@dataclass(frozen=True, slots=True)
class _Translation:
    table: Table
    here: Table
    utf8: bool

    def of(self, node: Filter) -> _Part:
        if isinstance(node, All | Some):
            if not node.parts:
                return _const(isinstance(node, All))
            deepest_first = sorted(node.parts, key=_depth, reverse=True)  # the parser keeps less open
            return _joined("AND" if isinstance(node, All) else "OR", [self.of(p) for p in deepest_first])
        if isinstance(node, Not):
            sql, bindings = self.of(node.part)
            return f"NOT ({sql})", bindings
        kind = self.table.column(node.field.column).kind
        if kind is Kind.JSON:
            return self._json(node)
        return self._column(node, kind)

    def _column(self, node: Equals | Between, kind: Kind) -> _Part:
        return self._equals(node, kind) if isinstance(node, Equals) else self._between(node, kind)

    def _names(self, column: str) -> tuple[str, str, str]:
        """Return a column as it is, and as it is compared with numbers and with texts.

        A `+` keeps SQLite from turning the other side into what the column
        likes to hold (a number into text, beside a TEXT column); without one an
        index can be used.
        """
        name = f"{ALIAS}.{ident(column)}"
        likes = affinity(self.here.column(column).declared)
        return (
            name,
            f"+{name}" if likes == "TEXT" else name,
            name if likes in ("TEXT", "BLOB") else f"+{name}",
        )

    def _equals(self, node: Equals, kind: Kind) -> _Part:
        name, number, text = self._names(node.field.column)
        parts: list[_Part] = []
        if None in node.values:
            parts.append((f"{name} IS NULL", []))
        numbers = _numbers(node.values, kind)
        if numbers:
            marks = ", ".join("?" * len(numbers))
            parts.append((f"(typeof({name}) IN ('integer', 'real') AND {number} IN ({marks}))", numbers))
        texts = [pair for v in node.values if isinstance(v, str) and (pair := _text(v)) is not None]
        if texts:
            marks = ", ".join(mark for mark, _ in texts)
            sql = f"(typeof({name}) = 'text' AND {text} COLLATE BINARY IN ({marks}))"
            parts.append((sql, [value for _, value in texts]))
        return _joined("OR", parts) if parts else _const(False)

    def _between(self, node: Between, kind: Kind) -> _Part:
        name, number, text = self._names(node.field.column)
        if not node.of_text:
            parts: list[_Part] = [(f"typeof({name}) IN ('integer', 'real')", [])]
            if kind is Kind.BOOL:
                parts.append((f"{number} NOT IN (0, 1)", []))  # these are booleans, which no range compares
            for bound_, above in ((node.low, True), (node.high, False)):
                if bound_ is not None and not isinstance(bound_[0], str):
                    parts.append(_bounded(number, bound_[0], bound_[1], above))
            return _joined("AND", parts)
        given = [(b, above) for b, above in ((node.low, True), (node.high, False)) if b is not None]
        marks = [_text(str(b[0])) for b, _ in given]
        if not self.utf8 or None in marks:
            sql = f"(typeof({name}) = 'text' AND {FUNCTION}(?, {self._bytes(name)}))"
            return sql, [_written(node, plain=True)]
        parts = [(f"typeof({name}) = 'text'", [])]
        for ((_, inclusive), above), pair in zip(given, marks, strict=True):
            mark, value = pair or ("?", None)
            sign = (">" if above else "<") + ("=" if inclusive else "")
            parts.append((f"{text} {sign} {mark} COLLATE BINARY", [value]))
        return _joined("AND", parts)

    def _bytes(self, name: str) -> str:
        """Return a text as bytes: one that is no UTF-8 cannot be given to a function."""
        return f"CAST({name} AS BLOB)" if self.utf8 else name

    def _json(self, node: Equals | Between) -> _Part:
        name, column = f"{ALIAS}.{ident(node.field.column)}", node.field.column
        on_text: _Part = (f"{FUNCTION}(?, {self._bytes(name)})", [_written(node)])
        needles = _needles(node)
        if needles:
            found = " OR ".join([f"instr({name}, '\\')", *(f"instr({name}, ?)" for _ in needles)])
            on_text = (f"(({found}) AND {on_text[0]})", [*needles, *on_text[1]])
        on_number = _const(holds(node, {column: 0}))  # a number has no keys
        if not node.field.path:
            on_number = self._column(node, Kind.REAL)
        sql = (
            f"CASE typeof({name}) WHEN 'text' THEN {on_text[0]} WHEN 'null' THEN {int(holds(node, {}))}"
            f" WHEN 'blob' THEN {int(holds(node, {column: b''}))} ELSE {on_number[0]} END"
        )
        return f"({sql})", on_text[1] + on_number[1]


def _const(value: bool) -> _Part:
    return "1" if value else "0", []


def _numbers(wanted: Sequence[Scalar], kind: Kind) -> list[Any]:
    """Return the numbers that a cell may be for one of these values: of a BOOL column 0 and 1 are booleans."""
    found: list[Any] = []
    for value in wanted:
        if isinstance(value, bool):
            found += [int(value)] if kind is Kind.BOOL else []
        elif isinstance(value, int | float) and not (kind is Kind.BOOL and value in (0, 1)):
            near = _near(value)
            found += [near] if near == value else []
    return found


def _near(number: int | float) -> int | float:
    """Return a number as SQLite can bind it: an integer beyond 64 bits as the nearest double."""
    if isinstance(number, float) or INT64[0] <= number <= INT64[1]:
        return number
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _bounded(name: str, limit: int | float, inclusive: bool, above: bool) -> _Part:
    near = _near(limit)
    if near != limit:  # no cell lies between the two, so the nearest double decides on which side it is
        inclusive = (near > limit) == above
    return f"{name} {'>' if above else '<'}{'=' if inclusive else ''} ?", [near]


def _text(text: str) -> tuple[str, Any] | None:
    """Return the mark and the value by which a text is bound, or None where no cell can be that text."""
    try:
        value, cast = bound(text)
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return ("CAST(? AS TEXT)" if cast else "?"), value


def _needles(node: Equals | Between) -> list[str]:
    """Return texts of which a cell holds one as it is, or a backslash, if it satisfies a test; none if it may not.

    A string in JSON is written as it is, or with a backslash in it.
    """
    if not isinstance(node, Equals) or not node.values or len(node.values) > 8:
        return []
    texts = [v for v in node.values if isinstance(v, str)]
    plain = len(texts) == len(node.values) and all(t.isprintable() and '"' not in t for t in texts)
    return texts if plain else []


# --- into JSON -------------------------------------------------------------------


def _written(node: Equals | Between, *, plain: bool = False) -> str:
    """Return a test as text, so that statements bind it like any value."""
    test: dict[str, Any] = {"path": node.field.path, "plain": plain}
    test |= {"values": node.values} if isinstance(node, Equals) else {"low": node.low, "high": node.high}
    return json.dumps(test)


@lru_cache(maxsize=256)
def _read(written: str) -> tuple[Equals | Between, bool]:
    test = json.loads(written)
    field = Field("", tuple(test["path"]))
    if "values" in test:
        return Equals(field, tuple(test["values"])), bool(test["plain"])
    low, high = ((b[0], b[1]) if b is not None else None for b in (test["low"], test["high"]))
    return Between(field, low, high), bool(test["plain"])


def _holds(written: str, cell: bytes | str) -> bool:
    """Whether a JSON text satisfies a test; `plain`: the text itself does."""
    test, plain = _read(written)
    if plain:
        return holds(test, {"": _decoded(cell)})
    value = cells.quickly_from_json(cell)
    if any(map(cells.may_be_rounded, values_at(value, test.field.path))):
        value = cells.from_json(_decoded(cell))
    return holds(test, {"": value})


def _decoded(cell: bytes | str) -> str:
    return values.bytes_text(cell) if isinstance(cell, bytes) else cell
