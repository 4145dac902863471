"""A small store, and targets of both kinds that it is moved to again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = """
    CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w REAL);
    INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', 2.5), (3, 'three', 3.5);
    CREATE TABLE loose (x TEXT, y INTEGER);
    INSERT INTO loose VALUES ('a', 1), ('a', 1), ('b', 2);
"""


@dataclass
class Goal:
    """A target and a way to run SQL in it."""

    url: str
    sql: Callable[[str], Any]


def edit(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def rows(goal: Goal) -> list[Any]:
    return sorted(goal.sql("SELECT id, v FROM t"))
