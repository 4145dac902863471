"""Which kind of store fits how many vectors, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tier:
    """A kind of store and the number of vectors up to which it is the simplest that serves."""

    name: str
    most_vectors: int | None
    why: str


TIERS = (
    Tier("sqlite", 1_000, "looking at every vector is quick enough"),
    Tier("sqlite+hnsw", 500_000, "an index beside the file fits into memory"),
    Tier("postgres", 10_000_000, "one server keeps the index, with several writers"),
    Tier("qdrant", None, "an index over several machines"),
)


def tier_for(vectors: int) -> Tier:
    """Return the simplest tier that serves so many vectors."""
    return next(t for t in TIERS if t.most_vectors is None or vectors <= t.most_vectors)
