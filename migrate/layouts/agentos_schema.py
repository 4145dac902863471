"""The 14 tables of an AgentOS brain as facts: columns, keys, foreign keys, indexes.

Schema 2 is what the package has written since 0.3.0. Schema 1 (0.1.101 to
0.2.x) is the same without `brain_id`: keys and foreign keys of one column
less, and no indexes but those of the archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, Metric, Table

_KINDS = {"TEXT": Kind.TEXT, "INTEGER": Kind.INTEGER, "REAL": Kind.REAL, "BLOB": Kind.BLOB}
BRAIN_ID = Column("brain_id", Kind.TEXT, "TEXT", nullable=False)


def _need(name: str, declared: str = "TEXT", default: str | None = None) -> Column:
    return Column(name, _KINDS[declared], declared, nullable=False, default=default)


def _may(name: str, declared: str = "TEXT", default: str | None = None) -> Column:
    return Column(name, _KINDS[declared], declared, default=default)


def _json(name: str, default: str = "{}") -> Column:
    return Column(name, Kind.JSON, "TEXT", nullable=False, default=f"'{default}'")


def _vector(name: str = "embedding") -> Column:
    return Column(name, Kind.VECTOR, "BLOB", metric=Metric.COSINE)


def _count(name: str) -> Column:
    return _need(name, "INTEGER", "0")


_NUMBERED = Column("id", Kind.INTEGER, "INTEGER", nullable=False, identity=True)


def _index(name: str, *columns: str) -> Index:
    """Return an index; a column that ends with `-` descends."""
    return Index(name, tuple(IndexPart(c.rstrip("-"), c.endswith("-")) for c in columns))


def _to(column: str, parent: str) -> ForeignKey:
    return ForeignKey(("brain_id", column), parent, ("brain_id", "id"))


def _table(
    role: str,
    name: str,
    *columns: Column,
    key: tuple[str, ...] = ("brain_id", "id"),
    to: tuple[ForeignKey, ...] = (),
    indexes: tuple[Index, ...] = (),
) -> Table:
    first = () if columns[0] is _NUMBERED else (BRAIN_ID,)
    return Table(name, (*first, *columns), key, to, indexes, dialect="sqlite", role=role)


# In the package's own order: parents before children.
_SCHEMA_2 = (
    _table("settings", "brain_meta", _need("key"), _need("value"), key=("brain_id", "key")),
    _table(
        "traces",
        "memory_traces",
        _need("id"),
        _need("type"),
        _need("scope"),
        _need("content"),
        _vector(),
        _need("strength", "REAL", "1.0"),
        _need("created_at", "INTEGER"),
        _may("last_accessed", "INTEGER"),
        _count("retrieval_count"),
        _json("tags", "[]"),
        _json("emotions"),
        _json("metadata"),
        _count("deleted"),
        indexes=(
            _index("idx_memory_traces_brain_type", "brain_id", "type", "created_at-"),
            _index("idx_memory_traces_brain_scope", "brain_id", "scope"),
        ),
    ),
    _table(
        "graph",
        "knowledge_nodes",
        _need("id"),
        _need("type"),
        _need("label"),
        _json("properties"),
        _vector(),
        _need("confidence", "REAL", "1.0"),
        _json("source"),
        _need("created_at", "INTEGER"),
        indexes=(_index("idx_knowledge_nodes_brain_type", "brain_id", "type"),),
    ),
    _table(
        "graph",
        "knowledge_edges",
        _need("id"),
        _need("source_id"),
        _need("target_id"),
        _need("type"),
        _need("weight", "REAL", "1.0"),
        _count("bidirectional"),
        _json("metadata"),
        _need("created_at", "INTEGER"),
        to=(_to("source_id", "knowledge_nodes"), _to("target_id", "knowledge_nodes")),
        indexes=(
            _index("idx_knowledge_edges_brain_source", "brain_id", "source_id"),
            _index("idx_knowledge_edges_brain_target", "brain_id", "target_id"),
        ),
    ),
    _table(
        "documents",
        "documents",
        _need("id"),
        _need("path"),
        _need("format"),
        _may("title"),
        _need("content_hash"),
        _count("chunk_count"),
        _json("metadata"),
        _need("ingested_at", "INTEGER"),
    ),
    _table(
        "documents",
        "document_chunks",
        _need("id"),
        _need("document_id"),
        _may("trace_id"),
        _need("content"),
        _need("chunk_index", "INTEGER"),
        _may("page_number", "INTEGER"),
        _vector(),
        to=(_to("document_id", "documents"), _to("trace_id", "memory_traces")),
        indexes=(_index("idx_document_chunks_brain_document", "brain_id", "document_id", "chunk_index"),),
    ),
    _table(
        "documents",
        "document_images",
        _need("id"),
        _need("document_id"),
        _may("chunk_id"),
        _need("data", "BLOB"),
        _need("mime_type"),
        _may("caption"),
        _may("page_number", "INTEGER"),
        _vector(),
        to=(_to("document_id", "documents"), _to("chunk_id", "document_chunks")),
    ),
    _table(
        "logs",
        "consolidation_log",
        _NUMBERED,
        BRAIN_ID,
        _need("ran_at", "INTEGER"),
        _count("pruned"),
        _count("merged"),
        _count("derived"),
        _count("compacted"),
        _count("duration_ms"),
        key=("id",),
        indexes=(_index("idx_consolidation_log_brain_time", "brain_id", "ran_at-"),),
    ),
    _table(
        "logs",
        "retrieval_feedback",
        _NUMBERED,
        BRAIN_ID,
        _need("trace_id"),
        _need("signal"),
        _may("query"),
        _need("created_at", "INTEGER"),
        key=("id",),
        to=(_to("trace_id", "memory_traces"),),
        indexes=(_index("idx_retrieval_feedback_brain_trace", "brain_id", "trace_id", "created_at-"),),
    ),
    _table(
        "conversations",
        "conversations",
        _need("id"),
        _may("title"),
        _need("created_at", "INTEGER"),
        _need("updated_at", "INTEGER"),
        _json("metadata"),
    ),
    _table(
        "conversations",
        "messages",
        _need("id"),
        _need("conversation_id"),
        _need("role"),
        _need("content"),
        _need("created_at", "INTEGER"),
        _json("metadata"),
        to=(_to("conversation_id", "conversations"),),
        indexes=(_index("idx_messages_brain_conversation", "brain_id", "conversation_id", "created_at"),),
    ),
    _table(
        "prospective",
        "prospective_items",
        _need("id"),
        _need("content"),
        _need("trigger_type"),
        _may("trigger_at", "INTEGER"),
        _may("trigger_event"),
        _may("cue_text"),
        _vector("cue_embedding"),
        _may("similarity_threshold", "REAL", "0.7"),
        _need("importance", "REAL", "0.5"),
        _count("triggered"),
        _count("recurring"),
        _may("source_trace_id"),
        _need("created_at", "INTEGER"),
    ),
    _table(
        "archive",
        "archived_traces",
        _need("trace_id"),
        _need("agent_id"),
        _need("verbatim_content"),
        _need("content_hash"),
        _need("trace_type"),
        _json("emotional_context"),
        _json("entities", "[]"),
        _json("tags", "[]"),
        _need("created_at", "INTEGER"),
        _need("archived_at", "INTEGER"),
        _need("archive_reason"),
        _count("byte_size"),
        key=("brain_id", "trace_id"),
        indexes=(
            _index("idx_archived_traces_brain_time", "brain_id", "archived_at"),
            _index("idx_archived_traces_brain_reason", "brain_id", "archive_reason"),
        ),
    ),
    _table(
        "archive",
        "archive_access_log",
        _need("trace_id"),
        _need("accessed_at", "INTEGER"),
        _may("request_context"),
        key=("brain_id", "trace_id", "accessed_at"),
        indexes=(_index("idx_archive_access_recency", "brain_id", "trace_id", "accessed_at-"),),
    ),
)

_INDEXES_1 = {
    "archived_traces": (
        _index("idx_archived_traces_agent_time", "agent_id", "archived_at"),
        _index("idx_archived_traces_reason", "archive_reason"),
    ),
    "archive_access_log": (_index("idx_archive_access_recency", "trace_id", "accessed_at-"),),
}


def _older(table: Table) -> Table:
    """Return a table of schema 2 as schema 1 has it."""
    key = tuple(k for k in table.key if k != "brain_id")
    columns = tuple(c for c in table.columns if c.name != "brain_id")
    if len(key) == 1:  # `id TEXT PRIMARY KEY`, which SQLite lets be NULL
        columns = tuple(replace(c, nullable=True) if (c.name,) == key else c for c in columns)
    links = tuple(
        replace(f, columns=f.columns[1:], parent_columns=f.parent_columns[1:]) for f in table.foreign_keys
    )
    return replace(
        table, columns=columns, key=key, foreign_keys=links, indexes=_INDEXES_1.get(table.name, ())
    )


@cache
def schema(version: int) -> dict[str, Table]:
    """Return the tables of schema 1 or 2 by name, parents first. VECTOR columns have no `dim` here."""
    return {t.name: t if version == 2 else _older(t) for t in _SCHEMA_2}


@dataclass(frozen=True, slots=True)
class Match:
    """A store's table that is a brain's: `model` is the table as the framework makes it."""

    model: Table
    version: int


def match(table: Table) -> Match | None:
    """Say which brain table this is, by name and columns; None for a stranger of the same name.

    A table may have more columns than the framework's, not fewer.
    """
    names = {c.name for c in table.columns}
    version = 2 if "brain_id" in names else 1
    model = schema(version).get(table.name)
    if model is None or not names.issuperset(model.column_names):
        return None
    return Match(model, version)


def brain(tables: Sequence[Table]) -> dict[str, Match]:
    """Return the tables of a store that make up a brain, parents first; empty where there is no brain.

    A brain has its traces, or its settings and something else; all its tables
    are of one schema, told by those two. Chat stores have `conversations` and
    `messages` too, with other columns or without a brain beside them.
    """
    found = {table.name: m for table in tables if (m := match(table)) is not None}
    head = found.get("brain_meta") or found.get("memory_traces")
    if head is None:
        return {}
    alike = {
        name: found[name]
        for name in schema(head.version)
        if name in found and found[name].version == head.version
    }
    return alike if "memory_traces" in alike or len(alike) > 1 else {}
