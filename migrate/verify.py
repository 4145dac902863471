"""Proof that two stores hold the same rows: both sides are read, every row is compared.

Rows are read side by side. While both stores give them in the same order (the
usual case after a copy) a stride of rows is compared whole, at the speed of
memory. Where the orders part, rows are matched by key through a ledger that
stays on disk, so the result never depends on the order and memory is constant.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from migrate import values
from migrate.backends.base import Source
from migrate.batch import Row
from migrate.errors import MigrateError
from migrate.jsontext import canonical
from migrate.ledger import Ledger, Wanted
from migrate.readahead import Ahead
from migrate.report import SHOWN
from migrate.schema import Kind, Table

MODES = ("full", "sample", "counts", "none")
SAMPLE_ONE_IN = 20
_STRIDE = 1000  # rows compared at once


@dataclass(slots=True)
class Outcome:
    """What a comparison of one table found."""

    rows_source: int = 0
    rows_target: int = 0
    checked: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether no difference was found."""
        return not (self.missing or self.extra or self.different)

    def count_the_rest(self) -> None:
        """Count the rows that a sample did not name, by the numbers of all rows."""
        gap = self.rows_source - self.rows_target - (self.missing - self.extra)
        self.missing += max(gap, 0)
        self.extra += max(-gap, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as a report has them."""
        return {
            "missing": self.missing,
            "extra": self.extra,
            "different": self.different,
            "shown": self.shown,
        }


@dataclass(frozen=True, slots=True)
class Marked:
    """Keys found by a comparison, for a second pass that mends them.

    add: rows of the source that the target has not; change: rows that differ;
    remove: keys (or, without a key, digests of rows) that only the target has.
    """

    add: Wanted
    change: Wanted
    remove: Wanted

    @classmethod
    def empty(cls) -> Marked:
        """Return no keys."""
        return cls(Wanted(), Wanted(), Wanted())

    def close(self) -> None:
        """Remove the temporary databases."""
        for wanted in (self.add, self.change, self.remove):
            wanted.close()


def _picked(
    source: Source, table: Table, pick: tuple[int, ...] | None, size: int
) -> Generator[list[Row], None, None]:
    """Yield the rows of a table, their cells in the order of `pick`."""
    for batch in source.batches(table, size=size):
        rows = batch.rows
        yield rows if pick is None else [tuple([row[i] for i in pick]) for row in rows]
        del batch, rows


def compare(
    source: Source,
    target: Source,
    table: Table,
    there: Table,
    *,
    size: int = 1000,
    marked: Marked | None = None,
    sample: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Compare one table of two stores, row by row.

    table, there: the table as the source and as the target describe it.
    marked:       collects the keys of what differs.
    sample:       compare only one row in `SAMPLE_ONE_IN`, chosen by a hash of
                  its key, the same on both sides; counts are compared whole.
    """
    started = time.monotonic()
    outcome, ledger = Outcome(), Ledger()
    pick = order_of(table, there)
    ahead = partial(Ahead, depth=1)
    try:
        with (
            ahead(_picked(source, table, None, size), f"read {table.name}") as left,
            ahead(_picked(target, there, pick, size), f"read back {table.name}") as right,
        ):
            matcher = _Matcher(table, ledger, outcome, sample=sample)
            for a, b in _side_by_side(iter(left), iter(right)):
                matcher.take(a, b)
                progress(outcome.rows_source)
        classify(table, ledger, outcome, marked)
        if sample:  # the rows outside the sample are still counted
            outcome.count_the_rest()
    finally:
        ledger.close()
    outcome.seconds = time.monotonic() - started
    return outcome


def order_of(table: Table, there: Table) -> tuple[int, ...] | None:
    """Return where the source's columns stand in the target's rows; None where they are the same."""
    names = there.column_names
    absent = [n for n in table.column_names if n not in names]
    if absent:
        raise MigrateError(
            f"the target's table has no column {absent[0]!r}",
            hint="the target was changed after the migration, or is another table",
            table=table.name,
        )
    if names == table.column_names:
        return None
    return tuple(names.index(n) for n in table.column_names)


def _side_by_side(
    left: Iterator[list[Row]], right: Iterator[list[Row]]
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield strides of equal length while both sides last, then what is left of either."""
    a: list[Row] = []
    b: list[Row] = []
    while True:
        if not a:
            a = next(left, [])
        if not b:
            b = next(right, [])
        if not a or not b:
            break
        n = min(len(a), len(b))
        yield a[:n], b[:n]
        a, b = a[n:], b[n:]
    for rows in itertools.chain([a] if a else [], left):
        yield rows, []
    for rows in itertools.chain([b] if b else [], right):
        yield [], rows


class _Matcher:
    """Compares strides; enters what is not seen to be equal into the ledger."""

    def __init__(self, table: Table, ledger: Ledger, outcome: Outcome, *, sample: bool) -> None:
        self._table, self._ledger, self._outcome, self._sample = table, ledger, outcome, sample
        self._kinds = [c.kind for c in table.columns]
        self._json = [i for i, kind in enumerate(self._kinds) if kind is Kind.JSON]

    def take(self, a: list[Row], b: list[Row]) -> None:
        self._outcome.rows_source += len(a)
        self._outcome.rows_target += len(b)
        if self._sample:
            a, b = self._sampled(a), self._sampled(b)
        elif len(a) == len(b) and (values.surely_same(a, b) or self._same_but_json(a, b)):
            self._outcome.checked += len(a)
            return
        elif len(a) == len(b):
            a, b = self._unequal(a, b)
        for side, rows in ((0, a), (1, b)):
            for row in rows:
                self._ledger.enter(side, self._key(row), self._digest(row))
        self._outcome.checked += len(a)

    def _unequal(self, a: list[Row], b: list[Row]) -> tuple[list[Row], list[Row]]:
        """Return the rows of a stride that are not equal place by place."""
        kinds, left, right = self._kinds, [], []
        for x, y in zip(a, b, strict=True):
            if all(map(values.same, kinds, x, y)):
                self._outcome.checked += 1
            else:
                left.append(x)
                right.append(y)
        return left, right

    def _same_but_json(self, a: list[Row], b: list[Row]) -> bool:
        """Whether rows are equal once their JSON cells are brought to canonical form."""
        if not self._json:
            return False
        return values.surely_same(self._with_canonical_json(a), self._with_canonical_json(b))

    def _with_canonical_json(self, rows: list[Row]) -> list[Row]:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for i in self._json:
            # Still texts: a blob of the same bytes is another value.
            columns[i] = [
                form.decode() if isinstance(c, str) and (form := canonical(c)) is not None else c
                for c in columns[i]
            ]
        return list(zip(*columns, strict=True))

    def _sampled(self, rows: list[Row]) -> list[Row]:
        return [
            r for r in rows if hashlib.blake2b(self._key(r), digest_size=2).digest()[0] % SAMPLE_ONE_IN == 0
        ]

    def _key(self, row: Row) -> bytes:
        return values.match_key(self._table, row)

    def _digest(self, row: Row) -> bytes:
        return values.column_digests(self._kinds, row)


def classify(table: Table, ledger: Ledger, outcome: Outcome, marked: Marked | None) -> None:
    """Name what the ledger could not match: missing, extra or different rows."""
    for found in ledger.differences():
        pairs = min(len(found.left), len(found.right))
        missing, extra = len(found.left) - pairs, len(found.right) - pairs
        outcome.different += pairs
        outcome.missing += missing
        outcome.extra += extra
        if marked is not None:
            if pairs:
                marked.change.add(found.key, pairs)
            if missing:
                marked.add.add(found.key, missing)
            if extra:
                marked.remove.add(found.key, extra)
        if len(outcome.shown) < SHOWN:
            outcome.shown.append(_shown(table, found.key, found.left, found.right))


def _shown(table: Table, key: bytes, left: Sequence[bytes], right: Sequence[bytes]) -> dict[str, Any]:
    shown: dict[str, Any] = {"table": table.name, "what": "different"}
    whole = key.startswith(b"\0")
    shown["key"] = [f"row digest {key[1:].hex()}"] if whole else values.key_text(values.from_exact_row(key))
    if left and right:
        columns = [
            c.name
            for i, c in enumerate(table.columns)
            if left[0][8 * i : 8 * i + 8] != right[0][8 * i : 8 * i + 8]
        ]
        shown["columns"] = columns
    else:
        shown["what"] = "missing" if left else "extra"
    return shown


def compare_counts(source: Source, target: Source, table: Table, there: Table) -> Outcome:
    """Compare only the numbers of rows."""
    started = time.monotonic()
    outcome = Outcome(source.count(table), target.count(there))
    gap = outcome.rows_source - outcome.rows_target
    outcome.missing, outcome.extra = max(gap, 0), max(-gap, 0)
    outcome.seconds = time.monotonic() - started
    return outcome
