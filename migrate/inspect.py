"""What is in a store: layout, tables, rows, vectors, size, and the tier that fits."""

from __future__ import annotations

import glob
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from migrate.backends.base import Source
from migrate.config import Endpoint, Settings, SqliteSettings
from migrate.fit import size_of
from migrate.layouts.base import Reading, Wishes
from migrate.reach import Reach, understand
from migrate.report import Observer, Silent
from migrate.schema import VECTOR_KINDS, Table
from migrate.tiers import NAMES, Facts, choose

_READ_ROWS = 20_000  # of a larger table the size is reckoned from its first rows
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """One table. read: rows that were looked at; bytes: of its cells; vectors: cells that hold one.

    `exact` is False where these two were reckoned from a part of the rows.
    """

    name: str
    kind: str
    rows: int
    read: int
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
    with Reach(observer or Silent()) as reach:
        settings = reach.settings(store, create=False)
        source = reach.source(settings)
        return inspected(source, understand(source, Wishes())[1], tier_of(settings))


def inspected(source: Source, reading: Reading, current: str | None = None) -> Inspection:
    """Look into an open store. current: the tier that it is in, if any."""
    tables = tuple(_seen(source, table) for table in reading.tables)
    vectors = sum(t.vectors for t in tables)
    choice = choose(Facts(vectors, current))
    return Inspection(
        source.describe(),
        reading.layout,
        tables,
        vectors,
        choice.name,
        choice.reasons[0],
        tuple({"name": n.name, "reason": n.reason, "derived": n.derived} for n in reading.not_carried),
    )


def tier_of(settings: Settings) -> str | None:
    """Return the tier that a store is in, None for one that is in none (a store of tests)."""
    if isinstance(settings, SqliteSettings):
        return "sqlite+hnsw" if has_sidecar(settings.path) else "sqlite"
    return settings.type if settings.type in NAMES else None


def has_sidecar(path: Path) -> bool:
    """Whether an index of ours lies beside a SQLite file; AgentOS keeps one of its own under the same name."""
    from migrate.hnsw import container, places

    named = path.parent.glob(f"{glob.escape(path.name)}.*{places.SUFFIX}")
    for candidate in (places.usual_path(path), *named):
        try:
            with places.opened(candidate) as descriptor:
                container.manifest(descriptor)
        except (OSError, container.NotOursError, container.BrokenError):
            continue
        return True
    return False


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
        read=read,
        bytes=size if exact else size * rows // max(read, 1),
        exact=exact,
        key=table.key,
        vectors=vectors if exact else vectors * rows // max(read, 1),
        vector={"column": column.name, "dim": column.dim} if column else None,
        metric=column.metric if column else None,
    )
