"""The filter language: small, JSON, the same on every tier.

    {"type": "episodic"}                                equality; null finds NULL and absent
    {"strength": {"gte": 0.5, "lt": 1}}                 ranges: gt, gte, lt, lte
    {"type": {"in": ["episodic", "semantic"]}}          one of; also eq, ne, nin
    {"metadata.user.name": "Ada"}                       into JSON, key by key
    {"and": [...]}, {"or": [...]}, {"not": {...}}       several keys in one object are an `and`

Operators may have a `$` before them. A dot or an operator's name that is part of
a name is written in double quotes, a double quote in them twice:
`{"\\"a.b\\".c": 1}`, `{"\\"or\\"": 1}`.

A filter is parsed once into the nodes below and translated by each tier; values
are bound, never written into a query. Meaning, the same everywhere:

- every test is true or false, never unknown: a NULL or absent value satisfies only
  `null`, and `not`, `ne`, `nin` are the exact opposite of their positive form;
- numbers equal numbers by value (1 is 1.0), booleans only booleans, strings only strings;
- a range compares numbers with numbers and strings with strings (by code point);
- of a JSON array any element may satisfy a test.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.errors import ConfigError
from migrate.schema import Kind, Table

Scalar = str | int | float | bool | None

_JOINS = {"and", "or"}
_RANGES = {"gt", "gte", "lt", "lte"}
_TESTS = _RANGES | {"eq", "ne", "in", "nin"}
_HINT = 'as in {"type": "episodic", "metadata.user": {"in": ["Ada", "Bob"]}, "strength": {"gte": 0.5}}'
DEEPEST = 32
"""How deep `and`, `or` and `not` may be nested: what every store's parser takes."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where a value stands: a column, and keys into its JSON."""

    column: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.column, *self.path))


@dataclass(frozen=True, slots=True)
class Equals:
    """The value is one of these. None stands for NULL and absent."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The value lies between bounds, each None or (bound, inclusive); both numbers or both strings."""

    field: Field
    low: tuple[str | int | float, bool] | None
    high: tuple[str | int | float, bool] | None

    @property
    def of_text(self) -> bool:
        """Whether strings are compared."""
        bound = self.low or self.high
        return bound is not None and isinstance(bound[0], str)


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; true without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds; false without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Equals | Between | All | Some | Not


def parse(given: Any) -> Filter:
    """Return the filter that JSON text or parsed JSON means.

    Raises ConfigError for anything that is no filter, with the place in the message.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"the filter is no JSON: {exc}", hint=_HINT) from None
    return _parsed(given, 0)


def _parsed(given: Any, depth: int) -> Filter:
    if depth > DEEPEST:
        raise ConfigError(f"the filter is nested deeper than {DEEPEST} levels", hint="write it flatter")
    if not isinstance(given, dict):
        raise ConfigError(f"a filter is an object, not {_named(given)}", hint=_HINT)
    parts = tuple(_clause(str(name), value, depth) for name, value in given.items())
    return parts[0] if len(parts) == 1 else All(parts)


def _clause(name: str, value: Any, depth: int) -> Filter:
    word = name.removeprefix("$")
    if word in _JOINS:
        if not isinstance(value, list):
            raise ConfigError(f"{name} takes a list of filters, not {_named(value)}", hint=_HINT)
        parts = tuple(_parsed(part, depth + 1) for part in value)
        return All(parts) if word == "and" else Some(parts)
    if word == "not":
        return Not(_parsed(value, depth + 1))
    if name.startswith("$"):
        raise ConfigError(f"{name} is no operator here", hint=f"and, or, not, or a column's name; {_HINT}")
    return _test(Field(*_split(name)), value)


_PART = re.compile(r'"((?:[^"]|"")+)"(?=\.|\Z)|([^".][^.]*)(?=\.|\Z)')


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    """Cut a dotted name into a column and keys; parts in double quotes are taken as they are."""
    parts: list[str] = []
    at = 0
    while (found := _PART.match(name, at)) is not None:
        parts.append(found[1].replace('""', '"') if found[1] is not None else found[2])
        at = found.end() + 1
        if found.end() == len(name):
            return parts[0], tuple(parts[1:])
    if name[at : at + 1] == '"':
        raise ConfigError(f"a quote is not closed in {name!r}", hint='as in {"\\"a.b\\".c": 1}')
    raise ConfigError(f"a part of the name {name!r} is empty", hint=_HINT)


def _test(field: Field, value: Any) -> Filter:
    if not isinstance(value, dict):
        return Equals(field, (_scalar(field, value),))
    if not value:
        raise ConfigError(f"nothing is asked of {field}", hint=_HINT)
    asked = {str(name).removeprefix("$"): of for name, of in value.items()}
    unknown = sorted(set(asked) - _TESTS)
    if unknown:
        raise ConfigError(
            f"{unknown[0]!r} is no test of {field}",
            hint=f"one of {', '.join(sorted(_TESTS))}; a key inside JSON is written {field}.{unknown[0]}",
        )
    parts: list[Filter] = [
        _positive(field, name, asked[name]) for name in ("eq", "ne", "in", "nin") if name in asked
    ]
    if _RANGES & set(asked):
        parts.append(_between(field, asked))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _positive(field: Field, name: str, value: Any) -> Filter:
    if name in ("in", "nin"):
        if not isinstance(value, list):
            raise ConfigError(f"{name} takes a list, not {_named(value)}", hint=_HINT)
        found = Equals(field, tuple(_scalar(field, v) for v in value))
    else:
        found = Equals(field, (_scalar(field, value),))
    return Not(found) if name in ("ne", "nin") else found


def _between(field: Field, asked: dict[str, Any]) -> Between:
    bounds: list[tuple[str | int | float, bool] | None] = []
    for inclusive, exclusive in (("gte", "gt"), ("lte", "lt")):
        if inclusive in asked and exclusive in asked:
            raise ConfigError(f"{field} has both {inclusive} and {exclusive}", hint="leave one of them out")
        name = inclusive if inclusive in asked else exclusive
        if name not in asked:
            bounds.append(None)
            continue
        bound = _scalar(field, asked[name])
        if bound is None or isinstance(bound, bool):
            raise ConfigError(f"{field}: {name} takes a number or a string", hint=_HINT)
        bounds.append((bound, name == inclusive))
    if all(b is not None for b in bounds) and len({isinstance(b[0], str) for b in bounds if b}) > 1:
        raise ConfigError(f"{field}: the bounds are a number and a string", hint="give two of one kind")
    return Between(field, bounds[0], bounds[1])


def _scalar(field: Field, value: Any) -> Scalar:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ConfigError(f"{field} cannot be compared with {_named(value)}", hint=_HINT)


def _named(value: Any) -> str:
    words = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "a boolean"}
    return words.get(type(value), f"{value!r}")


# --- against a table ------------------------------------------------------------


def fields(of: Filter) -> Iterator[Field]:
    """Yield every field that a filter names."""
    if isinstance(of, Equals | Between):
        yield of.field
    elif isinstance(of, Not):
        yield from fields(of.part)
    else:
        for part in of.parts:
            yield from fields(part)


def bound_to(of: Filter, table: Table) -> Filter:
    """Return the filter with its names resolved against a table.

    A name that is no column is looked for in the table's JSON column called
    `metadata` or the like, so that `{"user": "Ada"}` finds what most agent stores
    mean. Raises ConfigError for a name that leads nowhere, for keys into a column
    that is no JSON, and for a vector or BLOB column.
    """
    if isinstance(of, Equals):
        return Equals(_resolved(of.field, table), of.values)
    if isinstance(of, Between):
        return Between(_resolved(of.field, table), of.low, of.high)
    if isinstance(of, Not):
        return Not(bound_to(of.part, table))
    return type(of)(tuple(bound_to(part, table) for part in of.parts))


_BAGS = ("metadata", "payload", "metadata_json", "cmetadata", "langchain_metadata", "meta")
_FILTERABLE = frozenset(
    {Kind.INTEGER, Kind.REAL, Kind.TEXT, Kind.BOOL, Kind.JSON, Kind.TIMESTAMP, Kind.NATIVE}
)


def _resolved(field: Field, table: Table) -> Field:
    kinds = {c.name: c.kind for c in table.columns}
    if field.column not in kinds:
        bags = [n for n in _BAGS if kinds.get(n) is Kind.JSON]
        if not bags:
            known = ", ".join(n for n, kind in kinds.items() if kind in _FILTERABLE)
            raise ConfigError(f"{table.name} has no column {field.column}", hint=f"columns: {known}")
        return Field(bags[0], (field.column, *field.path))
    kind = kinds[field.column]
    if kind not in _FILTERABLE:
        raise ConfigError(
            f"{field.column} holds {kind.value}s, which no filter compares", hint="leave it out"
        )
    if field.path and kind is not Kind.JSON:
        raise ConfigError(
            f"{field.column} is no JSON, so there is no {field}",
            hint='a dot in a name is quoted: "\\"a.b\\""',
        )
    return field


def of_tenant(column: str, tenant: str) -> Filter:
    """Return what rows of a tenant satisfy; a number is named by its digits, as on a command line."""
    numbers: tuple[Scalar, ...] = ()
    if tenant.removeprefix("-").isdecimal() and len(tenant) < 20 and str(int(tenant)) == tenant:
        numbers = (int(tenant),)
    return Equals(Field(column), (tenant, *numbers))


def condition(table: Table, where: Filter | None, column: str | None, tenant: str | None) -> Filter:
    """Return what the rows satisfy that a query may find. column: the one that tells tenants apart, if any.

    Raises ConfigError for a filter that does not fit the table, and for a tenant of a table without tenants.
    """
    parts = [] if where is None else [bound_to(where, table)]
    if tenant is not None:
        if column is None:
            raise ConfigError(f"{table.name} has no column that names a tenant", hint="leave the tenant out")
        parts.append(of_tenant(column, tenant))
    return All(tuple(parts))


# --- the meaning -------------------------------------------------------------------


def holds(of: Filter, row: dict[str, Any]) -> bool:
    """Whether a row satisfies a filter: the meaning that every tier's translation is tested against.

    row: cells by column; JSON columns parsed, booleans as bool. A column that is missing is NULL.
    """
    if isinstance(of, All):
        return all(holds(part, row) for part in of.parts)
    if isinstance(of, Some):
        return any(holds(part, row) for part in of.parts)
    if isinstance(of, Not):
        return not holds(of.part, row)
    values = values_at(row.get(of.field.column), of.field.path)
    if isinstance(of, Equals):
        return any(_same(value, wanted) for value in values for wanted in of.values)
    return any(_lies(value, of) for value in values)


def values_at(value: Any, path: Sequence[str]) -> list[Any]:
    """Return what a test looks at: the value at the end of the keys (None where they lead nowhere), or an array's."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return [*value] if isinstance(value, list) else [value]


def _same(value: Any, wanted: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool) or value is None or wanted is None:
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return value == wanted
    return isinstance(value, str) and isinstance(wanted, str) and value == wanted


def _lies(value: Any, of: Between) -> bool:
    if isinstance(value, bool) or not isinstance(value, str if of.of_text else (int, float)):
        return False
    return all(
        bound is None or _beyond(value, bound[0], bound[1], above)
        for bound, above in ((of.low, True), (of.high, False))
    )


def _beyond(value: Any, bound: Any, inclusive: bool, above: bool) -> bool:
    return (inclusive and value == bound) or bool(value > bound if above else value < bound)
