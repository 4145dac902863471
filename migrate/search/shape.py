"""What of a table can be searched: its vectors, its words, and whose rows they are.

Told the same way for every store, from what a layout has understood: so the
tables of a migrated store are searched as those of its source were.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from migrate import tenants
from migrate.api import understand
from migrate.backends.base import Source
from migrate.layouts.base import Sample, Wishes
from migrate.schema import Column, Kind, Table
from migrate.search.base import Searched
from migrate.search.filters import Equals, Field, Filter

# What the tables of an AgentOS brain say in words. The framework's own full-text index has the tags too.
_AGENTOS_WORDS = {
    "memory_traces": ("content", "tags"),
    "knowledge_nodes": ("label", "properties"),
    "documents": ("title", "path"),
    "document_chunks": ("content",),
    "document_images": ("caption",),
    "conversations": ("title",),
    "messages": ("content",),
    "prospective_items": ("content", "cue_text"),
    "archived_traces": ("verbatim_content", "tags"),
}
# Names under which other stores keep what a person would read, best first.
_WORDS = (
    *("content", "text", "document", "body", "page_content", "text_content", "chunk", "chunk_text"),
    *("message", "memory", "value", "data", "summary", "description", "title", "caption", "label"),
)
# Of a name in this list the cells are looked at, for it may as well hold no words.
_DOUBTFUL = {"value", "data"}
_SAMPLED = 50
_PROSE_WORDS = 4  # half of a column's cells have as many, where it holds prose; a time of day has two
_VECTORS = (Kind.VECTOR, Kind.HALF)


def searched_tables(source: Source) -> list[Searched]:
    """Return every table of an open store that can be searched, in the order a layout gives them."""
    layout, reading = understand(source, Wishes())

    def sample(table: Table, n: int) -> list[tuple[Any, ...]]:
        for batch in source.batches(table, size=n):
            return list(batch.rows)
        return []

    return [s for t in reading.tables if (s := searched(t, layout.name, sample)) is not None]


def searched(table: Table, layout: str = "generic", sample: Sample | None = None) -> Searched | None:
    """Return how a table is searched, or None where it has neither vectors nor words.

    table:  as `layout` has understood it (`migrate.api.understand`).
    sample: returns rows, to look whether an unnamed TEXT column holds prose;
            without it only columns of well-known names hold words.
    """
    vector = next((c for c in table.columns if c.kind in _VECTORS and c.dim), None)
    tenant = next((name for name in tenants.COLUMNS if name in table.column_names), None)
    known = _AGENTOS_WORDS.get(table.name) if layout == "agentos" and table.role != "table" else None
    text = _known(table, known) if known is not None else _by_name_or_evidence(table, tenant, sample)
    if layout == "agentos" and table.role in ("settings", "logs"):
        text = ()
    if vector is None and not text:
        return None
    return Searched(table, vector, text, tenant, live=_live(table, layout))


def _live(table: Table, layout: str) -> Filter | None:
    """Return what sets the rows that an agent still remembers apart from those it only keeps."""
    if layout == "agentos" and table.role == "traces":
        return Equals(Field("deleted"), (0, False))
    return None


def _known(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in table.column_names)


def _by_name_or_evidence(table: Table, tenant: str | None, sample: Sample | None) -> tuple[str, ...]:
    """Return the columns that hold words: well-known names first, then what reads like prose."""
    kinds = {c.name.lower(): c for c in table.columns}
    named = [kinds[n] for n in _WORDS if n in kinds and kinds[n].kind in (Kind.TEXT, Kind.JSON)]
    sure = [c.name for c in named if c.name.lower() not in _DOUBTFUL]
    others = [
        c
        for c in table.columns
        if c.kind is Kind.TEXT and c.name not in sure and c.name not in table.key and c.name != tenant
    ]
    others += [c for c in named if c.kind is Kind.JSON and c.name not in sure]
    if sure or not others or sample is None:
        return tuple(sure)
    # Only where no name tells: else every store would be searched in its logs and paths as well.
    return _prose(table, others, sample)


def _prose(table: Table, columns: Sequence[Column], sample: Sample) -> tuple[str, ...]:
    wanted = {c.name for c in columns} | set(table.key)
    narrow = table.with_columns(tuple(c for c in table.columns if c.name in wanted))
    rows = sample(narrow, _SAMPLED)
    words: dict[str, float] = {}
    for column in columns:
        at = narrow.column_names.index(column.name)
        cells = [row[at] for row in rows if isinstance(row[at], str) and row[at]]
        typical = median(len(cell.split()) for cell in cells) if cells else 0
        if typical >= _PROSE_WORDS:
            words[column.name] = typical
    return tuple(sorted(words, key=lambda name: -words[name]))
