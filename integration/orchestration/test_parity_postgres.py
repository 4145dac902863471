"""Faults planted in a migrated Postgres are found by a check of search, and a sound store passes."""

from __future__ import annotations

import json
import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.support.servers import Database, Postgres
from migrate import api, cli, footprint
from migrate.errors import VerifyError
from migrate.report import Report
from migrate.search.parity import Thresholds, Wanted

SMALL = Wanted(queries=12, k=5)
DIM = 16
WORDS = ["river", "stone", "cloud", "amber", "violet", "harbour", "lantern", "meadow", "copper", "thunder"]
ROWS = 240


def agent(path: Path, rows: int = ROWS) -> Path:
    """Make an agent's store: clustered vectors of different lengths, words, numbers, JSON, tenants."""
    rng = random.Random(5)
    centres = [[rng.gauss(0, 1) for _ in range(DIM)] for _ in range(12)]
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, agent_id TEXT, strength REAL, kind TEXT,"
            " metadata JSON, embedding BLOB)"
        )
        for i in range(rows):
            length = rng.uniform(0.3, 3)
            vector = [length * (x + 0.5 * rng.gauss(0, 1)) for x in centres[i % 12]]
            db.execute(
                "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    i,
                    " ".join(rng.sample(WORDS, 4)),
                    rng.choice(["ada", "bob"]),
                    round(rng.random(), 3),
                    rng.choice(["episodic", "semantic"]),
                    json.dumps({"user": {"name": rng.choice(["Ada", "Cy"])}, "n": i % 7, "ok": i % 3 == 0}),
                    struct.pack(f"<{DIM}f", *vector),
                ),
            )
        db.commit()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent(tmp_path_factory.mktemp("agent") / "agent.sqlite")


@pytest.fixture(scope="module")
def moved(postgres: Postgres, source: Path) -> Iterator[tuple[Database, Report]]:
    """One migrated store; tests that spoil it mend it again."""
    with postgres.database() as database:
        yield database, api.migrate(source, database.at("agent"), check_search=SMALL)


def checked(source: Path, database: Database, wanted: Wanted = SMALL) -> dict[str, Any]:
    """Return the `search` of a verification, whether it passed or not."""
    try:
        report: Report | None = api.verify(source, database.at("agent"), mode="none", search=wanted)
    except VerifyError as exc:
        report = exc.report
    assert report is not None
    assert report.search is not None
    return report.search


def index_of(database: Database) -> tuple[str, str]:
    """Return name and definition of the one vector index."""
    ((name, definition),) = database.run(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'agent' AND indexdef LIKE '%hnsw%'"
    )
    return name, definition


def test_a_migration_with_a_check_of_search_reports_it(moved: tuple[Database, Report]) -> None:
    _, report = moved
    assert report.verified
    assert report.search is not None
    assert report.search["passed"]
    assert report.search["recall_at_k"] >= 0.99
    assert report.search["filter_parity"] == 1
    assert report.search["score_drift"]["max"] < 1e-6  # cosine in float32 on one side, float64 on the other
    assert report.search["keyword_overlap"] > 0.5
    assert report.search["latency_ms"]["target"]["p95"] > 0
    (facts,) = report.search["tables"]
    assert facts["filters"]["run"] > 12
    assert facts["index"]["index"]


def test_a_sound_store_passes_with_every_threshold_tight(
    source: Path, moved: tuple[Database, Report]
) -> None:
    tight = Wanted(
        queries=8, thresholds=Thresholds(min_recall=0.99, min_correlation=0.99, max_score_drift=1e-6)
    )
    assert checked(source, moved[0], tight)["failures"] == []


def no_index(db: Database) -> None:
    db.run(f"DROP INDEX agent.{index_of(db)[0]}")


def other_metric(db: Database) -> None:
    name, definition = index_of(db)
    assert "vector_cosine_ops" in definition
    db.run(f"DROP INDEX agent.{name}", definition.replace("vector_cosine_ops", "vector_l2_ops"))


def half_built(db: Database) -> None:
    # What an interrupted CREATE INDEX CONCURRENTLY leaves.
    name = index_of(db)[0]
    db.run(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'agent.{name}'::regclass")


FAULTS: dict[str, tuple[Callable[[Database], None], str]] = {
    "no index": (no_index, "there is no vector index"),
    "an index by another metric": (other_metric, "is built for euclid, the vectors are compared by cosine"),
    "a half-built index": (half_built, "is half built"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_index_that_is_wrong_is_found_unless_none_was_to_be_there(
    fault: str, source: Path, moved: tuple[Database, Report]
) -> None:
    database = moved[0]
    plant, says = FAULTS[fault]
    before = index_of(database)
    plant(database)
    try:
        found = checked(source, database)
        lenient = checked(source, database, Wanted(queries=4, k=5, indexed=False))
    finally:
        for (name,) in database.run(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'agent' AND indexdef LIKE '%hnsw%'"
        ):
            database.run(f"DROP INDEX agent.{name}")
        database.run(before[1])
    assert not found["passed"]
    assert any(says in failure for failure in found["failures"]), found["failures"]
    assert found["recall_at_k"] == 1  # the answers are right all the same: only the look at the index tells
    assert lenient["failures"] == []


def spoiled(database: Database, change: str, mend: str) -> Callable[[], Any]:
    database.run(change)
    return lambda: database.run(mend)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        # A JSON true that arrived as the text "true", and numbers that arrived as texts.
        (
            """UPDATE agent.facts SET metadata = jsonb_set(metadata, '{ok}', '"true"') WHERE metadata @> '{"ok": true}'""",
            "ok",
        ),
        (
            """UPDATE agent.facts SET metadata = jsonb_set(metadata, '{n}', '"3"') WHERE metadata @> '{"n": 3}'""",
            "n",
        ),
        ("UPDATE agent.facts SET kind = upper(kind)", "kind"),
        ("UPDATE agent.facts SET strength = strength + 0.5", "strength"),
    ],
)
def test_values_that_filters_miss_are_found_and_the_filter_named(
    change: str, names: str, source: Path, moved: tuple[Database, Report]
) -> None:
    database = moved[0]
    database.run("CREATE TABLE kept AS TABLE agent.facts", change)
    try:
        found = checked(source, database)
    finally:
        database.run(
            "UPDATE agent.facts f SET metadata = k.metadata, kind = k.kind, strength = k.strength FROM kept k WHERE k.id = f.id",
            "DROP TABLE kept",
        )
    assert found["filter_parity"] < 1
    different = [d["filter"] for d in found["tables"][0]["filters"]["different"]]
    assert any(names in text for text in different), different
    assert any("filter parity" in failure for failure in found["failures"])


def test_vectors_of_less_precision_and_missing_ones_are_found(
    source: Path, moved: tuple[Database, Report]
) -> None:
    database = moved[0]
    database.run("CREATE TABLE kept AS SELECT id, embedding FROM agent.facts")
    try:
        database.run("UPDATE agent.facts SET embedding = embedding::halfvec::vector")
        halved = checked(source, database)
        database.run("UPDATE agent.facts SET embedding = NULL WHERE id % 3 = 0")
        fewer = checked(source, database)
    finally:
        database.run(
            "UPDATE agent.facts f SET embedding = k.embedding FROM kept k WHERE k.id = f.id",
            "DROP TABLE kept",
        )
    assert any("scores drift" in failure for failure in halved["failures"])
    assert fewer["recall_at_k"] < 0.8
    assert checked(source, database)["passed"]


def test_the_command_checks_search_and_exits_with_3(
    source: Path, moved: tuple[Database, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = moved[0]
    vector = tmp_path / "vector.json"
    vector.write_text(json.dumps([0.5] * DIM))
    words = ["verify", str(source), database.at("agent"), "--search", "--queries", "6", "-k", "5", "--quiet"]
    more = ["--vector", str(vector), "--filter", '{"metadata.user.name": "Ada"}']
    assert cli.main([*words, *more, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"]
    assert told["search"]["queries"] == 7
    assert {"recall_at_k", "rank_correlation", "filter_parity", "latency_ms"} <= told["search"].keys()

    assert cli.main([*words, "--mode", "none", "--max-latency-ratio", "0.0001"]) == 3
    page = capsys.readouterr()
    assert "p95 is" in page.out
    assert "search does not find the same" in page.out
    assert "error: search in the target does not find the same: facts: p95" in page.err

    assert cli.main([*words[:3], "--min-recall", "0.5"]) == 2
    assert "no check was asked for" in capsys.readouterr().err


def test_an_index_takes_what_the_formula_says(moved: tuple[Database, Report]) -> None:
    database = moved[0]
    for rows, dim in ((3_000, 24), (300, 768), (40, 1536), (60, 2400)):
        kind = "vector" if dim <= 2000 else "halfvec"
        database.run(
            "DROP TABLE IF EXISTS v",
            f"CREATE TABLE v (id int, e {kind}({dim}))",
            f"INSERT INTO v SELECT i, (SELECT array_agg(random() + i * 0 + j * 0) FROM generate_series(1, {dim}) j)::{kind}"
            f" FROM generate_series(1, {rows}) i",
            f"CREATE INDEX v_e ON v USING hnsw (e {kind}_cosine_ops)",
        )
        ((size,),) = database.run("SELECT pg_relation_size('v_e')")
        assert footprint.pgvector([(rows, dim)]) == pytest.approx(size, rel=0.1), (rows, dim)
    database.run("DROP TABLE v")
