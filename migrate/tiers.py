"""Which kind of store fits a memory, and why: thresholds as data, and the one function that judges.

`memlift inspect` and `memlift advise` both ask `choose`, with as many facts as they have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from migrate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tier:
    """A kind of store and the number of vectors up to which it is the simplest that serves.

    server: whether somebody has to run one.
    """

    name: str
    most_vectors: int | None
    why: str
    server: bool = False


TIERS = (
    Tier("sqlite", 1_000, "looking at every vector is quick enough"),
    Tier("sqlite+hnsw", 500_000, "an index beside the file fits into memory"),
    Tier("postgres", 10_000_000, "one server keeps the index, with several writers", server=True),
    Tier("qdrant", None, "an index over several machines", server=True),
    Tier("pinecone", None, "an index that others run"),
)
NAMES = tuple(tier.name for tier in TIERS)

LIMITS: Mapping[str, float] = MappingProxyType(
    {
        **{tier.name: tier.most_vectors for tier in TIERS if tier.most_vectors is not None},
        # A SQLite file takes one writer at a time (https://www.sqlite.org/whentouse.html). An agent and
        # its consolidation take turns unnoticed; more of them wait for each other.
        "writers": 2,
        # Of one query over every vector, ms: what a person begins to notice (Nielsen, 1993).
        "p95_ms": 100,
        # Of this machine's memory, what an index in the agent's own process may take.
        "memory_share": 0.5,
    }
)
"""The thresholds, by the names that `--threshold NAME=NUMBER` takes. All are upper bounds, inclusive."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a store; what is not known is None and decides nothing.

    current:       the tier that it is in.
    exact_p95_ms:  measured, of a query that looks at every vector.
    writers:       how many write, or may write, at the same time; writers_how says which, in words.
    sidecar_bytes: memory that an HNSW index beside the file would take.
    memory_bytes:  of this machine.
    servers:       whether somebody is there to run one.
    """

    vectors: int
    current: str | None = None
    exact_p95_ms: float | None = None
    writers: int | None = None
    writers_how: str = "write at the same time"
    sidecar_bytes: int | None = None
    memory_bytes: int | None = None
    servers: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The tier that fits, and the reasons, the most important first."""

    tier: Tier
    reasons: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """Return the tier's name."""
        return self.tier.name


def limits(given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the thresholds with some of them changed. Raises ConfigError for what is none."""
    changed = dict(LIMITS)
    for name, value in (given or {}).items():
        if name not in LIMITS:
            raise ConfigError(f"there is no threshold {name!r}", hint=f"one of {', '.join(LIMITS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"the threshold {name} cannot be {value!r}", hint="a number from 0 on")
        changed[name] = value
    return changed


def tier(name: str) -> Tier:
    """Return a tier by name. Raises ConfigError where there is none."""
    for one in TIERS:
        if one.name == name:
            return one
    raise ConfigError(f"there is no tier {name!r}", hint=f"one of auto, {', '.join(NAMES)}")


def tier_for(vectors: int, given: Mapping[str, float] | None = None) -> Tier:
    """Return the simplest tier that serves so many vectors, by their number alone."""
    bounds = limits(given)
    return next(t for t in TIERS if t.name not in bounds or vectors <= bounds[t.name])


def choose(facts: Facts, given: Mapping[str, float] | None = None) -> Choice:
    """Return the simplest tier that serves, judged by all that is known.

    A store that is in a larger tier already stays there: it serves, and a move
    has a price. The reasons say so.
    """
    bounds = limits(given)
    found = tier_for(facts.vectors, given)
    reasons = [_by_number(facts.vectors, found, bounds)]
    for at_least, reason in _pushes(facts, found, bounds):
        if NAMES.index(at_least) > NAMES.index(found.name):
            found = tier(at_least)
            reasons.insert(0, reason)
    slow = _slow(facts, bounds)
    if slow is not None and found.name == "sqlite":
        reasons.append(f"{slow}; an index is made from {LIMITS['sqlite']:,.0f} vectors on")
    if found.server and not facts.servers:
        reasons.insert(0, f"nobody is to run servers, and {found.name} is one")
        found = tier("pinecone")
    here = tier(facts.current) if facts.current is not None else None
    stays = here is not None and (facts.servers or not here.server)
    if here is not None and stays and NAMES.index(here.name) > NAMES.index(found.name):
        reasons.insert(0, f"it is in {here.name} already, which serves; {found.name} would be enough")
        found = here
    return Choice(found, tuple(reasons))


def _by_number(vectors: int, found: Tier, bounds: Mapping[str, float]) -> str:
    most = bounds.get(found.name)
    upto = f" up to {most:,.0f}" if most is not None else ""
    return f"{vectors:,} vector{'' if vectors == 1 else 's'}: {found.why}{upto}"


def _pushes(facts: Facts, found: Tier, bounds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return (tier that is needed at least, reason) for every fact beyond a threshold."""
    pushes = []
    slow = _slow(facts, bounds)
    if slow is not None and facts.vectors >= LIMITS["sqlite"]:
        pushes.append(("sqlite+hnsw", slow))
    if facts.writers is not None and facts.writers > bounds["writers"]:
        pushes.append(
            (
                "postgres",
                f"{facts.writers:,} {facts.writers_how}, and a file takes writers one by one:"
                f" from {bounds['writers'] + 1:g} on a server is better",
            )
        )
    reached = found.name == "sqlite+hnsw" or any(name == "sqlite+hnsw" for name, _ in pushes)
    if reached and facts.sidecar_bytes is not None and facts.memory_bytes:
        share = facts.sidecar_bytes / facts.memory_bytes
        if share > bounds["memory_share"]:
            pushes.append(
                (
                    "postgres",
                    f"an index in the agent's own process would take {share:.0%} of this machine's memory"
                    f" ({facts.sidecar_bytes / 1e9:.1f} of {facts.memory_bytes / 1e9:.1f} GB)",
                )
            )
    return pushes


def _slow(facts: Facts, bounds: Mapping[str, float]) -> str | None:
    if facts.exact_p95_ms is None or facts.exact_p95_ms <= bounds["p95_ms"]:
        return None
    return (
        f"a query over every vector takes {facts.exact_p95_ms:,.0f} ms at p95, over {bounds['p95_ms']:g} ms"
    )
