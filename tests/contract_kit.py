"""What the contract's checks are made of: sources, tables with every kind of cell, runs that crash."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, cast

import pytest

from migrate import engine
from migrate.backends import base
from migrate.backends.base import Position, Target
from migrate.batch import Row
from migrate.config import Settings
from migrate.engine import Choices, Run
from migrate.layouts.base import Wishes
from migrate.plan import Plan
from migrate.reach import Reach, understand
from migrate.report import Report, Silent
from migrate.schema import Column, Kind, Metric, Table
from migrate.vectors import pack_multi, pack_sparse
from tests.places import Place, fit, rows_in, source, target
from tests.small_stores import in_memory, multiset, pairs

Check = Callable[[Place, pytest.MonkeyPatch], None]
CHECKS: list[Check] = []

_numbers = itertools.count(1)


def check(function: Check) -> Check:
    """Make a function part of the contract."""
    CHECKS.append(function)
    return function


class BoomError(Exception):
    """A bug or a power cut, somewhere in the middle."""


class Failing:
    """A target that fails at its nth commit, before or after the store has it."""

    def __init__(self, inner: Target, at: int, *, after: bool) -> None:
        self._inner, self._left, self._after = inner, at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, position: Position) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise BoomError
        self._inner.commit(position)
        if self._left == 0:
            raise BoomError


def filled(*tables: tuple[Table, Sequence[Row]]) -> str:
    """Make a source in memory and return its address."""
    name = f"source {next(_numbers)}"
    in_memory(name, *tables)
    return f"memory:{name}"


def put(address: str, table: str, rows: Sequence[Row]) -> None:
    """Change the rows of a source."""
    in_memory(address.removeprefix("memory:")).shelf.rows[table] = list(rows)


def moved(
    place: Place, origin: str, at: Settings, *, crash: int = 0, after: bool = False, **choices: Any
) -> Report:
    """Run the engine; every batch is a commit. crash: fail at this commit."""
    with Reach() as reach:
        opened = reach.source(reach.settings(origin, create=False))
        layout, reading = understand(opened, Wishes())
        plan = Plan(opened.describe(), str(at), reading.layout, "jsonb", tuple(reading.tables))
        there = target(place, at, base.Options(layout=layout))
        try:
            run = Run(
                opened,
                plan,
                Choices(**choices),
                target=cast("Target", Failing(there, crash, after=after)),
                open_reader=lambda: source(place, at),
                fit=lambda table: fit(place, table),
                observer=Silent(),
            )
            return run.run()
        finally:
            there.close()


@contextmanager
def small_commits(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commit after every batch."""
    with patch.context() as inner:
        inner.setattr(engine, "COMMIT_BYTES", 1)
        yield


def by_value(row: Row, table: Table) -> Row:
    """Return a row with its JSON cells as values, which is what JSON columns promise to keep."""
    cells = []
    for column, cell in zip(table.columns, row, strict=True):
        if column.kind is Kind.JSON and isinstance(cell, str):
            try:
                parsed = json.loads(cell, parse_float=Decimal)
                cell = "json " + json.dumps(parsed, sort_keys=True, default=lambda d: f"decimal {d}")
            except ValueError:
                pass
        cells.append(cell)
    return tuple(cells)


def holds(place: Place, at: Settings, table: Table, wanted: Sequence[Row]) -> None:
    """Assert that a target holds these rows and no others, cell for cell."""
    found = rows_in(place, at, table.name)
    assert multiset([by_value(r, table) for r in found]) == multiset([by_value(r, table) for r in wanted])


T = pairs()
ROWS: list[Row] = [(n, f"v{n}") for n in range(1, 8)]


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


KINDS = Table(
    "kinds",
    (
        Column("id", Kind.INTEGER, "bigint", nullable=False),
        Column("real", Kind.REAL, "double precision"),
        Column("text", Kind.TEXT, "text"),
        Column("blob", Kind.BLOB, "bytea"),
        Column("bool", Kind.BOOL, "boolean"),
        Column("json", Kind.JSON, "jsonb"),
        Column("at", Kind.TIMESTAMP, "timestamp with time zone"),
        Column("native", Kind.NATIVE, "numeric"),
        Column("vector", Kind.VECTOR, "vector(3)", dim=3, metric=Metric.COSINE),
        Column("half", Kind.HALF, "halfvec(2)", dim=2),
        Column("sparse", Kind.SPARSE, "sparsevec(9)", dim=9),
        Column("multi", Kind.MULTI, "bytea"),
        Column("u8", Kind.U8, "bytea"),
    ),
    ("id",),
    dialect="postgres",
)
KIND_ROWS: list[Row] = [
    (
        2**63 - 1,
        0.1,
        "é😀\n\t\\N",
        b"\x00\xff\\",
        True,
        '{"b": 1.0, "a": [1, null, "é"], "n": 12345678901234567890.120}',
        "2024-01-02T03:04:05.000006+00:00",
        "12345678901234567890.1200",
        vector(1.5, -0.0, 1e-45),
        struct.pack("<2e", 1.5, -2.0),
        pack_sparse([7, 2], [0.5, -1.0], 9),
        pack_multi([[1.0, 2.0], [3.0, 4.0]]),
        bytes(range(5)),
    ),
    (
        -(2**63),
        5e-324,
        "",
        b"",
        False,
        "null",
        "1999-12-31T23:59:59.999999+00:00",
        "0",
        vector(0, 0, 0),
        *[None] * 4,
    ),
    (0, -1.7976931348623157e308, "5", b"5", *[None] * 9),
    (1, *[None] * 12),
]


INEXACT = Table(
    "inexact",
    (
        Column("id", Kind.INTEGER),
        Column("i", Kind.INTEGER, nullable=False),
        Column("r", Kind.REAL),
        Column("t", Kind.TEXT, nullable=False),
        Column("j", Kind.JSON),
        Column("v", Kind.VECTOR, dim=2),
    ),
    ("id",),
)
INEXACT_ROWS: list[Row] = [
    (1, 2**64, float("nan"), "a\0b", '{"a": 1, "a": 2}', vector(float("nan"), 1)),
    (2, "seven", -0.0, "\udcff", "{broken", vector(1, 2, 3)),
    (3, 7, float("inf"), "\ud800", '"\\u0000"', b"odd"),
    (4, 7.5, 1, b"bytes", 5, "text"),
    (5, True, "1.5", 5, "-0", None),
    (2**70, 1, 1.5, "fits but for its key", "1", vector(1, 2)),
    ("six", 1, 1.5, "a text for a key", "1", vector(1, 2)),
    (7, 7, 1.5, "fits", '{"a": 1}', vector(1, 2)),
]


def claimed(place: Place, at: Settings, run: str = "run", *, restart: bool = False) -> Target:
    opened = target(place, at)
    plan = Plan("memory:x", str(at), "generic", "jsonb", (T,))
    opened.claim(plan.to_dict(), run, restart=restart)
    return opened
