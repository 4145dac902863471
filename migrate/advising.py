"""`memlift advise`: a store is measured, and the tier that fits is named, with reasons, price and date.

Nothing is changed anywhere. What cannot be measured here is said to be so, never guessed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from migrate import estimate, footprint, tiers
from migrate.config import Endpoint, PineconeSettings, QdrantSettings, Settings, mask
from migrate.errors import ConfigError
from migrate.measuring import Measured, Measuring
from migrate.reach import Reach
from migrate.report import Observer, Silent
from migrate.tiers import Facts, Tier

HORIZON_YEARS = 5
# Between a local disk and a server across a slow network; measured rates are of a quiet machine.
_FAST, _SLOW = 0.5, 3.0
_START_S = 1.0  # to connect, to create tables, to look at both stores


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured of a store, and what follows. Sizes in bytes, times in seconds unless named.

    tier:     the one that fits, now. current: the one it is in.
    measured: see docs/tiers.md for each key. move: what the move takes, or None where there is none.
    next:     the tier after this one, the number of vectors at which it is due, and the date.
    command:  the command of the move, or None.
    """

    store: str
    tier: str
    current: str | None
    reasons: tuple[str, ...]
    measured: dict[str, Any]
    next: dict[str, Any]
    move: dict[str, Any] | None
    command: str | None
    thresholds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


def advise(
    store: Endpoint,
    *,
    thresholds: Mapping[str, float] | None = None,
    servers: bool = True,
    writers: int | None = None,
    observer: Observer | None = None,
    now: datetime | None = None,
) -> Advice:
    """Measure a store and return which tier fits it, changing nothing.

    thresholds: {"sqlite": 2000, ...}, see `migrate.tiers.LIMITS`.
    servers:    whether somebody is there to run one.
    writers:    how many write at the same time, where you know better than can be seen.
    now:        the moment that dates are reckoned from.

    Raises ConfigError for a threshold that is none and a store that cannot be opened.
    """
    limits = tiers.limits(thresholds)
    if writers is not None and (isinstance(writers, bool) or writers < 0):
        raise ConfigError(f"writers cannot be {writers!r}", hint="a number from 0 on")
    watching = observer or Silent()
    with Reach(watching) as reach:
        settings = reach.settings(store, create=False)
        facts = Measuring(reach, settings, writers, now or datetime.now(UTC)).all()
    return _advice(settings, facts, limits, servers)


def _advice(settings: Settings, seen: Measured, limits: Mapping[str, float], servers: bool) -> Advice:
    exact = seen.current in ("sqlite", "sqlite+hnsw")
    choice = tiers.choose(
        Facts(
            vectors=seen.inspection.vectors,
            current=seen.current,
            exact_p95_ms=seen.latency["p95"] if exact and seen.latency else None,
            writers=seen.writers.count if exact or seen.writers.given else None,
            writers_how=seen.writers.how,
            sidecar_bytes=footprint.hnswlib(seen.shapes),
            memory_bytes=footprint.machine_memory(),
            servers=servers,
        ),
        limits,
    )
    move = None if choice.name == seen.current else _move(choice.tier, settings, seen)
    return Advice(
        store=str(settings),
        tier=choice.name,
        current=seen.current,
        reasons=choice.reasons,
        measured=_measured(seen),
        next=_next(choice.tier, seen, limits, servers),
        move=move,
        command=command(settings, choice.tier) if move else None,
        thresholds=dict(limits),
    )


def _measured(seen: Measured) -> dict[str, Any]:
    found = seen.inspection
    return {
        "rows": sum(t.rows for t in found.tables),
        "bytes": sum(t.bytes for t in found.tables),
        "tables": len(found.tables),
        "exact": all(t.exact for t in found.tables),
        "vectors": found.vectors,
        "vector_bytes": sum(4 * n * dim for n, dim in seen.shapes),
        "dims": [
            {"table": t.name, "vectors": t.vectors, "metric": t.metric, **t.vector}
            for t in found.tables
            if t.vector
        ],
        "growth": asdict(seen.growth) if seen.growth else None,
        "growth_note": seen.growth_note,
        "latency_ms": seen.latency,
        "latency_note": seen.latency_note,
        "writers": asdict(seen.writers),
        "tenants": seen.tenants,
        "read": seen.read,
        "memory_bytes": footprint.machine_memory(),
    }


def command(settings: Settings, to: Tier) -> str:
    """Return the command that moves a store to a tier; it has no secrets."""
    words = ["memlift", "migrate", _address(settings), "--to-tier", to.name]
    return " ".join(map(shlex.quote, words)) + (" --auto-setup" if to.server else "")


def _address(settings: Settings) -> str:
    """Return what opens a store again, its sidecar included."""
    told = str(settings)
    if not isinstance(settings, QdrantSettings | PineconeSettings) or settings.sidecar is None:
        return told
    return f"{told}{'&' if '?' in told else '?'}sidecar={quote(mask(settings.sidecar), safe='/:@*')}"


def _move(to: Tier, settings: Settings, seen: Measured) -> dict[str, Any]:
    """Return what a move takes: time as a range, disk and memory of the target. None: not known."""
    rows = sum(t.rows for t in seen.inspection.tables)
    size = sum(t.bytes for t in seen.inspection.tables)
    indexed = sum(4 * n * dim for n, dim in seen.shapes)
    with_vectors = sum(t.bytes for t in seen.inspection.tables if t.vector)
    if to.name == "sqlite+hnsw" and seen.current == "sqlite":  # the file stays, an index comes beside it
        spent = estimate.index_seconds(indexed)
        return _price(to, spent, footprint.sidecar_file(seen.shapes), memory(to.name, seen.shapes))
    kind = to.name.partition("+")[0]
    if kind == "pinecone":
        return {**_price(to, None, None, {}), "note": "time and size depend on your plan with Pinecone"}
    # Audit, copy and verification read the source once each, and cannot be faster than it is read here.
    reading = 3 * size / max(seen.read["bytes_per_s"], 1)
    spent = max(estimate.seconds_for(kind, rows, size, indexed), reading)
    if kind == "sqlite" and to.name == "sqlite+hnsw":
        spent += estimate.index_seconds(indexed)
    disk = estimate.bytes_for(kind, rows, size, with_vectors, indexed)
    if to.name == "sqlite+hnsw":
        disk += footprint.sidecar_file(seen.shapes)
    return _price(to, spent, disk, memory(to.name, seen.shapes))


def _price(to: Tier, spent: float | None, disk: int | None, took: dict[str, int]) -> dict[str, Any]:
    if spent is None:
        return {"to": to.name, "seconds": None, "disk_bytes": disk, "memory_bytes": took}
    low, high = (round(factor * (spent + _START_S), 1) for factor in (_FAST, _SLOW))
    seconds = {"low": low, "high": high}
    return {"to": to.name, "seconds": seconds, "disk_bytes": disk, "memory_bytes": took}


def memory(name: str, shapes: footprint.Shapes) -> dict[str, int]:
    """Return the memory that a tier's vector index wants, by form: "float32", "scalar", "binary", "build"."""
    shapes = list(shapes)
    if name == "sqlite+hnsw":
        return {"float32": footprint.hnswlib(shapes)}
    if name == "postgres":
        return {"float32": footprint.pgvector(shapes), "build": footprint.pgvector_build(shapes)}
    if name == "qdrant":
        return {form or "float32": footprint.qdrant(shapes, form) for form in (None, "scalar", "binary")}
    return {}


def _next(to: Tier, seen: Measured, limits: Mapping[str, float], servers: bool) -> dict[str, Any]:
    """Return which tier comes after this one, and when, at the growth that was seen."""
    most = limits.get(to.name)
    if most is None:
        return {"tier": None, "at_vectors": None, "left": None, "due": None, "says": "this tier has no bound"}
    following = tiers.choose(Facts(int(most) + 1, servers=servers), limits).tier
    left = max(int(most) + 1 - seen.inspection.vectors, 0)
    due, says = _due(left, seen)
    return {"tier": following.name, "at_vectors": int(most) + 1, "left": left, "due": due, "says": says}


def _due(left: int, seen: Measured) -> tuple[str | None, str]:
    growth = seen.growth
    if not seen.inspection.vectors:
        return None, "there are no vectors yet"
    if growth is None:
        return None, f"growth {seen.growth_note}"
    weeks = left / growth.per_week if growth.per_week else float("inf")
    if weeks > HORIZON_YEARS * 365.25 / 7:
        return None, f"not within {HORIZON_YEARS} years at the growth that was seen"
    due = (seen.now + timedelta(weeks=weeks)).date().isoformat()
    if growth.stale:
        return due, f"by {due}, if it grows again as it did until {growth.newest}"
    return due, f"by {due}, at the growth that was seen"
