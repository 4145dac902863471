"""One tenant's rows, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migrate import api
from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Table
from migrate.tenants import COLUMNS
from tests.small_stores import asked, in_memory

pytestmark = pytest.mark.usefixtures("shelves")


def shared(column: str = "brain_id", kind: Kind = Kind.TEXT) -> Table:
    return Table("t", (Column("id", Kind.INTEGER), Column(column, kind)), ("id",))


@pytest.mark.parametrize("column", COLUMNS)
def test_only_the_tenants_rows_are_carried(column: str, tmp_path: Path) -> None:
    in_memory("m", (shared(column), [(n, "a" if n % 3 else "b") for n in range(9)]))
    report = api.migrate("memory:m", tmp_path / "t.db", where_tenant="b", batch_size=2)
    assert (report.verified, report.total_rows) == (True, 3)
    assert report.source == "memory:m (tenant b)"
    assert asked(tmp_path / "t.db", "SELECT * FROM t") == [(0, "b"), (3, "b"), (6, "b")]


@pytest.mark.parametrize(("kind", "one", "other"), [(Kind.INTEGER, 7, 8), (Kind.TEXT, "7", "07")])
def test_a_tenant_may_be_a_number(kind: Kind, one: Any, other: Any, tmp_path: Path) -> None:
    in_memory("m", (shared("user_id", kind), [(1, one), (2, other), (3, None)]))
    assert api.migrate("memory:m", tmp_path / "t.db", where_tenant="7").total_rows == 1
    assert asked(tmp_path / "t.db", "SELECT id FROM t") == [(1,)]


def test_the_first_column_that_names_a_tenant_decides(tmp_path: Path) -> None:
    table = Table("t", (Column("user_id", Kind.TEXT), Column("brain_id", Kind.TEXT)))
    in_memory("m", (table, [("x", "b"), ("b", "x")]))
    api.migrate("memory:m", tmp_path / "t.db", where_tenant="b")
    assert asked(tmp_path / "t.db", "SELECT * FROM t") == [("x", "b")]


def test_a_table_that_names_no_tenant_must_be_left_out_by_name(tmp_path: Path) -> None:
    in_memory("m", (shared(), [(1, "b")]), (Table("u", (Column("x", Kind.TEXT),)), [("secret",)]))
    with pytest.raises(ConfigError, match="table 'u' has no column that names a tenant") as raised:
        api.migrate("memory:m", tmp_path / "t.db", where_tenant="b")
    assert "--exclude u" in str(raised.value.hint)
    assert not (tmp_path / "t.db").exists()
    report = api.migrate("memory:m", tmp_path / "t.db", where_tenant="b", exclude=["u"])
    assert [t.name for t in report.tables] == ["t"]


def test_another_tenants_rows_in_the_target_are_not_removed(tmp_path: Path) -> None:
    in_memory("m", (shared(), [(1, "a"), (2, "b")]))
    api.migrate("memory:m", tmp_path / "t.db", where_tenant="a")
    again = api.migrate("memory:m", tmp_path / "t.db", where_tenant="a")
    assert [t.rows_written for t in again.tables] == [0]
