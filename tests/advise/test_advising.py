"""Advice over real files: what was measured, what follows, and the command."""

from __future__ import annotations

import json
import shlex
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import migrate
from migrate import cli, measuring, tiers
from migrate.addresses import parse
from migrate.advising import advise, command
from migrate.cli_advise import advice_text
from migrate.cli_text import Page
from migrate.config import QdrantSettings
from migrate.errors import ConfigError
from migrate.inspect import inspect
from migrate.measuring import measured_latency
from migrate.search.base import Query
from tests.parity.fake_search import FakeStore, notes, rows

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def brain(path: Path, vectors: int, *, weeks: int = 0, tenants: int = 1, dim: int = 4) -> Path:
    """Make a store whose rows came evenly over some weeks (or all in one hour)."""
    span = weeks * 7 * 86_400_000 or 3_600_000
    newest = int(NOW.timestamp() * 1000)
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, agent_id TEXT, created_at INTEGER, embedding BLOB)"
        )
        db.executemany(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?)",
            (
                (
                    i,
                    f"fact {i}",
                    f"a{i % tenants}",
                    newest - i * span // vectors,
                    struct.pack(f"<{dim}f", *([i + 0.5] * dim)),
                )
                for i in range(vectors)
            ),
        )
        db.commit()
    return path


def test_a_small_store_stays_where_it_is(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 300), now=NOW)
    assert (found.tier, found.current, found.move, found.command) == ("sqlite", "sqlite", None, None)
    m = found.measured
    assert (m["rows"], m["vectors"], m["tables"], m["exact"]) == (300, 300, 1, True)
    assert m["vector_bytes"] == 300 * 16
    assert m["dims"] == [{"table": "facts", "vectors": 300, "metric": None, "column": "embedding", "dim": 4}]
    assert m["growth"] is None
    assert "fewer than two of the last weeks" in m["growth_note"]
    assert m["latency_ms"]["p95"] >= m["latency_ms"]["p50"] > 0
    assert m["latency_ms"]["table"] == "facts"
    assert m["writers"]["count"] == 0
    assert found.next["tier"] == "sqlite+hnsw"
    assert (found.next["at_vectors"], found.next["left"], found.next["due"]) == (1_001, 701, None)
    assert "growth not seen" in found.next["says"]


def test_a_growing_store_gets_a_date(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 700, weeks=10, tenants=3), now=NOW)
    growth = found.measured["growth"]
    assert growth["per_week"] == pytest.approx(70, abs=2)
    assert growth["column"] == "facts.created_at"
    due = datetime.fromisoformat(found.next["due"]).replace(tzinfo=UTC)
    assert due - NOW == pytest.approx(timedelta(weeks=301 / 70), abs=timedelta(days=3))
    assert found.measured["tenants"] == {
        "count": 3,
        "columns": "agent_id",
        "largest_rows": 234,
        "exact": True,
    }


def test_a_store_that_hardly_grows_is_not_due_within_five_years(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 20, weeks=20), now=NOW)
    assert found.next["due"] is None
    assert found.next["says"] == "not within 5 years at the growth that was seen"


def test_a_store_that_stopped_growing_has_a_date_with_an_if(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 700, weeks=10), now=NOW + timedelta(weeks=30))
    assert found.measured["growth"]["stale"]
    assert "if it grows again as it did until 2026-06-01" in found.next["says"]


def test_a_move_has_reasons_a_price_and_a_command_that_the_parser_takes(tmp_path: Path) -> None:
    store = brain(tmp_path / "it's a brain.sqlite", 1_200)
    for limits, tier, memory in (
        ({}, "sqlite+hnsw", {"float32"}),
        ({"sqlite+hnsw": 1_100}, "postgres", {"float32", "build"}),
        ({"sqlite+hnsw": 1_100, "postgres": 1_100}, "qdrant", {"float32", "scalar", "binary"}),
    ):
        found = advise(store, thresholds=limits, now=NOW)
        assert (found.tier, found.current) == (tier, "sqlite")
        assert found.move is not None
        assert found.move["to"] == tier
        assert 0 < found.move["seconds"]["low"] < found.move["seconds"]["high"]
        assert found.move["disk_bytes"] > 0
        assert found.move["memory_bytes"].keys() == memory
        assert found.command is not None
        words = shlex.split(found.command)
        assert words[0] == "memlift"
        args = cli.parser(words[1:]).parse_args(words[1:])
        assert (args.source, args.to_tier, args.target) == (str(store), tier, None)
        assert bool(args.auto_setup) == (tier in ("postgres", "qdrant"))
        assert found.thresholds["sqlite"] == 1_000


def test_the_command_names_the_sidecar_and_no_secret_of_it(tmp_path: Path) -> None:
    store = QdrantSettings(
        path=tmp_path / "q", prefix="a_", sidecar="postgresql://me:hidden@db/side?schema=s"
    )
    words = shlex.split(command(store, tiers.tier("pinecone")))
    assert words[2] == f"qdrant:{tmp_path}/q?prefix=a_&sidecar=postgresql://me:***@db/side%3Fschema%3Ds"
    again = parse(words[2])
    assert isinstance(again, QdrantSettings)
    assert again.sidecar == "postgresql://me:***@db/side?schema=s"


def test_without_servers_the_next_tier_is_pinecone(tmp_path: Path) -> None:
    store = brain(tmp_path / "b.sqlite", 1_200)
    found = advise(store, thresholds={"sqlite+hnsw": 1_100}, servers=False, now=NOW)
    assert found.tier == "pinecone"
    assert found.move is not None
    assert found.move["seconds"] is None
    assert advise(store, servers=False, now=NOW).next["tier"] == "pinecone"


def test_writers_that_are_told_decide(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 10), writers=5, now=NOW)
    assert found.tier == "postgres"
    assert "5 write at the same time, as you say" in found.reasons[0]
    with pytest.raises(ConfigError):
        advise(tmp_path / "b.sqlite", writers=-1)


def test_a_slow_query_over_every_vector_decides(tmp_path: Path) -> None:
    found = advise(brain(tmp_path / "b.sqlite", 1_000), thresholds={"p95_ms": 0.000_1}, now=NOW)
    assert found.tier == "sqlite+hnsw"
    assert "a query over every vector takes" in found.reasons[0]


def test_a_store_without_vectors_has_rows_to_count(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE log (id INTEGER PRIMARY KEY, created_at TEXT);")
        db.executemany(
            "INSERT INTO log (created_at) VALUES (?)",
            [((NOW - timedelta(days=d)).isoformat(),) for d in range(60)],
        )
        db.commit()
    found = advise(path, now=NOW)
    assert (found.tier, found.measured["vectors"]) == ("sqlite", 0)
    assert found.measured["latency_ms"] is None
    assert "no vectors" in found.measured["latency_note"]
    assert found.measured["growth"]["per_week"] == 7
    assert found.next["says"] == "there are no vectors yet"


def test_nothing_is_changed_by_advice(tmp_path: Path) -> None:
    store = brain(tmp_path / "b.sqlite", 1_500)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}
    advise(store, now=NOW)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()} == before


def test_rows_that_take_too_long_to_read_are_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PASS_S", -1.0)
    found = advise(brain(tmp_path / "b.sqlite", 700, weeks=10), now=NOW)
    assert found.measured["growth"] is None
    assert "facts has more rows than" in found.measured["growth_note"]


def test_queries_end_in_time_and_the_first_is_not_counted() -> None:
    answers: list[Query] = []
    store = FakeStore(notes(), rows(60), slow=answers.append)
    found, note = measured_latency(store)
    assert found is not None
    assert (found["queries"], note) == (measuring.QUERIES, "")
    assert len(answers) == measuring.QUERIES + 1
    assert measured_latency(FakeStore(notes(), []))[0] is None


def test_vectors_of_zeros_are_no_questions() -> None:
    some = [row | {"embedding": row["embedding"] * (i % 3 > 0)} for i, row in enumerate(rows(60))]
    answers: list[Query] = []
    found, note = measured_latency(FakeStore(notes(), some, slow=answers.append))
    assert found is not None
    assert note == ""
    assert all(query.vector is not None and query.vector.any() for query in answers)
    nothing = [row | {"embedding": row["embedding"] * 0} for row in some]
    assert measured_latency(FakeStore(notes(), nothing))[0] is None


def test_slow_queries_are_asked_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "QUERIES_S", 0.0)
    found, _ = measured_latency(FakeStore(notes(), rows(60)))
    assert found is not None
    assert found["queries"] == 3


def test_inspect_and_advise_name_the_same_tier(tmp_path: Path) -> None:
    for n in (10, 1_100):
        store = brain(tmp_path / f"{n}.sqlite", n)
        assert inspect(store).tier == advise(store, now=NOW).tier


def test_programs_ask_through_the_package(tmp_path: Path) -> None:
    assert migrate.advise(brain(tmp_path / "b.sqlite", 10)).tier == "sqlite"


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = cli.main([str(w) for w in words])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_prints_json_or_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = brain(tmp_path / "b.sqlite", 1_200, weeks=12)
    code, out, _ = run(capsys, "advise", store, "--json")
    told = json.loads(out)
    assert code == 0
    assert {"tier", "reasons", "measured", "next", "command"} <= told.keys()
    assert told["tier"] == "sqlite+hnsw"
    code, out, _ = run(capsys, "advise", store, "--threshold", "sqlite+hnsw=1100", "--no-servers")
    assert code == 0
    assert "move to pinecone" in out
    assert "nobody is to run servers" in out
    assert "--to-tier pinecone" in out


@pytest.mark.parametrize(
    "words",
    [("--threshold", "sqlite"), ("--threshold", "nothing=5"), ("--writers", "x"), ("--threshold", "=")],
)
def test_wrong_usage_is_told_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    code, out, err = run(capsys, "advise", brain(tmp_path / "b.sqlite", 1), *words)
    assert (code, out) == (2, "")
    assert "error:" in err
    assert "hint:" in err


def test_a_page_fits_its_width_and_plain_terminals(tmp_path: Path) -> None:
    found = advise(
        brain(tmp_path / "b.sqlite", 1_200, weeks=12, tenants=2), thresholds={"sqlite+hnsw": 1_100}, now=NOW
    )
    text = advice_text(found, Page(width=70, plain=True))
    assert text.isascii()
    assert all(
        len(line) <= 70 for line in text.splitlines() if "memlift migrate" not in line and "/" not in line
    )
    for part in (
        "2 tenants (agent_id)",
        "vectors a week",
        "move to postgres",
        "the move takes",
        "next: qdrant",
    ):
        assert part in text


def test_a_store_that_is_not_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        advise(tmp_path / "none.sqlite")
