"""A brain of schema 1 is read as one of schema 2: every row, every key, every vector."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import BRAIN, BRAIN_V1, FileSource, built, opened

from migrate.backends.base import Source
from migrate.batch import Batch, Cursor, Row
from migrate.errors import SchemaError
from migrate.layouts import Wishes, by_name
from migrate.layouts.agentos_schema import schema
from migrate.layouts.upgrade import Upgraded, default_brain_id, upgradable, upgraded
from migrate.schema import Column, ForeignKey, Kind, NotCarried, Table

AGENTOS = by_name("agentos")


@pytest.fixture
def v1() -> Iterator[sqlite3.Connection]:
    with closing(opened(BRAIN_V1)) as connection:
        yield connection


def old_brain(*statements: str) -> sqlite3.Connection:
    """Return a schema-1 brain in memory, after some statements."""
    connection = sqlite3.connect(":memory:")
    for table in schema(1).values():
        connection.execute((AGENTOS.sqlite_ddl(table) or [""])[0])
    for statement in statements:
        connection.execute(statement)
    return connection


def rows(source: Source, name: str, size: int = 1000, after: Cursor = None) -> list[dict[str, Any]]:
    table = next(t for t in source.tables() if t.name == name)
    batches = list(source.batches(table, size=size, after=after))
    assert all(b.table == table for b in batches)
    return [dict(zip(table.column_names, row, strict=True)) for b in batches for row in b.rows]


def test_the_tables_are_those_of_schema_2(v1: sqlite3.Connection) -> None:
    found = Upgraded(FileSource(v1), "me").tables()
    assert [t.name for t in found] == list(schema(2))
    for table in found:
        model = schema(2)[table.name]
        assert table.column_names == model.column_names
        assert (table.key, table.foreign_keys, table.indexes) == (
            model.key,
            model.foreign_keys,
            model.indexes,
        )
        assert [c.nullable for c in table.columns] == [c.nullable for c in model.columns]


def test_a_layout_reads_the_upgraded_brain_as_schema_2(v1: sqlite3.Connection) -> None:
    source = Upgraded(FileSource(v1), "me")

    def sample(table: Table, n: int) -> list[Row]:
        return next((b.rows for b in source.batches(table, size=n)), [])

    reading = AGENTOS.read(source.tables(), sample, Wishes())
    assert reading.notes[:2] == [
        "an AgentOS brain, schema 2: 14 of 14 tables; brain_id me",
        "memory_traces.embedding: vector(16), cosine: 55 of 55 sampled cells have 16 dimensions",
    ]
    assert all(AGENTOS.sqlite_ddl(table) for table in reading.tables)


def test_every_row_is_there_and_differs_only_as_it_should(v1: sqlite3.Connection) -> None:
    source = FileSource(v1)
    new = Upgraded(source, "me")
    old_tables = {t.name: t for t in source.tables()}
    for table in new.tables():
        old = rows(source, table.name)
        assert new.count(table) == source.count(old_tables[table.name]) == len(old)
        for before, after in zip(old, rows(new, table.name), strict=True):
            assert after.pop("brain_id") == (before["agent_id"] if table.name == "archived_traces" else "me")
            if table.name == "brain_meta" and before["key"] == "schema_version":
                assert (before["value"], after["value"]) == ("1", "2")
                continue
            for name, cell in before.items():
                if isinstance(cell, str) and name == "embedding":
                    assert after[name] == struct.pack("<16f", *json.loads(cell))
                else:
                    assert after[name] == cell


def test_the_upgraded_brain_is_sound(v1: sqlite3.Connection, tmp_path: Path) -> None:
    """The package itself fails here: FOREIGN KEY constraint failed."""
    source = Upgraded(FileSource(v1), "me")
    found = AGENTOS.read(source.tables(), lambda t, n: [], Wishes()).tables
    with closing(built(tmp_path / "new.sqlite", AGENTOS, found, source)) as new:
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert dict(new.execute("SELECT key, value FROM brain_meta WHERE brain_id = 'me'"))[
            "schema_version"
        ] == ("2")
        assert new.execute("SELECT DISTINCT typeof(embedding) FROM memory_traces ORDER BY 1").fetchall() == [
            ("blob",),
            ("null",),
        ]
        assert new.execute("SELECT count(*), min(length(embedding)) FROM memory_traces").fetchone() == (
            64,
            64,
        )
        new.execute("INSERT INTO memory_traces_fts(memory_traces_fts, rank) VALUES('integrity-check', 1)")
        assert dict(new.execute("SELECT name, seq FROM sqlite_sequence")) == {
            "consolidation_log": 1,
            "retrieval_feedback": 6,
        }


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_reading_after_a_cursor_continues_without_gap_or_overlap(v1: sqlite3.Connection, size: int) -> None:
    source = Upgraded(FileSource(v1), "me")
    for table in source.tables():
        whole = [row for batch in source.batches(table, size=1000) for row in batch.rows]
        batches = list(source.batches(table, size=size))
        assert [row for batch in batches for row in batch.rows] == whole
        seen = 0
        for batch in batches:
            seen += len(batch.rows)
            cursor = json.loads(json.dumps(batch.cursor))
            rest = [row for b in source.batches(table, size=size, after=cursor) for row in b.rows]
            assert rest == whole[seen:]


def test_archived_traces_belong_to_their_agent() -> None:
    with closing(
        old_brain(
            "INSERT INTO archived_traces VALUES"
            " ('t1', 'ada', 'words', 'h', 'episodic', '{}', '[]', '[]', 1, 2, 'age', 5)",
            "INSERT INTO archive_access_log VALUES ('t1', 3, NULL)",
        )
    ) as connection:
        source = Upgraded(FileSource(connection), "me")
        (trace,) = rows(source, "archived_traces")
        assert (trace["brain_id"], trace["agent_id"], trace["trace_id"]) == ("ada", "ada", "t1")
        assert [r["brain_id"] for r in rows(source, "archive_access_log")] == ["me"]
        table = next(t for t in source.tables() if t.name == "archived_traces")
        narrow = table.with_columns(tuple(c for c in table.columns if c.name in ("brain_id", "trace_id")))
        assert [b.rows for b in source.batches(narrow, size=9)] == [[("ada", "t1")]]


def test_tables_that_an_early_brain_lacks_are_there_and_empty() -> None:
    with closing(old_brain("DROP TABLE archived_traces", "DROP TABLE prospective_items")) as connection:
        source = Upgraded(FileSource(connection), "me")
        assert [t.name for t in source.tables()] == list(schema(2))
        assert rows(source, "archived_traces") == []
        assert source.count(schema(2)["archived_traces"]) == 0


def test_a_schema_version_is_added_where_there_was_none() -> None:
    with closing(old_brain("INSERT INTO brain_meta VALUES ('created_at', '1')")) as connection:
        source = Upgraded(FileSource(connection), "me")
        assert rows(source, "brain_meta") == [
            {"brain_id": "me", "key": "created_at", "value": "1"},
            {"brain_id": "me", "key": "schema_version", "value": "2"},
        ]
        table = source.tables()[0]
        assert source.count(table) == 2
        batches = list(source.batches(table, size=1))
        assert [b.rows for b in source.batches(table, size=1, after=batches[0].cursor)] == [batches[1].rows]
        assert list(source.batches(table, size=1, after=batches[1].cursor)) == []


def traces(connection: sqlite3.Connection, *cells: Any, dims: str | None = "4") -> list[Any]:
    """Return the embeddings of an upgraded brain whose traces had these."""
    if dims is not None:
        connection.execute("INSERT INTO brain_meta VALUES ('embedding_dimensions', ?)", (dims,))
    for i, cell in enumerate(cells):
        connection.execute(
            "INSERT INTO memory_traces (id, type, scope, content, created_at, embedding)"
            " VALUES (?, 'episodic', 'user', 'words', 1, ?)",
            (f"mt_{i}", cell),
        )
    return [r["embedding"] for r in rows(Upgraded(FileSource(connection), "me"), "memory_traces")]


def test_legacy_vectors_are_packed_and_all_else_is_left() -> None:
    packed = struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)
    like_json = b"[" + packed[1:]
    short_json_as_long_as_a_vector = b"[1,2,3,4,5,6,70]"
    cells = [
        packed, like_json, "[0.1, 0.2, 0.3, 0.4]", b"[0.1,0.2,0.3,0.4]", None, "no vector", "[]", b"odd",
        b"[0.1, NaN, 0, 0]..", "[1e40, 0, 0, 0]", short_json_as_long_as_a_vector,
    ]  # fmt: skip
    with closing(old_brain()) as connection:
        assert traces(connection, *cells) == [
            packed, like_json, packed, packed, None, "no vector", "[]", b"odd",
            b"[0.1, NaN, 0, 0]..", "[1e40, 0, 0, 0]", short_json_as_long_as_a_vector,
        ]  # fmt: skip


def test_without_settings_only_what_parses_whole_is_json() -> None:
    like_json = b"[" + struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)[1:-1] + b"]"
    with closing(old_brain()) as connection:
        assert traces(connection, like_json, b"[1, 2]", dims=None) == [like_json, struct.pack("<2f", 1, 2)]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_numbers_of_a_legacy_vector_are_exact_float32(values: list[float]) -> None:
    packed = struct.pack(f"<{len(values)}f", *values)
    with closing(old_brain()) as connection:
        assert traces(connection, json.dumps(values), packed, dims=str(len(values))) == [packed, packed]


def test_tables_of_the_users_own_pass_through_without_broken_links() -> None:
    with closing(
        old_brain(
            "CREATE TABLE stars (id INTEGER PRIMARY KEY, trace TEXT REFERENCES memory_traces(id))",
            "CREATE INDEX mine ON memory_traces (content)",
            "INSERT INTO stars VALUES (7, 'mt_1')",
        )
    ) as connection:
        source = Upgraded(FileSource(connection), "me")
        assert rows(source, "stars") == [{"id": 7, "trace": "mt_1"}]
        assert source.tables()[-1].foreign_keys == ()
        assert source.not_carried() == [
            NotCarried(
                "stars -> memory_traces", "a foreign key to a table whose key now begins with brain_id"
            )
        ]


def test_columns_of_the_users_own_are_kept() -> None:
    with closing(old_brain("ALTER TABLE documents ADD COLUMN mood TEXT")) as connection:
        connection.execute(
            "INSERT INTO documents (id, path, format, content_hash, ingested_at, mood)"
            " VALUES ('d', 'p', 'md', 'h', 1, 'glad')"
        )
        (row,) = rows(Upgraded(FileSource(connection), "me"), "documents")
        assert (row["brain_id"], row["mood"]) == ("me", "glad")


def test_a_brain_of_schema_2_needs_no_upgrade() -> None:
    with closing(opened(BRAIN)) as connection:
        source = FileSource(connection)
        assert not upgradable(source.tables())
        assert upgraded(source, "brain.sqlite") is source
        with pytest.raises(SchemaError, match="no AgentOS brain of schema 1"):
            Upgraded(source, "me")


def test_a_store_without_a_brain_is_refused() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a)")
        with pytest.raises(SchemaError, match="no AgentOS brain of schema 1"):
            upgraded(FileSource(connection), "t.db")


@pytest.mark.parametrize(
    ("address", "brain_id"),
    [
        ("/home/ada/brain.sqlite", "brain"),
        ("agent.v2.sqlite", "agent.v2"),
        ("brain", "brain"),
        ("sqlite:////data/ada.db", "ada"),
        (":memory:", "default"),
        ("postgresql://host/db?schema=x", "default"),
    ],
)
def test_the_default_id_of_a_brain_is_its_files_name(address: str, brain_id: str) -> None:
    assert default_brain_id(address) == brain_id


def test_closing_closes_the_source(v1: sqlite3.Connection) -> None:
    inner = FileSource(v1, "ada.sqlite")
    source = upgraded(inner, inner.describe())
    assert source.describe() == "/data/ada.sqlite"
    assert rows(source, "brain_meta")[0]["brain_id"] == "ada"
    source.close()
    assert inner.closed


def test_a_wrapper_sees_only_columns_it_asks_for() -> None:
    class Watching(FileSource):
        asked: list[tuple[str, ...]]

        def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
            self.asked.append(table.column_names)
            return super().batches(table, size=size, after=after)

    with closing(old_brain()) as connection:
        inner = Watching(connection)
        inner.asked = []
        source = Upgraded(inner, "me")
        table = next(t for t in source.tables() if t.name == "document_images")
        narrow = table.with_columns(
            tuple(c for c in table.columns if c.name in ("brain_id", "id", "embedding"))
        )
        list(source.batches(narrow, size=5))
        assert inner.asked[-1] == ("id", "embedding")


def test_other_foreign_keys_stay() -> None:
    link = ForeignKey(("a",), "u", ("id",))
    with closing(
        old_brain(
            "CREATE TABLE u (id INTEGER PRIMARY KEY)",
            "CREATE TABLE t (a INTEGER REFERENCES u(id))",
        )
    ) as connection:
        found = {t.name: t for t in Upgraded(FileSource(connection), "me").tables()}
        assert found["t"].foreign_keys == (link,)
        assert found["u"].columns == (Column("id", Kind.INTEGER, "INTEGER"),)
