"""A full disk stops the run with place, cause and hint; once there is room, the run goes on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from integration.support import comparing, stores
from integration.support.child import run
from integration.support.comparing import same
from integration.support.servers import Database, Postgres
from migrate import api


def _eight_megabytes(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
    db.execute("CREATE TABLE later (id INTEGER PRIMARY KEY, v TEXT)")
    for i in range(4000):
        db.execute("INSERT INTO t VALUES (?, randomblob(2000))", (i,))
        db.execute("INSERT INTO later VALUES (?, ?)", (i, f"row {i}"))


def test_a_full_disk_of_a_sqlite_target_stops_the_run_until_there_is_room(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    source = stores.made(tmp_path / "a.sqlite", _eight_megabytes)
    target = small_disk("5m") / "b.sqlite"
    for _ in range(2):
        ended = run(source, target, commit_bytes=200_000)
        assert ended.status == 1, ended.said
        assert "full" in ended.said["message"]
        assert "make room" in ended.said["hint"]
        assert ended.said["where"]
    small_disk("60m")
    ended = run(source, target, commit_bytes=200_000)
    assert ended.status == 0, ended.said
    assert ended.said["report"]["resumed"]
    assert ended.said["report"]["verified"]
    same(comparing.sqlite_state(target), comparing.sqlite_state(source))


def test_a_full_disk_of_a_postgres_target_stops_the_run_until_there_is_room(
    tmp_path: Path, small_disk: Callable[[str], Path], postgres: Postgres, database: Database
) -> None:
    source = stores.made(tmp_path / "a.sqlite", _eight_megabytes)
    place = small_disk("5m")
    place.chmod(0o755)
    place = place / "space"
    place.mkdir()
    owner = postgres.server.data.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    name = database.run("SELECT current_database()")[0][0]
    postgres.main.run(f"CREATE TABLESPACE small LOCATION '{place}'")
    database.run(f"ALTER DATABASE {name} SET default_tablespace = small")
    try:
        ended = run(source, database.at("store"), commit_bytes=200_000)
        assert ended.status == 1, ended.said
        assert "No space left" in ended.said["message"]
        assert "disk is full" in ended.said["hint"]
        assert ended.said["where"]["table"] == "t"
        small_disk("60m")
        ended = run(source, database.at("store"), commit_bytes=200_000)
        assert ended.status == 0, ended.said
        assert ended.said["report"]["resumed"]
        assert api.verify(source, database.at("store")).verified
    finally:
        database.run("DROP SCHEMA IF EXISTS store CASCADE")
        database.run(f"ALTER DATABASE {name} RESET default_tablespace")
        postgres.main.run("DROP TABLESPACE small")


def _vectors(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB, v BLOB)")
    for i in range(4000):
        vector = stores.vector(*(float(i + k % 7) for k in range(512)))
        db.execute("INSERT INTO t VALUES (?, ?, randomblob(3000))", (i, vector))


def test_a_full_disk_of_an_embedded_qdrant_stops_the_run_until_there_is_room(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    """The engine maps its files, so the kernel ends it (SIGBUS) where a page has no room."""
    source = stores.made(tmp_path / "a.sqlite", _vectors)
    target = f"qdrant:{small_disk('50m')}/store?sidecar={tmp_path}/side.sqlite"
    ended = run(source, target, commit_bytes=1_000_000)
    assert ended.status == 1, ended.said
    assert "disk is full" in ended.said["message"]
    assert "make room" in ended.said["hint"]
    small_disk("600m")
    ended = run(source, target, commit_bytes=1_000_000)
    assert ended.status == 0, ended.said
    assert ended.said["report"]["resumed"]
    assert ended.said["report"]["verified"]
