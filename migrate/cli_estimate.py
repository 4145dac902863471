"""What a dry run says of time and space, by the sizes it has read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from migrate.config import Endpoint, PostgresSettings, Settings, SqliteSettings, parse
from migrate.report import Report, TableReport

# One core of a server of 2024, a local target. Rows and bytes each cost: small rows are
# bound by their number, vectors by their size.
_COPY_ROWS, _COPY_BYTES = 100_000, 40e6  # a second
_VERIFY_ROWS, _VERIFY_BYTES = 150_000, 100e6
_HNSW_BYTES = 1.0e6  # of vectors, a second: 50,000 x 384 took 50 CPU seconds
_ROW_BYTES = {"sqlite": 12, "postgres": 60}  # a row's header, its key's index
_NODE_BYTES = 300  # neighbours of a vector in an HNSW index at m = 16


def estimated(report: Report, target: Endpoint | None) -> Report:
    """Return a dry run's report with `estimate` filled in: seconds, target_bytes, free_bytes."""
    settings = parse(target) if target is not None else None
    kind = settings.type if settings is not None else "postgres"
    if report.estimate or kind not in _ROW_BYTES:
        return report
    size = sum(t.bytes for t in report.tables)
    rows = report.total_rows
    vectors = sum(_vector_bytes(t) for t in report.tables) if kind == "postgres" else 0
    nodes = sum(t.rows_source for t in report.tables if t.vector) if kind == "postgres" else 0
    seconds = rows / _COPY_ROWS + size / _COPY_BYTES + rows / _VERIFY_ROWS + size / _VERIFY_BYTES
    seconds += vectors / _HNSW_BYTES
    target_bytes = round(1.1 * size) + rows * _ROW_BYTES[kind] + vectors + nodes * _NODE_BYTES
    estimate: dict[str, float | int | None] = {"seconds": round(seconds, 2), "target_bytes": target_bytes}
    estimate["free_bytes"] = free = _free(settings)
    warnings = report.warnings
    if free is not None and free < target_bytes:
        warnings = (*warnings, f"the target needs about {target_bytes:,} bytes, and {free:,} are free there")
    return replace(report, estimate=estimate, warnings=warnings)


def _vector_bytes(table: TableReport) -> int:
    dim = (table.vector or {}).get("dim")
    return 4 * int(dim) * table.rows_source if dim else 0


def _free(settings: Settings | None) -> int | None:
    """Return the free bytes where the target is (or will be), or None where that cannot be seen from here."""
    if isinstance(settings, SqliteSettings):
        place: Path | None = settings.path
    elif isinstance(settings, PostgresSettings):
        place = settings.embedded
    else:
        place = None
    if place is None:
        return None
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
