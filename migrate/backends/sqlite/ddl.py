"""The statements that make a table in SQLite, and which cells its columns can hold.

A table that came from SQLite is declared as it was. Of any other only INTEGER,
REAL, TEXT and BLOB are declared: a declared `numeric` would turn
12345678901234567890.12 into 1.23e19, and `interval` contains "int".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.backends.base import Options
from migrate.backends.sqlbooks import is_ours
from migrate.backends.sqlite.names import ident, looks_like_number
from migrate.fit import INT64, Fit, Found, Integers, Rule, Texts, Typed, whole
from migrate.schema import PACKED_KINDS, TEXT_KINDS, Column, Index, Kind, Table, affinity

_LITERAL = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|x'[0-9a-f]*'|[-+]?(?:0x[0-9a-f]+|\d+\.?\d*|\.\d+)
    |NULL|TRUE|FALSE|CURRENT_(?:TIMESTAMP|DATE|TIME)""",
    re.I | re.X | re.A,
)
_MAX_COLUMNS = 2000  # SQLITE_MAX_COLUMN (https://www.sqlite.org/limits.html)


def _in_64_bits(cell: int) -> bool:
    return INT64[0] <= cell <= INT64[1]


def _minus_zero(cell: float) -> bool:
    return cell == 0 and math.copysign(1, cell) < 0


@dataclass(frozen=True, slots=True)
class Stored:
    """Cells that a column of an affinity gives back as they were.

    Affinity converts on the way in: a text that looks like a number becomes
    one in a numeric column, a number becomes text in a TEXT column. NaN
    becomes NULL anywhere.
    """

    affinity: str

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        types = set(map(type, cells))
        if str in types:
            yield from Texts(nul=True, invalid=True).check([c if type(c) is str else None for c in cells])
        if float in types:
            for i, cell in enumerate(cells):
                if type(cell) is float and cell != cell:
                    yield Found(i, None, "NaN, which SQLite turns into NULL")
                elif type(cell) is float and self.affinity == "REAL" and _minus_zero(cell):
                    yield Found(i, None, "-0.0, which SQLite turns into 0.0")
                elif type(cell) is float and self.affinity in ("INTEGER", "NUMERIC") and whole(cell):
                    yield Found(i, None, "a whole real, which SQLite turns into an integer here")
        if int in types:
            yield from Integers().check([c if type(c) is int else None for c in cells])
        if self.affinity == "TEXT" and types & {int, float}:
            for i, cell in enumerate(cells):
                if (type(cell) is int and _in_64_bits(cell)) or (type(cell) is float and cell == cell):
                    yield Found(i, None, "a number, which SQLite turns into text here")
        if self.affinity == "REAL" and int in types:
            for i, cell in enumerate(cells):
                if type(cell) is int and _in_64_bits(cell):
                    yield Found(i, None, "an integer, which SQLite turns into a real here")
        if self.affinity in ("INTEGER", "REAL", "NUMERIC") and str in types:
            for i, cell in enumerate(cells):
                if type(cell) is str and looks_like_number(cell):
                    yield Found(i, None, "a text that SQLite turns into a number here")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        if type(cell) is int:
            return min(max(cell, INT64[0]), INT64[1])
        return "" if self.affinity == "TEXT" else 0


@dataclass(frozen=True, slots=True)
class Reals:
    """Doubles, NaN excepted."""

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        yield from Typed(float, "reals", 0.0).check(cells)
        for i, cell in enumerate(cells):
            if type(cell) is float and cell != cell:
                yield Found(i, None, "NaN, which SQLite turns into NULL")
            elif type(cell) is float and _minus_zero(cell):
                yield Found(i, None, "-0.0, which SQLite turns into 0.0")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        return 0.0


def rule(column: Column, dialect: str, *, strict: bool = False) -> Rule:
    """Return what a column can hold here. `strict`: its table is, where ANY keeps every value as it is."""
    declared = column_type(column, dialect)
    if dialect == "sqlite":
        return Stored("BLOB" if strict and declared.upper() == "ANY" else affinity(declared))
    if column.kind is Kind.INTEGER:
        return Integers()
    if column.kind is Kind.REAL:
        return Reals()
    if column.kind is Kind.BOOL:
        return Typed(bool, "booleans", False)
    if column.kind in PACKED_KINDS:
        return Typed(bytes, "bytes", b"")
    return Texts(nul=True, invalid=True)


def column_type(column: Column, dialect: str) -> str:
    """Return the declared type of a column here."""
    if dialect == "sqlite":
        return column.declared
    if column.kind in (Kind.INTEGER, Kind.BOOL):
        return "INTEGER"
    if column.kind is Kind.REAL:
        return "REAL"
    return "TEXT" if column.kind in TEXT_KINDS else "BLOB"


def fit(table: Table, options: Options) -> Fit:
    """Return what SQLite can hold of a table."""
    problems = []
    if is_ours(table.name) or table.name.lower().startswith("sqlite_"):
        problems.append(f"table name {table.name!r} is reserved")
    problems += [f"the name {n!r} holds NUL" for n in (table.name, *table.column_names) if "\0" in n]
    if len(table.columns) > _MAX_COLUMNS:
        problems.append(f"{len(table.columns)} columns; SQLite has {_MAX_COLUMNS} at most")
    names = [c.name.lower() for c in table.columns]
    if len(set(names)) != len(names):
        problems.append("column names that differ only in case")
    rules = tuple(rule(c, table.dialect, strict=table.strict) for c in table.columns)
    rowid = _rowid_key(table)  # where NULL would become the next number
    not_null = frozenset(
        i
        for i, c in enumerate(table.columns)
        if not c.nullable or (c.name in table.key and table.without_rowid) or c.name == rowid
    )
    types = tuple((c.name, column_type(c, table.dialect) or "any") for c in table.columns)
    key = set(table.key_positions)
    for index in table.indexes:
        if index.unique:
            key |= {i for i, c in enumerate(table.columns) if c.name in index.columns} & not_null
    return Fit(
        table,
        rules,
        not_null,
        frozenset(key),
        tuple(problems),
        tuple(_left_out(table)),
        keyed=bool(table.key),
        types=types,
    )


def _left_out(table: Table) -> Iterator[str]:
    """Say what of another store's declarations a table here does not have; the way back has it again."""
    if table.dialect == "sqlite":
        return
    for column in table.columns:
        if column.default is not None and not column.identity:
            yield f"{table.name}.{column.name} DEFAULT {column.default}: does not translate, and is left out"
    for index in table.indexes:
        if index.where is not None:
            yield f"index {index.name} WHERE {index.where}: does not translate, and the index is left out"
    for key in table.foreign_keys:
        if key.immediate:
            yield f"foreign key of {table.name} to {key.parent}: cannot be deferred here"


def create_table(table: Table) -> str:
    """Return the CREATE TABLE statement of a table."""
    rowid = _rowid_key(table)
    parts = [_column(table, c, inline_key=c.name == rowid) for c in table.columns]
    if table.key and rowid is None and _apart(table) is None:
        parts.append(f"PRIMARY KEY ({', '.join(map(ident, table.key))})")
    parts += [
        f"UNIQUE ({', '.join(map(ident, i.columns))})"
        for i in table.indexes
        if i.constraint and i.where is None
    ]
    for key in table.foreign_keys:
        text = f"FOREIGN KEY ({', '.join(map(ident, key.columns))}) REFERENCES {ident(key.parent)}"
        if key.parent_columns:  # a parent without a key has none to name
            text += f" ({', '.join(map(ident, key.parent_columns))})"
        if key.on_delete != "NO ACTION":
            text += f" ON DELETE {key.on_delete}"
        if key.on_update != "NO ACTION":
            text += f" ON UPDATE {key.on_update}"
        deferred = key.deferrable and not key.immediate
        parts.append(text + (" DEFERRABLE INITIALLY DEFERRED" if deferred else ""))
    tail = [w for w, on in (("WITHOUT ROWID", table.without_rowid), ("STRICT", table.strict)) if on]
    return f"CREATE TABLE {ident(table.name)} ({', '.join(parts)}) {', '.join(tail)}".rstrip()


def _rowid_key(table: Table) -> str | None:
    """Return the column to declare INTEGER PRIMARY KEY, so that SQLite goes on numbering it."""
    if len(table.key) != 1 or table.without_rowid:
        return None
    column = table.column(table.key[0])
    if table.dialect == "sqlite":
        return column.name if column.identity else None
    return column.name if column.kind is Kind.INTEGER else None


def _apart(table: Table) -> str | None:
    """Return the lone INTEGER key that is no rowid: only written inline with DESC does it stay apart."""
    if len(table.key) != 1 or table.without_rowid or _rowid_key(table) is not None:
        return None
    column = table.column(table.key[0])
    return column.name if column_type(column, table.dialect).upper() == "INTEGER" else None


def _column(table: Table, column: Column, *, inline_key: bool) -> str:
    text = f"{ident(column.name)} {column_type(column, table.dialect)}".rstrip()
    if inline_key:
        text += " PRIMARY KEY" + (" AUTOINCREMENT" if table.sequence is not None else "")
    elif column.name == _apart(table):
        text += " PRIMARY KEY DESC"
    if not column.nullable and not inline_key:
        text += " NOT NULL"
    if column.default is not None and table.dialect == "sqlite":
        text += f" DEFAULT {_default(column.default)}"
    if column.collation and table.dialect == "sqlite":
        text += f" COLLATE {ident(column.collation)}"
    return text


def _default(text: str) -> str:
    """PRAGMA table_info gives an expression without the parentheses that its declaration needs."""
    return text if _LITERAL.fullmatch(text) else f"({text})"


def create_index(table: Table, index: Index) -> str | None:
    """Return the CREATE INDEX statement of an index, None where the table's own statement has it."""
    if index.constraint and index.where is None:
        return None
    if index.where is not None and table.dialect != "sqlite":
        return None
    parts = ", ".join(
        ident(p.column)
        + (f" COLLATE {ident(p.collation)}" if p.collation and table.dialect == "sqlite" else "")
        + (" DESC" if p.descending else "")
        for p in index.parts
    )
    unique = "UNIQUE " if index.unique else ""
    where = f" WHERE {index.where}" if index.where else ""
    return f"CREATE {unique}INDEX IF NOT EXISTS {ident(index.name)} ON {ident(table.name)} ({parts}){where}"
