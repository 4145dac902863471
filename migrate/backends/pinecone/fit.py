"""Which cells Pinecone can hold of a table, judged before a row moves.

What is no metadata is no misfit: it is kept exactly in the sidecar, and nothing is lost. A
vector that no index can hold is one, because it would never be found again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from migrate.backends.base import Options
from migrate.backends.pinecone import metadata
from migrate.backends.pinecone.limits import METADATA_BYTES
from migrate.backends.pinecone.shape import Shape
from migrate.fit import Anything, Fit, Found, Rule, Typed, Vectors
from migrate.schema import VECTOR_KINDS, Column, Kind, Table

_NONE = type(None)


def fit(table: Table, options: Options) -> Fit:
    """Return what records and their sidecar can hold of a table that has vectors."""
    shape = Shape(table, json_text=options.json == "text")
    key = frozenset(table.key_positions)
    return Fit(
        table,
        tuple(_rule(shape, i, c) for i, c in enumerate(table.columns)),
        key,
        key,
        (),
        tuple(_notes(shape)),
        keyed=bool(table.key),
        types=tuple((c.name, _told(shape, i, c)) for i, c in enumerate(table.columns)),
        whole_rows=partial(_rows, shape),
    )


def _rule(shape: Shape, at: int, column: Column) -> Rule:
    if at == shape.dense and column.kind is Kind.VECTOR:
        return Vectors(column.dim or 0, legacy_json=column.legacy_json)
    if at == shape.dense:
        return Typed(bytes, "vectors", b"")
    return Anything()


def _told(shape: Shape, at: int, column: Column) -> str:
    if at == shape.dense:
        return f"values({shape.form.dim}) {shape.form.metric}"
    if at == shape.sparse:
        return "sparse values"
    if column.kind in VECTOR_KINDS or column.kind is Kind.BLOB or not metadata.is_name(column.name):
        return "sidecar"
    if shape.native:
        return column.name
    return "id" if shape.table.key == (column.name,) else "metadata"


def _notes(shape: Shape) -> Iterator[str]:
    table = shape.table
    if shape.dense >= 0 and table.columns[shape.dense].metric is None:
        yield f"{table.columns[shape.dense].name}: the source names no metric; cosine is taken"
    if shape.sparse >= 0 and shape.dense >= 0 and shape.form.metric != "dotproduct":
        yield (
            f"{table.columns[shape.sparse].name}: kept beside the dense vectors; Pinecone searches both"
            " together only where the metric is dotproduct"
        )
    for i, column in enumerate(table.columns):
        if column.kind in VECTOR_KINDS and i not in (shape.dense, shape.sparse):
            yield f"{column.name}: a record has one dense vector; this one is kept in the sidecar"


def _rows(shape: Shape, columns: Sequence[Sequence[Any]]) -> Iterator[Found]:
    """Yield the cells of records that go to the sidecar; rows that are no records go there whole."""
    if not columns or not columns[0]:
        return
    taken = shape.is_record(columns)
    if not any(taken):
        return
    for i in shape.plain:
        reasons = _native_reasons if shape.native else _reasons
        yield from reasons(shape, i, columns[i], taken)
    if shape.sparse >= 0 and shape.dense >= 0:
        for n, cell in enumerate(columns[shape.sparse]):
            if taken[n] and cell is not None and shape.sparse_of(cell) is None:
                yield Found(n, shape.sparse, "a sparse vector that a record cannot have", harmless=True)
    if not shape.native:
        yield from _too_large(shape, columns, taken)


def _reasons(shape: Shape, at: int, cells: Sequence[Any], taken: Sequence[bool]) -> Iterator[Found]:
    column = shape.table.columns[at]
    if column.name in shape.table.key:
        return  # `Shape.is_record` has seen to it
    named = metadata.is_name(column.name)
    if named and _all_plain(column, cells):
        return
    for n, cell in enumerate(cells):
        if taken[n] and cell is not None:
            reason = "the column's name cannot be a field's"
            if named:
                reason = metadata.problem(column, cell, json_text=shape.json_text) or ""
            if reason:
                yield Found(n, at, f"{reason}: no metadata", harmless=True)


def _native_reasons(shape: Shape, at: int, cells: Sequence[Any], taken: Sequence[bool]) -> Iterator[Found]:
    if shape.table.columns[at].name == "metadata":
        for n, cell in enumerate(cells):
            if taken[n] and (reason := metadata.problem_whole(cell)):
                yield Found(n, at, reason, harmless=True)
    elif shape.table.columns[at].name not in ("namespace", "id"):
        for n, cell in enumerate(cells):
            if taken[n] and cell is not None:
                yield Found(n, at, "a column that a record has not", harmless=True)


def _all_plain(column: Column, cells: Sequence[Any]) -> bool:
    """Whether a whole column is metadata, told in a few strides."""
    types = set(map(type, cells)) - {_NONE, bool}
    if not types:
        return True
    if types == {str}:
        joined = "".join([c for c in cells if type(c) is str])
        lists = column.kind is Kind.JSON and "[" in joined  # each is looked at
        return joined.isascii() and "\0" not in joined and not lists
    return False


def _too_large(shape: Shape, columns: Sequence[Sequence[Any]], taken: Sequence[bool]) -> Iterator[Found]:
    """Yield the largest cells of rows whose metadata is too large, until the rest fits."""
    plain = [shape.table.columns[i] for i in shape.plain]
    longest = sum(
        max((len(c) for c in columns[i] if type(c) is str), default=4) + len(shape.table.columns[i].name)
        for i in shape.plain
    )
    if 6 * longest + 40 * len(plain) <= METADATA_BYTES:
        return
    keys = set(shape.table.key_positions)
    named = [metadata.is_name(c.name) for c in plain]
    for n in (n for n, ours in enumerate(taken) if ours):
        cells = [columns[i][n] for i in shape.plain]
        kept = [
            cell if ok and metadata.problem(c, cell) is None else None
            for c, ok, cell in zip(plain, named, cells, strict=True)
        ]
        sizes = metadata.cell_sizes(plain, kept)
        total = 2 + sum(sizes)
        for place in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
            if total <= METADATA_BYTES:
                break
            if shape.plain[place] not in keys:
                reason = f"{sizes[place]} bytes; a record's metadata is at most {METADATA_BYTES}"
                yield Found(n, shape.plain[place], reason, harmless=True)
                total -= sizes[place]
