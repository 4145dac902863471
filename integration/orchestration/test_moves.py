"""Moves between real tiers, and a kill -9 at every step of one: the address changes at the end or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.support.servers import Database
from integration.support.stores import BRAIN, vector
from migrate import api
from migrate.errors import VerifyError
from migrate.promotion import Move, promote, where_is

ROOT = Path(__file__).resolve().parents[2]
POINTS = (
    "promote.advised:1",
    "promote.ready:1",
    "copy.after_commit:3",
    "verify.batch:4",
    "promote.proven:1",
    "promote.saved:1",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("MEMLIFT_HOME", str(folder))
    for name in ("DATABASE_URL", "QDRANT_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(BRAIN, tmp_path / "brain.sqlite"))


def memlift(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which may be killed."""
    return subprocess.run(
        [sys.executable, "-m", "migrate", *map(str, words), "--quiet"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def memories(home: Path) -> dict[str, Any]:
    path = home / "vector-store.json"
    found: dict[str, Any] = json.loads(path.read_text()).get("memories", {}) if path.exists() else {}
    return found


def test_a_move_that_is_killed_anywhere_changes_no_address_and_goes_on(
    brain: Path, home: Path, database: Database
) -> None:
    before = brain.read_bytes()
    for point in POINTS:
        killed = memlift(
            "migrate", brain, "--to-tier", "postgres", DATABASE_URL=database.url, MEMLIFT_FAILPOINT=point
        )
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        assert brain.read_bytes() == before
        # The one point after the address was written: there the move is done.
        assert bool(memories(home)) == (point == "promote.saved:1"), point
    done = memlift("migrate", brain, "--to-tier", "postgres", "--json", DATABASE_URL=database.url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verified"]
    assert told["search"]["passed"]
    assert told["promotion"]["moved"]
    (entry,) = memories(home).values()
    assert entry["tier"] == "postgres"
    assert entry["previous"] == str(brain)
    # An address by a variable: its secrets stay where they were.
    assert entry["address"] == {"type": "postgres", "schema": told["promotion"]["name"]}
    assert str(urlsplit(database.url).password) not in (home / "vector-store.json").read_text()
    assert stat.S_IMODE((home / "vector-store.json").stat().st_mode) == 0o600
    assert database.run(f"SELECT count(*) FROM {told['promotion']['name']}.memory_traces") == [(317,)]


def test_a_memory_goes_through_all_tiers_and_back_to_a_file_under_one_name(
    brain: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    names, address = set(), None
    for tier in ("postgres", "qdrant", "sqlite"):
        report = promote(address or brain, Move(tier, auto_setup="embedded" if tier == "qdrant" else False))
        assert report.promotion is not None
        assert report.search is not None
        assert (report.promotion["tier"], report.promotion["moved"]) == (tier, True)
        assert report.search["recall_at_k"] >= 0.99
        names.add(report.promotion["name"])
        address = where_is(brain)
        assert address is not None
        assert address["type"] == tier
    assert len(names) == 1
    assert address is not None
    assert api.verify(brain, address, search=True).verified
    stays = promote(address)
    assert stays.promotion is not None
    assert (stays.promotion["moved"], stays.promotion["name"]) == (False, names.pop())


def test_a_target_that_does_not_find_the_same_gets_no_address(
    brain: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    report = promote(brain, Move("postgres"))
    (home / "vector-store.json").unlink()
    assert report.promotion is not None
    schema = report.promotion["name"]
    ((index, definition),) = database.run(
        "SELECT indexname, indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%'"
        f" AND schemaname = '{schema}' AND tablename = 'memory_traces'"
    )
    # Made by somebody with another operator class, under the name that memlift's has.
    database.run(f'DROP INDEX {schema}."{index}"', definition.replace("vector_cosine_ops", "vector_l2_ops"))
    with pytest.raises(VerifyError, match="does not find the same"):
        promote(brain, Move("postgres"))
    assert memories(home) == {}


def test_the_command_says_that_a_store_is_in_its_tier(brain: Path, home: Path) -> None:
    done = memlift("migrate", brain, "--to-tier", "auto")
    assert done.returncode == 0
    assert "it stays in sqlite" in done.stdout
    assert "nothing was done" in done.stdout
    assert not (home / "vector-store.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to-tier", "postgres"), "nobody allowed one to be set up"),
        (("--to-tier", "nowhere"), "there is no tier 'nowhere'"),
        (("out.sqlite", "--to-tier", "auto"), "takes a TARGET, or --to-tier"),
        ((), "takes a TARGET, or --to-tier"),
        (("out.sqlite", "--no-servers"), "matters only with --to-tier auto"),
        (("--to-tier", "auto", "--threshold", "sqlite+hnsw=10", "--threshold", "sqlite=5"), "postgres"),
        (("--to-tier", "auto", "--writers", "9", "--no-servers"), "Pinecone"),
        (("--to-tier", "sqlite+hnsw"), "no index was built"),
        (("--to-tier", "auto", "--table", "messages"), "a part of a store cannot take its place"),
    ],
)
def test_what_cannot_be_moved_is_told_with_exit_code_2(
    brain: Path, home: Path, words: tuple[str, ...], says: str
) -> None:
    done = memlift("migrate", brain, *words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert memories(home) == {}


def test_an_index_beside_a_file_is_built_checked_and_named(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("hnswlib")
    path, rng = tmp_path / "many.sqlite", random.Random(4)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, embedding BLOB)")
        db.executemany(
            "INSERT INTO facts VALUES (?, ?, ?)",
            (
                (i, f"fact number {i}", vector(*(rng.gauss(0, 1) * (i % 8 == 0) for _ in range(8))))
                for i in range(9_600)  # of most an embedder made nothing, as of empty texts
            ),
        )
        db.commit()
    before = path.read_bytes()
    report = promote(path)
    assert report.promotion is not None
    assert (report.promotion["tier"], report.promotion["before"]) == ("sqlite+hnsw", "sqlite")
    assert report.search is not None
    assert report.search["recall_at_k"] >= 0.95
    assert path.read_bytes() == before
    assert where_is(path) == {"type": "sqlite", "path": str(path)}
    again = promote(path)
    assert again.promotion is not None
    assert not again.promotion["moved"]
