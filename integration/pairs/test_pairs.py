"""Round trips over all pairs of SQLite, Postgres, Qdrant (embedded, server) and Pinecone: each to each, and home."""

from __future__ import annotations

import itertools
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from integration.pinecone.backend_kit import address as pinecone_address
from integration.pinecone_emulator import PineconeEmulator
from integration.qdrant.backend_kit import impatient  # noqa: F401 - a fixture
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing, stores
from integration.support.comparing import same
from integration.support.servers import Postgres
from migrate import api
from migrate.config import QdrantSettings

KINDS = ("sqlite", "postgres", "edge", "server", "pinecone")
APART = (
    {"sqlite", "postgres"},  # have tests of their own
    {"server", "pinecone"},  # what Qdrant reads and writes is the same in a folder
)
PAIRS = [p for p in itertools.permutations(KINDS, 2) if {*p} not in APART]
Make = Callable[[str], Any]


def mixed(path: Path) -> Path:
    """Make a small generic store: keys of all kinds, children, vectors with and without a key, odd cells."""

    def fill(db: sqlite3.Connection) -> None:
        db.executescript(
            """
            CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, body TEXT, score REAL, tags JSON, data BLOB, embedding BLOB);
            CREATE TABLE link (a TEXT NOT NULL REFERENCES note (id), b TEXT NOT NULL, n INTEGER, PRIMARY KEY (a, b));
            CREATE TABLE seen (at INTEGER, what TEXT, embedding BLOB);
            CREATE TABLE plain (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
            """
        )
        for i in range(40):
            cells = stores.vector(*((i * k % 7) - 3.25 for k in range(1, 7))) if i % 6 else None
            db.execute(
                "INSERT INTO note VALUES (?, ?, ?, ?, ?, ?)",
                (f"n{i}", f"note {i} é😀", i / 7, f'{{"i": {i}, "x": [1, 1.5, null]}}', bytes([i]), cells),
            )
            db.execute("INSERT INTO link VALUES (?, ?, ?)", (f"n{i}", f"n{(i * 3) % 40}", 2**60 + i))
            db.execute(
                "INSERT INTO seen VALUES (?, ?, ?)", (i % 5, "again", stores.vector(1, i % 5, 2, 3, 4, 5))
            )
        db.executemany("INSERT INTO plain (v) VALUES (?)", [("a",), (None,), ("",)])

    return stores.made(path, fill)


@pytest.fixture
def make(
    tmp_path: Path, postgres: Postgres, qdrant: QdrantTestServer, pinecone: PineconeEmulator
) -> Iterator[Make]:
    """Return what makes the address of an empty store of a kind."""
    numbers = itertools.count(1)
    with postgres.database() as database:

        def fresh(kind: str) -> Any:
            n = next(numbers)
            if kind == "sqlite":
                return tmp_path / f"{n}.sqlite"
            if kind == "postgres":
                return database.at(f"store{n}")
            if kind == "edge":
                return QdrantSettings(path=tmp_path / f"store{n}")
            if kind == "pinecone":
                return pinecone_address(pinecone, tmp_path)
            side = str(tmp_path / f"side{n}.sqlite")
            prefix = f"{tmp_path.name}{n}_"
            return QdrantSettings(url=qdrant.url, grpc_port=qdrant.grpc_port, prefix=prefix, sidecar=side)

        yield fresh


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda kind: str(kind))
def test_a_store_comes_home_from_a_pair_of_stores(one: str, other: str, make: Make, tmp_path: Path) -> None:
    source, home = mixed(tmp_path / "source.sqlite"), tmp_path / "home.sqlite"
    first, second = make(one), make(other)
    assert api.migrate(source, first).verified
    assert api.migrate(first, second).verified
    assert api.migrate(second, home).verified
    same(comparing.sqlite_rows(home, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(home), comparing.sqlite_shape(source))
    assert api.verify(source, second, mode="full").verified


def test_a_brain_goes_through_all_of_them(make: Make, tmp_path: Path) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    at: Any = source
    for kind in ("edge", "pinecone", "postgres", "server", "sqlite"):
        there = make(kind)
        assert api.migrate(at, there).verified
        at = there
    same(comparing.sqlite_rows(at, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(at), comparing.sqlite_shape(source))


def test_a_postgres_store_comes_home_from_qdrant(make: Make, tmp_path: Path) -> None:
    source = mixed(tmp_path / "source.sqlite")
    first, middle, last = make("postgres"), make("edge"), make("postgres")
    api.migrate(source, first)
    assert api.migrate(first, middle).verified
    assert api.migrate(middle, last).verified
    assert api.verify(first, last).verified


def test_the_sidecar_may_be_a_postgres_schema(make: Make, tmp_path: Path) -> None:
    source, home = stores.brain(tmp_path / "brain.sqlite"), tmp_path / "home.sqlite"
    there = QdrantSettings(path=tmp_path / "store", sidecar=make("postgres"))
    assert api.migrate(source, there).verified
    assert not list(tmp_path.glob("store*.sqlite"))
    assert api.migrate(there, home).verified
    same(comparing.sqlite_rows(home, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(home), comparing.sqlite_shape(source))
    again = api.migrate(source, there)
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)
    assert {"memory_traces", "knowledge_nodes", "messages"} <= set(api.undo(there))
    assert not (tmp_path / "store").exists()


def test_undo_of_a_folder_leaves_no_file(make: Make, tmp_path: Path) -> None:
    source = mixed(tmp_path / "source.sqlite")
    assert api.migrate(source, f"qdrant:{tmp_path / 'store'}").verified
    assert api.undo(f"qdrant:{tmp_path / 'store'}") == ["link", "note", "plain", "seen"]
    assert [p.name for p in tmp_path.iterdir()] == ["source.sqlite"]
