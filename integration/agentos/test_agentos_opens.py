"""A brain that memlift wrote is one that the real AgentOS opens, recalls from and adds to."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pgdumps
import pytest
from agentos_node import AgentOS, Seen, UnavailableError, installed

from migrate import migrate
from provisioners.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]  # the first run compiles better-sqlite3

ROOT = Path(__file__).parents[2]
BRAIN = ROOT / "migrate" / "samples" / "brain.sqlite"
FIXTURES = ROOT / "tests" / "fixtures" / "agentos"
BRAIN_V1 = FIXTURES / "v1" / "brain.sqlite"
QUERIES = [
    "who scheduled the deploy script",
    "vegetarian lunch",
    "GPU quotas",
    "onboarding checklist of Mira",
    "note 280",
    "日本語 emoji café",
]
NEW = {
    "content": "The zeppelin carried forty crates of marmalade to Reykjavik.",
    "tags": ["zeppelin"],
    "embedding": [0.25] * 32,
}


@pytest.fixture(scope="session")
def agentos() -> AgentOS:
    try:
        return AgentOS(installed())
    except UnavailableError as exc:
        pytest.skip(f"the real AgentOS needs Node.js, npm and a package index: {exc}")


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    """Return a copy of the sample brain, alone in a folder."""
    return copied(BRAIN, tmp_path / "source" / "brain.sqlite")


def copied(file: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to)
    return to


def seen(agentos: AgentOS, path: Path, brain_id: str = "fixture-agent", dims: int = 32) -> dict[str, Any]:
    """Return what the package makes of a brain; all hits are asked for, so that equal scores cut none off."""
    remember = NEW | {"embedding": [0.25] * dims}
    answer = agentos.open(path, brain_id, dims, queries=QUERIES, limit=1000, remember=remember)
    assert "error" not in answer, answer["error"]
    return answer


def rows(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            " AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'memlift%'"
        ).fetchall()
        return {n: connection.execute(f'SELECT count(*) FROM "{n}"').fetchone()[0] for (n,) in names}


def sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute(
            "INSERT INTO memory_traces_fts(memory_traces_fts, rank) VALUES('integrity-check', 1)"
        )


def test_the_source_recalls_and_remembers(agentos: AgentOS, brain: Path) -> None:
    before = rows(brain)
    answer = seen(agentos, brain)
    assert answer["schema_version"] == "2"
    assert {t: v["count"] for t, v in answer["vectors"].items()} == {
        "memory_traces": 270,
        "knowledge_nodes": 32,
        "document_images": 1,
        "prospective_items": 2,
    }
    assert all(answer["hits"][q] for q in QUERIES[:5])
    assert answer["remembered"]["recalled"] == answer["remembered"]["id"]
    after = rows(brain)
    assert {t: after[t] - before[t] for t in after if after[t] != before[t]} == {
        "memory_traces": 1,
        "knowledge_nodes": 1,
        "retrieval_feedback": 1,
    }


def test_two_looks_at_the_same_brain_see_the_same(agentos: AgentOS, brain: Path, tmp_path: Path) -> None:
    """Else the comparisons below would prove nothing."""
    other = copied(BRAIN, tmp_path / "other" / "brain.sqlite")
    a, b = seen(agentos, brain), seen(agentos, other)
    assert Seen.of(a) == Seen.of(b)
    assert (a["vectors"], a["health"]) == (b["vectors"], b["health"])


def test_the_package_itself_cannot_open_an_old_brain(agentos: AgentOS, tmp_path: Path) -> None:
    """Why `--upgrade` exists."""
    old = copied(BRAIN_V1, tmp_path / "v1" / "brain.sqlite")
    assert "FOREIGN KEY constraint failed" in agentos.open(old, "brain", 16)["error"]


def to_sqlite(source: Path, tmp_path: Path) -> Path:
    """Return the brain, copied by memlift from SQLite to SQLite."""
    target = tmp_path / "target" / "brain.sqlite"
    target.parent.mkdir()
    assert migrate(str(source), str(target)).verified
    return target


def through_postgres(source: Path, tmp_path: Path) -> Path:
    """Return the brain, copied by memlift to Postgres and back."""
    target = tmp_path / "target" / "brain.sqlite"
    target.parent.mkdir()
    postgres = f"postgresql+embedded:{tmp_path / 'pgdata'}"
    assert migrate(str(source), postgres).verified
    assert migrate(postgres, str(target)).verified
    return target


@pytest.mark.parametrize("way", [to_sqlite, through_postgres])
def test_a_migrated_brain_is_the_same_to_an_agent(
    agentos: AgentOS, brain: Path, tmp_path: Path, way: Callable[[Path, Path], Path]
) -> None:
    target = way(brain, tmp_path)
    sound(target)
    before = rows(target)
    # Migrating left the source as it was, so it can still be looked at.
    expected, answer = seen(agentos, brain), seen(agentos, target)
    assert Seen.of(answer) == Seen.of(expected)
    assert answer["vectors"] == expected["vectors"]
    assert answer["health"] == expected["health"]
    assert answer["schema_version"] == "2"
    assert answer["remembered"]["recalled"] == answer["remembered"]["id"]
    assert rows(target)["memory_traces"] == before["memory_traces"] + 1
    sound(target)


def test_a_migrated_brain_numbers_new_rows_after_the_old(
    agentos: AgentOS, brain: Path, tmp_path: Path
) -> None:
    target = to_sqlite(brain, tmp_path)
    seen(agentos, target)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT max(id) FROM retrieval_feedback").fetchone() == (25,)


def test_a_migrated_brain_can_be_consolidated(agentos: AgentOS, brain: Path, tmp_path: Path) -> None:
    """Consolidation rewrites traces, prunes them and builds the full-text index again."""
    target = to_sqlite(brain, tmp_path)
    expected, answer = (
        agentos.open(path, "fixture-agent", 32, consolidate=True, queries=QUERIES) for path in (brain, target)
    )
    took = [a["consolidated"].pop("durationMs", None) for a in (expected, answer)]
    assert None not in took
    assert answer["consolidated"] == expected["consolidated"]
    sound(target)


def test_a_brain_that_agentos_kept_in_postgres_comes_to_sqlite(agentos: AgentOS, tmp_path: Path) -> None:
    folder, target = tmp_path / "pgdata", tmp_path / "target" / "brain.sqlite"
    target.parent.mkdir()
    with EmbeddedPostgres(folder) as server:
        pgdumps.load(server.url, FIXTURES / "postgres-brain.sql")
        report = migrate(f"postgresql+embedded:{folder}", str(target))
    assert report.verified
    sound(target)
    answer = agentos.open(target, "pg-agent", 8, queries=QUERIES, remember=NEW | {"embedding": [0.5] * 8})
    assert answer["health"]["totalTraces"] == 20
    assert answer["vectors"]["memory_traces"]["count"] > 0
    assert any(answer["hits"].values())
    assert answer["remembered"]["recalled"] == answer["remembered"]["id"]


def test_an_upgraded_brain_opens_recalls_and_remembers(agentos: AgentOS, tmp_path: Path) -> None:
    old = copied(BRAIN_V1, tmp_path / "old" / "ada.sqlite")
    target = tmp_path / "new" / "ada.sqlite"
    target.parent.mkdir()
    assert migrate(str(old), str(target), upgrade=True).verified
    sound(target)
    answer = seen(agentos, target, "ada", 16)
    assert answer["schema_version"] == "2"
    assert answer["vectors"]["memory_traces"]["count"] == 55  # 54 packed, and one that was JSON text
    assert answer["health"]["totalTraces"] == 64
    assert any(answer["hits"].values())
    assert answer["remembered"]["recalled"] == answer["remembered"]["id"]


def test_an_upgraded_brain_gives_the_hits_of_the_old_one(agentos: AgentOS, tmp_path: Path) -> None:
    """The old brain is asked by its own full-text index, for no package opens it any more."""
    old = copied(BRAIN_V1, tmp_path / "old" / "ada.sqlite")
    target = tmp_path / "new" / "ada.sqlite"
    target.parent.mkdir()
    migrate(str(old), str(target), upgrade=True)
    match = (
        "SELECT t.id, rank FROM memory_traces_fts f JOIN memory_traces t ON t.rowid = f.rowid"
        " WHERE memory_traces_fts MATCH ? ORDER BY rank, t.id"
    )
    with closing(sqlite3.connect(old)) as before, closing(sqlite3.connect(target)) as after:
        for term in ("note", "scheduled OR deploy", "quota*"):
            expected = before.execute(match, (term,)).fetchall()
            assert after.execute(match, (term,)).fetchall() == expected
