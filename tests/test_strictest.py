"""An audit without a target judges against every store that memlift writes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate import api, backends
from migrate.backends.base import Options
from migrate.schema import Column, Kind, Table
from migrate.strictest import Strict
from tests.small_stores import in_memory, pairs

pytestmark = pytest.mark.usefixtures("shelves")


def test_all_registered_stores_but_memory_are_asked() -> None:
    assert Strict(Options()).describe() == ", ".join(k for k in backends.REGISTRY if k != "memory")


def test_a_cell_is_counted_once_and_every_store_that_refuses_it_is_named() -> None:
    fit = Strict(Options()).fit(pairs())
    found = fit.check([[1, 2**70], ["a\0b", "ok"]])
    reasons = {(f.row, f.column): f.reason for f in found}
    assert reasons[0, 1] == "postgres: a NUL character in text"
    assert "sqlite: an integer beyond 64-bit integers" in reasons[1, 0]
    assert "postgres: an integer beyond 64-bit integers" in reasons[1, 0]
    assert len(found) == len(reasons) == 2


def test_problems_of_a_table_name_the_store() -> None:
    fit = Strict(Options()).fit(Table("x" * 64, (Column("a", Kind.TEXT),)))
    assert len(fit.problems) == 1
    assert fit.problems[0].startswith("postgres: table name ")


def test_an_audit_counts_and_shows_them(tmp_path: Path) -> None:
    in_memory("m", (pairs(), [(1, "a\0b"), (2, "ok")]))
    report = api.audit("memory:m")
    assert report.misfits == 1
    assert report.tables[0].misfits["shown"] == [
        {"key": [1], "column": "v", "reason": "postgres: a NUL character in text"}
    ]


def test_the_target_of_such_an_audit_is_always_empty() -> None:
    standing = Strict(Options()).look([pairs()])
    assert (standing.state, standing.strangers) == ("empty", ())
