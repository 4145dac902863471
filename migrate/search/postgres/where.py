"""Filters as SQL of Postgres, true for exactly the rows for which `filters.holds` is.

Columns are compared as they are stored, so that their indexes serve; NULL makes
a test unknown, which counts as false, and `IS NOT TRUE` turns that around. Into
JSON go two operators: `@>` for equality, which a GIN index serves, and
`jsonb_path_exists` in strict mode for ranges and for what is not there. (Lax
mode, the default, looks into arrays on the way, which the filter language does
not; in strict mode a key that is missing is an error, and errors are silenced.)

JSON kept as text is made `jsonb` where it can be one (`pg_input_is_valid`, from
Postgres 16); text that cannot is compared as the text it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.backends.postgres.names import ident
from migrate.errors import ConfigError
from migrate.schema import Kind
from migrate.search.filters import All, Between, Equals, Filter, Not, Scalar, Some

ALIAS = "t"
VALID_JSON = 160000  # pg_input_is_valid came with Postgres 16
_INT64 = (-(2**63), 2**63 - 1)
PGVECTOR = frozenset({"vector", "halfvec"})  # types that pgvector compares as they are
_MANY = 64  # values of one list; more are bound as one array, which no index serves
_SURROGATES = ("\ud800", "\udfff")


class Values:
    """Collects what a statement binds; a call returns the mark that stands for a value."""

    def __init__(self) -> None:
        self.bound: list[Any] = []
        self._seen: dict[tuple[type, Any], str] = {}

    def __call__(self, value: Any, cast: str) -> str:
        key = (type(value), value) if isinstance(value, str | int | float) else None
        if key is not None and key in self._seen:
            return f"{self._seen[key]}::{cast}"
        self.bound.append(value)
        mark = f"${len(self.bound)}"
        if key is not None and len(str(value)) > 100:  # a long text, a vector most likely, travels once
            self._seen[key] = mark
        return f"{mark}::{cast}"


@dataclass(frozen=True, slots=True)
class Held:
    """A column as it stands in Postgres.

    name:     its name there. kind: what its cells are to the source.
    type:     the type's own name in the catalog (`int8`, `jsonb`, `bpchar`), of a domain its base.
    declared: the type as DDL writes it.
    codec:    how the source reads it (`wire.decode`, or "cast").
    binary:   texts are equal only when their bytes are; some collations see it otherwise.
    """

    name: str
    kind: Kind
    type: str
    declared: str
    codec: str
    binary: bool = True

    @property
    def sql(self) -> str:
        """Return the column as a statement names it."""
        return f"{ALIAS}.{ident(self.name)}"

    @property
    def text(self) -> str:
        """Return an expression for its cell as text, as the source gives it."""
        if self.type == "timestamptz":
            return _iso(self.sql)
        if self.type == "bpchar":  # a cast to text would drop the padding that belongs to the cell
            return f"CASE WHEN {self.sql} IS NOT NULL THEN concat({self.sql}) END"
        return self.sql if self.type in ("text", "varchar") else f"{self.sql}::text"


def _iso(sql: str) -> str:
    """Return a timestamptz as `wire.iso_utc` writes it; infinity and far years as the server prints them."""
    usual = f"{sql} >= '0001-01-01 00:00:00+00' AND {sql} < '10000-01-01 00:00:00+00'"
    form = """'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'"""
    return f"CASE WHEN {usual} THEN to_char({sql} AT TIME ZONE 'UTC', {form}) ELSE {sql}::text END"


def where(of: Filter, columns: Mapping[str, Held], values: Values, version: int) -> str:
    """Return a condition over a table called `t`; its values go into `values`.

    of:      a filter whose names are resolved (`filters.bound_to`).
    version: the server's, as a number (180004).
    Raises ConfigError for a JSON test on text where the server cannot tell which text is JSON.
    """
    return _Translation(columns, values, version).of(of)


@dataclass(frozen=True, slots=True)
class _Translation:
    columns: Mapping[str, Held]
    values: Values
    version: int

    def of(self, node: Filter) -> str:
        if isinstance(node, All | Some):
            word, none = (" AND ", "TRUE") if isinstance(node, All) else (" OR ", "FALSE")
            return f"({word.join(self.of(part) for part in node.parts)})" if node.parts else none
        if isinstance(node, Not):
            return f"({self.of(node.part)}) IS NOT TRUE"
        held = self.columns[node.field.column]
        if held.kind is Kind.JSON:
            document = self._document(held)
            if isinstance(node, Equals):
                return self._json_equals(held, document, node)
            return self._json_between(held, document, node)
        return self._equals(held, node) if isinstance(node, Equals) else self._between(held, node)

    # --- columns --------------------------------------------------------------

    def _equals(self, held: Held, node: Equals) -> str:
        parts = [f"{held.sql} IS NULL"] if None in node.values else []
        match held.kind:
            case Kind.INTEGER:
                whole = [int(v) for v in _numbers(node.values) if v == int(v)]
                parts += self._one_of(
                    _integer(held), [v for v in whole if _INT64[0] <= v <= _INT64[1]], "int8"
                )
            case Kind.REAL:
                parts += self._one_of(
                    _double(held), [f for v in _numbers(node.values) if (f := _near(v)) == v], "float8"
                )
            case Kind.BOOL:
                parts += [held.sql if v else f"NOT {held.sql}" for v in node.values if isinstance(v, bool)]
            case _:
                texts = [v for v in node.values if isinstance(v, str) and _storable(v)]
                parts += self._one_of(
                    held.text if held.binary else f'({held.text}) COLLATE "C"', texts, "text"
                )
        return f"({' OR '.join(parts)})" if parts else "FALSE"

    def _one_of(self, sql: str, wanted: Sequence[Any], cast: str) -> list[str]:
        if len(wanted) > 1:
            return [f"{sql} = ANY({self.values(list(wanted), cast + '[]')})"]
        return [f"{sql} = {self.values(v, cast)}" for v in wanted]

    def _between(self, held: Held, node: Between) -> str:
        if held.kind in (Kind.INTEGER, Kind.REAL):
            if node.of_text:
                return "FALSE"
            return self._integers(held, node) if held.kind is Kind.INTEGER else self._doubles(held, node)
        if held.kind is Kind.BOOL or not node.of_text:
            return "FALSE"
        text = f'({held.text}) COLLATE "C"'
        return self._sides(
            (f"{text} {sign}", bound, "text") for sign, bound in (_text_side(*side) for side in _sides(node))
        )

    def _sides(self, sides: Any) -> str:
        return f"({' AND '.join(f'{sql} {self.values(bound, cast)}' for sql, bound, cast in sides)})"

    def _integers(self, held: Held, node: Between) -> str:
        sql, sides = _integer(held), []
        for bound, inclusive, above in _sides(node):
            # The integers beyond a bound: from the first one that lies there.
            least = _first(bound, inclusive, above)
            if not _INT64[0] <= least <= _INT64[1]:
                if (least > 0) == above:
                    return "FALSE"
                least = _INT64[0] if above else _INT64[1]
            sides.append((f"{sql} {'>=' if above else '<='}", least, "int8"))
        return self._sides(sides)

    def _doubles(self, held: Held, node: Between) -> str:
        sql, sides = _double(held), []
        for bound, inclusive, above in _sides(node):
            near = _near(bound)
            if (
                near != bound
            ):  # no double lies between the two, so the nearest one decides on which side it is
                inclusive = (near > bound) == above
            sides.append((f"{sql} {'>' if above else '<'}{'=' if inclusive else ''}", near, "float8"))
        # To Postgres NaN is greater than all numbers.
        return f"({self._sides(sides)} AND {sql} <> 'NaN')"

    # --- JSON -------------------------------------------------------------------

    def _document(self, held: Held) -> str:
        if held.type == "jsonb":
            return held.sql
        if self.version < VALID_JSON:
            raise ConfigError(
                f"{held.name} holds JSON as {held.declared}, and this server cannot tell which text is JSON",
                hint="Postgres 16 or newer can; or keep it as jsonb (ALTER TABLE ... TYPE jsonb)",
            )
        text = f"{held.sql}::text"
        return f"CASE WHEN pg_input_is_valid({text}, 'jsonb') THEN {text}::jsonb ELSE to_jsonb({text}) END"

    def _json_equals(self, held: Held, document: str, node: Equals) -> str:
        path, parts = node.field.path, []
        known = all(map(_storable, path))
        if None in node.values:
            if not known:
                return "TRUE"
            parts.append(
                f"jsonb_path_exists({document}, {self.values(_json_path(path), 'jsonpath')}, '{{}}', true) IS NOT TRUE"
                if path
                else f"{document} IS NULL"
            )
        if not known:
            return "FALSE"
        wanted = [v for v in node.values if not isinstance(v, str) or _storable(v)]
        texts = [text for value in wanted for text in _holding(path, value, text=held.type != "jsonb")]
        if len(texts) > _MANY:
            parts.append(f"{document} @> ANY({self.values(texts, 'jsonb[]')})")
        else:
            parts += [f"{document} @> {self.values(text, 'jsonb')}" for text in texts]
        return f"({' OR '.join(parts)})" if parts else "FALSE"

    def _json_between(self, held: Held, document: str, node: Between) -> str:
        path = node.field.path
        if not all(map(_storable, path)):
            return "FALSE"
        tests, bounds = [], []
        for name, (bound, inclusive, above) in zip("ab", _sides(node), strict=False):
            sign = (">" if above else "<") + ("=" if inclusive else "")
            if isinstance(bound, str):
                sign, bound = _text_side(bound, inclusive, above)
            tests.append(f"@ {sign} ${name}")
            bounds.append(f'"{name}": {_digits(bound, text=held.type != "jsonb")[-1]}')
        at = "@" + "".join(f".{_json(key)}" for key in path)
        test = " && ".join(tests)
        # A number beside texts in one array: each element is tested by itself, for an error ends a test.
        asked = f"strict $ ? (exists({at} ? ({test})) || exists({at}[*] ? ({test})))"
        marks = self.values(asked, "jsonpath"), self.values(f"{{{', '.join(bounds)}}}", "jsonb")
        return f"jsonb_path_exists({document}, {marks[0]}, {marks[1]}, true)"


def _sides(node: Between) -> list[tuple[Any, bool, bool]]:
    """Return (bound, inclusive, above) of the bounds that there are."""
    return [(*side, above) for side, above in ((node.low, True), (node.high, False)) if side is not None]


def _integer(held: Held) -> str:
    return f"{held.sql}::int8" if held.type == "oid" else held.sql


def _double(held: Held) -> str:
    return f"{held.sql}::float8" if held.type == "float4" else held.sql


def _numbers(wanted: Sequence[Scalar]) -> list[int | float]:
    return [v for v in wanted if isinstance(v, int | float) and not isinstance(v, bool)]


def _near(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _first(bound: int | float, inclusive: bool, above: bool) -> int:
    """Return the integer nearest to a bound on its far side."""
    if above:
        least = math.ceil(bound)
        return least + 1 if least == bound and not inclusive else least
    most = math.floor(bound)
    return most - 1 if most == bound and not inclusive else most


def _storable(text: str) -> bool:
    """Whether Postgres can hold a text: NUL and halves of surrogate pairs it cannot."""
    return "\0" not in text and not any(_SURROGATES[0] <= c <= _SURROGATES[1] for c in text)


def _text_side(bound: str, inclusive: bool, above: bool) -> tuple[str, str]:
    """Return a sign and a bound that Postgres can hold, for texts that it can hold.

    Nothing there equals a text with NUL or half a surrogate pair in it, so only
    the side matters: NUL comes before every other character, a half before U+E000.
    """
    for at, character in enumerate(bound):
        if character == "\0":
            return (">" if above else "<="), bound[:at]
        if _SURROGATES[0] <= character <= _SURROGATES[1]:
            return (">=" if above else "<"), bound[:at] + "\ue000"
    return (">" if above else "<") + ("=" if inclusive else ""), bound


def _json_path(path: Sequence[str]) -> str:
    return "strict $" + "".join(f".{_json(key)}" for key in path)


def _holding(path: Sequence[str], value: Scalar, *, text: bool) -> list[str]:
    """Return the JSON that a document contains where a value, or an array's element, is at a path.

    At the top an array contains its elements; below it does not, and is asked for by itself.
    """
    found = []
    for written in _digits(value, text=text):
        for leaf in (written, f"[{written}]") if path else (written,):
            whole = leaf
            for key in reversed(path):
                whole = f"{{{_json(key)}: {whole}}}"
            found.append(whole)
    return found


def _digits(value: Scalar, *, text: bool) -> list[str]:
    """Return the JSON of a value: `jsonb` keeps a number's digits, so a whole double has those of its integer.

    text: the document is text, in which the double 2**60 may be written 1.152921504606847e+18,
    and the integer 1152921504606846976.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return [_json(value)]
    near = _near(value)
    forms = [_json(int(value)), *([_json(near)] if text and near == value and math.isfinite(near) else [])]
    return forms if abs(value) >= 2**53 else forms[:1]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
