"""Through pgbouncer in transaction mode: everything works, nothing leaks to other clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.support import comparing, stores
from integration.support.child import Child
from integration.support.comparing import same
from integration.support.pooler import pooled
from integration.support.servers import Database
from migrate import api


@pytest.fixture
def behind(database: Database, tmp_path: Path) -> Iterator[Database]:
    with pooled(database, tmp_path / "pooler", size=4) as found:
        yield found


def test_a_brain_goes_through_a_pooler_and_back(behind: Database, tmp_path: Path) -> None:
    source, back = stores.brain(tmp_path / "a.sqlite"), tmp_path / "b.sqlite"
    assert api.migrate(source, behind.at("store"), json="text").verified
    assert api.migrate(source, behind.at("store"), json="text").verified
    assert api.verify(source, behind.at("store")).verified
    assert api.migrate(behind.at("store"), back).verified
    same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))
    assert api.undo(behind.at("store"))


def test_misfits_and_updates_go_through_a_pooler(behind: Database, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    assert api.migrate(source, behind.at("store"), on_misfit="quarantine").verified
    stores.change(source)
    assert api.migrate(source, behind.at("store"), on_misfit="quarantine", mirror=True).verified
    assert api.migrate(behind.at("store"), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_two_runs_through_a_pooler_do_not_meet(behind: Database, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    runs = [
        Child(source, behind.at("store"), on_misfit="quarantine", pause={"claim.after": 1.0})
        for _ in range(2)
    ]
    ended = [run.wait() for run in runs]
    assert Counter(e.status for e in ended) == {0: 1, 2: 1}, [e.said.get("message") for e in ended]


def test_no_setting_leaks_to_other_clients_of_a_pooler(behind: Database, tmp_path: Path) -> None:
    # Those of an extension are there once its library was loaded.
    settings = (
        "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' AND name NOT LIKE '%.%'"
    )
    source = stores.brain(tmp_path / "a.sqlite")
    with behind.connect(prepare_threshold=None) as db:
        before = db.execute(settings).fetchall()
    assert api.migrate(source, behind.at("store")).verified
    found = [psycopg.connect(behind.url, prepare_threshold=None) for _ in range(4)]  # all of its servers
    for connection in found:
        assert connection.execute(settings).fetchall() == before
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (
            0,
        )
    for connection in found:
        connection.close()


def test_a_run_killed_behind_a_pooler_is_taken_over_at_once(behind: Database, tmp_path: Path) -> None:
    source = stores.crash_store(tmp_path / "a.sqlite")
    options: dict[str, Any] = {"on_misfit": "quarantine", "batch_size": 40}
    for point in ("copy.append:6", "commit.inside:2", "index.before:1", "verify.batch:3"):
        assert Child(source, behind.at("store"), failpoint=point, **options).wait().killed
    ended = Child(source, behind.at("store"), **options).wait()
    assert ended.status == 0, ended.said
    assert ended.said["report"]["resumed"]
    assert api.verify(source, behind.at("store")).verified
