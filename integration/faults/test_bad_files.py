"""Files that are no database: one line of error with a hint, nothing created, nothing changed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from integration.support import stores
from integration.support.servers import Database
from migrate import api
from migrate.errors import ConfigError, MigrateError


def _text(path: Path) -> None:
    path.write_text("# Notes\n\nThis is no database at all, but a long enough text.\n" * 100)


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    stores.brain(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _cut_within_a_page(path: Path) -> None:
    stores.brain(path)
    path.write_bytes(path.read_bytes()[:-100])


def _header_only(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def _encrypted(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(40 * 4096))


def _folder(path: Path) -> None:
    path.mkdir()


def _missing(path: Path) -> None:
    pass


BAD: dict[str, Callable[[Path], None]] = {
    "a text": _text,
    "empty": _empty,
    "truncated": _truncated,
    "cut within a page": _cut_within_a_page,
    "a header and nothing more": _header_only,
    "encrypted": _encrypted,
    "a folder": _folder,
    "missing": _missing,
}


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("kind", BAD)
def test_a_source_that_is_no_database_is_refused_in_one_line(
    kind: str, tmp_path: Path, database: Database
) -> None:
    BAD[kind](tmp_path / "bad.sqlite")
    before = everything(tmp_path)
    for target in (str(tmp_path / "target.sqlite"), database.at("store")):
        for dry_run in (True, False):
            with pytest.raises(ConfigError) as raised:
                api.migrate(tmp_path / "bad.sqlite", target, dry_run=dry_run)
            assert raised.value.exit_code == 2
            assert "bad.sqlite" in str(raised.value)
            assert "\n" not in str(raised.value)
            assert raised.value.hint
            assert "\n" not in raised.value.hint
    assert everything(tmp_path) == before
    assert database.run("SELECT 1 FROM pg_namespace WHERE nspname = 'store'") == []


@pytest.mark.parametrize("kind", ["a text", "truncated", "cut within a page", "encrypted", "a folder"])
def test_a_target_that_is_no_database_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    BAD[kind](tmp_path / "bad.sqlite")
    before = everything(tmp_path)
    with pytest.raises(ConfigError) as raised:
        api.migrate(source, tmp_path / "bad.sqlite")
    assert raised.value.hint
    assert everything(tmp_path) == before


def test_a_target_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    with pytest.raises(MigrateError) as raised:
        api.migrate(source, tmp_path / "no" / "such" / "b.sqlite")
    assert raised.value.exit_code == 2
    assert raised.value.hint
    assert not (tmp_path / "no").exists()


def test_a_damaged_page_stops_the_audit_and_names_its_table(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE fine (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE hurt (id INTEGER PRIMARY KEY, v TEXT)")
        db.executemany("INSERT INTO hurt VALUES (?, ?)", ((i, "x" * 500) for i in range(500)))
        db.commit()
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    data = bytearray(path.read_bytes())
    at = (pages - 5) * 4096
    data[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(MigrateError) as raised:
        api.migrate(path, tmp_path / "b.sqlite")
    assert raised.value.where.get("table") == "hurt"
    assert raised.value.hint
    assert not (tmp_path / "b.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://nobody:wrong@127.0.0.1:1/none", "server runs"),
        ("postgresql://u:p@no-such-host.invalid/db", "host"),
        ("mysql://u@h/db", "address"),
        ("postgresql://[broken", "postgresql://"),
    ],
)
def test_a_target_that_cannot_be_reached_is_refused_before_the_source_is_read(
    url: str, says: str, tmp_path: Path
) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    with pytest.raises(ConfigError) as raised:
        api.migrate(source, url)
    assert raised.value.hint
    assert says in raised.value.hint or "qdrant" in raised.value.hint
    assert "wrong" not in str(raised.value)


def test_a_wrong_password_is_said_so(tmp_path: Path, database: Database) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    with pytest.raises(ConfigError, match="password") as raised:
        api.migrate(source, database.role("memlift", "wr0ng").at("store"))
    assert "wr0ng" not in str(raised.value)
    with pytest.raises(ConfigError, match="password"):
        api.migrate(database.role("memlift", "wr0ng").at("store"), tmp_path / "b.sqlite")
    assert not (tmp_path / "b.sqlite").exists()
