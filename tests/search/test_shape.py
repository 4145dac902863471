"""What of a table is searched."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from migrate.backends.sqlite.source import SqliteSource
from migrate.schema import Metric
from migrate.search.base import Searched
from migrate.search.filters import Equals, Field
from migrate.search.shape import searched_tables

FIXTURES = Path(__file__).parents[1] / "fixtures"
BRAIN = Path(__file__).parents[2] / "migrate" / "samples" / "brain.sqlite"


@contextmanager
def _tables(path: Path) -> Iterator[dict[str, Searched]]:
    with closing(SqliteSource(path)) as source:
        yield {s.name: s for s in searched_tables(source)}


def _made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def test_a_brain_is_searched_in_its_memories_and_not_in_its_logs() -> None:
    with _tables(BRAIN) as tables:
        traces = tables["memory_traces"]
        assert {"messages", "document_chunks", "knowledge_nodes"} <= set(tables)
        assert {"brain_meta", "retrieval_feedback", "consolidation_log"}.isdisjoint(tables)
    assert traces.vector is not None
    assert (traces.vector.name, traces.metric) == ("embedding", Metric.COSINE)
    assert (traces.text, traces.tenant) == (("content", "tags"), "brain_id")
    assert traces.live == Equals(Field("deleted"), (0, False))


@pytest.mark.parametrize(
    ("name", "table", "vector", "text", "tenant"),
    [
        ("zeroclaw/brain.db", "memories", "embedding", "content", "tenant_id"),
        ("db0/agent.db", "db0_memory", "embedding", "content", "agent_id"),
    ],
)
def test_other_frameworks_are_understood(name: str, table: str, vector: str, text: str, tenant: str) -> None:
    with _tables(FIXTURES / name) as tables:
        found = tables[table]
    assert found.vector is not None
    assert (found.vector.name, found.text[0], found.tenant) == (vector, text, tenant)
    assert found.live is None


def test_columns_without_a_telling_name_are_told_by_their_prose(tmp_path: Path) -> None:
    path = _made(
        tmp_path / "x.db",
        "CREATE TABLE things (id TEXT PRIMARY KEY, at TEXT, code TEXT, remark TEXT, essay TEXT)",
        *(
            f"INSERT INTO things VALUES ('{i}', '2026-01-01 00:00:00', 'XY-{i}', 'one two three four five',"
            f" 'a much longer text that goes on for a while and then on again')"
            for i in range(5)
        ),
        "CREATE TABLE codes (id TEXT PRIMARY KEY, code TEXT)",
        "INSERT INTO codes VALUES ('a', 'b')",
    )
    with _tables(path) as tables:
        assert set(tables) == {"things"}
        assert tables["things"].text == ("essay", "remark")


def test_a_telling_name_is_enough(tmp_path: Path) -> None:
    path = _made(tmp_path / "x.db", "CREATE TABLE notes (id TEXT PRIMARY KEY, Content TEXT, remark TEXT)")
    with _tables(path) as tables:
        assert tables["notes"].text == ("Content",)
