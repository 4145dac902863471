"""Two machines, each with a sidecar of its own, and one server: going on, keeping out, and older servers."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from integration.qdrant.backend_kit import (
    address,
    impatient,  # noqa: F401 - a fixture
)
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing, stores
from integration.support.comparing import same
from migrate import api, engine
from migrate.backends.base import Options
from migrate.backends.qdrant import books
from migrate.backends.qdrant.server import ServerEngine
from migrate.backends.qdrant.target import QdrantTarget
from migrate.config import QdrantSettings
from migrate.errors import CheckpointError, ConfigError, LeaseLostError, SchemaError
from migrate.reach import opened_source


class StoppedError(Exception):
    """Breaks a run off, as a crash would, at a commit."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    monkeypatch.setattr(books, "_LOOK_S", 0.05)
    monkeypatch.setattr(books, "DEAD_AFTER_S", 0.5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [(i, f"note {i}", stores.vector(*(i + k for k in range(32)))) for i in range(400)]
    path = stores.filled(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, embedding BLOB)", rows
    )
    lines = [(i, f"line {i}") for i in range(50)]
    return stores.filled(path, "CREATE TABLE log (id INTEGER PRIMARY KEY, v TEXT)", lines, "log")


@pytest.fixture
def first(server: QdrantTestServer, tmp_path: Path) -> QdrantSettings:
    return address(server, tmp_path)


@pytest.fixture
def second(first: QdrantSettings, tmp_path: Path) -> QdrantSettings:
    """The same target from another machine, where the first one's sidecar is not."""
    return replace(first, sidecar=str(tmp_path / "other machine.sqlite"))


def broken_off(source: Path, to: QdrantSettings, table: str = "t") -> None:
    def stop(done: int, total: int, name: str) -> None:
        if name == table and 0 < done < total:
            raise StoppedError

    with pytest.raises(StoppedError):
        api.migrate(source, to, batch_size=40, on_progress=stop)


def names(server: QdrantTestServer, to: QdrantSettings) -> set[str]:
    client = QdrantClient(url=server.url, check_compatibility=False)
    found = {c.name for c in client.get_collections().collections if c.name.startswith(to.prefix)}
    client.close()
    return {name.removeprefix(to.prefix) for name in found}


def set_lease(to: QdrantSettings, owner: str, beat: int) -> None:
    opened = ServerEngine(to)
    kept = books.ServerBooks(opened, to.prefix)
    (told,) = kept.read().values()
    kept._put(told.sidecar_id, "lease", {"owner": owner, "beat": beat})
    opened.close()


def test_another_machine_goes_on_with_a_broken_run(
    source: Path, first: QdrantSettings, second: QdrantSettings, tmp_path: Path
) -> None:
    broken_off(source, first)
    report = api.migrate(source, second, batch_size=40)
    (t,) = (one for one in report.tables if one.name == "t")
    assert (report.verified, report.resumed) == (True, True)
    assert 0 < t.rows_written < 400  # what the first machine has sent was compared, not sent again
    assert any("unfinished run of another machine" in note for note in report.notes)
    assert api.migrate(second, tmp_path / "back.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "back.sqlite"), comparing.sqlite_rows(source))
    with pytest.raises(SchemaError, match="another machine went on with this run"):
        api.migrate(source, first)


def test_what_the_first_machine_kept_aside_is_made_again(
    server: QdrantTestServer, first: QdrantSettings, second: QdrantSettings, tmp_path: Path
) -> None:
    deep = "[" * 120 + "]" * 120
    rows = [(i, deep if i % 7 == 0 else "{}", stores.vector(i, 1, 2)) for i in range(300)]
    source = stores.filled(
        tmp_path / "d.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON, embedding BLOB)", rows
    )
    broken_off(source, first)
    assert api.migrate(source, second, batch_size=40).verified
    assert api.migrate(second, tmp_path / "back.sqlite").verified
    same(
        comparing.sqlite_rows(tmp_path / "back.sqlite", json_values=True),
        comparing.sqlite_rows(source, json_values=True),
    )


def test_a_dead_machine_is_outwaited_and_a_living_one_is_not_disturbed(
    source: Path, first: QdrantSettings, second: QdrantSettings
) -> None:
    broken_off(source, first)
    over = threading.Event()

    def living() -> None:
        beat = 0
        while not over.wait(0.1):
            beat += 1
            set_lease(first, "first", beat)

    set_lease(first, "first", 0)
    heart = threading.Thread(target=living)
    heart.start()
    with pytest.raises(CheckpointError, match="another machine is writing"):
        api.migrate(source, second)
    over.set()
    heart.join()
    assert api.migrate(source, second).verified


def test_a_machine_that_was_taken_for_dead_writes_nothing_more(
    source: Path, first: QdrantSettings, second: QdrantSettings
) -> None:
    taken = threading.Event()

    def seen(done: int, total: int, name: str) -> None:
        if name == "t" and 0 < done < total and not taken.is_set():
            taken.set()
            set_lease(first, "", 0)  # as if it had slept for too long
            assert api.migrate(source, second, batch_size=40).verified

    with pytest.raises(LeaseLostError, match="another machine"):
        api.migrate(source, first, batch_size=40, on_progress=seen)
    assert api.verify(source, second).verified


def test_restart_begins_anew_in_place_of_the_broken_run(
    source: Path, first: QdrantSettings, second: QdrantSettings
) -> None:
    broken_off(source, first)
    report = api.migrate(source, second, restart=True)
    assert (report.verified, sum(t.rows_written for t in report.tables)) == (True, 450)


def test_of_two_machines_that_make_a_collection_at_once_one_is_refused_and_harms_nothing(
    source: Path, first: QdrantSettings, second: QdrantSettings
) -> None:
    api.migrate(source, first)
    with opened_source(first) as opened:
        tables = [t for t in opened.tables() if t.name == "t"]
    api.undo(first)
    loser = QdrantTarget(second, Options())
    loser.look(tables)
    loser.claim({"tables": []}, "run-of-the-loser", restart=False)
    assert api.migrate(source, first).verified
    with pytest.raises(SchemaError):
        loser.prepare(tables)
    loser.release()
    loser.undo()
    assert api.verify(source, first).verified


@pytest.fixture
def older(server: QdrantTestServer) -> QdrantTestServer:
    server.set_version("1.15.5")
    return server


def test_a_server_without_metadata_still_knows_whose_a_collection_is(
    older: QdrantTestServer, source: Path, first: QdrantSettings, second: QdrantSettings, tmp_path: Path
) -> None:
    assert api.migrate(source, first).verified
    assert api.migrate(first, tmp_path / "back.sqlite").verified
    with pytest.raises(SchemaError, match="another sidecar"):
        api.migrate(source, second)
    with pytest.raises(ConfigError, match="no sidecar"):
        api.migrate(second, tmp_path / "no.sqlite")
    api.undo(first)
    assert names(older, first) == set()


def test_rows_that_are_there_are_not_overwritten_where_the_server_cannot_insert_only(
    older: QdrantTestServer, source: Path, first: QdrantSettings
) -> None:
    assert api.migrate(source, first).verified
    client: Any = QdrantClient(url=older.url, check_compatibility=False)
    client.delete(first.prefix + "t", [7, 8])
    client.set_payload(first.prefix + "t", {"v": "written by the agent"}, points=[9])
    stores.made(source, "UPDATE t SET v = 'changed' WHERE id = 10")
    report = api.migrate(source, first, verify="counts")
    (t,) = (one for one in report.tables if one.name == "t")
    found = client.retrieve(first.prefix + "t", [7, 8, 9, 10])
    client.close()
    assert t.rows_written == 2
    assert {p.id: p.payload["v"] for p in found} == {
        7: "note 7",
        8: "note 8",
        9: "written by the agent",
        10: "note 10",
    }
