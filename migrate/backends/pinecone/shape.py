"""A table as records: which columns are the vectors, which are metadata, and which rows stay in the sidecar.

A record has one dense vector and may have one sparse one beside it; a sparse index has
records with a sparse vector alone. The first column that can be the dense vector is it, and
the first sparse column the sparse one. Further vector columns are exact cells of the sidecar.
A row without its vector, or with one that an index does not take, lives in the sidecar whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate import vectors
from migrate.backends.pinecone import metadata
from migrate.backends.pinecone.ids import Ids, numbered, tells_key
from migrate.backends.pinecone.limits import ID_CHARS, MAX_DIM, METADATA_BYTES, SPARSE_VALUES, ZERO
from migrate.backends.pinecone.names import SPARSE, Form, is_namespace, metric_name
from migrate.backends.pinecone.wire import Record, Sparse
from migrate.batch import Row
from migrate.schema import VECTOR_KINDS, Column, Kind, Table

DIALECT = "pinecone"  # of tables that describe an index memlift did not write
_DENSE: dict[Kind, np.dtype[Any]] = {
    Kind.VECTOR: vectors.F32,
    Kind.HALF: vectors.F16,
    Kind.U8: np.dtype(np.uint8),
}
KEY_ROOM = METADATA_BYTES // 2  # of metadata, for the cells of a key that its id does not spell


@dataclass(frozen=True, slots=True)
class Chosen:
    """The vector columns of a table, by position; -1 where there is none."""

    dense: int
    sparse: int
    form: Form


def _free(table: Table, column: Column) -> bool:
    return column.name not in table.key and column.generated is None


def chosen(table: Table) -> Chosen | None:
    """Return which columns become vectors; None for a table that is no records at all."""
    dense = sparse = -1
    for i, column in enumerate(table.columns):
        if not _free(table, column):
            continue
        if dense < 0 and column.kind in _DENSE and column.dim and column.dim <= MAX_DIM:
            if metric_name(column.metric) is not None:
                dense = i
        elif sparse < 0 and column.kind is Kind.SPARSE:
            sparse = i
    if dense >= 0:
        column = table.columns[dense]
        return Chosen(dense, sparse, Form(column.dim or 0, metric_name(column.metric) or ""))
    return Chosen(-1, sparse, SPARSE) if sparse >= 0 else None


def left_out(table: Table) -> list[str]:
    """Return notes on the vectors of a table that is no records: none of them can be searched in Pinecone."""
    found: list[str] = []
    for column in () if is_records(table) else table.columns:
        if column.kind not in VECTOR_KINDS or not _free(table, column):
            continue
        if column.kind is Kind.MULTI:
            reason = "Pinecone has no multivectors"
        elif not column.dim:
            reason = "it has no one dimension"
        elif column.dim > MAX_DIM:
            reason = f"an index has at most {MAX_DIM:,} dimensions"
        else:
            reason = f"Pinecone does not compare by {column.metric}"
        found.append(f"{column.name}: kept in the sidecar alone, because {reason}")
    return found


def _is_id(cell: Any) -> bool:
    return type(cell) is str and cell.isascii() and "\0" not in cell and 1 <= len(cell) <= ID_CHARS


def is_records(table: Table) -> bool:
    """Whether a table becomes records; all others go to the sidecar whole."""
    return chosen(table) is not None


def beside(table: Table) -> Table:
    """Return the sidecar's table for the rows of a records' table that are no records.

    Vectors are plain bytes there, so that a Postgres sidecar needs no pgvector; only key cells
    must be there, because exact cells leave NULL in their place.
    """
    return replace(
        table,
        columns=tuple(
            replace(
                c,
                kind=Kind.BLOB if c.kind in VECTOR_KINDS else c.kind,
                declared="BLOB"
                if c.kind in VECTOR_KINDS and table.dialect == "sqlite"
                else _declared(table, c),
                nullable=c.nullable if c.name in table.key else True,
                default=None,
                dim=None,
                metric=None,
                identity=False,
            )
            for c in table.columns
        ),
        foreign_keys=(),
        indexes=(),
        sequence=None,
        strict=False,
        without_rowid=False,
    )


def _declared(table: Table, column: Column) -> str:
    if column.kind in VECTOR_KINDS:
        return "bytea" if table.dialect == "postgres" else ""
    return "" if table.dialect == DIALECT else column.declared


class Shape:
    """How rows of one table and its records are made of each other.

    json_text: JSON cells keep their text (`Options.json` is "text").
    """

    def __init__(self, table: Table, *, json_text: bool = False) -> None:
        found = chosen(table)
        if found is None:
            raise ValueError(f"{table.name} has no vectors")
        self.table, self.json_text = table, json_text
        self.dense, self.sparse, self.form = found.dense, found.sparse, found.form
        self.ids = Ids(table)
        self.plain = tuple(i for i in range(len(table.columns)) if i not in (self.dense, self.sparse))
        self._key = table.key_positions
        self.native = table.dialect == DIALECT and table.key == ("namespace", "id")

    # --- rows to records ------------------------------------------------------

    def is_record(self, columns: Sequence[Sequence[Any]]) -> list[bool]:
        """Return which of some rows, given as columns, become records."""
        main = self.dense if self.dense >= 0 else self.sparse
        cells = columns[main]
        if self.dense >= 0:
            taken = self._dense_taken(cells)
        else:
            taken = [self.sparse_of(c) is not None for c in cells]
        if self._key:
            keys = zip(*(columns[i] for i in self._key), strict=True)
            taken = [t and self._key_held(key) for t, key in zip(taken, keys, strict=True)]
        return taken

    def _dense_taken(self, cells: Sequence[Any]) -> list[bool]:
        column = self.table.columns[self.dense]
        size = (column.dim or 0) * _DENSE[column.kind].itemsize
        good = [type(c) is bytes and len(c) == size for c in cells]
        if any(good):
            given = [c for c, ok in zip(cells, good, strict=True) if ok]
            numbers = self._matrix(given)
            with np.errstate(invalid="ignore"):
                fits = (np.abs(numbers).max(axis=1) >= ZERO) & np.isfinite(numbers).all(axis=1)
            verdict = iter(fits.tolist())
            good = [ok and next(verdict) for ok in good]
        return good

    def _matrix(self, cells: Sequence[bytes]) -> npt.NDArray[np.float32]:
        column = self.table.columns[self.dense]
        joined = np.frombuffer(b"".join(cells), _DENSE[column.kind])
        found: npt.NDArray[np.float32] = joined.reshape(len(cells), -1).astype(vectors.F32, copy=False)
        return found

    def sparse_of(self, cell: Any) -> Sparse | None:
        """Return a cell of the sparse column as a record has it; None where it can not be one."""
        if type(cell) is not bytes or len(cell) < 8:
            return None
        dim, n = (int.from_bytes(cell[i : i + 4], "little") for i in (0, 4))
        if not 1 <= n <= SPARSE_VALUES or len(cell) != 8 + 8 * n:
            return None
        if dim != (self.table.columns[self.sparse].dim or 0):
            return None
        indices, numbers, _ = vectors.unpack_sparse(cell)
        ascending = n == 1 or bool((np.diff(indices.astype(np.int64)) > 0).all())
        if not ascending or not bool(np.isfinite(numbers).all()):
            return None
        return Sparse(indices.tobytes(), numbers.tobytes())

    def _key_held(self, key: Sequence[Any]) -> bool:
        """Whether a key can be read from a record again: from its id, or from its metadata."""
        if None in key:
            return False
        if self.native:
            named = dict(zip(self.table.key, key, strict=True))
            return _is_id(named["id"]) and is_namespace(named["namespace"])
        if tells_key(self.ids.of(key)):
            return True
        columns = [self.table.columns[i] for i in self._key]
        if any(
            metadata.problem(c, cell) or not metadata.is_name(c.name)
            for c, cell in zip(columns, key, strict=True)
        ):
            return False
        return sum(metadata.cell_sizes(columns, key)) <= KEY_ROOM

    def key_id(self, key: Sequence[Any]) -> str:
        """Return the id of a key's record, cells in `table.key` order."""
        return str(key[self.table.key.index("id")]) if self.native else self.ids.of(key)

    def in_metadata(self, row: Row, record_id: str) -> list[int]:
        """Return the positions of the columns that a row's metadata has: not those that the id spells."""
        if len(self._key) == 1 and tells_key(record_id) and not record_id.startswith("~"):
            return [i for i in self.plain if i != self._key[0]]
        return list(self.plain)

    def records(self, rows: Sequence[Row], first: int = 0) -> list[Record]:
        """Return the records of rows that are some (`is_record`) and fit. `first`: number of the first keyless row."""
        if self.native:
            return [self._native_record(row) for row in rows]
        found = []
        dense = self._values([row[self.dense] for row in rows]) if self.dense >= 0 else [None] * len(rows)
        for n, (row, values) in enumerate(zip(rows, dense, strict=True)):
            record_id = self.ids.of([row[i] for i in self._key]) if self._key else numbered(first + n)
            sparse = self.sparse_of(row[self.sparse]) if self.sparse >= 0 else None
            found.append(Record(record_id, values, sparse, self._metadata(row, record_id)))
        return found

    def _values(self, cells: Sequence[bytes]) -> Sequence[bytes | None]:
        if self.table.columns[self.dense].kind is Kind.VECTOR or not cells:
            return cells
        return [row.tobytes() for row in self._matrix(cells)]

    def _metadata(self, row: Row, record_id: str) -> metadata.Metadata:
        found: metadata.Metadata = {}
        for i in self.in_metadata(row, record_id):
            column, cell = self.table.columns[i], row[i]
            if cell is None:
                continue
            if i in self._key and (metadata.problem(column, cell) or not metadata.is_name(column.name)):
                continue  # the id spells it
            found[column.name] = metadata.encode(column, cell, json_text=self.json_text)
        return found

    def _native_record(self, row: Row) -> Record:
        cell = dict(zip(self.table.column_names, row, strict=True))
        text = cell["metadata"]
        told = metadata.from_json(text) if isinstance(text, str) else {}
        dense = row[self.dense] if self.dense >= 0 else None
        sparse = self.sparse_of(row[self.sparse]) if self.sparse >= 0 else None
        return Record(cell["id"], dense, sparse, told, cell["namespace"])

    # --- records to rows ------------------------------------------------------

    def rows(self, records: Sequence[Record], wanted: Table | None = None) -> list[Row]:
        """Return the rows of records; `wanted`: the columns asked for, all where left out."""
        names = self.table.column_names
        pick = range(len(names)) if wanted is None else [names.index(n) for n in wanted.column_names]
        found = []
        for record in records:
            key = self.ids.key(record.id) if self._key and not self.native else None
            spelled = dict(zip(self._key, key, strict=True)) if key is not None else {}
            found.append(tuple(self._cell(i, record, spelled) for i in pick))
        return found

    def _cell(self, at: int, record: Record, spelled: dict[int, Any]) -> Any:
        column = self.table.columns[at]
        if at == self.dense:
            return self._vector_cell(column, record.values)
        if at == self.sparse:
            return self._sparse_cell(column, record.sparse)
        if self.native:
            return self._native_cell(column.name, record)
        if at in spelled:
            return spelled[at]
        return metadata.decode(column, record.metadata.get(column.name))

    def _vector_cell(self, column: Column, stored: bytes | None) -> bytes | None:
        if stored is None or column.kind is Kind.VECTOR:
            return stored
        cell: bytes = np.frombuffer(stored, vectors.F32).astype(_DENSE[column.kind]).tobytes()
        return cell

    def _sparse_cell(self, column: Column, stored: Sparse | None) -> bytes | None:
        if stored is None:
            return None
        indices = np.frombuffer(stored.indices, vectors.U32)
        numbers = np.frombuffer(stored.values, vectors.F32)
        order = np.argsort(indices, kind="stable")
        head = np.array([column.dim or 0, len(indices)], vectors.U32).tobytes()
        return head + indices[order].tobytes() + numbers[order].tobytes()

    def _native_cell(self, name: str, record: Record) -> Any:
        if name == "namespace":
            return record.namespace
        if name == "id":
            return record.id
        return metadata.to_json(record.metadata) if name == "metadata" else None
