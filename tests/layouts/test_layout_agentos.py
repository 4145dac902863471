"""An AgentOS brain is told by its tables and columns, and read as the framework means it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import BRAIN, BRAIN_V1, never, opened, rows_of, sampler, tables

from migrate.batch import Row
from migrate.layouts import Reading, Sample, Wishes, by_name, recognise
from migrate.layouts.agentos_schema import schema
from migrate.schema import Column, ForeignKey, Kind, Metric, NotCarried, Table

AGENTOS = by_name("agentos")
CHAT = (
    Table(
        "conversations",
        tuple(Column(n, Kind.TEXT) for n in ("id", "userId", "agentId", "createdAt")),
        ("id",),
    ),
    Table(
        "messages",
        tuple(Column(n, Kind.TEXT) for n in ("id", "conversationId", "role", "content", "timestamp")),
        ("id",),
        (ForeignKey(("conversationId",), "conversations", ("id",)),),
    ),
)


def declared(version: int = 2, *names: str) -> list[Table]:
    """Return a brain's tables as a SQLite backend would find them."""
    kinds = {"TEXT": Kind.TEXT, "INTEGER": Kind.INTEGER, "REAL": Kind.REAL, "BLOB": Kind.BLOB}
    return [
        replace(
            table,
            role="table",
            columns=tuple(replace(c, kind=kinds[c.declared], metric=None) for c in table.columns),
        )
        for name, table in schema(version).items()
        if not names or name in names
    ]


def in_postgres(tables: list[Table]) -> list[Table]:
    """Return a brain's tables as AgentOS makes them in Postgres."""
    types = {"TEXT": "text", "INTEGER": "bigint", "REAL": "real", "BLOB": "bytea"}
    found = []
    for table in tables:
        columns = tuple(replace(c, declared=types[c.declared], identity=False) for c in table.columns)
        if table.name == "memory_traces":
            columns += (Column("_tsv", Kind.NATIVE, "tsvector"),)
        found.append(replace(table, columns=columns, dialect="postgres"))
    return found


def cells_of(**cells: Sequence[object]) -> Sample:
    """Return a `sample` of one embedding column a table, and a brain of 4 dimensions.

    `brain_meta` may be given as its dimensions instead.
    """

    def sample(table: Table, n: int) -> list[Row]:
        rows: list[Row] = []
        for i, cell in enumerate(cells.get(table.name, [])):
            if table.name == "brain_meta":
                row = {"brain_id": f"b{i}", "key": "embedding_dimensions", "value": cell}
                rows.append(tuple(row[c] for c in table.column_names))
            else:
                embedding = ("embedding", "cue_embedding")
                rows.append(tuple(cell if c in embedding else f"k{i}" for c in table.column_names))
        return rows[:n]

    return sample


def read(sample: Sample, tables: list[Table] | None = None, wishes: Wishes | None = None) -> Reading:
    return AGENTOS.read(declared() if tables is None else tables, sample, wishes or Wishes())


def table_of(reading: Reading, name: str) -> Table:
    return next(t for t in reading.tables if t.name == name)


@pytest.fixture(params=[BRAIN, BRAIN_V1], ids=["schema 2", "schema 1"])
def fixture(request: pytest.FixtureRequest) -> Iterator[Reading]:
    connection = opened(request.param)
    found = tables(connection)
    assert recognise(found).name == "agentos"
    yield AGENTOS.read(found, sampler(connection), Wishes())
    connection.close()


def test_a_real_brain_has_its_14_tables_parents_first(fixture: Reading) -> None:
    assert [t.name for t in fixture.tables] == [
        "brain_meta", "memory_traces", "knowledge_nodes", "knowledge_edges", "documents", "document_chunks",
        "document_images", "consolidation_log", "retrieval_feedback", "conversations", "messages",
        "prospective_items", "archived_traces", "archive_access_log",
    ]  # fmt: skip
    assert {t.role for t in fixture.tables} == {
        "settings", "traces", "graph", "documents", "logs", "conversations", "prospective", "archive",
    }  # fmt: skip
    assert fixture.not_carried == []


def test_a_real_brains_vectors_json_keys_and_links_are_known(fixture: Reading) -> None:
    dim = 32 if "schema 2" in fixture.notes[0] else 16
    vectors = {f"{t.name}.{c.name}": c for t in fixture.tables for c in t.vectors}
    assert set(vectors) == {
        "memory_traces.embedding", "knowledge_nodes.embedding", "document_chunks.embedding",
        "document_images.embedding", "prospective_items.cue_embedding",
    }  # fmt: skip
    assert {(c.dim, c.metric, c.legacy_json) for c in vectors.values()} == {(dim, Metric.COSINE, True)}
    texts = {f"{t.name}.{c.name}" for t in fixture.tables for c in t.columns if c.kind is Kind.JSON}
    assert texts == {
        "memory_traces.tags", "memory_traces.emotions", "memory_traces.metadata", "knowledge_nodes.properties",
        "knowledge_nodes.source", "knowledge_edges.metadata", "documents.metadata", "conversations.metadata",
        "messages.metadata", "archived_traces.emotional_context", "archived_traces.entities",
        "archived_traces.tags",
    }  # fmt: skip
    version = 2 if dim == 32 else 1
    for table in fixture.tables:
        model = schema(version)[table.name]
        assert (table.key, table.foreign_keys) == (model.key, model.foreign_keys)
        assert {c.name for c in table.columns if c.identity} == {c.name for c in model.columns if c.identity}


def test_the_notes_name_the_brain_and_say_why() -> None:
    connection = opened(BRAIN)
    notes = AGENTOS.read(tables(connection), sampler(connection), Wishes()).notes
    connection.close()
    assert notes[:2] == [
        "an AgentOS brain, schema 2: 14 of 14 tables; brain_id fixture-agent",
        "memory_traces.embedding: vector(32), cosine: 270 of 270 sampled cells have 32 dimensions",
    ]
    assert (
        "document_chunks.embedding: vector(32), cosine: no cells yet; brain_meta.embedding_dimensions says so"
    ) in notes


def test_chat_tables_of_the_same_names_are_not_a_brain() -> None:
    assert recognise(CHAT).name == "generic"
    assert recognise([*CHAT, Table("brain_meta", (Column("key", Kind.TEXT),))]).name == "generic"


def test_chat_tables_beside_a_brain_are_carried_as_what_they_are() -> None:
    brain = [t for t in declared() if t.name not in ("conversations", "messages")]
    reading = read(never, [*CHAT, *brain])
    assert len(reading.tables) == 14
    assert [table_of(reading, t.name) for t in CHAT] == list(CHAT)
    assert AGENTOS.sqlite_ddl(table_of(reading, "messages")) is None
    assert "12 of 14 tables" in reading.notes[0]


def test_chat_tables_of_the_other_schema_are_strangers() -> None:
    brain = [t for t in declared() if t.name != "messages"]
    reading = read(never, [*brain, *declared(1, "messages")])
    assert table_of(reading, "messages").role == "table"
    assert AGENTOS.sqlite_ddl(table_of(reading, "messages")) is None


def test_other_tables_of_the_store_are_read_by_evidence() -> None:
    notes = Table("notes", (Column("id", Kind.INTEGER), Column("vec", Kind.BLOB)), ("id",), dialect="sqlite")
    vector = struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)
    sample = rows_of({"notes": [(1, vector)]}, {"notes": ("id", "vec")})
    reading = read(lambda t, n: sample(t, n) if t.name == "notes" else [], [*declared(), notes])
    assert table_of(reading, "notes").column("vec").dim == 4
    assert table_of(reading, "notes").column("vec").metric is None


def test_an_early_brain_lacks_tables_and_says_which() -> None:
    early = [t for t in declared(1) if not t.name.startswith(("prospective", "archive"))]
    assert recognise(early).name == "agentos"
    reading = read(cells_of(brain_meta=["8"]), early)
    assert len(reading.tables) == 11
    assert reading.notes[1] == (
        "tables that this brain does not have: prospective_items, archived_traces, archive_access_log"
    )


@pytest.mark.parametrize("names", [("memory_traces",), ("brain_meta", "knowledge_nodes")])
def test_a_part_of_a_brain_is_recognised(names: tuple[str, ...]) -> None:
    assert recognise(declared(2, *names)).name == "agentos"


@pytest.mark.parametrize("names", [("brain_meta",), ("messages", "conversations"), ("documents",)])
def test_a_few_common_names_are_no_brain(names: tuple[str, ...]) -> None:
    assert recognise(declared(2, *names)).name == "generic"


def test_several_brains_in_one_store_are_all_named() -> None:
    sample = cells_of(brain_meta=["4"] * 7, memory_traces=[struct.pack("<4f", 1, 2, 3, 4)])
    assert read(sample).notes[0] == (
        "an AgentOS brain, schema 2: 14 of 14 tables; brain_id b0, b1, b2, b3, b4, ..."
    )


def test_what_most_cells_have_beats_what_the_settings_say() -> None:
    cells = [struct.pack("<8f", *range(8))] * 3 + [struct.pack("<4f", *range(4))]
    reading = read(cells_of(brain_meta=["4"], memory_traces=cells))
    assert table_of(reading, "memory_traces").column("embedding").dim == 8
    assert (
        "memory_traces.embedding: vector(8), cosine: 3 of 4 sampled cells have 8 dimensions, "
        "though brain_meta.embedding_dimensions says 4"
    ) in reading.notes


def test_two_brains_of_different_dimensions_are_no_surprise() -> None:
    cells = [struct.pack("<8f", *range(8))] * 3 + [struct.pack("<4f", *range(4))] * 3
    reading = read(cells_of(brain_meta=["4", "8"], memory_traces=cells))
    assert table_of(reading, "memory_traces").column("embedding").dim == 8
    assert not any("though" in note for note in reading.notes)


def test_without_cells_and_settings_nothing_is_guessed() -> None:
    reading = read(never)
    assert table_of(reading, "memory_traces").column("embedding").kind is Kind.BLOB
    assert (
        "memory_traces.embedding: left as blob: no cells, and brain_meta names no dimension" in reading.notes
    )


@pytest.mark.parametrize("value", ["", "many", "-4", "1e3", "99999999", None])
def test_settings_that_are_no_dimension_are_not_believed(value: str | None) -> None:
    reading = read(cells_of(brain_meta=[value]))
    assert table_of(reading, "memory_traces").column("embedding").kind is Kind.BLOB


def test_a_vector_that_begins_like_json_is_a_vector() -> None:
    """1 in 256 vectors begins with the byte of `[`; AgentOS takes those for JSON."""
    cell = b"[" + struct.pack("<4f", 0.5, 0.25, 0.1, 0.7)[1:]
    reading = read(cells_of(brain_meta=["4"], memory_traces=[cell] * 3))
    assert table_of(reading, "memory_traces").column("embedding").dim == 4


@given(st.integers(2, 64), st.binary(min_size=0, max_size=8), st.integers(0, 2**32))
@settings(deadline=None, max_examples=80)
def test_length_tells_a_vector_whatever_bytes_it_begins_with(dim: int, begin: bytes, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3, dim)).astype("<f4")
    cells = [(b"[" + begin)[: 4 * dim] + v.tobytes()[1 + len(begin) :] for v in vectors]
    reading = read(cells_of(memory_traces=[c for c in cells if len(c) == 4 * dim]))
    assert table_of(reading, "memory_traces").column("embedding").dim == dim


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.BLOB])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_vectors_that_are_all_json_text_have_the_dimension_of_the_text(kind: Kind, as_bytes: bool) -> None:
    texts = [json.dumps([0.1 * i, 0.2, 0.3, 0.4]) for i in range(20)]
    cells = [t.encode() if as_bytes else t for t in texts]
    given_tables = [
        t.with_columns(tuple(replace(c, kind=kind) if c.name == "embedding" else c for c in t.columns))
        for t in declared()
    ]
    reading = read(cells_of(brain_meta=["4"], memory_traces=cells), given_tables)
    column = table_of(reading, "memory_traces").column("embedding")
    assert (column.kind, column.dim, column.legacy_json) == (Kind.VECTOR, 4, True)


def test_a_wish_forbids_a_brains_vector() -> None:
    wishes = Wishes(no_vectors=frozenset({"memory_traces.embedding"}))
    reading = read(cells_of(brain_meta=["4"]), wishes=wishes)
    assert table_of(reading, "memory_traces").column("embedding").kind is Kind.BLOB
    assert table_of(reading, "knowledge_nodes").column("embedding").kind is Kind.VECTOR


def test_a_brain_in_postgres_is_read_like_one_in_sqlite() -> None:
    sample = cells_of(brain_meta=["4"])
    reading = read(sample, in_postgres(declared()))
    assert reading.not_carried == [
        NotCarried("memory_traces._tsv", "a full-text vector made from other columns", derived=True)
    ]
    traces = table_of(reading, "memory_traces")
    assert traces.column_names == schema(2)["memory_traces"].column_names
    assert (traces.column("embedding").kind, traces.column("embedding").dim) == (Kind.VECTOR, 4)
    assert traces.column("tags").kind is Kind.JSON
    assert table_of(reading, "consolidation_log").column("id").identity


def test_a_brain_that_memlift_wrote_keeps_the_vectors_it_declares() -> None:
    given_tables = [
        t.with_columns(
            tuple(
                replace(c, kind=Kind.VECTOR, declared="vector(8)", dim=8)
                if c.name in ("embedding", "cue_embedding")
                else replace(c, kind=Kind.JSON, declared="jsonb")
                if c.name in ("tags", "metadata")
                else c
                for c in t.columns
            )
        )
        for t in in_postgres(declared())
    ]
    traces = table_of(read(cells_of(brain_meta=["4"]), given_tables), "memory_traces")
    vector = traces.column("embedding")
    assert (vector.dim, vector.metric, vector.legacy_json) == (8, Metric.COSINE, False)
    assert traces.column("emotions").kind is Kind.JSON


def keyless(tables: list[Table]) -> list[Table]:
    loose = [t.with_columns(tuple(replace(c, nullable=True) for c in t.columns)) for t in tables]
    return [replace(t, key=(), foreign_keys=(), indexes=()) for t in loose]


def test_a_copy_without_keys_gets_the_frameworks() -> None:
    """The reference engine's copies have no key, no foreign key and no NOT NULL."""
    reading = read(cells_of(brain_meta=["4"], knowledge_nodes=[None, None]), keyless(declared()))
    for table in reading.tables:
        model = schema(2)[table.name]
        assert (table.key, table.foreign_keys) == (model.key, model.foreign_keys)
        assert AGENTOS.sqlite_ddl(table) is not None
    assert "knowledge_nodes: declares no key; (brain_id, id) is taken, as AgentOS has it" in reading.notes


def test_a_copy_whose_rows_are_doubled_is_carried_without_keys() -> None:
    def doubled(table: Table, n: int) -> list[Row]:
        return [tuple("same" for _ in table.columns)] * 2 if table.name == "knowledge_nodes" else []

    reading = read(doubled, keyless(declared()))
    nodes, edges = table_of(reading, "knowledge_nodes"), table_of(reading, "knowledge_edges")
    assert (nodes.key, edges.foreign_keys) == ((), ())
    assert AGENTOS.sqlite_ddl(nodes) is None
    assert "knowledge_nodes: has no key, and (brain_id, id) repeats: rows are carried without one" in (
        reading.notes
    )


def test_a_wish_makes_a_vector_of_another_column_of_a_brain() -> None:
    vector = struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)

    def sample(table: Table, n: int) -> list[Row]:
        return [tuple(vector if c == "data" else "x" for c in table.column_names)][:n]

    images = declared(2, "memory_traces", "document_images")
    reading = read(sample, images, Wishes(vectors=frozenset({"document_images.data"})))
    assert table_of(reading, "document_images").column("data").dim == 4
