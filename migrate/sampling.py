"""Comparing a sample of two stores where reading one of them costs money.

The other side is read whole, the sample is chosen there by a hash of the key, and only its rows
are asked of the dear side; the numbers of all rows are compared as well. So a row that only the
dear side has is found by the count, not by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from migrate import values
from migrate.backends.base import Pickable, Source
from migrate.batch import Row
from migrate.ledger import Ledger
from migrate.schema import Table
from migrate.verify import SAMPLE_ONE_IN, Outcome, classify, compare, order_of

# Small tables are compared whole; beyond, a sample of 20,000 finds a fault of one row in 5,000 with 98 %.
LEAST, MOST = 1_000, 20_000


def one_in(rows: int) -> int:
    """Return of how many rows one is compared."""
    return max(1, min(SAMPLE_ONE_IN, rows // LEAST), rows // MOST if rows > SAMPLE_ONE_IN * MOST else 1)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison. side: 0 for the source, 1 for the target; order: of the source's columns in its rows."""

    side: int
    store: Source
    table: Table
    order: tuple[int, ...] | None

    def aligned(self, rows: list[Row]) -> list[Row]:
        """Return rows with their cells in the order of the source's columns."""
        return rows if self.order is None else [tuple([row[i] for i in self.order]) for row in rows]


def compare_sample(
    source: Source,
    target: Source,
    table: Table,
    there: Table,
    *,
    size: int = 1000,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Compare a sample of one table of two stores, asking a side that can pick rows for those alone.

    Where no row has to be paid for, or none can be asked for alone, all are compared (`verify.compare`).
    """
    left = Side(0, source, table, None)
    right = Side(1, target, there, order_of(table, there))
    for whole, dear in ((left, right), (right, left)):
        store = dear.store
        if isinstance(store, Pickable) and table.key == there.key and store.can_pick(dear.table):
            return _compare(table, whole, dear, store, size, progress)
    sample = not any(isinstance(store, Pickable) for store in (source, target))
    return compare(source, target, table, there, size=size, sample=sample, progress=progress)


def _compare(
    table: Table, whole: Side, dear: Side, picker: Pickable, size: int, progress: Callable[[int], None]
) -> Outcome:
    started = time.monotonic()
    outcome, ledger = Outcome(), Ledger()
    share = one_in(whole.store.count(whole.table))
    kinds, at = [c.kind for c in table.columns], table.key_positions
    counted = 0

    def chosen(row: Row) -> bool:
        digest = hashlib.blake2b(values.match_key(table, row), digest_size=8).digest()
        return int.from_bytes(digest, "big") % share == 0

    def enter(side: int, row: Row) -> None:
        ledger.enter(side, values.match_key(table, row), values.column_digests(kinds, row))

    def keys() -> Iterator[Row]:
        nonlocal counted
        for batch in whole.store.batches(whole.table, size=size):
            for row in filter(chosen, whole.aligned(batch.rows)):
                enter(whole.side, row)
                outcome.checked += 1
                yield tuple(row[i] for i in at)
            counted += len(batch.rows)
            progress(counted)

    def chosen_there(row: Row) -> bool:
        return chosen(dear.aligned([row])[0])

    try:
        for rows in picker.picked(dear.table, keys(), chosen_there):
            for row in dear.aligned(rows):
                enter(dear.side, row)
        counts = {whole.side: counted, dear.side: dear.store.count(dear.table)}
        outcome.rows_source, outcome.rows_target = counts[0], counts[1]
        classify(table, ledger, outcome, None)
        outcome.count_the_rest()
    finally:
        ledger.close()
    outcome.seconds = time.monotonic() - started
    return outcome
