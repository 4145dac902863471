"""Which tier fits: by number first, then by what else is known; thresholds are data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import tiers
from migrate.errors import ConfigError
from migrate.tiers import NAMES, Facts, choose

GB = 10**9


@pytest.mark.parametrize(
    ("facts", "tier", "reason"),
    [
        (Facts(1_000), "sqlite", "1,000 vectors"),
        (Facts(1), "sqlite", "1 vector:"),
        (Facts(1_001), "sqlite+hnsw", "up to 500,000"),
        (Facts(500_001), "postgres", "up to 10,000,000"),
        (Facts(10_000_001), "qdrant", "several machines"),
        (Facts(1_000, exact_p95_ms=101), "sqlite+hnsw", "101 ms at p95, over 100 ms"),
        (Facts(1_000, exact_p95_ms=100), "sqlite", "1,000 vectors"),
        (Facts(999, exact_p95_ms=101), "sqlite", "999 vectors"),  # of which no index is made
        (Facts(900, writers=2), "sqlite", "900 vectors"),
        (Facts(900, writers=3), "postgres", "3 write at the same time"),
        (Facts(900, writers=3, writers_how="processes have it open"), "postgres", "3 processes have it open"),
        (Facts(2_000, sidecar_bytes=3 * GB, memory_bytes=4 * GB), "postgres", "75% of this machine's memory"),
        (Facts(2_000, sidecar_bytes=2 * GB, memory_bytes=4 * GB), "sqlite+hnsw", "2,000 vectors"),
        (Facts(900, sidecar_bytes=3 * GB, memory_bytes=4 * GB), "sqlite", "900 vectors"),  # needs no index
        (Facts(1_000, exact_p95_ms=200, sidecar_bytes=3 * GB, memory_bytes=4 * GB), "postgres", "75%"),
        (Facts(2_000, sidecar_bytes=3 * GB), "sqlite+hnsw", "2,000 vectors"),
        (Facts(500_001, servers=False), "pinecone", "nobody is to run servers"),
        (Facts(10_000_001, servers=False), "pinecone", "nobody is to run servers"),
        (Facts(5, servers=False), "sqlite", "5 vectors"),
        (Facts(5, writers=9, servers=False), "pinecone", "nobody is to run servers"),
        (Facts(5, "postgres"), "postgres", "in postgres already, which serves; sqlite would be enough"),
        (Facts(5, "postgres", servers=False), "sqlite", "5 vectors"),
        (Facts(600_000, "qdrant", servers=False), "pinecone", "nobody is to run servers"),
        (Facts(2_000, "sqlite"), "sqlite+hnsw", "2,000 vectors"),
        (Facts(2_000, "sqlite+hnsw"), "sqlite+hnsw", "2,000 vectors"),
        (Facts(10_000_001, "pinecone"), "pinecone", "in pinecone already"),
    ],
)
def test_the_tier_and_its_first_reason(facts: Facts, tier: str, reason: str) -> None:
    choice = choose(facts)
    assert choice.name == tier
    assert reason in choice.reasons[0]


def test_a_slow_store_that_is_too_small_for_an_index_is_told_so() -> None:
    choice = choose(Facts(999, exact_p95_ms=101))
    assert choice.reasons[-1] == (
        "a query over every vector takes 101 ms at p95, over 100 ms; an index is made from 1,000 vectors on"
    )


def test_thresholds_can_be_set_by_name() -> None:
    assert choose(Facts(1_500), {"sqlite": 2_000}).name == "sqlite"
    assert choose(Facts(1_500), {"sqlite": 100, "sqlite+hnsw": 1_000}).name == "postgres"
    assert choose(Facts(900, writers=3), {"writers": 3}).name == "sqlite"
    assert choose(Facts(1_000, exact_p95_ms=20), {"p95_ms": 10}).name == "sqlite+hnsw"
    assert tiers.limits()["sqlite"] == 1_000  # what was set stays with its call


@pytest.mark.parametrize("wrong", [{"sqlit": 1}, {"sqlite": -1}, {"sqlite": float("nan")}, {"sqlite": True}])
def test_what_is_no_threshold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        choose(Facts(1), wrong)


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 20),
    st.none() | st.floats(0, 1e4),
)
def test_a_store_that_grows_never_needs_a_smaller_tier(
    vectors: int, more: int, writers: int | None, p95: float | None
) -> None:
    now = choose(Facts(vectors, writers=writers, exact_p95_ms=p95))
    later = choose(Facts(vectors + more, writers=writers, exact_p95_ms=p95))
    assert NAMES.index(later.name) >= NAMES.index(now.name)
    assert now.reasons
