"""What a table is, in words that every backend shares: frozen data, no I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What the cells of a column are. The Python type of a cell follows from it.

    A column's kind is what its store declares or what a layout knows; a single
    cell of a dynamically typed store may be of another kind (`values.kind_of`).
    """

    INTEGER = "integer"  # int, any size
    REAL = "real"  # float, compared by its 64 bits
    TEXT = "text"  # str; bytes that are no UTF-8 ride along as surrogate escapes
    BLOB = "blob"  # bytes
    BOOL = "bool"  # bool
    JSON = "json"  # str: the JSON text as the store gave it
    TIMESTAMP = "timestamp"  # str: UTC, ISO 8601 with microseconds
    NATIVE = "native"  # str: any other Postgres type, as the server prints it
    VECTOR = "vector"  # bytes: dim little-endian float32
    HALF = "half"  # bytes: dim little-endian float16
    SPARSE = "sparse"  # bytes: vectors.pack_sparse
    MULTI = "multi"  # bytes: vectors.pack_multi
    U8 = "u8"  # bytes: dim unsigned bytes


VECTOR_KINDS = frozenset({Kind.VECTOR, Kind.HALF, Kind.SPARSE, Kind.MULTI, Kind.U8})
PACKED_KINDS = VECTOR_KINDS | {Kind.BLOB}
TEXT_KINDS = frozenset({Kind.TEXT, Kind.JSON, Kind.TIMESTAMP, Kind.NATIVE})


class Metric(StrEnum):
    """How two vectors are compared."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"
    MANHATTAN = "manhattan"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    declared: the type as the source writes it (`VARCHAR(20)`, `numeric(10,2)`).
    default:  SQL text in the source's dialect, or None.
    dim:      length of the vectors, for vector kinds.
    generated: the expression of a generated column; its cells are not carried.
    identity: the store numbers new rows itself (AUTOINCREMENT, rowid alias, identity, serial).
    labels:   the labels of a Postgres enum, in order.
    legacy_json: vector cells may also be JSON text, an older form that the layout knows.
    """

    name: str
    kind: Kind
    declared: str = ""
    nullable: bool = True
    default: str | None = None
    dim: int | None = None
    metric: Metric | None = None
    generated: str | None = None
    identity: bool = False
    collation: str | None = None
    labels: tuple[str, ...] = ()
    legacy_json: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of this table name a row of `parent`; NO ACTION unless said.

    deferrable: checked at the end of a transaction; `immediate`: only where that transaction asks for it.
    """

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: bool = False
    immediate: bool = False


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One column of an index, with its direction and collation."""

    column: str
    descending: bool = False
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index or UNIQUE constraint; `where` is a partial index's condition in the source's SQL."""

    name: str
    parts: tuple[IndexPart, ...]
    unique: bool = False
    where: str | None = None
    constraint: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the indexed columns."""
        return tuple(part.column for part in self.parts)


@dataclass(frozen=True, slots=True)
class FullText:
    """How SQLite declares a full-text table that keeps its own text.

    module:    fts3, fts4 or fts5.
    unindexed: columns that are kept and not searched.
    options:   (name, value), names in lower case; one may be given more than once.
    """

    module: str
    unindexed: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """One table (or collection, or namespace) of a store.

    key:     columns of the primary key, empty where rows have none.
    dialect: which store's words `declared`, `default` and `where` are in.
    role:    what the rows are to an agent: traces, graph, documents, ... or "table".
    sequence: the last number given out by the store for the identity column.
    address: where the store keeps it, when that is not `name` (a schema's table, a namespace).
    full_text: of a full-text table in SQLite; everywhere else its rows are those of any table.
    column_names: of the carried columns, in cell order.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    indexes: tuple[Index, ...] = ()
    dialect: str = "neutral"
    role: str = "table"
    sequence: int | None = None
    without_rowid: bool = False
    strict: bool = False
    address: str | None = None
    full_text: FullText | None = None
    column_names: tuple[str, ...] = field(init=False, repr=False, compare=False)  # asked for in many a loop

    def __post_init__(self) -> None:
        object.__setattr__(self, "column_names", tuple(c.name for c in self.columns))

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Return where in a row the cells of the key stand."""
        names = self.column_names
        return tuple(names.index(k) for k in self.key)

    @property
    def vectors(self) -> tuple[Column, ...]:
        """Return the vector columns."""
        return tuple(c for c in self.columns if c.kind in VECTOR_KINDS)

    def column(self, name: str) -> Column:
        """Return a column by name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def with_columns(self, columns: tuple[Column, ...]) -> Table:
        """Return the same table with other columns."""
        return replace(self, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a plan's JSON."""
        data = asdict(self)
        del data["column_names"]
        # What is not given is left out, so that plans of earlier versions have the same fingerprint.
        if self.full_text is None:
            del data["full_text"]
        for key in data["foreign_keys"]:
            if not key["immediate"]:
                del key["immediate"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Table:
        """Rebuild a table from `to_dict`'s data (after a trip through JSON)."""
        data = dict(data)
        data["columns"] = tuple(
            Column(
                **{
                    **c,
                    "kind": Kind(c["kind"]),
                    "metric": Metric(c["metric"]) if c.get("metric") else None,
                    "labels": tuple(c.get("labels") or ()),
                }
            )
            for c in data["columns"]
        )
        data["key"] = tuple(data.get("key") or ())
        data["foreign_keys"] = tuple(
            ForeignKey(**{**f, "columns": tuple(f["columns"]), "parent_columns": tuple(f["parent_columns"])})
            for f in data.get("foreign_keys") or ()
        )
        data["indexes"] = tuple(
            Index(**{**i, "parts": tuple(IndexPart(**p) for p in i["parts"])})
            for i in data.get("indexes") or ()
        )
        if text := data.get("full_text"):
            options = tuple((name, value) for name, value in text["options"])
            data["full_text"] = FullText(text["module"], tuple(text["unindexed"]), options)
        return cls(**data)


@dataclass(frozen=True, slots=True)
class NotCarried:
    """Something of a source that a migration leaves behind, and why; always listed, never silent."""

    name: str
    reason: str
    derived: bool = field(default=False)  # True: made of what is carried, nothing is lost


def affinity(declared: str) -> str:
    """Return the affinity of a type declared in SQLite (https://www.sqlite.org/datatype3.html, section 3.1)."""
    upper = declared.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in upper or not upper:
        return "BLOB"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"
