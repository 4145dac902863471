"""What a dry run says of time and space, by the sizes it has read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from migrate import backends
from migrate.addresses import parse
from migrate.config import Endpoint, PostgresSettings, QdrantSettings, Settings, SqliteSettings
from migrate.report import Report, TableReport

# (rows, bytes) a second. Measured on 2 cores with a local target: 20,000 x 384, 5,000 x 1536
# and 200,000 rows without vectors. Small rows cost by their number, vectors by their size.
_COPY = {"sqlite": (200_000, 60e6), "postgres": (300_000, 110e6), "qdrant": (30_000, 60e6)}
_VERIFY = (250_000, 100e6)
_HNSW_BYTES = 3.0e6  # of vectors, a second: 30.7 MB took 10.5 s at 384 dims, 8.6 s at 1536
# A row's header and its key's index; what pages leave empty beside vectors (33 MB of cells took
# 41 MB in either store), and an HNSW index by the size of its vectors (41 MB for 31).
_ROW_BYTES = {"sqlite": 12, "postgres": 45, "qdrant": 200}
# Qdrant's engine keeps its write-ahead log beside the data and never shortens it.
_QDRANT_ROOM = 2.2
_ROOMY, _HNSW_ROOM = 1.3, 1.35


def estimated(report: Report, target: Endpoint | None) -> Report:
    """Return a dry run's report with `estimate` filled in: seconds, target_bytes, free_bytes.

    Of a service that charges for its use: what its module foretells (`foretell`).
    """
    settings = parse(target) if target is not None else None
    kind = settings.type if settings is not None else "postgres"
    if kind == "pinecone" and not report.estimate:
        return replace(report, estimate=backends.load(kind).foretell(report.tables))
    if report.estimate or kind not in _ROW_BYTES:
        return report
    rows, size = report.total_rows, sum(t.bytes for t in report.tables)
    indexed = sum(_vector_bytes(t) for t in report.tables)
    seconds = seconds_for(kind, rows, size, indexed)
    with_vectors = sum(t.bytes for t in report.tables if t.vector)
    target_bytes = bytes_for(kind, rows, size, with_vectors, indexed)
    estimate: dict[str, float | int | None] = {"seconds": round(seconds, 2), "target_bytes": target_bytes}
    estimate["free_bytes"] = free = free_bytes(settings)
    warnings = report.warnings
    if free is not None and free < target_bytes:
        warnings = (*warnings, f"the target needs about {target_bytes:,} bytes, and {free:,} are free there")
    return replace(report, estimate=estimate, warnings=warnings)


def seconds_for(kind: str, rows: int, size: int, indexed: int) -> float:
    """Return the seconds that a copy into a local store with its verification took where it was measured.

    size, indexed: bytes of all cells, and of the vectors among them. KeyError for a kind never measured.
    """
    spent = sum(rows / r + size / b for r, b in (_COPY[kind], _VERIFY))
    return spent + (indexed / _HNSW_BYTES if kind == "postgres" else 0)


def index_seconds(indexed: int) -> float:
    """Return the seconds that an HNSW index over so many bytes of vectors took on two cores."""
    return indexed / _HNSW_BYTES


def bytes_for(kind: str, rows: int, size: int, with_vectors: int, indexed: int) -> int:
    """Return the bytes that rows take in a store. with_vectors: of `size`, what tables with vectors have."""
    stored = _QDRANT_ROOM * size if kind == "qdrant" else with_vectors * _ROOMY + (size - with_vectors) * 1.05
    index = indexed * _HNSW_ROOM if kind == "postgres" else 0
    return round(stored + rows * _ROW_BYTES[kind] + index)


def _vector_bytes(table: TableReport) -> int:
    dim = (table.vector or {}).get("dim")
    return 4 * int(dim) * table.rows_source if dim else 0


def free_bytes(settings: Settings | None) -> int | None:
    """Return the free bytes where the target is (or will be), or None where that cannot be seen from here."""
    if isinstance(settings, SqliteSettings):
        place: Path | None = settings.path
    elif isinstance(settings, PostgresSettings):
        place = settings.embedded
    elif isinstance(settings, QdrantSettings):
        place = settings.path
    else:
        place = None
    if place is None:
        return None
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
