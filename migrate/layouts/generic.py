"""Any store: vectors told from other BLOBs by evidence, derived columns left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from migrate.errors import ConfigError
from migrate.layouts import evidence
from migrate.layouts.base import Reading, Sample, Wishes
from migrate.layouts.order import parents_first
from migrate.schema import VECTOR_KINDS, Column, Kind, NotCarried, Table

# A few rows first: most columns are ruled out by them, and a table of 20 MB
# images is not read a thousand rows at a time to learn that they are no vectors.
_STAGES = (4, 64, 1000)


class Generic:
    """The layout of every store that no other layout knows. It recognises all."""

    name = "generic"

    def recognises(self, tables: Sequence[Table]) -> bool:
        """See `Layout.recognises`."""
        return True

    def read(self, tables: Sequence[Table], sample: Sample, wishes: Wishes) -> Reading:
        """See `Layout.read`. Raises ConfigError where a wish names no column or cannot be met."""
        check_wishes(tables, wishes)
        return read_tables(tables, sample, wishes)

    def sqlite_ddl(self, table: Table) -> list[str] | None:
        """See `Layout.sqlite_ddl`."""
        return None

    def sqlite_after(self, tables: Sequence[Table]) -> list[str]:
        """See `Layout.sqlite_after`."""
        return []


def check_wishes(tables: Sequence[Table], wishes: Wishes) -> None:
    """Raise ConfigError where a wish names a column that is not there, or both wishes name one."""
    known = {f"{table.name}.{column.name}" for table in tables for column in table.columns}
    unknown = sorted((wishes.vectors | wishes.no_vectors) - known)
    if unknown:
        raise ConfigError(
            f"no such column: {', '.join(unknown)}",
            hint="name it as TABLE.COLUMN, as `memlift inspect` prints it",
        )
    impossible = sorted(
        f"{table.name}.{column.name}"
        for table in tables
        for column in table.columns
        if f"{table.name}.{column.name}" in wishes.vectors
        and (column.generated is not None or column.name in table.key)
    )
    if impossible:
        raise ConfigError(
            f"a key or generated column cannot be a vector: {', '.join(impossible)}",
            hint="leave out --vector for it",
        )
    both = sorted(wishes.vectors & wishes.no_vectors)
    if both:
        raise ConfigError(
            f"both a vector and not a vector: {', '.join(both)}", hint="leave one of the two out"
        )


def read_tables(tables: Sequence[Table], sample: Sample, wishes: Wishes) -> Reading:
    """Read tables without asking whether every wish names one of them."""
    found, left, notes = [], [], []
    for table in tables:
        plain, derived = without_tsv(table)
        left += derived
        read, said = judged(plain, sample, wishes)
        found.append(read)
        notes += said
    return Reading("generic", parents_first(found), left, notes)


def without_tsv(table: Table) -> tuple[Table, list[NotCarried]]:
    """Take out `_tsv` columns (full-text vectors made from other columns) and the indexes over them."""
    derived = {c.name for c in table.columns if c.name == "_tsv" and c.declared.lower().endswith("tsvector")}
    if not derived:
        return table, []
    rest = replace(
        table,
        columns=tuple(c for c in table.columns if c.name not in derived),
        indexes=tuple(i for i in table.indexes if not derived.intersection(i.columns)),
    )
    left = [
        NotCarried(f"{table.name}.{name}", "a full-text vector made from other columns", derived=True)
        for name in sorted(derived)
    ]
    left += [
        NotCarried(index.name, "an index over a full-text vector", derived=True)
        for index in table.indexes
        if derived.intersection(index.columns)
    ]
    return rest, left


def judged(
    table: Table, sample: Sample, wishes: Wishes, known: Collection[str] = ()
) -> tuple[Table, list[str]]:
    """Return a table with its vector columns marked, and what was decided, in words.

    known: columns that the caller has settled; they are not looked at unless a wish names them.
    Raises ConfigError where a forced column cannot be a vector.
    """
    open_ones = [c for c in table.columns if _may_be_vector(table, c, wishes, known)]
    if not open_ones:
        return table, []

    def worth_more(column: Column, cells: Sequence[Any]) -> bool:
        forced = f"{table.name}.{column.name}" in wishes.vectors
        return forced or not evidence.hopeless(cells, evidence.named_as_vector(column.name))

    cells = sample_cells(table, open_ones, sample, worth_more)
    columns, notes = {}, []
    for column in open_ones:
        place = f"{table.name}.{column.name}"
        if place in wishes.vectors:
            verdict = evidence.forced(cells[column.name])
            _check_forced(place, verdict)
        else:
            verdict = evidence.judge(
                cells[column.name],
                named=evidence.named_as_vector(column.name),
                declared=evidence.declared_dim(column.declared),
            )
        if verdict.dim is not None:
            columns[column.name] = replace(
                column, kind=Kind.VECTOR, dim=verdict.dim, legacy_json=verdict.texts
            )
            notes.append(f"{place}: taken as vector({verdict.dim}): {verdict.why}")
        elif verdict.why:
            advice = f"; --vector {place} takes it as a vector" if any(cells[column.name]) else ""
            notes.append(f"{place}: left as {column.kind}: {verdict.why}{advice}")
    return table.with_columns(tuple(columns.get(c.name, c) for c in table.columns)), notes


def _may_be_vector(table: Table, column: Column, wishes: Wishes, known: Collection[str]) -> bool:
    place = f"{table.name}.{column.name}"
    if place in wishes.no_vectors or column.generated is not None or column.name in table.key:
        return False
    if place in wishes.vectors:
        return column.kind not in VECTOR_KINDS
    if column.name in known:
        return False
    if column.kind is Kind.BLOB:
        return True
    if column.kind not in (Kind.TEXT, Kind.JSON, Kind.REAL, Kind.INTEGER):
        return False
    loose = table.dialect == "sqlite" and not table.strict  # any cell may hold any value
    return loose and (
        evidence.declared_dim(column.declared) is not None or evidence.named_as_vector(column.name)
    )


def _check_forced(place: str, verdict: evidence.Verdict) -> None:
    if verdict.dim is None:
        raise ConfigError(
            f"{place} cannot be taken as a vector: no sampled cell is one",
            hint=f"leave out --vector {place}, or look at its cells with `memlift audit`",
        )


def sample_cells(
    table: Table, columns: Sequence[Column], sample: Sample, more: Callable[[Column, Sequence[Any]], bool]
) -> dict[str, list[Any]]:
    """Return sampled cells by column name; only the wanted columns (and the key) are read.

    `more(column, cells)` says whether a column deserves a larger sample.
    """
    cells: dict[str, list[Any]] = {}
    open_ones = list(columns)
    for n in _STAGES:
        wanted = {c.name for c in open_ones}
        narrow = narrowed(table, wanted)
        rows = sample(narrow, n)
        for at, column in enumerate(narrow.columns):
            if column.name in wanted:
                cells[column.name] = [row[at] for row in rows]
        open_ones = [c for c in open_ones if more(c, cells[c.name])]
        if not open_ones or len(rows) < n:
            break
    return cells


def narrowed(table: Table, wanted: Collection[str]) -> Table:
    """Return a table with the wanted columns and its key only, for sampling."""
    return table.with_columns(tuple(c for c in table.columns if c.name in wanted or c.name in table.key))


GENERIC = Generic()
