"""A plain look at a SQLite file for these tests: enough of a backend to feed a layout."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from migrate.backends.base import Source
from migrate.batch import Batch, Cursor, Row
from migrate.layouts import Layout, Sample
from migrate.schema import Column, ForeignKey, Kind, NotCarried, Table

SAMPLES = Path(__file__).parents[2] / "migrate" / "samples"
FIXTURES = Path(__file__).parents[1] / "fixtures"
BRAIN = SAMPLES / "brain.sqlite"
BRAIN_V1 = FIXTURES / "agentos" / "v1" / "brain.sqlite"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def opened(path: Path) -> sqlite3.Connection:
    """Open a file without leaving anything beside it."""
    connection = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    connection.text_factory = str
    return connection


def kind_of(declared: str) -> Kind:
    word = declared.upper()
    if "INT" in word:
        return Kind.INTEGER
    if "CHAR" in word or "TEXT" in word:
        return Kind.TEXT
    return Kind.BLOB if "BLOB" in word or not word else Kind.REAL


def tables(connection: sqlite3.Connection) -> list[Table]:
    """Return the ordinary tables of a file, by name."""
    names = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [_table(connection, name) for (name,) in names.fetchall()]


def _table(connection: sqlite3.Connection, name: str) -> Table:
    info = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    columns = tuple(Column(c, kind_of(t), t, not nn, default) for _, c, t, nn, default, _ in info)
    key = tuple(row[1] for row in sorted((r for r in info if r[5]), key=lambda r: r[5]))
    links: dict[int, list[tuple[str, str, str]]] = {}
    for number, _, parent, own, to, *_ in connection.execute(f"PRAGMA foreign_key_list({quoted(name)})"):
        links.setdefault(number, []).append((parent, own, to))
    foreign_keys = tuple(
        ForeignKey(tuple(p[1] for p in parts), parts[0][0], tuple(p[2] for p in parts))
        for _, parts in sorted(links.items(), reverse=True)
    )
    return Table(name, columns, key, foreign_keys, dialect="sqlite")


def sampler(connection: sqlite3.Connection) -> Sample:
    """Return a `sample` that gives the first rows."""

    def sample(table: Table, n: int) -> list[Row]:
        names = ", ".join(quoted(c) for c in table.column_names)
        return connection.execute(f"SELECT {names} FROM {quoted(table.name)} LIMIT {n}").fetchall()

    return sample


def never(table: Table, n: int) -> list[Row]:
    """A `sample` of a store whose tables are all empty."""
    return []


def rows_of(rows: dict[str, Sequence[Row]], columns: dict[str, tuple[str, ...]]) -> Sample:
    """Return a `sample` over literal rows, whose cells are in the order of `columns`."""

    def sample(table: Table, n: int) -> list[Row]:
        at = [columns[table.name].index(c) for c in table.column_names]
        return [tuple(row[i] for i in at) for row in list(rows.get(table.name, ()))[:n]]

    return sample


class FileSource:
    """A SQLite file as a Source: rows by rowid, one open connection."""

    def __init__(self, connection: sqlite3.Connection, name: str = "brain.sqlite") -> None:
        self._connection = connection
        self._name = name
        self.closed = False

    def describe(self) -> str:
        return f"/data/{self._name}"

    def close(self) -> None:
        self.closed = True

    def tables(self) -> list[Table]:
        return tables(self._connection)

    def not_carried(self) -> list[NotCarried]:
        return []

    def count(self, table: Table) -> int:
        (n,) = self._connection.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()
        return int(n)

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        names = ", ".join(quoted(c) for c in table.column_names)
        found = self._connection.execute(
            f"SELECT rowid, {names} FROM {quoted(table.name)} WHERE rowid > ? ORDER BY rowid",
            (-1 if after is None else after,),
        )
        while rows := found.fetchmany(size):
            yield Batch(table, [row[1:] for row in rows], rows[-1][0])


def built(
    path: Path, layout: Layout, tables: Sequence[Table], rows: sqlite3.Connection | Source | None = None
) -> sqlite3.Connection:
    """Build a file as a SQLite target does: tables, then rows (from a file or a source), then the rest."""
    connection = sqlite3.connect(path)
    for table in tables:
        for statement in layout.sqlite_ddl(table) or []:
            connection.execute(statement)
    source = FileSource(rows) if isinstance(rows, sqlite3.Connection) else rows
    for table in tables if source else ():
        names = ", ".join(quoted(c) for c in table.column_names)
        marks = ", ".join("?" for _ in table.columns)
        for batch in source.batches(table, size=50) if source else ():
            connection.executemany(f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({marks})", batch.rows)
    for statement in layout.sqlite_after(tables):
        connection.execute(statement)
    connection.commit()
    return connection
