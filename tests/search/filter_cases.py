"""Rows and filters that find the places where stores disagree, for every tier's translation of a filter."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from migrate.schema import Column, Kind, Table

TABLE = Table(
    "things",
    (
        Column("id", Kind.INTEGER, "INTEGER", identity=True),
        Column("n", Kind.INTEGER, "INTEGER"),
        Column("r", Kind.REAL, "REAL"),
        Column("s", Kind.TEXT, "TEXT"),
        Column("loose", Kind.TEXT, ""),
        Column("lax", Kind.TEXT, "TEXT", collation="NOCASE"),
        Column("flag", Kind.BOOL, "INTEGER"),
        Column('odd "name".x', Kind.TEXT, "NUMERIC"),
        Column("meta", Kind.JSON, "TEXT"),
    ),
    ("id",),
    dialect="sqlite",
)

INTEGERS = [0, 1, -1, 2, 10, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
LARGE = [2**63, 2**63 + 1, 2**64, 2**64 + 1, -(2**63) - 1, 10**30]
REALS = [0.0, -0.0, 0.5, 1.0, 0.1 + 0.2, 2.0**53, 2.0**63, 1e300, -1e-300]
TEXTS = [
    "",
    "a",
    "A",
    "b",
    "ä",
    "1",
    "1.0",
    "true",
    "null",
    "a\0b",
    "a\0c",
    'q"x',
    "back\\slash",
    "😀",
    "\ue000",
]
KEYS = ["a", "b", "a.b", 'q"x', "é", "😀", "x\\y"]
NO_JSON = ["{", "a", "NaN", "[1,", "{a:1}", "'a'", '{"a":1}x', "Infinity", '{"a":NaN}', "\ufeff1"]
ODD_JSON = [
    '{"a":1,"a":2}',
    '{"a":"\\u0000"}',
    '{"a":"\\ud800"}',
    '{"\\u00e9":1}',
    '{"a":1e400}',
    ' {"a" : [ 1 , "b" ] } ',
    '{"a":"A\\/b"}',
    "1",
    '"a"',
    "null",
    "true",
    "[]",
    '["a",1]',
]

numbers = st.sampled_from([*INTEGERS, *REALS])
texts = st.sampled_from(TEXTS)
large = st.sampled_from(LARGE)
leaves = st.one_of(st.none(), st.booleans(), numbers, large, texts)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)
json_texts = st.one_of(
    st.builds(lambda tree, ascii: json.dumps(tree, ensure_ascii=ascii), trees, st.booleans()),
    st.builds(
        lambda tree, ascii: json.dumps({"a": tree}, ensure_ascii=ascii, separators=(",", ":")),
        trees,
        st.booleans(),
    ),
    st.sampled_from([*ODD_JSON, *NO_JSON]),
)
anything = st.one_of(st.none(), numbers, texts, st.just(b"a"), st.just(b"\xff"))
cells = {
    "n": anything,
    "r": anything,
    "s": anything,
    "loose": anything,
    "lax": st.one_of(st.none(), texts),
    "flag": st.one_of(st.none(), st.sampled_from([0, 1, 2, "a"])),
    'odd "name".x': anything,
    "meta": st.one_of(st.none(), json_texts, st.just(7), st.just(0.5), st.just(b'{"a":1}')),
}
rows = st.lists(st.tuples(*cells.values()), min_size=1, max_size=8)


def written(*parts: str) -> str:
    """Return a name as a filter has it: every part in quotes that needs them."""
    return ".".join('"' + p.replace('"', '""') + '"' if "." in p or p.startswith('"') else p for p in parts)


names = st.one_of(
    st.builds(written, st.sampled_from(list(cells))),
    st.builds(lambda path: written("meta", *path), st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)),
)
bounds = st.one_of(st.tuples(st.one_of(numbers, large), st.one_of(numbers, large)), st.tuples(texts, texts))


def _range(pair: tuple[Any, Any], low: str | None, high: str | None) -> dict[str, Any]:
    found = {name: bound for name, bound in ((low, pair[0]), (high, pair[1])) if name}
    return found or {"gte": pair[0]}


ranges = st.builds(_range, bounds, st.sampled_from([None, "gt", "gte"]), st.sampled_from([None, "lt", "lte"]))
tests = st.one_of(
    leaves,
    st.builds(lambda v: {"eq": v}, leaves),
    st.builds(lambda v: {"$ne": v}, leaves),
    st.builds(lambda v: {"in": v}, st.lists(leaves, max_size=4)),
    st.builds(lambda v: {"nin": v}, st.lists(leaves, max_size=3)),
    ranges,
)
clauses = st.dictionaries(names, tests, min_size=1, max_size=2)
filters: st.SearchStrategy[dict[str, Any]] = st.recursive(
    clauses,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=4,
)
