"""What is in a store: layout, tables, rows, vectors, size, and the tier that fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from migrate.api import opened_source, understand
from migrate.backends.base import Source
from migrate.config import Endpoint
from migrate.fit import size_of
from migrate.layouts.base import Wishes
from migrate.report import Observer
from migrate.schema import VECTOR_KINDS, Table
from migrate.tiers import tier_for

_READ_ROWS = 20_000  # of a larger table the size is reckoned from its first rows
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """One table. bytes: of its cells; vectors: cells that hold one.

    `exact` is False where these two were reckoned from a part of the rows.
    """

    name: str
    kind: str
    rows: int
    bytes: int
    exact: bool
    key: tuple[str, ...]
    vectors: int
    vector: dict[str, Any] | None
    metric: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A store at one moment."""

    store: str
    layout: str
    tables: tuple[Seen, ...]
    vectors: int
    tier: str
    why: str
    not_carried: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


def inspect(store: Endpoint, observer: Observer | None = None) -> Inspection:
    """Look into a store, changing nothing."""
    with opened_source(store, observer) as source:
        _, reading = understand(source, Wishes())
        tables = tuple(_seen(source, table) for table in reading.tables)
        vectors = sum(t.vectors for t in tables)
        tier = tier_for(vectors)
        return Inspection(
            source.describe(),
            reading.layout,
            tables,
            vectors,
            tier.name,
            f"{vectors:,} vectors: {tier.why}",
            tuple({"name": n.name, "reason": n.reason, "derived": n.derived} for n in reading.not_carried),
        )


def _seen(source: Source, table: Table) -> Seen:
    rows, read, size, vectors = source.count(table), 0, 0, 0
    at = [i for i, c in enumerate(table.columns) if c.kind in VECTOR_KINDS]
    for batch in islice(source.batches(table, size=_BATCH), _READ_ROWS // _BATCH):
        read += len(batch.rows)
        size += size_of(list(zip(*batch.rows, strict=True)))
        vectors += sum(row[i] is not None for row in batch.rows for i in at)
    exact = read >= rows
    column = table.columns[at[0]] if at else None
    return Seen(
        name=table.name,
        kind=table.role,
        rows=rows,
        bytes=size if exact else size * rows // max(read, 1),
        exact=exact,
        key=table.key,
        vectors=vectors if exact else vectors * rows // max(read, 1),
        vector={"column": column.name, "dim": column.dim} if column else None,
        metric=column.metric if column else None,
    )
