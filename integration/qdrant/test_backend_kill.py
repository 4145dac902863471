"""`kill -9` at seeded moments of a run into Qdrant, embedded and served.

The same command is run again, and may be killed again; the end must be what an uninterrupted run
makes: every point with its payload and vectors, every row of the sidecar, positions, exact cells.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient

from integration.qdrant.backend_kit import address, url_of
from integration.qdrant_server import QdrantTestServer
from integration.support import comparing, stores
from integration.support.child import Ended, run
from integration.support.comparing import same
from migrate import api
from migrate.backends.qdrant.books import BOOKS

OPTIONS: dict[str, Any] = {
    "on_misfit": "quarantine",
    "batch_size": 40,
    "patches": {"migrate.backends.qdrant.server:POLL_S": 0.05},
}
SEEDS = [pytest.param(n, marks=[] if n < 5 else pytest.mark.slow) for n in range(50)]
Points = dict[Any, tuple[Any, Any]]


def sidecar_state(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as db:
        books = comparing.books(lambda sql: db.execute(sql).fetchall(), "")
        places = db.execute(
            "SELECT name, place, definition FROM memlift_places WHERE name <> '' ORDER BY 1"
        ).fetchall()
    return {"rows": comparing.sqlite_rows(path), "books": books, "places": places}


def edge_points(folder: Path) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for path in sorted(folder.glob("*/edge_config.json")):
        shard = edge.EdgeShard.load(str(path.parent))
        records, _ = shard.scroll(edge.ScrollRequest(limit=5000, with_payload=True, with_vector=True))
        found[path.parent.name] = {str(r.id): (r.payload, r.vector) for r in records}
        shard.close()
    assert not list(folder.glob(".dropped-*"))
    return found


def books_told(client: QdrantClient, name: str) -> dict[str, Any]:
    """What the server was told: whether the run is done, who holds it, how far each table has got."""
    records, _ = client.scroll(name, limit=5000)
    found: dict[str, Any] = {}
    for record in (r.payload or {} for r in records):
        if record["kind"] == "table":
            found[json.loads(record["table"])["name"]] = json.loads(record.get("position", "null"))
        else:
            found[record["kind"]] = record["done"] if record["kind"] == "run" else record["owner"]
    return found


class Pair:
    """A source, a target that can be emptied, and a way to see all that is in the target."""

    def __init__(
        self, source: Path, target: str, state: Callable[[], Any], empty: Callable[[], None]
    ) -> None:
        self.source, self.target, self.state, self.empty = source, target, state, empty

    def run(self, failpoint: str | None = None, **more: Any) -> Ended:
        return run(self.source, self.target, failpoint=failpoint, **{**OPTIONS, **more})


def to_edge(folder: Path) -> Pair:
    store, side = folder / "store", folder / "store.memlift.sqlite"

    def state() -> Any:
        return {"points": edge_points(store), "side": sidecar_state(side)}

    def empty() -> None:
        shutil.rmtree(store)
        for path in folder.glob("store.memlift.sqlite*"):
            path.unlink()

    return Pair(stores.crash_store(folder / "a.sqlite"), f"qdrant:{store}", state, empty)


def to_server(folder: Path, server: QdrantTestServer) -> Pair:
    there = address(server, folder)
    side = Path(there.sidecar or "")

    def state() -> Any:
        client = QdrantClient(url=server.url, check_compatibility=False)
        found: dict[str, Points] = {}
        told: dict[str, Any] = {}
        for one in client.get_collections().collections:
            if one.name == there.prefix + BOOKS:
                told = books_told(client, one.name)
            elif one.name.startswith(there.prefix):
                records, _ = client.scroll(one.name, limit=5000, with_vectors=True)
                found[one.name.removeprefix(there.prefix)] = {
                    str(r.id): (r.payload, r.vector) for r in records
                }
        client.close()
        return {"points": found, "side": sidecar_state(side), "told": told}

    def empty() -> None:
        api.undo(there)
        for path in folder.glob(f"{side.name}*"):
            path.unlink()

    return Pair(stores.crash_store(folder / "a.sqlite"), url_of(there), state, empty)


@pytest.fixture(params=["edge", "server"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "edge":
        yield to_edge(tmp_path)
    else:
        yield to_server(tmp_path, request.getfixturevalue("server"))


_ends: dict[str, tuple[Any, int]] = {}


def uninterrupted(pair: Pair) -> tuple[Any, int]:
    """Return what a run makes that nobody disturbs, and how many points it passes; the target is empty."""
    kind = pair.target.partition(":")[0]
    if kind not in _ends:
        ended = pair.run("*:0")
        assert ended.status == 0, ended.said
        _ends[kind] = pair.state(), sum(ended.said["hits"].values())
        pair.empty()
    return _ends[kind]


def plain(state: Any, pair: Pair) -> Any:
    """Take out of a state what differs between two targets of one kind: their prefix."""
    prefix = pair.target.partition("prefix=")[2].partition("&")[0]
    side = state["side"]
    places = [(name, place.removeprefix(prefix), text) for name, place, text in side["places"]]
    return {**state, "side": {**side, "places": places}}


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
    found = pair.state()
    same(found["points"], wanted["points"])
    same(plain(found, pair)["side"], _unprefixed(wanted))
    told, all_told = found.get("told", {}), wanted.get("told", {})
    # A run that was killed when all was done is followed by one with nothing to do, so without positions.
    assert {k: v for k, v in all_told.items() if told.get(k, 0) is not None} == {
        k: v for k, v in told.items() if v is not None
    }


def _unprefixed(wanted: Any) -> Any:
    side = wanted["side"]
    places = [(name, name if place.endswith(name) else place, text) for name, place, text in side["places"]]
    return {**side, "places": places}


def test_a_source_that_changes_between_kill_and_resume_is_carried_as_it_is_at_the_end(pair: Pair) -> None:
    _, hits = uninterrupted(pair)
    assert pair.run(f"*:{hits * 2 // 3}").killed
    stores.change(pair.source)
    assert pair.run("mend.after_amend:1").status in (0, -9)
    ended = pair.run()
    assert ended.status == 0, ended.said
    resumed = pair.state()
    pair.empty()
    assert pair.run().status == 0
    again = pair.state()
    same(resumed["points"], again["points"])
    same(resumed["side"]["rows"], again["side"]["rows"])
    same(resumed["side"]["books"]["exact"], again["side"]["books"]["exact"])


def test_the_places_of_a_commit_are_passed(pair: Pair) -> None:
    hits = pair.run("*:0").said["hits"]
    assert {"commit.settled", "commit.inside", "prepare.inside", "copy.append", "index.before"} <= set(hits)
