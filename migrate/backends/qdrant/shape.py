"""A table as a collection: which columns are vectors, which are payload, and points made of rows and back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from migrate import values, vectors
from migrate.backends.qdrant import cosine, payload
from migrate.backends.qdrant.engine import Json, Multi, Packed, Point, PointId, ShardKey, Sparse
from migrate.backends.qdrant.names import MARKS, vector_name
from migrate.batch import Row
from migrate.schema import Column, Kind, Metric, Table

MAX_DIM = 65536  # of the server's own check
DIALECT = "qdrant"  # of tables that describe a collection memlift did not make
DISTANCES = {
    Metric.COSINE: "Cosine",
    Metric.DOT: "Dot",
    Metric.EUCLID: "Euclid",
    Metric.MANHATTAN: "Manhattan",
}
_DIGITS = re.compile(r"0|[1-9][0-9]{0,19}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATATYPES = {Kind.VECTOR: "float32", Kind.HALF: "float16", Kind.U8: "uint8", Kind.MULTI: "float32"}


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A column kept as a named vector.

    params: its settings in REST form.
    unit:   sent normalised by us, with what restores it (`cosine`).
    """

    at: int
    column: Column
    name: str
    params: Json
    unit: bool


def fits_a_vector(column: Column) -> bool:
    """Whether a column can be a vector of a collection."""
    if column.kind is Kind.SPARSE:
        return True
    return column.kind in _DATATYPES and column.dim is not None and 1 <= column.dim <= MAX_DIM


def is_collection(table: Table) -> bool:
    """Whether a table becomes a collection; all others go to the sidecar."""
    return table.dialect == DIALECT or any(
        fits_a_vector(c) and c.name not in table.key and c.generated is None for c in table.columns
    )


def native(column: Column) -> Json:
    """Return what a foreign collection's column said of itself; empty for any other column."""
    if not column.declared.startswith("{"):
        return {}
    try:
        found = json.loads(column.declared)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _vector(at: int, column: Column, foreign: bool) -> VectorColumn:
    said = native(column) if foreign else {}
    if "params" in said:
        return VectorColumn(at, column, said["vector"], said["params"], False)
    if column.kind is Kind.SPARSE:
        return VectorColumn(at, column, vector_name(column.name), {}, False)
    distance = DISTANCES[column.metric or Metric.COSINE]
    dense = column.kind in (Kind.VECTOR, Kind.HALF)
    unit = distance == "Cosine" and dense
    params: Json = {"size": column.dim, "distance": distance}
    datatype = "float32" if unit else _DATATYPES[column.kind]  # a unit vector in float16 loses the way back
    if datatype != "float32":
        params["datatype"] = datatype
    if column.kind is Kind.MULTI:
        params["multivector_config"] = {"comparator": "max_sim"}
    return VectorColumn(at, column, vector_name(column.name), params, unit)


class Shape:
    """How rows of one table and points of its collection are made of each other.

    json_text: JSON cells keep their text (`Options.json` is "text").
    sharded:   the collection has custom shard keys; where a foreign one had them and this one
               has not, points are kept as any table's rows, because one id may be in two shards.
    """

    def __init__(self, table: Table, *, json_text: bool = False, sharded: bool = True) -> None:
        self.table, self._json_text, self.sharded = table, json_text, sharded
        self.foreign = table.dialect == DIALECT and (sharded or "shard_key" not in table.column_names)
        self.vectors = tuple(
            _vector(i, c, table.dialect == DIALECT)
            for i, c in enumerate(table.columns)
            if fits_a_vector(c) and c.name not in table.key and c.generated is None
        )
        mine = {v.at for v in self.vectors}
        if not self.foreign and MARKS in table.column_names:
            mine.add(
                table.column_names.index(MARKS)
            )  # its cells are exact ones, all of them: the key is ours
        self.others = tuple(i for i in range(len(table.columns)) if i not in mine)
        self._plain = [table.columns[i] for i in self.others]
        self._kinds = [c.kind for c in table.columns]
        self._key = table.key_positions
        self._names = table.column_names

    def settings(self) -> Json:
        """Return the collection's vectors in REST form."""
        dense = {v.name: v.params for v in self.vectors if v.column.kind is not Kind.SPARSE}
        sparse = {v.name: v.params for v in self.vectors if v.column.kind is Kind.SPARSE}
        found: Json = {"vectors": dense[""] if list(dense) == [""] else dense}
        return {**found, "sparse_vectors": sparse} if sparse else found

    # --- ids ------------------------------------------------------------------

    def key_id(self, key: Sequence[Any]) -> PointId:
        """Return the id of a point for a key, cells in `table.key` order."""
        if self.foreign:
            found = given_id(key[0])
            return str(key[0]) if found is None else found
        return values.point_id([self._kinds[i] for i in self._key], key)

    def key_shard(self, key: Sequence[Any]) -> ShardKey | None:
        """Return the shard key of a point for a key; None where the collection has none."""
        if not self.foreign or "shard_key" not in self.table.key:
            return None
        cell = key[self.table.key.index("shard_key")]
        found: ShardKey | None = None if cell is None else orjson.loads(cell)
        return found

    def by_shard(self, keys: Sequence[Row]) -> dict[ShardKey | None, list[Row]]:
        """Return keys by their shard keys; all under None where the collection has none."""
        found: dict[ShardKey | None, list[Row]] = {}
        for key in keys:
            found.setdefault(self.key_shard(key), []).append(key)
        return found

    def row_id(self, row: Row) -> PointId:
        """Return the id of a row's point, for a table that has a key."""
        return self.key_id([row[i] for i in self._key])

    # --- rows to points -------------------------------------------------------

    def points(self, rows: Sequence[Row], first: int = 0) -> list[Point]:
        """Return the points of rows. `first`: the id of the first row of a table without a key."""
        if not rows:
            return []
        columns = list(zip(*rows, strict=True))
        named: list[dict[str, Packed]] = [{} for _ in rows]
        kept: list[Json] = [{} for _ in rows]
        for v in self.vectors:
            _put(v, columns[v.at], named, kept)
        payloads = self._payloads(columns, len(rows))
        for body, extra in zip(payloads, kept, strict=True):
            if extra:
                body.setdefault(MARKS, {})["vectors"] = extra
            if MARKS in body and not self.foreign:
                body[MARKS] = orjson.dumps(body[MARKS]).decode()
        shards = self._shards(columns, len(rows))
        ids = map(self.row_id, rows) if self._key else range(first, first + len(rows))
        return list(map(Point, ids, named, payloads, shards))

    def _payloads(self, columns: Sequence[Sequence[Any]], n: int) -> list[Json]:
        if self.foreign:
            at = self._names.index("payload")
            return [_object(c) for c in columns[at]]
        return payload.encode(self._plain, [columns[i] for i in self.others], n, json_text=self._json_text)

    def _shards(self, columns: Sequence[Sequence[Any]], n: int) -> Sequence[Any]:
        if not self.foreign or "shard_key" not in self._names:
            return [None] * n
        return [None if c is None else orjson.loads(c) for c in columns[self._names.index("shard_key")]]

    # --- points to rows -------------------------------------------------------

    def rows(self, points: Sequence[Point], wanted: Table | None = None) -> list[Row]:
        """Return the rows of points; `wanted`: the columns asked for, all where left out."""
        asked = self._names if wanted is None else wanted.column_names
        by_name = {v.column.name: v for v in self.vectors}
        marks = [{} if self.foreign else _marks(p.payload) for p in points]
        columns = []
        for name in asked:
            vector = by_name.get(name)
            if vector is not None:
                columns.append([_cell(vector, p, m) for p, m in zip(points, marks, strict=True)])
            elif self.foreign:
                columns.append([self._foreign_cell(name, p) for p in points])
            elif name == MARKS:
                columns.append([None] * len(points))
            else:
                column = self.table.column(name)
                columns.append(
                    [_payload_cell(column, p.payload, m) for p, m in zip(points, marks, strict=True)]
                )
        return list(zip(*columns, strict=True)) if columns else [() for _ in points]

    def _foreign_cell(self, name: str, point: Point) -> Any:
        if name == "id":
            whole = self.table.column("id").kind is Kind.INTEGER
            return point.id if whole else str(point.id)
        if name == "shard_key":
            return None if point.shard is None else orjson.dumps(point.shard).decode()
        return orjson.dumps(point.payload).decode()

    def asked_vectors(self, wanted: Table) -> list[str]:
        """Return the names of the vectors that the wanted columns need."""
        return [v.name for v in self.vectors if v.column.name in wanted.column_names]

    def asks_payload(self, wanted: Table) -> bool:
        """Whether the wanted columns need the payload."""
        return not self.foreign or "payload" in wanted.column_names


def given_id(cell: Any) -> PointId | None:
    """Return the id that a cell of a foreign table's `id` spells; None where it spells none.

    A number has one spelling and a UUID too, as Qdrant gives it back: of `3` and `03` only one can be a row's key.
    """
    if isinstance(cell, int):
        return cell if 0 <= cell < 2**64 else None
    text = str(cell)
    if _DIGITS.fullmatch(text):
        return int(text) if int(text) < 2**64 else None
    return text if _UUID.fullmatch(text) else None


def _object(cell: Any) -> Json:
    found = orjson.loads(cell) if isinstance(cell, str) else {}
    return found if isinstance(found, dict) else {}


def _put(v: VectorColumn, cells: Sequence[Any], named: list[dict[str, Packed]], kept: list[Json]) -> None:
    """Enter one column's vectors into the points, and beside them what restores a cell."""
    at = [i for i, c in enumerate(cells) if isinstance(c, bytes)]
    if not at:
        return
    given: list[bytes] = [cells[i] for i in at]
    match v.column.kind:
        case Kind.SPARSE:
            for i, cell in zip(at, given, strict=True):
                indices, numbers, dim = vectors.unpack_sparse(cell)
                named[i][v.name] = Sparse(indices.tobytes(), numbers.tobytes())
                if dim != (v.column.dim or 0):
                    kept[i][v.name] = {"dim": dim}
            return
        case Kind.MULTI:
            for i, cell in zip(at, given, strict=True):
                matrix = vectors.unpack_multi(cell)
                named[i][v.name] = Multi(matrix.shape[1], matrix.tobytes())
                if v.params["distance"] == "Cosine" and not v.column.declared and not _are_units(matrix):
                    kept[i][v.name] = {"x": base64.b64encode(cell).decode()}
            return
        case Kind.HALF:
            given = [np.frombuffer(c, vectors.F16).astype(vectors.F32).tobytes() for c in given]
        case Kind.U8:
            given = [np.frombuffer(c, np.uint8).astype(vectors.F32).tobytes() for c in given]
    if v.unit:
        given, extra = cosine.unit(given, v.column.dim or 0)
        for i, more in zip(at, extra, strict=True):
            if more is not None:
                kept[i][v.name] = more
    for i, cell in zip(at, given, strict=True):
        named[i][v.name] = cell


def _are_units(matrix: Any) -> bool:
    squares = np.square(matrix.astype(np.float64)).sum(axis=1)
    return bool((np.abs(squares - 1) < 4e-7).all())


def _marks(body: Json) -> Json:
    """Return what a point keeps under our key; nothing where somebody else has written there."""
    text = body.get(MARKS)
    if not isinstance(text, str):
        return {}
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_of(stored: Multi, cell: bytes) -> bool:
    """Whether normalised rows still have the directions of a multivector."""
    whole = vectors.unpack_multi(cell).astype(np.float64)
    norms = np.linalg.norm(whole, axis=1, keepdims=True)
    here = np.frombuffer(stored.data, vectors.F32).reshape(-1, stored.dim)
    units = np.divide(whole, norms, out=whole.copy(), where=norms > 0)
    return here.shape == units.shape and bool((np.abs(here - units) < 1e-6).all())


def _cell(v: VectorColumn, point: Point, marks: Json) -> bytes | None:
    """Return the cell of a vector column."""
    stored = point.vectors.get(v.name)
    if stored is None:
        return None
    extra = (marks.get("vectors") or {}).get(v.name)
    if isinstance(stored, Sparse):
        dim = extra["dim"] if isinstance(extra, dict) and "dim" in extra else v.column.dim or 0
        head = np.array([dim, len(stored.indices) // 4], vectors.U32).tobytes()
        return head + stored.indices + stored.values
    if isinstance(stored, Multi):
        if isinstance(extra, dict) and isinstance(extra.get("x"), str):
            cell = base64.b64decode(extra["x"])
            if _is_of(stored, cell):
                return cell
        n = len(stored.data) // (4 * stored.dim)
        return np.array([n, stored.dim], vectors.U32).tobytes() + stored.data
    dense = cosine.original(stored, extra) if v.unit else stored
    if v.column.kind is Kind.HALF:
        return np.frombuffer(dense, vectors.F32).astype(vectors.F16).tobytes()
    if v.column.kind is Kind.U8:
        return np.frombuffer(dense, vectors.F32).astype(np.uint8).tobytes()
    return dense


def _payload_cell(column: Column, body: Json, marks: Json) -> Any:
    return payload.decode(column, body, (marks.get("cells") or {}).get(column.name))
