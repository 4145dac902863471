"""Filters made from the data: every kind of test, over values that are there.

They are written in the filter language's JSON, so a report can show them and a
person can type them again.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from migrate.schema import Kind, Table

_DEEPEST = 3  # keys into JSON
_FEW = 12  # values: a column of so many is one that people filter by
_LONGEST = 120  # characters of a text that is compared
_KINDS = frozenset({Kind.INTEGER, Kind.REAL, Kind.TEXT, Kind.BOOL, Kind.JSON, Kind.TIMESTAMP})

Json = dict[str, Any]


def filters_from(
    rows: Sequence[Mapping[str, Any]], table: Table, most: int, rng: random.Random
) -> list[Json]:
    """Return up to `most` filters: one of each column, then the next of each, and some that join two.

    rows: metadata of hits, cells by column, JSON parsed.
    """
    columns = []
    for n, (name, values) in enumerate(sorted(_values(rows, table).items())):
        tests = list(_tests(name, values, rng))
        at = n % max(len(tests), 1)  # so that different columns begin with different tests
        columns.append(tests[at:] + tests[:at])
    singles = [one for turn in _in_turns(columns) for one in turn]
    joins = _joined(singles, rng)
    room = max(most - len(joins), most // 2)
    return (singles[:room] + joins)[:most]


def _values(rows: Sequence[Mapping[str, Any]], table: Table) -> dict[str, list[Any]]:
    """Return the scalars of each column, and of each key inside JSON, by the name a filter gives it."""
    found: dict[str, list[Any]] = defaultdict(list)
    columns = [c for c in table.columns if c.kind in _KINDS and c.name not in table.key]
    for row in rows:
        for column in columns:
            if column.name not in row:
                continue
            for path, value in _leaves(row[column.name], (column.name,), column.kind is Kind.JSON):
                if not any('"' in part or not part for part in path):  # which no filter can name
                    found[".".join(map(_quoted, path))].append(value)
    return found


def _leaves(value: Any, path: tuple[str, ...], within: bool) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        if within and len(path) <= _DEEPEST:
            for name, inner in value.items():
                yield from _leaves(inner, (*path, str(name)), within)
    elif isinstance(value, list):
        for item in value[:_FEW]:
            if not isinstance(item, dict | list):
                yield path, item
    else:
        yield path, value


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name not in ("and", "or", "not") else f'"{name}"'


def _tests(name: str, values: Sequence[Any], rng: random.Random) -> Iterator[Json]:
    """Yield the tests of one column."""
    scalars = [v for v in values if isinstance(v, bool | int | float) or _short(v)]
    counts = Counter((type(v) is bool, v) for v in scalars)
    if any(v is None for v in values):
        yield {name: None}
    if len(counts) > 1 or (counts and len(scalars) < len(values)):
        common = [v for (_, v), n in counts.most_common(_FEW) if n > 1 or len(counts) <= _FEW]
        if common:
            yield {name: common[0]}
            yield {name: common[-1]}
            yield {name: {"ne": common[0]}}
        if len(common) > 2:
            yield {name: {"in": sorted(rng.sample(common, 2), key=repr)}}
    numbers = sorted(v for v in scalars if isinstance(v, int | float) and not isinstance(v, bool))
    if len(set(numbers)) > 2:
        low, mid, high = (numbers[len(numbers) * q // 4] for q in (1, 2, 3))
        yield {name: {"gte": mid}}
        yield {name: {"gt": low, "lt": high} if low < high else {"lt": mid}}
    texts = sorted(v for v in scalars if isinstance(v, str))
    if len(set(texts)) > _FEW:
        yield {name: {"gte": texts[len(texts) // 2]}}


def _short(value: Any) -> bool:
    """Whether a text is one that survives being shown: short, and of characters every store holds."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable() and "\\" not in value


def _in_turns(lists: Sequence[Sequence[Json]]) -> Iterator[list[Json]]:
    """Yield the first of each list, then the second of each, ..."""
    for n in range(max(map(len, lists), default=0)):
        yield [one[n] for one in lists if n < len(one)]


def _joined(singles: Sequence[Json], rng: random.Random) -> list[Json]:
    if len(singles) < 2:
        return [{"not": one} for one in singles]
    pairs = [rng.sample(list(singles), 2) for _ in range(3)]
    return [{"and": pairs[0]}, {"or": pairs[1]}, {"not": {"or": pairs[2]}}]


def shown(of: Json) -> str:
    """Return a filter as one writes it on the command line."""
    return json.dumps(of, ensure_ascii=False)
