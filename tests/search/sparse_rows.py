"""Rows with sparse vectors, and checks of any store that compares them: truth is the inner product, computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from migrate.backends.memory import Memory
from migrate.schema import Column, Kind, Table
from migrate.search.base import Hit, Key
from migrate.search.service import Search
from migrate.vectors import pack_sparse

DIM = 4
_TERMS = (0, 3, 7, 9, 100, 12_345, 2**31 + 5, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. sparse: None where it has none."""

    id: int
    sparse: dict[int, float] | None
    dense: list[float]
    payload: dict[str, Any]


def _rows() -> list[Row]:
    random = np.random.default_rng(3)
    made = []
    for i in range(60):
        terms = random.choice(_TERMS, 3, replace=False).tolist()
        weights = random.normal(size=3).astype(np.float32).tolist()
        dense = random.normal(size=DIM).astype(np.float32).tolist()
        sparse = None if i % 10 == 9 else dict(zip(terms, weights, strict=True))
        made.append(Row(i, sparse, dense, {"kind": ("fact", "event")[i % 2], "page": i % 7, "n": i}))
    return made


ROWS = _rows()
ASKED: dict[str, Any] = {"indices": [2**32 - 1, 0, 7], "values": [-2.0, 0.5, 1.0]}


def truth(asked: dict[int, float], rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Return the rows that have an index in common with a question, best first, with their inner products."""
    found = [
        (row.id, sum(row.sparse[i] * weight for i, weight in asked.items() if i in row.sparse))
        for row in rows
        if row.sparse is not None and row.sparse.keys() & asked.keys()
    ]
    return sorted(found, key=lambda pair: -pair[1])


def weights(given: dict[str, Any]) -> dict[int, float]:
    """Return a sparse vector as weights by index."""
    return dict(zip(given["indices"], given["values"], strict=True))


def make_worded(store: Memory) -> None:
    """Fill a store with ROWS as an agent's memories: a tenant, words, and sparse vectors alone."""
    columns = (
        Column("tenant_id", Kind.TEXT, nullable=False),
        Column("id", Kind.TEXT, nullable=False),
        Column("content", Kind.TEXT),
        Column("terms", Kind.SPARSE),
    )
    store.shelf.tables["worded"] = Table("worded", columns, ("tenant_id", "id"))
    store.shelf.rows["worded"] = [
        (
            ("north", "south")[row.id % 2],
            f"r{row.id}",
            f"The {'ninth' if row.id % 10 == 9 else 'other'} of many words",
            None if row.sparse is None else pack_sparse(list(row.sparse), list(row.sparse.values())),
        )
        for row in ROWS
    ]


@dataclass(frozen=True, slots=True)
class Stand:
    """A table of an open store that holds ROWS. key: the key of a row by its number."""

    store: Search
    table: str
    key: Callable[[int], Key]
    dense: bool

    def asked(self, **more: Any) -> list[Hit]:
        """Ask the table, and no other."""
        return list(self.store.search(table=self.table, **more).hits)

    def agrees(self, hits: Sequence[Hit], true: Sequence[tuple[int, float]]) -> None:
        """Check an answer against the truth, keys and scores."""
        assert [h.key for h in hits] == [self.key(i) for i, _ in true]
        assert [h.score for h in hits] == pytest.approx([score for _, score in true], abs=1e-5)


Check = Callable[[Stand], None]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@_check
def the_largest_inner_products_are_found(stand: Stand) -> None:
    true = truth(weights(ASKED), ROWS)
    assert true[-1][1] < 0 < true[0][1]
    for exact in (False, True):
        stand.agrees(stand.asked(vector=ASKED, k=10, exact=exact), true[:10])
        stand.agrees(stand.asked(vector=ASKED, k=500, exact=exact), true)


@_check
def rows_with_nothing_in_common_are_no_hits(stand: Stand) -> None:
    assert stand.asked(vector={"indices": [5], "values": [1.0]}) == []


@_check
def filters_mean_what_they_mean_for_dense_vectors(stand: Stand) -> None:
    for where, rows in (
        ({"kind": "fact"}, [r for r in ROWS if r.payload["kind"] == "fact"]),
        ({"page": {"gte": 2, "lt": 5}}, [r for r in ROWS if 2 <= r.payload["page"] < 5]),
        ({"not": {"kind": "fact"}}, [r for r in ROWS if r.payload["kind"] != "fact"]),
        ({"kind": "neither"}, []),
    ):
        stand.agrees(stand.asked(vector=ASKED, k=500, where=where), truth(weights(ASKED), rows))
        stand.agrees(stand.asked(vector=ASKED, k=3, where=where), truth(weights(ASKED), rows)[:3])


@_check
def a_row_is_compared_by_its_dense_vector_where_there_is_one(stand: Stand) -> None:
    hits = stand.asked(like=stand.key(3), k=5)
    assert stand.key(3) not in {h.key for h in hits}
    own = ROWS[3].sparse
    assert own is not None
    if stand.dense:
        assert all(-1 <= h.score <= 1 for h in hits)
        assert len(hits) == 5
    else:
        stand.agrees(hits, [pair for pair in truth(own, ROWS) if pair[0] != 3][:5])


@_check
def a_hit_has_its_metadata(stand: Stand) -> None:
    (hit,) = stand.asked(vector=ASKED, k=1)
    (name,) = (n for n in ("payload", "metadata") if n in hit.metadata)
    best, _ = truth(weights(ASKED), ROWS)[0]
    assert hit.metadata[name] == ROWS[best].payload
