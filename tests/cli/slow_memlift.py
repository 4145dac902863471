"""memlift with a slow SQLite target, for signals that come in the middle.

commits: a commit after every batch, each followed by 0.1 s
call:    building takes one call of a minute that Python can be interrupted in
stuck:   building takes one statement of a minute inside SQLite's C code
swallow: as `call`, and the driver answers the break with an error of its own
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from migrate import engine
from migrate.backends.base import Phase, Position, Step
from migrate.backends.sqlite.target import SqliteTarget
from migrate.cli import main
from migrate.errors import BackendError
from migrate.schema import Table

MODE = sys.argv[1]
BEGUN = Path("begun")
FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def build(progress: Callable[[int, int], None]) -> None:
    BEGUN.touch()
    if MODE == "stuck":
        sqlite3.connect(":memory:").execute(FOREVER).fetchone()
    try:
        time.sleep(60)
    except KeyboardInterrupt as exc:
        if MODE == "swallow":
            raise BackendError("statement cancelled") from exc
        raise


def steps(self: SqliteTarget, tables: Sequence[Table]) -> list[Step]:
    return [Step("", "a long build", Phase.INDEX, build)]


plain_commit = SqliteTarget.commit


def commit(self: SqliteTarget, position: Position) -> None:
    plain_commit(self, position)
    if position.rows >= 20:
        BEGUN.touch()
    time.sleep(0.1)


if MODE == "commits":
    engine.COMMIT_S = 0.0
    SqliteTarget.commit = commit  # type: ignore[method-assign]
else:
    SqliteTarget.steps = steps  # type: ignore[method-assign]
sys.exit(main(sys.argv[2:]))
