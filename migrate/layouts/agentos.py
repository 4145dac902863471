"""AgentOS brains: 14 tables in SQLite or Postgres, schema 1 and 2, any number of brains in one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrate.layouts import agentos_sql, evidence, generic
from migrate.layouts.agentos_schema import Match, brain, schema
from migrate.layouts.base import Reading, Sample, Wishes
from migrate.layouts.order import parents_first
from migrate.schema import VECTOR_KINDS, Column, Kind, Metric, NotCarried, Table

_SAMPLED = 1000
_SETTINGS = 5000  # rows of brain_meta: four a brain, and what callers add


class AgentOS:
    """The layout of an AgentOS brain, and of what else is kept in the same store."""

    name = "agentos"

    def recognises(self, tables: Sequence[Table]) -> bool:
        """See `Layout.recognises`."""
        return bool(brain(tables))

    def read(self, tables: Sequence[Table], sample: Sample, wishes: Wishes) -> Reading:
        """See `Layout.read`. Tables that are not the brain's are read as any store's are."""
        generic.check_wishes(tables, wishes)
        found = brain(tables)
        ours: dict[str, Table] = {}
        left: list[NotCarried] = []
        for table in tables:
            if table.name in found:
                ours[table.name], derived = generic.without_tsv(table)
                left += derived
        settings = _settings(ours.get("brain_meta"), sample)
        notes = _introduce(found, settings)
        for name, match in found.items():  # parents first: a link needs its parent's key
            table, keys = _with_keys(ours[name], match.model, ours, sample)
            table, kinds = _with_kinds(table, match.model, sample, wishes, settings)
            ours[name], others = generic.judged(table, sample, wishes, match.model.column_names)
            notes += [*keys, *kinds, *others]
        rest = generic.read_tables([t for t in tables if t.name not in found], sample, wishes)
        return Reading(
            self.name,
            parents_first([*(ours[name] for name in found), *rest.tables]),
            [*left, *rest.not_carried],
            [*notes, *rest.notes],
        )

    def sqlite_ddl(self, table: Table) -> list[str] | None:
        """See `Layout.sqlite_ddl`. Indexes come with `sqlite_after`."""
        statement = agentos_sql.create_table(table)
        return None if statement is None else [statement]

    def sqlite_after(self, tables: Sequence[Table]) -> list[str]:
        """See `Layout.sqlite_after`: the indexes, and the full-text index over the traces."""
        return agentos_sql.after(tables)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What `brain_meta` says. dims: how many brains name each dimension."""

    brains: tuple[str, ...]
    dims: Counter[int]


def _settings(table: Table | None, sample: Sample) -> _Settings:
    if table is None:
        return _Settings((), Counter())
    names = table.column_names
    rows = [dict(zip(names, row, strict=True)) for row in sample(table, _SETTINGS)]
    dims = [row["value"] for row in rows if row["key"] == "embedding_dimensions"]
    brains = dict.fromkeys(str(row["brain_id"]) for row in rows if "brain_id" in row)
    return _Settings(tuple(brains), Counter(d for d in map(_positive, dims) if d))


def _positive(cell: Any) -> int:
    """Return a dimension kept as text; 0 where it is none."""
    text = str(cell)
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _introduce(found: dict[str, Match], settings: _Settings) -> list[str]:
    if not found:
        return []
    version = next(iter(found.values())).version
    missing = [name for name in schema(version) if name not in found]
    note = f"an AgentOS brain, schema {version}: {len(found)} of {len(schema(version))} tables"
    if settings.brains:
        shown = ", ".join(settings.brains[:5]) + (", ..." if len(settings.brains) > 5 else "")
        note += f"; brain_id {shown}"
    return [note] + ([f"tables that this brain does not have: {', '.join(missing)}"] if missing else [])


def _with_keys(
    table: Table, model: Table, parents: dict[str, Table], sample: Sample
) -> tuple[Table, list[str]]:
    """Fill in the role and, where a store declares no key at all, the framework's keys.

    Copies made by other tools have none. The framework's key, and its NOT NULL,
    are taken unless sampled rows show that it is no key here.
    """
    table = replace(table, role=model.role)
    notes: list[str] = []
    if not table.key:
        keys = generic.narrowed(table, model.key)
        at = [keys.column_names.index(k) for k in model.key]
        seen = [tuple(row[i] for i in at) for row in sample(keys, _SAMPLED)]
        words = ", ".join(model.key)
        if len(set(seen)) < len(seen) or any(None in key for key in seen):
            note = f"{table.name}: has no key, and ({words}) repeats: rows are carried without one"
            return table, [note]
        notes.append(f"{table.name}: declares no key; ({words}) is taken, as AgentOS has it")
        links = table.foreign_keys or tuple(
            f for f in model.foreign_keys if f.parent in parents and parents[f.parent].key == f.parent_columns
        )
        needed = {c.name for c in model.columns if not c.nullable}
        columns = tuple(replace(c, nullable=c.nullable and c.name not in needed) for c in table.columns)
        table = replace(table, columns=columns, key=model.key, foreign_keys=links)
    numbered = {c.name for c in model.columns if c.identity and table.key == (c.name,)}
    columns = tuple(replace(c, identity=True) if c.name in numbered else c for c in table.columns)
    return table.with_columns(columns), notes


def _with_kinds(
    table: Table, model: Table, sample: Sample, wishes: Wishes, settings: _Settings
) -> tuple[Table, list[str]]:
    kinds = {c.name: c.kind for c in model.columns}
    columns: list[Column] = []
    notes: list[str] = []
    for column in table.columns:
        wanted, place = kinds.get(column.name), f"{table.name}.{column.name}"
        if wanted is Kind.JSON and column.kind is Kind.TEXT:
            column = replace(column, kind=Kind.JSON)
        elif wanted is Kind.VECTOR and column.kind in VECTOR_KINDS:
            column = replace(column, metric=column.metric or Metric.COSINE)
        elif wanted is Kind.VECTOR and place in wishes.no_vectors:
            notes.append(f"{place}: left as {column.kind}, as asked")
        elif wanted is Kind.VECTOR:
            column, said = _as_vector(table, column, sample, settings)
            notes.append(f"{place}: {said}")
        columns.append(column)
    return table.with_columns(tuple(columns)), notes


def _as_vector(table: Table, column: Column, sample: Sample, settings: _Settings) -> tuple[Column, str]:
    """Give an embedding column its dimension: what most cells have, or what `brain_meta` says."""
    narrow = generic.narrowed(table, {column.name})
    at = narrow.column_names.index(column.name)
    cells = [row[at] for row in sample(narrow, _SAMPLED) if row[at] is not None]
    known = frozenset(settings.dims)
    counts = evidence.dims_of(cells, known)
    if counts:
        most = max(counts.values())
        dim = max((d for d, n in counts.items() if n == most), key=lambda d: (d in known, d))
        said = f"{counts[dim]:,} of {len(cells):,} sampled cells have {dim:,} dimensions"
        if known and dim not in known:
            named = ", ".join(map(str, sorted(known)))
            said += f", though brain_meta.embedding_dimensions says {named}"
    elif settings.dims and not cells:
        dim = settings.dims.most_common(1)[0][0]
        said = "no cells yet; brain_meta.embedding_dimensions says so"
    elif cells:
        return column, f"left as {column.kind}: none of {len(cells):,} sampled cells is a vector"
    else:
        return column, f"left as {column.kind}: no cells, and brain_meta names no dimension"
    vector = replace(column, kind=Kind.VECTOR, dim=dim, metric=Metric.COSINE, legacy_json=True)
    return vector, f"vector({dim}), cosine: {said}"


AGENTOS = AgentOS()
