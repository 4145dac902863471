"""An AgentOS brain of schema 1, read as if it were of schema 2.

The package itself cannot open an old brain that has edges, chunks or feedback:
it renames the parents while their children point at them. Here nothing is
renamed; rows get their `brain_id` as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from migrate import vectors
from migrate.backends.base import Source
from migrate.batch import Batch, Cursor, Row
from migrate.errors import SchemaError
from migrate.layouts.agentos_schema import brain, schema
from migrate.layouts.order import parents_first
from migrate.schema import VECTOR_KINDS, Column, Kind, NotCarried, Table

_VERSION_ROW = {"key": "schema_version", "value": "2"}
_ADDED = "added"  # marks the cursor after a row that the old brain does not have


def upgradable(tables: Sequence[Table]) -> bool:
    """Whether these tables hold a brain of schema 1."""
    found = brain(tables)
    return bool(found) and all(m.version == 1 for m in found.values())


def default_brain_id(address: str) -> str:
    """Return the id AgentOS gives a brain that is opened without one: the file's name, without its extension."""
    if "://" in address and not address.startswith("sqlite:"):
        return "default"
    name = PurePath(address.rstrip("/")).name.partition("?")[0]
    return (PurePath(name).stem or "default") if name != ":memory:" else "default"


def upgraded(source: Source, settings: object) -> Source:
    """Return a source with its brain upgraded; a brain of schema 2 is returned as it is.

    settings: the source's; their text is its address, from which the brain's id is made.
    Raises SchemaError where there is no brain.
    """
    found = brain(source.tables())
    if found and not upgradable(source.tables()):
        return source
    return Upgraded(source, default_brain_id(str(settings)))


class Upgraded:
    """A `Source` over a source of schema 1: its tables, rows and keys are those of schema 2.

    Rows keep their order and cursors. Tables that the old brain lacks are
    there and empty; tables that are not the brain's pass through. Vectors that
    were JSON text come out as packed float32, which rounds their numbers as
    AgentOS does when it reads them.

    brain_id: what the rows belong to, `default_brain_id` when left out;
    archived traces belong to the agent that they name.
    Raises SchemaError where the source holds no brain of schema 1.
    """

    def __init__(self, source: Source, brain_id: str | None = None) -> None:
        given = source.tables()
        if not upgradable(given):
            raise SchemaError(
                "there is no AgentOS brain of schema 1 to upgrade",
                hint="leave out --upgrade: a brain of schema 2 is carried as it is",
                backend=source.describe(),
            )
        self._source = source
        self._brain_id = default_brain_id(source.describe()) if brain_id is None else brain_id
        names = brain(given)
        self._old = {t.name: t for t in given if t.name in names}
        self._rest: list[Table] = []
        self._left: list[NotCarried] = []
        for table in given:
            if table.name not in names:
                self._rest.append(self._without_old_links(table))
        self._adds_version, self._dims = self._settings()
        self._new = {name: self._newer(model) for name, model in schema(2).items()}

    def describe(self) -> str:
        """See `Store.describe`."""
        return self._source.describe()

    def close(self) -> None:
        """See `Store.close`."""
        self._source.close()

    def tables(self) -> list[Table]:
        """See `Source.tables`: the 14 tables of schema 2, and what else the store holds."""
        return parents_first([*self._new.values(), *self._rest])

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        return [*self._source.not_carried(), *self._left]

    @property
    def snapshot(self) -> int:
        """See `Source.snapshot`."""
        return self._source.snapshot

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        return self._source.problems()

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        added = int(table.name == "brain_meta" and self._adds_version)
        if table.name in self._new:
            return added + (self._source.count(self._old[table.name]) if table.name in self._old else 0)
        return self._source.count(table)

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`. `table` may be narrowed to some of its columns."""
        if table.name not in self._new:
            yield from self._source.batches(table, size=size, after=after)
            return
        at_end = isinstance(after, dict) and _ADDED in after
        cursor = after[_ADDED] if at_end else after
        if table.name in self._old:
            old = self._read_from(table)
            for batch in self._source.batches(old, size=size, after=cursor):
                cursor = batch.cursor
                yield Batch(table, self._upgraded(table, old, batch.rows), cursor)
        if table.name == "brain_meta" and self._adds_version and not at_end:
            cells = {"brain_id": self._brain_id, **_VERSION_ROW}
            yield Batch(table, [tuple(cells.get(c) for c in table.column_names)], {_ADDED: cursor})

    def _settings(self) -> tuple[bool, frozenset[int]]:
        """Return whether the schema's version has to be added, and the dimensions that the brain names."""
        table = self._old.get("brain_meta")
        if table is None:
            return True, frozenset()
        key, value = (table.column_names.index(name) for name in ("key", "value"))
        rows = [row for batch in self._source.batches(table, size=1000) for row in batch.rows]
        dims = (str(row[value]) for row in rows if row[key] == "embedding_dimensions")
        return (
            all(row[key] != _VERSION_ROW["key"] for row in rows),
            frozenset(int(d) for d in dims if d.isdecimal()),
        )

    def _without_old_links(self, table: Table) -> Table:
        """Drop foreign keys to a brain's table: what they name is no longer a key by itself."""
        kept = tuple(f for f in table.foreign_keys if f.parent not in self._old)
        self._left += [
            NotCarried(
                f"{table.name} -> {f.parent}", "a foreign key to a table whose key now begins with brain_id"
            )
            for f in table.foreign_keys
            if f.parent in self._old
        ]
        return replace(table, foreign_keys=kept)

    def _newer(self, model: Table) -> Table:
        old = self._old.get(model.name)
        known = {c.name: c for c in old.columns} if old else {}
        columns = [_as_stored(c, known.get(c.name)) for c in model.columns]
        columns += [c for name, c in known.items() if name not in model.column_names]
        if old is None:
            return model.with_columns(tuple(columns))
        theirs = {i.name for i in schema(1)[model.name].indexes}
        own = tuple(i for i in old.indexes if i.name not in theirs and not i.name.startswith("sqlite_"))
        return replace(model, columns=tuple(columns), indexes=(*model.indexes, *own), sequence=old.sequence)

    def _read_from(self, table: Table) -> Table:
        """Return the old table with the columns that the wanted ones are made from, and its key."""
        old = self._old[table.name]
        wanted = {*table.column_names, *old.key}
        if table.name == "archived_traces":
            wanted.add("agent_id")
        return old.with_columns(tuple(c for c in old.columns if c.name in wanted))

    def _upgraded(self, table: Table, old: Table, rows: list[Row]) -> list[Row]:
        at = {name: i for i, name in enumerate(old.column_names)}
        columns: list[Sequence[Any]] = []
        cells = list(zip(*rows, strict=True))
        model = schema(2)[table.name]
        packed = {c.name for c in model.columns if c.kind is Kind.VECTOR}
        for name in table.column_names:
            if name == "brain_id":
                agents = cells[at["agent_id"]] if table.name == "archived_traces" else [None] * len(rows)
                columns.append([self._brain_id if agent is None else agent for agent in agents])
            elif name in packed:
                columns.append([self._packed(cell) for cell in cells[at[name]]])
            elif table.name == "brain_meta" and name == "value":
                keys = cells[at["key"]]
                columns.append(
                    [
                        _VERSION_ROW["value"] if key == _VERSION_ROW["key"] else cell
                        for key, cell in zip(keys, cells[at[name]], strict=True)
                    ]
                )
            else:
                columns.append(cells[at[name]])
        return list(zip(*columns, strict=True))

    def _packed(self, cell: Any) -> Any:
        """Pack a vector that is JSON text, kept as text or as bytes; leave every other cell as it is.

        Bytes of the brain's own length are packed already, whatever the first of them is.
        """
        if isinstance(cell, bytes):
            if len(cell) // 4 in self._dims and len(cell) % 4 == 0:
                return cell
            if cell[:1] != b"[" or cell[-1:] != b"]":
                return cell
        elif not isinstance(cell, str):
            return cell
        packed = vectors.from_json(cell)
        return cell if packed is None else packed


def _as_stored(column: Column, old: Column | None) -> Column:
    """Return a column of schema 2 as a store would declare it: what its cells mean is a layout's to say."""
    if column.kind is Kind.VECTOR:
        if old is not None and old.kind in VECTOR_KINDS:
            return replace(column, kind=old.kind, dim=old.dim, metric=old.metric)
        return replace(column, kind=Kind.BLOB, metric=None)
    return column if old is None else replace(column, kind=old.kind)
