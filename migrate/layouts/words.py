"""Which columns of a table hold words that a person would look for."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.schema import Column, Kind, Table

# What the tables of an AgentOS brain say in words. The framework's own full-text index has the tags too.
_AGENTOS = {
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
_NAMES = (
    *("content", "text", "document", "body", "page_content", "text_content", "chunk", "chunk_text"),
    *("message", "memory", "value", "data", "summary", "description", "title", "caption", "label"),
)
DOUBTFUL = frozenset({"value", "data"})
"""Of a column with one of these names the cells are looked at, for it may as well hold no words."""


def of_framework(table: Table, layout: str) -> tuple[str, ...] | None:
    """Return the columns that a framework is known to keep words in, best first; None for an unknown table."""
    if layout != "agentos" or table.role == "table":
        return None
    if table.role in ("settings", "logs"):
        return ()
    known = _AGENTOS.get(table.name)
    return None if known is None else tuple(name for name in known if name in table.column_names)


def by_name(table: Table) -> Sequence[Column]:
    """Return the columns whose names promise words, best first, the doubtful ones among them."""
    kinds = {c.name.lower(): c for c in table.columns}
    return [kinds[n] for n in _NAMES if n in kinds and kinds[n].kind in (Kind.TEXT, Kind.JSON)]


def word_columns(table: Table, layout: str) -> tuple[str, ...]:
    """Return the columns that surely hold words, best first, told without looking at their cells."""
    known = of_framework(table, layout)
    if known is not None:
        return known
    return tuple(c.name for c in by_name(table) if c.name.lower() not in DOUBTFUL)
