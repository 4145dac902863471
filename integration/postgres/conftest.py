"""What tests of runs over targets with rows begin with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.postgres.rerun_kit import TABLE, Goal
from integration.support import stores
from integration.support.servers import Database


@pytest.fixture(params=["postgres", "sqlite"])
def goal(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Goal:
    if request.param == "postgres":
        return Goal(database.at("store"), lambda sql: database.run("SET search_path = store, public", sql))
    path = tmp_path / "b.sqlite"

    def here(statement: str) -> Any:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            return db.execute(statement).fetchall()

    return Goal(str(path), here)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return stores.made(tmp_path / "a.sqlite", TABLE)
