"""`kill -9` at seeded moments of a run into Pinecone.

The same command is run again, and may be killed again; the end must be what an uninterrupted run
makes: every record, every row of the sidecar, positions, exact cells, indexes and our notes in them.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.pinecone.backend_kit import address, client, endpoint, family, records
from integration.pinecone_emulator import PineconeEmulator
from integration.support import comparing, stores
from integration.support.child import Ended, run
from integration.support.comparing import same
from migrate import api

OPTIONS: dict[str, Any] = {
    "on_misfit": "quarantine",
    "batch_size": 40,
    "verify": "full",
    "patches": {
        "migrate.backends.pinecone.control:POLL_S": 0.02,
        "migrate.backends.pinecone.fresh:_FIRST_S": 0.005,
    },
}
SEEDS = [pytest.param(n, marks=[] if n < 10 else pytest.mark.slow) for n in range(100)]


def source_of(folder: Path) -> Path:
    """Make a store with keys of all kinds, vectors of two dimensions, and vectors without a key."""
    path = stores.crash_store(folder / "a.sqlite")
    rng = random.Random(8)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE seen (what TEXT, data BLOB, embedding BLOB);"
            "CREATE TABLE image (a TEXT NOT NULL, b INTEGER NOT NULL, embedding BLOB, PRIMARY KEY (a, b));"
        )
        for i in range(150):
            cells = stores.vector(*(rng.gauss(0, 1) for _ in range(4))) if i % 4 else None
            db.execute(
                "INSERT INTO seen VALUES (?, ?, ?)",
                (f"w{i % 20}", b"x" if i % 11 == 0 else None, cells if i % 30 else bytes(16)),
            )
            db.execute(
                "INSERT INTO image VALUES (?, ?, ?)",
                (f"é{i % 9}", i, stores.vector(*(rng.gauss(0, 1) for _ in range(6)))),
            )
        db.commit()
    return path


def changed(path: Path) -> None:
    stores.change(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            DELETE FROM seen WHERE rowid % 13 = 1;
            UPDATE seen SET embedding = NULL WHERE rowid % 17 = 2;
            INSERT INTO seen SELECT * FROM seen WHERE rowid < 9;
            UPDATE image SET embedding = zeroblob(24) WHERE b % 19 = 0;
            DELETE FROM image WHERE b % 23 = 5;
            """
        )
        db.commit()


class Pair:
    """A source, a target that can be emptied, and a way to see all that is in the target."""

    def __init__(self, emulator: PineconeEmulator, folder: Path) -> None:
        self.source, self._folder, self._emulator = source_of(folder), folder, emulator
        self.at = address(emulator, folder)

    def run(self, failpoint: str | None = None, **more: Any) -> Ended:
        return run(self.source, endpoint(self.at), failpoint=failpoint, **{**OPTIONS, **more})

    def state(self) -> dict[str, Any]:
        path = Path(str(self.at.sidecar))
        with closing(sqlite3.connect(path)) as db:
            books = comparing.books(lambda sql: db.execute(sql).fetchall(), "")
            places = db.execute(
                "SELECT name, place, definition FROM memlift_places WHERE name <> '' ORDER BY 1"
            ).fetchall()
        base = str(self.at.index)
        found = {(n.removeprefix(base), s): kept for (n, s), kept in records(self._emulator, self.at).items()}
        return {
            "records": found,
            "rows": comparing.sqlite_rows(path),
            "books": books,
            "places": [(name, place.removeprefix(base), text) for name, place, text in places],
            "notes": {name.removeprefix(base): self._notes(name) for name in family(self._emulator, self.at)},
        }

    def _notes(self, name: str) -> set[tuple[str, str]]:
        with client(self._emulator) as pc, pc.index(name=name) as index:
            ids = [str(i.id) for page in index.list(namespace="memlift_places") for i in page.vectors]
            told = index.fetch(ids=ids, namespace="memlift_places").vectors if ids else {}
            return {(one, str(v.metadata["table"])) for one, v in told.items() if v.metadata}

    def empty(self) -> None:
        api.undo(self.at)
        for path in self._folder.glob(f"{Path(str(self.at.sidecar)).name}*"):
            path.unlink()


@pytest.fixture
def pair(emulator: PineconeEmulator, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(emulator, tmp_path)
    yield made
    made.empty()


_ends: list[tuple[Any, int]] = []


def uninterrupted(pair: Pair) -> tuple[Any, int]:
    """Return what a run makes that nobody disturbs, and how many points it passes; the target is empty."""
    if not _ends:
        ended = pair.run("*:0")
        assert ended.status == 0, ended.said
        _ends.append((pair.state(), sum(ended.said["hits"].values())))
        pair.empty()
    return _ends[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_killed_at_any_points_ends_as_one_that_was_not(seed: int, pair: Pair) -> None:
    rng = random.Random(seed)
    wanted, hits = uninterrupted(pair)
    points = [f"*:{rng.randint(1, hits)}" for _ in range(rng.randint(1, 3))]
    for point in points:
        ended = pair.run(point)
        if not ended.killed:
            assert ended.status == 0, ended.said
    ended = pair.run()
    assert ended.status == 0, (points, ended.said)
    assert ended.said["report"]["verified"], points
    same(pair.state(), wanted)


@pytest.mark.parametrize("point", ["copy.append:20", "copy.after_commit:9", "amend.sent:1"])
def test_a_source_that_changed_after_a_kill_is_what_the_run_ends_with(point: str, pair: Pair) -> None:
    assert pair.run("copy.after_commit:12").killed
    changed(pair.source)
    assert pair.run(point).status in (0, -9)
    ended = pair.run()
    assert ended.status == 0, ended.said
    resumed = pair.state()
    assert api.verify(pair.source, pair.at, mode="full").verified
    pair.empty()
    assert pair.run().status == 0
    again = pair.state()
    for name in ("rows", "places", "notes"):
        same(resumed[name], again[name])
    same(_without_numbers(resumed["records"]), _without_numbers(again["records"]))
    same(resumed["books"]["exact"], again["books"]["exact"])


def _without_numbers(found: dict[Any, Any]) -> dict[Any, Any]:
    """Take the ids out of records whose rows have no key: rows that were mended come after the others."""
    return {
        place: sorted(map(repr, kept.values())) if place[1] == "seen" else kept
        for place, kept in found.items()
    }


def test_the_places_of_a_commit_are_passed(pair: Pair) -> None:
    hits = pair.run("*:0").said["hits"]
    assert {"commit.settled", "commit.inside", "prepare.inside", "prepare.made", "copy.append"} <= set(hits)
