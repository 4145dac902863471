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
from migrate.schema import Table
from migrate.tiers import tier_for

_READ_ROWS = 20_000  # of a larger table the size is reckoned from its first rows
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """One table. bytes: of its cells; `bytes_exact` is False where it was reckoned from a part."""

    name: str
    kind: str
    rows: int
    bytes: int
    bytes_exact: bool
    key: tuple[str, ...]
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
        vectors = sum(t.rows for t in tables if t.vector)
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
    rows, read, size = source.count(table), 0, 0
    for batch in islice(source.batches(table, size=_BATCH), _READ_ROWS // _BATCH):
        read += len(batch.rows)
        size += size_of(list(zip(*batch.rows, strict=True)))
    exact = read >= rows
    column = table.vectors[0] if table.vectors else None
    return Seen(
        table.name,
        table.role,
        rows,
        size if exact else size * rows // max(read, 1),
        exact,
        table.key,
        {"column": column.name, "dim": column.dim} if column else None,
        column.metric if column else None,
    )
