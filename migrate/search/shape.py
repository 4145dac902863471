"""What of a table can be searched: its vectors, its words, and whose rows they are.

Told the same way for every store, from what a layout has understood: so the
tables of a migrated store are searched as those of its source were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from migrate import tenants
from migrate.backends.base import Source
from migrate.layouts import words
from migrate.layouts.base import Sample, Wishes
from migrate.reach import understand
from migrate.schema import Column, Kind, Table
from migrate.search.base import Searched
from migrate.search.filters import Equals, Field, Filter

_SAMPLED = 50
_PROSE_WORDS = 4  # half of a column's cells have as many, where it holds prose; a time of day has two
_VECTORS = (Kind.VECTOR, Kind.HALF)


def searched_tables(source: Source, *, sparse: bool = False) -> list[Searched]:
    """Return every table of an open store that can be searched, in the order a layout gives them.

    sparse: the store compares sparse vectors.
    """
    layout, reading = understand(source, Wishes())

    def sample(table: Table, n: int) -> list[tuple[Any, ...]]:
        for batch in source.batches(table, size=n):
            return list(batch.rows)
        return []

    found = [s for t in reading.tables if (s := searched(t, layout.name, sample)) is not None]
    return found if sparse else [replace(s, sparse=None) for s in found]


def searched(table: Table, layout: str = "generic", sample: Sample | None = None) -> Searched | None:
    """Return how a table is searched, or None where it has neither vectors nor words.

    Where it has several columns of vectors of a kind, the first of them is compared.

    table:  as `layout` has understood it (`migrate.reach.understand`).
    sample: returns rows, to look whether an unnamed TEXT column holds prose;
            without it only columns of well-known names hold words.
    """
    vector = next((c for c in table.columns if c.kind in _VECTORS and c.dim), None)
    tenant = next((name for name in tenants.COLUMNS if name in table.column_names), None)
    known = words.of_framework(table, layout)
    text = known if known is not None else _by_name_or_evidence(table, layout, tenant, sample)
    sparse = next((c for c in table.columns if c.kind is Kind.SPARSE), None)
    if vector is None and sparse is None and not text:
        return None
    return Searched(table, vector, text, tenant, live=_live(table, layout), sparse=sparse)


def _live(table: Table, layout: str) -> Filter | None:
    """Return what sets the rows that an agent still remembers apart from those it only keeps."""
    if layout == "agentos" and table.role == "traces":
        return Equals(Field("deleted"), (0, False))
    return None


def _by_name_or_evidence(
    table: Table, layout: str, tenant: str | None, sample: Sample | None
) -> tuple[str, ...]:
    """Return the columns that hold words: well-known names first, then what reads like prose."""
    sure = words.word_columns(table, layout)
    others = [
        c
        for c in table.columns
        if c.kind is Kind.TEXT and c.name not in sure and c.name not in table.key and c.name != tenant
    ]
    others += [c for c in words.by_name(table) if c.kind is Kind.JSON and c.name not in sure]
    if sure or not others or sample is None:
        return sure
    # Only where no name tells: else every store would be searched in its logs and paths as well.
    return _prose(table, others, sample)


def _prose(table: Table, columns: Sequence[Column], sample: Sample) -> tuple[str, ...]:
    wanted = {c.name for c in columns} | set(table.key)
    narrow = table.with_columns(tuple(c for c in table.columns if c.name in wanted))
    rows = sample(narrow, _SAMPLED)
    lengths: dict[str, float] = {}
    for column in columns:
        at = narrow.column_names.index(column.name)
        cells = [row[at] for row in rows if isinstance(row[at], str) and row[at]]
        typical = median(len(cell.split()) for cell in cells) if cells else 0
        if typical >= _PROSE_WORDS:
            lengths[column.name] = typical
    return tuple(sorted(lengths, key=lambda name: -lengths[name]))
