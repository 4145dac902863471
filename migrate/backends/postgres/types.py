"""How a column is kept in Postgres, and which cells fit it."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.backends.base import Options
from migrate.backends.postgres.names import fitting, fitting_column
from migrate.backends.postgres.native import Ask, Length, Native, is_type
from migrate.backends.sqlbooks import is_ours
from migrate.fit import Fit, Found, Integers, Jsonb, Never, Numbers, Rule, Texts, Typed, Vectors
from migrate.fit_packed import Packed
from migrate.schema import Column, Kind, Table, affinity

MAX_COLUMNS = 1600
MAX_DIM = 16_000  # of vector and halfvec (https://github.com/pgvector/pgvector#reference)
MAX_ENTRIES = 16_000  # of a sparsevec that are not 0
MAX_SPARSE_DIM = 1_000_000_000
MAX_ROW_BYTES = 8160  # of a page of 8 kB; long values are kept elsewhere, behind a pointer
_POINTER_BYTES = 18
_OWN_INTEGERS = {"smallint": "int2", "integer": "int4", "bigint": "int8", "oid": "oid"}
_FLOAT4_MAX = 3.4028234663852886e38
_WIDE = 400  # with fewer columns no row can be too wide
MAX_KEY_BYTES = 2600  # a btree entry holds 2,704 bytes (a third of a page)

# How cells travel in a binary COPY; "text" kinds of other types need a text COPY.
BINARY = frozenset(
    {"int8", "int4", "int2", "oid", "float8", "float4", "text", "bytea", "bool", "jsonb", "vector", "halfvec"}
)


@dataclass(frozen=True, slots=True)
class PgColumn:
    """A column here: its name, its type in SQL, and how its cells travel.

    extension: the type is pgvector's, so its name needs the extension's schema.
    """

    name: str
    type: str
    codec: str
    extension: bool = False

    def sql(self, vector_schema: str | None) -> str:
        """Return the type as DDL writes it."""
        if self.extension and vector_schema:
            return f'"{vector_schema.replace(chr(34), chr(34) * 2)}".{self.type}'
        return self.type


@dataclass(frozen=True, slots=True)
class Floats:
    """Doubles that a float4 holds exactly."""

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        yield from Typed(float, "reals", 0.0).check(cells)
        for i, cell in enumerate(cells):
            if (
                type(cell) is float
                and math.isfinite(cell)
                and (abs(cell) > _FLOAT4_MAX or struct.unpack(">f", struct.pack(">f", cell))[0] != cell)
            ):
                yield Found(i, None, "a real that a float4 cannot hold exactly")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Short:
    """A key's texts or blobs: what the base allows, and not too long for an index entry."""

    base: Rule

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        yield from self.base.check(cells)
        try:
            longest = max(map(len, cells), default=0)
        except TypeError:
            longest = max((len(c) for c in cells if isinstance(c, (str, bytes))), default=0)
        if 4 * longest > MAX_KEY_BYTES:
            for i, cell in enumerate(cells):
                if isinstance(cell, (str, bytes)):
                    raw = cell.encode("utf-8", "surrogateescape") if isinstance(cell, str) else cell
                    if len(raw) > MAX_KEY_BYTES:
                        yield Found(i, None, f"a key of {len(raw)} bytes, too long for an index")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return self.base.nearest(cell)


def column_here(column: Column, table: Table, options: Options) -> PgColumn:
    """Return how a column is kept here."""
    name = fitting_column(column.name)
    match column.kind:
        case Kind.INTEGER:
            codec = _OWN_INTEGERS.get(column.declared) if table.dialect == "postgres" else None
            return PgColumn(name, column.declared, codec) if codec else PgColumn(name, "bigint", "int8")
        case Kind.REAL:
            if table.dialect == "postgres" and column.declared == "real":
                return PgColumn(name, "real", "float4")
            return PgColumn(name, "double precision", "float8")
        case Kind.TEXT:
            # SQLite compares keys byte by byte; so does this collation, and its
            # index serves a read in that order.
            binary = table.dialect != "postgres" and column.name in table.key
            return PgColumn(name, 'text COLLATE "C"' if binary else _text_type(column, table), "text")
        case Kind.BLOB | Kind.MULTI | Kind.U8:
            return PgColumn(name, "bytea", "bytea")
        case Kind.BOOL:
            return PgColumn(name, "boolean", "bool")
        case Kind.JSON:
            if options.json == "text":
                return PgColumn(name, "text", "text")
            if table.dialect != "postgres" and _tells_apart(column, table):
                return PgColumn(name, 'text COLLATE "C"', "text")  # two spellings of one JSON are two keys
            if table.dialect == "postgres" and column.declared == "json":
                return PgColumn(name, "json", "text")
            return PgColumn(name, "jsonb", "jsonb")
        case Kind.VECTOR if column.dim is None or column.dim <= MAX_DIM:
            return PgColumn(name, f"vector({column.dim})" if column.dim else "vector", "vector", True)
        case Kind.HALF if column.dim is None or column.dim <= MAX_DIM:
            return PgColumn(name, f"halfvec({column.dim})" if column.dim else "halfvec", "halfvec", True)
        case Kind.VECTOR | Kind.HALF:
            return PgColumn(name, "bytea", "bytea")
        case Kind.SPARSE if column.dim is not None and column.dim <= MAX_SPARSE_DIM:
            return PgColumn(name, f"sparsevec({column.dim})", "sparsevec", True)
        case Kind.SPARSE if table.dialect == "postgres" and column.dim is None:
            return PgColumn(name, "sparsevec", "sparsevec", True)
        case Kind.SPARSE:  # of no dimension that is known, as other stores have them; sparsevec has one
            return PgColumn(name, "bytea", "bytea")
        case Kind.TIMESTAMP:
            own = table.dialect == "postgres" and is_type(column.declared)
            return PgColumn(name, column.declared if own else "timestamptz", "native")
        case Kind.NATIVE:
            return PgColumn(name, column.declared if is_type(column.declared) else "text", "native")


def _tells_apart(column: Column, table: Table) -> bool:
    """Whether rows are told apart by a column: by the key, or by a unique index."""
    unique = (name for index in table.indexes if index.unique for name in index.columns)
    return column.name in table.key or column.name in unique


def _text_type(column: Column, table: Table) -> str:
    plain = r"(character varying|character|varchar|char|name|citext|text)(\(\d+\))?"
    declared = column.declared.lower()
    if table.dialect == "postgres" and re.fullmatch(plain, declared) and declared not in ("name", "citext"):
        return declared
    return "text"


def _rule(column: Column, table: Table, here: PgColumn, ask: Ask | None, *, key: bool) -> Rule:
    match here.codec:
        case "int2" | "int4" | "int8":
            bits = 8 * int(here.codec[3:])
            rule: Rule = Integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, f"{bits}-bit integers")
        case "oid":
            rule = Integers(0, 2**32 - 1, "32 bits without a sign")
        case "float4":
            rule = Floats()
        case "float8":
            numeric = table.dialect == "sqlite" and affinity(column.declared) == "NUMERIC"
            rule = Numbers() if numeric else Typed(float, "reals", 0.0)
        case "bool":
            rule = Typed(bool, "booleans", False)
        case "bytea":
            rule = Typed(bytes, "bytes", b"")
        case "jsonb":
            rule = Jsonb()
        case "vector" if column.dim:
            rule = Vectors(column.dim, legacy_json=column.legacy_json)
        case "vector" | "halfvec":
            rule = Packed(column.kind, column.dim, most=MAX_DIM)
        case "sparsevec":
            rule = Packed(column.kind, column.dim, most=MAX_ENTRIES, strict=True)
        case "native" if here.type != "text":
            rule = Native(here.type, column.labels, key, ask)
        case _ if here.type == "json":
            rule = Native("json", (), key, ask)
        case _ if found := re.fullmatch(
            r"(?:(character|char)|character varying|varchar)\((\d+)\)", here.type
        ):
            rule = Length(int(found[2]), exact=found[1] is not None)
        case _:
            rule = Texts()
    return Short(rule) if column.name in table.key and here.codec in ("text", "bytea") else rule


def columns_here(table: Table, options: Options) -> list[PgColumn | None]:
    """Return how each column is kept; None for those beyond the server's limit."""
    return [
        column_here(column, table, options) if i < MAX_COLUMNS else None
        for i, column in enumerate(table.columns)
    ]


def fit(table: Table, options: Options, ask: Ask | None = None) -> Fit:
    """Return what Postgres with pgvector can hold of a table. `ask`: judges texts of its many types."""
    here = columns_here(table, options)
    problems = []
    for what, name in [("table", table.name), *(("column", c.name) for c in table.columns)]:
        shorter = fitting(name) if what == "table" else fitting_column(name)
        if shorter != name:
            reason = (
                "reserved by the server" if len(name.encode("utf-8", "replace")) <= 63 else "over 63 bytes"
            )
            problems.append(f"{what} name {name!r} is {reason if name else 'empty'}; it becomes {shorter!r}")
    if is_ours(table.name):
        problems.append(f"table name {table.name!r} is reserved")
    if len(table.columns) > MAX_COLUMNS:
        problems.append(f"{len(table.columns)} columns; Postgres has {MAX_COLUMNS} at most")
    notes = [
        f"{c.name}: over {MAX_DIM} dimensions, kept as bytea"
        for c in table.columns
        if c.kind in (Kind.VECTOR, Kind.HALF) and (c.dim or 0) > MAX_DIM
    ]
    not_null = frozenset(
        i
        for i, c in enumerate(table.columns)
        if here[i] is not None and (not c.nullable or c.name in table.key)
    )
    named = set(table.key_positions)
    for index in table.indexes:
        if index.unique:
            named |= {i for i, c in enumerate(table.columns) if c.name in index.columns} & not_null
    rules = tuple(
        Never(f"beyond the {MAX_COLUMNS} columns of a table")
        if there is None
        else _rule(column, table, there, ask, key=i in named)
        for i, (column, there) in enumerate(zip(table.columns, here, strict=True))
    )
    types = tuple(
        (c.name, "-" if there is None else there.type) for c, there in zip(table.columns, here, strict=True)
    )
    return Fit(
        table,
        rules,
        not_null,
        frozenset(named),
        tuple(problems),
        tuple(notes),
        keyed=bool(table.key),
        types=types,
        whole_rows=too_wide if len(here) > _WIDE else None,
    )


def too_wide(columns: Sequence[Sequence[Any]]) -> Iterator[Found]:
    """Find rows that no page holds, even with every text and blob moved out of line."""
    fixed = 24 + len(columns) // 8
    for i, row in enumerate(zip(*columns, strict=True)):
        size = fixed
        for cell in row:
            if isinstance(cell, (str, bytes)):
                size += min(len(cell) + 4, _POINTER_BYTES)
            elif cell is not None:
                size += 8
        if size > MAX_ROW_BYTES:
            yield Found(i, None, f"a row of {size} bytes; a page of Postgres holds {MAX_ROW_BYTES}")
