"""`kill -9` at seeded moments of audit, copy, keys, indexes, verify, resume and reconcile.

After each kill the same command is run again, and may be killed again; the end must be what an
uninterrupted run makes: every row, every declaration, positions, exact cells, no leftovers.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.support import comparing, stores
from integration.support.child import Child, Ended, run
from integration.support.comparing import same
from integration.support.servers import Database
from migrate import api

OPTIONS: dict[str, Any] = {"on_misfit": "quarantine", "batch_size": 40}
SEEDS = [pytest.param(n, marks=[] if n < 5 else pytest.mark.slow) for n in range(30)]


class Pair:
    """A source, a target that can be emptied, and a way to see all that is in the target."""

    def __init__(self, source: str, target: str, state: Callable[[], Any], again: Callable[[], None]) -> None:
        self.source, self.target, self.state, self.change = source, target, state, again

    def run(self, failpoint: str | None = None, **more: Any) -> Ended:
        return run(self.source, self.target, failpoint=failpoint, **{**OPTIONS, **more})


def to_postgres(folder: Path, database: Database) -> Pair:
    source = stores.crash_store(folder / "a.sqlite")

    def state() -> Any:
        with database.connect() as db:
            return {
                "rows": comparing.pg_texts(db, "store"),
                "shape": comparing.pg_shape(db, "store"),
                "relations": comparing.relations(db, "store"),
                "books": comparing.books(lambda sql: db.execute(sql.encode()).fetchall(), "store."),
                "others": db.execute(
                    "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_toast'"
                ).fetchall(),
            }

    return Pair(str(source), database.at("store"), state, lambda: stores.change(source))


def to_sqlite(folder: Path, database: Database) -> Pair:
    source, target = stores.crash_store(folder / "a.sqlite"), folder / "b.sqlite"
    api.migrate(source, database.at("store"), on_misfit="quarantine")
    for book in ("runs", "tables", "columns", "exact", "positions", "lease"):  # a store that others made
        database.run(f"DROP TABLE store.memlift_{book}")
    # What SQLite cannot hold of a Postgres table.
    database.run("UPDATE store.part SET weight = 'NaN' WHERE id % 50 = 0")

    def state() -> Any:
        with closing(sqlite3.connect(target)) as db:
            books = comparing.books(lambda sql: db.execute(sql).fetchall(), "")
            names = set(
                db.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'memlift%'")
            )
            checked = db.execute("PRAGMA integrity_check").fetchall()
        files = sorted(p.name for p in folder.iterdir() if p.name.startswith("b.sqlite"))
        return {
            "rows": comparing.sqlite_rows(target),
            "schema": names,
            "books": books,
            "files": files,
            "checked": checked,
        }

    def change() -> None:
        database.run(
            "UPDATE store.part SET body = body || '!' WHERE id % 9 = 0",
            "DELETE FROM store.loose WHERE ctid IN (SELECT ctid FROM store.loose LIMIT 3)",
            "INSERT INTO store.part (id, body) VALUES (100001, 'new'), (100002, 'newer')",
            "DELETE FROM store.part WHERE id % 31 = 7 AND id NOT IN (SELECT part FROM store.piece WHERE part IS NOT NULL)",
        )

    return Pair(database.at("store"), str(target), state, change)


@pytest.fixture(params=["to postgres", "to sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Pair:
    return (to_postgres if request.param == "to postgres" else to_sqlite)(tmp_path, database)


def until_done(pair: Pair, first: list[str | None], **more: Any) -> Ended:
    """Run, killed at the given points one after another, then to the end."""
    for failpoint in first:
        ended = pair.run(failpoint, **more)
        if not ended.killed:
            assert ended.status == 0, ended.said
            return ended
    started = time.monotonic()
    ended = pair.run(**more)
    assert ended.status == 0, ended.said
    assert not any("lease" in line for line in ended.lines), "a dead run's lease was waited for"
    assert time.monotonic() - started < 20
    return ended


_ends: dict[str, tuple[Any, int]] = {}


def uninterrupted(pair: Pair, database: Database, folder: Path) -> tuple[Any, int]:
    """Return what a run makes that nobody disturbs, and how many points it passes; the target is empty."""
    kind = "postgres" if pair.target.startswith("postgresql") else "sqlite"  # the stores are the same for all
    if kind not in _ends:
        ended = pair.run("*:0")
        assert ended.status == 0, ended.said
        _ends[kind] = pair.state(), sum(ended.said["hits"].values())
        empty(pair, database, folder)
    return _ends[kind]


def empty(pair: Pair, database: Database, folder: Path) -> None:
    if pair.target.startswith("postgresql"):
        database.run("DROP SCHEMA store CASCADE")
    else:
        for path in folder.glob("b.sqlite*"):
            path.unlink()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_killed_at_any_points_ends_as_one_that_was_not(
    seed: int, pair: Pair, database: Database, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    wanted, hits = uninterrupted(pair, database, tmp_path)
    points: list[str | None] = [f"*:{rng.randint(1, hits)}" for _ in range(rng.randint(1, 3))]

    ended = until_done(pair, points)

    assert ended.said["report"]["verified"], points
    same(pair.state(), wanted)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if n < 2 else pytest.mark.slow) for n in range(10)]
)
def test_a_source_that_changes_between_kill_and_resume_is_carried_as_it_is_at_the_end(
    seed: int, pair: Pair, database: Database, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    _, hits = uninterrupted(pair, database, tmp_path)
    late = rng.randint(hits // 3, hits)

    assert pair.run(f"*:{late}").killed
    pair.change()
    until_done(pair, [f"mend.before_amend:{rng.randint(1, 3)}", f"mend.after_amend:{rng.randint(1, 2)}"])
    resumed = pair.state()

    empty(pair, database, tmp_path)
    assert pair.run().status == 0
    same(resumed["rows"], pair.state()["rows"])
    same(resumed["books"]["exact"], pair.state()["books"]["exact"])


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if n < 2 else pytest.mark.slow) for n in range(10)]
)
def test_an_update_of_an_earlier_target_that_is_killed_ends_as_one_that_was_not(
    seed: int, pair: Pair, database: Database, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    assert pair.run().status == 0
    pair.change()
    points: list[str | None] = [
        f"{rng.choice(['mend.before_amend', 'mend.after_amend', 'amend.inside'])}:{rng.randint(1, 4)}",
        f"verify.batch:{rng.randint(1, 20)}",
        f"*:{rng.randint(1, 60)}",
    ]

    until_done(pair, points, mirror=True)

    assert api.verify(pair.source, pair.target).verified
    updated = pair.state()
    empty(pair, database, tmp_path)
    assert pair.run().status == 0
    same(updated["rows"], pair.state()["rows"])
    same(updated["books"]["exact"], pair.state()["books"]["exact"])


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if n < 1 else pytest.mark.slow) for n in range(10)]
)
def test_a_run_killed_from_outside_at_any_time_ends_as_one_that_was_not(
    seed: int, pair: Pair, database: Database, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    wanted, _ = uninterrupted(pair, database, tmp_path)
    for _ in range(3):
        child = Child(pair.source, pair.target, **OPTIONS)
        time.sleep(rng.uniform(0.05, 0.8))
        child.kill()

    until_done(pair, [])

    same(pair.state(), wanted)


def test_each_named_point_is_passed_by_a_run(pair: Pair) -> None:
    hits = pair.run("*:0").said["hits"]
    assert {
        "audit.batch",
        "claim.after",
        "prepare.after",
        "copy.append",
        "copy.before_commit",
        "copy.after_commit",
        "index.before",
        "index.after",
        "verify.batch",
        "finish.before",
    } <= set(hits)


def test_a_target_killed_before_its_first_row_can_be_migrated_into_again(tmp_path: Path) -> None:
    source, target = stores.crash_store(tmp_path / "a.sqlite"), tmp_path / "b.sqlite"
    for point in ("claim.inside:1", "claim.after:1", "prepare.inside:2", "prepare.after:1"):
        assert run(source, target, failpoint=point, **OPTIONS).killed
    assert run(source, target, **OPTIONS).status == 0
    same(comparing.sqlite_rows(target), comparing.sqlite_rows(source))
    shutil.rmtree(tmp_path, ignore_errors=True)
