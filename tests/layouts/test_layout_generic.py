"""Vectors told from other BLOBs by evidence."""

from __future__ import annotations

import hashlib
import random
import struct
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import FIXTURES, never, opened, rows_of, sampler, tables

from migrate.batch import Row
from migrate.errors import ConfigError
from migrate.layouts import Reading, Wishes, by_name, recognise
from migrate.layouts.evidence import named_as_vector
from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, NotCarried, Table

GENERIC = by_name("generic")


def floats(n: int, dim: int, seed: int = 1) -> list[bytes]:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [v.tobytes() for v in vectors]


def read(
    name: str,
    cells: Sequence[Any],
    wishes: Wishes | None = None,
    kind: Kind = Kind.BLOB,
    declared: str = "BLOB",
) -> tuple[Column, Reading]:
    """Read a table `t` whose column `name` holds these cells."""
    table = Table("t", (Column("id", Kind.INTEGER), Column(name, kind, declared)), ("id",), dialect="sqlite")
    sample = rows_of({"t": [*enumerate(cells)]}, {"t": ("id", name)})
    reading = GENERIC.read([table], sample, wishes or Wishes())
    return reading.tables[0].column(name), reading


def test_uniform_finite_cells_of_a_column_called_embedding_are_vectors() -> None:
    column, reading = read("embedding", floats(1000, 384))
    assert (column.kind, column.dim, column.metric) == (Kind.VECTOR, 384, None)
    assert reading.notes == [
        "t.embedding: taken as vector(384): 1,000 of 1,000 sampled cells are 1,536 bytes of finite float32"
    ]


def test_nulls_do_not_count() -> None:
    column, _ = read("embedding", [None, *floats(3, 8), None])
    assert column.dim == 8


@pytest.mark.parametrize(
    "cells",
    [
        [uuid.UUID(int=i * 7919**9 % 2**128).bytes for i in range(50)],
        [hashlib.md5(b"%d" % i).digest() for i in range(50)],  # noqa: S324
        [hashlib.sha1(b"%d" % i).digest() for i in range(50)],  # noqa: S324
        [hashlib.sha256(b"%d" % i).digest() for i in range(50)],
        [hashlib.sha512(b"%d" % i).digest() for i in range(50)],
        [random.Random(i).randbytes(1536) for i in range(50)],
        [struct.pack("<100i", *range(i, i + 100)) for i in range(50)],
        [np.arange(i, i + 100, dtype="<i8").tobytes() for i in range(50)],
        [np.random.default_rng(i).normal(size=100).astype("<f8").tobytes() for i in range(50)],
        [np.random.default_rng(i).normal(size=100).astype("<f4").astype("<f8").tobytes() for i in range(50)],
        [np.random.default_rng(i).normal(size=384).astype("<f2").tobytes() for i in range(50)],
        [np.random.default_rng(i).integers(0, 256, 1024, np.uint8).tobytes() for i in range(50)],
        [b"%0128d" % i for i in range(50)],
        [bytes(1536)] * 50,
        [floats(1, 384)[0]] * 50,
    ],
    ids=[
        "uuid", "md5", "sha1", "sha256", "sha512", "random", "int32", "int64", "float64",
        "float64 of float32", "float16", "pixels", "digits", "zeros", "one value",
    ],
)  # fmt: skip
def test_other_blobs_of_one_length_are_left_alone(cells: list[bytes]) -> None:
    column, reading = read("data", cells)
    assert column.kind is Kind.BLOB
    assert reading.notes == []


@pytest.mark.parametrize("size", [16, 20, 32])
def test_ids_and_checksums_under_a_vectors_name_are_left_alone(size: int) -> None:
    column, reading = read("embedding", [random.Random(i).randbytes(size) for i in range(50)])
    assert column.kind is Kind.BLOB
    assert len(reading.notes) == 1
    assert "no float32 values; --vector t.embedding takes it as a vector" in reading.notes[0]


def test_small_vectors_need_the_name() -> None:
    assert read("vec", floats(5, 4))[0].dim == 4
    assert read("data", floats(5, 4))[0].kind is Kind.BLOB


def test_large_vectors_need_no_name() -> None:
    column, reading = read("data", floats(5, 384))
    assert column.dim == 384
    assert reading.notes == [
        "t.data: taken as vector(384): 5 of 5 sampled cells are 1,536 bytes of finite float32"
    ]


def test_one_odd_cell_in_a_thousand_does_not_hide_the_vectors() -> None:
    bad = struct.pack("<8f", *[float("nan")] * 8)
    column, reading = read("embedding", [*floats(998, 8), bad, b"short"])
    assert column.dim == 8
    assert reading.notes == [
        "t.embedding: taken as vector(8): 999 of 1,000 sampled cells are 32 bytes of float32, 1 of them odd"
    ]


def test_vectors_of_two_models_stay_blobs_and_say_so() -> None:
    column, reading = read("embedding", floats(60, 32) + floats(40, 8))
    assert column.kind is Kind.BLOB
    assert reading.notes == [
        "t.embedding: left as blob: only 60 of 100 sampled cells are 128 bytes; "
        "--vector t.embedding takes it as a vector"
    ]


def test_a_column_without_cells_stays_a_blob() -> None:
    column, reading = read("embedding", [None, None])
    assert column.kind is Kind.BLOB
    assert reading.notes == ["t.embedding: left as blob: no cell to judge by"]


def test_a_declared_dimension_is_enough_for_an_empty_column() -> None:
    column, _ = read("e", [], declared="F32_BLOB(768)")
    assert column.dim == 768


def test_a_wish_makes_a_vector_of_what_evidence_does_not() -> None:
    column, reading = read("data", floats(2, 4), Wishes(vectors=frozenset({"t.data"})))
    assert (column.kind, column.dim, column.legacy_json) == (Kind.VECTOR, 4, False)
    assert reading.notes == ["t.data: taken as vector(4): as asked; 2 of 2 sampled cells are of 4 dimensions"]


def test_a_wish_takes_json_arrays_too() -> None:
    texts = ["[0.5, 1, -2e-3]", "[1, 2, 3]", None]
    column, _ = read("data", texts, Wishes(vectors=frozenset({"t.data"})), Kind.TEXT, "TEXT")
    assert (column.kind, column.dim, column.legacy_json) == (Kind.VECTOR, 3, True)


def test_json_arrays_under_a_vectors_name_are_pointed_out() -> None:
    column, reading = read("embedding", ["[1, 2, 3]", "[4, 5, 6]"], kind=Kind.TEXT, declared="TEXT")
    assert column.kind is Kind.TEXT
    assert reading.notes == [
        "t.embedding: left as text: 2 of 2 sampled cells are JSON arrays of 3 numbers; "
        "--vector t.embedding takes it as a vector"
    ]


def test_a_wish_forbids() -> None:
    column, reading = read("embedding", floats(9, 384), Wishes(no_vectors=frozenset({"t.embedding"})))
    assert column.kind is Kind.BLOB
    assert reading.notes == []


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(vectors=frozenset({"t.nothing"})), "no such column: t.nothing"),
        (Wishes(no_vectors=frozenset({"u.data"})), "no such column: u.data"),
        (Wishes(frozenset({"t.data"}), frozenset({"t.data"})), "both a vector and not a vector"),
        (Wishes(vectors=frozenset({"t.id"})), "a key or generated column cannot be a vector"),
        (Wishes(vectors=frozenset({"t.data"})), "no sampled cell is one"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(wishes: Wishes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read("data", [b"odd"], wishes)


def test_columns_of_a_vector_kind_stay_as_they_are() -> None:
    declared = Column("embedding", Kind.VECTOR, "vector(3)", dim=3)
    table = Table("t", (declared,), dialect="postgres")
    assert GENERIC.read([table], never, Wishes()).tables == [table]


def test_a_tsv_column_is_derived_and_its_index_goes_with_it() -> None:
    table = Table(
        "memory",
        (Column("id", Kind.TEXT, "text"), Column("_tsv", Kind.NATIVE, "tsvector")),
        ("id",),
        indexes=(Index("by_tsv", (IndexPart("_tsv"),)), Index("by_id", (IndexPart("id"),))),
        dialect="postgres",
    )
    reading = GENERIC.read([table], never, Wishes())
    assert reading.tables[0].column_names == ("id",)
    assert [i.name for i in reading.tables[0].indexes] == ["by_id"]
    assert reading.not_carried == [
        NotCarried("memory._tsv", "a full-text vector made from other columns", derived=True),
        NotCarried("by_tsv", "an index over a full-text vector", derived=True),
    ]


def test_big_cells_are_ruled_out_by_the_first_few_rows() -> None:
    asked: list[tuple[tuple[str, ...], int]] = []
    columns = (Column("id", Kind.INTEGER), Column("text", Kind.TEXT), Column("image", Kind.BLOB))

    def sample(table: Table, n: int) -> list[Row]:
        asked.append((table.column_names, n))
        return [(i, bytes(1000 + i)) for i in range(n)]

    GENERIC.read([Table("t", columns, ("id",))], sample, Wishes())
    assert asked == [(("id", "image"), 4)]


def test_parents_come_first_and_circles_do_no_harm() -> None:
    def table(name: str, *parents: str) -> Table:
        links = tuple(ForeignKey(("p",), parent, ("id",)) for parent in parents)
        return Table(name, (Column("id", Kind.INTEGER), Column("p", Kind.INTEGER)), ("id",), links)

    given_order = [
        table("c", "b"),
        table("b", "a", "b"),
        table("x", "y"),
        table("y", "x"),
        table("a", "gone"),
    ]
    read_order = [t.name for t in GENERIC.read(given_order, never, Wishes()).tables]
    assert read_order == ["a", "b", "c", "y", "x"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("embedding", True), ("title_embedding", True), ("titleEmbedding", True), ("EMBEDDING", True),
        ("vec", True), ("emb_384", True), ("embedding_v2", True), ("vectors", True),
        ("embedding_id", False), ("embeddingHash", False), ("vector_dim", False), ("vecchio", False),
        ("member", False), ("data", False), ("", False),
    ],
)  # fmt: skip
def test_names(name: str, answer: bool) -> None:
    assert named_as_vector(name) is answer


@given(st.integers(2, 200), st.integers(1, 30), st.integers(0, 2**32), st.floats(0.001, 100))
@settings(deadline=None, max_examples=60)
def test_embeddings_are_always_found_under_their_name(dim: int, n: int, seed: int, scale: float) -> None:
    cells = (np.random.default_rng(seed).normal(size=(n, dim)) * scale).astype("<f4")
    assert read("embedding", [c.tobytes() for c in cells])[0].dim == dim


@given(st.integers(3, 20), st.integers(17, 96), st.data())
@settings(deadline=None, max_examples=60)
def test_random_bytes_are_never_vectors_without_the_name(n: int, words: int, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32))
    random_bytes = random.Random(seed)
    assert read("data", [random_bytes.randbytes(4 * words) for _ in range(n)])[0].kind is Kind.BLOB


@pytest.mark.parametrize(
    ("file", "vectors"),
    [
        ("zeroclaw/brain.db", {"embedding_cache.embedding": 64, "memories.embedding": 64}),
        ("db0/agent.db", {"db0_memory.embedding": 128}),
        ("diy/langgraph.sqlite", {"store_vectors.embedding": 32}),
        ("diy/chroma.sqlite3", {}),  # its queue holds vectors of two models
        ("agentos/vectors.sqlite", {}),  # base64 text
    ],
)
def test_stores_of_real_frameworks(file: str, vectors: dict[str, int]) -> None:
    connection = opened(FIXTURES / file)
    found = tables(connection)
    layout = recognise(found)
    assert layout.name == "generic"
    reading = layout.read(found, sampler(connection), Wishes())
    assert {f"{t.name}.{c.name}": c.dim for t in reading.tables for c in t.vectors} == vectors
    connection.close()
