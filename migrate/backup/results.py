"""What the commands report, as data; `to_dict` is the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from migrate.backup.catalog import Entry, Listing
from migrate.backup.manifest import Manifest


def describe(manifest: Manifest) -> dict[str, Any]:
    """Return one backup as JSON-ready data. size: bytes in the store; raw_size: of the database."""
    return {
        "id": str(manifest.id),
        "database": manifest.database,
        "time": _iso(manifest.time),
        "kind": manifest.kind,
        "parent": str(manifest.parent) if manifest.parent else None,
        "size": manifest.stored_bytes,
        "raw_size": manifest.size,
        "rows": manifest.rows,
        "tables": manifest.tables,
        "key": f"{manifest.database}/{manifest.artefact.name}",
        "compression": manifest.artefact.compression,
        "encrypted": manifest.encryption is not None,
        "sha256": manifest.artefact.sha256,
        "raw_sha256": manifest.sha256,
        "page_count": manifest.page_count,
        "schema_sha256": manifest.schema_sha256,
        "source": manifest.source_path,
        "sidecars": [sidecar.suffix for sidecar in manifest.sidecars],
        "notes": list(manifest.notes),
    }


@dataclass(frozen=True, slots=True)
class Created:
    """A backup that was made, or (unchanged) the one that still says everything.

    uploaded: bytes sent; seconds: the whole; snapshot_s: reading the live database.
    """

    manifest: Manifest
    unchanged: bool
    uploaded: int
    seconds: float
    snapshot_s: float
    changed_blocks: int | None = None

    @property
    def id(self) -> str:
        return str(self.manifest.id)

    def to_dict(self) -> dict[str, Any]:
        return describe(self.manifest) | {
            "unchanged": self.unchanged,
            "uploaded_bytes": self.uploaded,
            "changed_blocks": self.changed_blocks,
            "duration_ms": round(self.seconds * 1000),
            "snapshot_ms": round(self.snapshot_s * 1000),
        }


@dataclass(frozen=True, slots=True)
class Backup:
    """One line of a listing. last_proven: when a restore drill of it last passed; problem: why it is no use."""

    id: str
    database: str
    time: datetime | None
    size: int
    kind: str
    rows: int
    last_proven: datetime | None
    problem: str | None
    manifest: Manifest | None

    @classmethod
    def of(cls, entry: Entry) -> Backup:
        known = entry.manifest
        return cls(
            str(entry.id), entry.database, known.time if known else None, known.stored_bytes if known else 0,
            known.kind if known else "damaged", known.rows if known else 0, entry.proven, entry.problem, known,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "id": self.id,
            "database": self.database,
            "time": None,
            "size": 0,
            "kind": "damaged",
        }
        base |= {"rows": 0}
        if self.manifest is not None:
            base |= describe(self.manifest)
        return base | {"last_proven": _iso(self.last_proven), "problem": self.problem}


@dataclass(frozen=True, slots=True)
class Drill:
    """A restore drill that passed."""

    manifest: Manifest
    proven_at: datetime
    seconds: float
    checks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": str(self.manifest.id),
            "database": self.manifest.database,
            "verified": True,
            "proven_at": _iso(self.proven_at),
            "duration_ms": round(self.seconds * 1000),
            "rows": self.manifest.rows,
            "raw_size": self.manifest.size,
            "checks": list(self.checks),
        }


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A database that was put in its place. replaced: where the old file is kept."""

    path: Path
    manifest: Manifest
    replaced: Path | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": str(self.manifest.id),
            "database": self.manifest.database,
            "time": _iso(self.manifest.time),
            "path": str(self.path),
            "replaced": str(self.replaced) if self.replaced else None,
            "verified": True,
            "rows": self.manifest.rows,
            "tables": self.manifest.tables,
            "size": self.manifest.size,
            "sha256": self.manifest.sha256,
            "duration_ms": round(self.seconds * 1000),
        }


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed (dry_run: would remove) and kept, by id; orphans and uploads by key."""

    database: str
    dry_run: bool
    removed: list[str]
    kept: list[str]
    orphans: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    freed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "database": self.database, "dry_run": self.dry_run, "removed": self.removed, "kept": self.kept,
            "orphans": self.orphans, "uploads": self.uploads, "left": self.left, "freed_bytes": self.freed,
        }  # fmt: skip


def list_document(store: str, listings: list[Listing], now: datetime) -> dict[str, Any]:
    """Return the whole listing; `last_proven` is the newest backup that a drill has passed, and its age."""
    databases = []
    for listing in listings:
        proven = [entry for entry in listing.good if entry.proven and entry.manifest]
        newest = proven[-1] if proven else None
        latest = listing.good[-1] if listing.good else None
        databases.append(
            {
                "database": listing.database,
                "backups": len(listing.good),
                "latest": str(latest.id) if latest else None,
                "latest_age_s": _age(latest, now),
                "last_proven": str(newest.id) if newest else None,
                "last_proven_age_s": _age(newest, now),
            }
        )
    backups = [Backup.of(entry).to_dict() for listing in listings for entry in listing.entries]
    return {"store": store, "databases": databases, "backups": backups}


def _age(entry: Entry | None, now: datetime) -> int | None:
    if entry is None or entry.manifest is None:
        return None
    return round((now - entry.manifest.time).total_seconds())


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
