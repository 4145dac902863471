"""Small parts of the command: estimates, tiers, addresses that are set up."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest

from migrate import cli
from migrate.autosetup import ready_target
from migrate.config import PostgresSettings
from migrate.errors import ConfigError
from migrate.estimate import estimated
from migrate.report import Report, TableReport
from migrate.tiers import tier_for


def audited(rows: int, size: int, dim: int | None) -> Report:
    vector = {"column": "e", "dim": dim, "metric": None} if dim else None
    table = TableReport("t", "table", rows, bytes=size, vector=vector)
    return Report("a.db", "b.db", dry_run=True, total_rows=rows, tables=(table,))


def test_an_estimate_counts_the_vector_index_for_postgres_only(tmp_path: Path) -> None:
    report = audited(20_000, 32_871_120, 384)
    sqlite = estimated(report, tmp_path / "out.sqlite").estimate
    postgres = estimated(report, f"postgresql+embedded:{tmp_path}/pg").estimate

    assert postgres["seconds"] == pytest.approx(sqlite["seconds"] + 10, abs=2)
    assert 75e6 < postgres["target_bytes"] < 95e6  # 83 MB measured
    assert 38e6 < sqlite["target_bytes"] < 46e6  # 41 MB measured
    assert sqlite["free_bytes"] > 0


def test_a_target_without_enough_space_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    report = estimated(audited(10, 5000, None), tmp_path / "not" / "there" / "out.sqlite")

    assert report.estimate["free_bytes"] == 1000
    assert any("1,000 are free" in warning for warning in report.warnings)


def test_free_space_of_a_server_elsewhere_is_not_guessed() -> None:
    assert estimated(audited(1, 1, None), "postgresql://u@host/db").estimate["free_bytes"] is None


@pytest.mark.parametrize(
    ("vectors", "tier"),
    [
        (0, "sqlite"),
        (1_000, "sqlite"),
        (1_001, "sqlite+hnsw"),
        (500_000, "sqlite+hnsw"),
        (500_001, "postgres"),
        (10_000_000, "postgres"),
        (10_000_001, "qdrant"),
    ],
)
def test_the_tier_by_the_number_of_vectors(vectors: int, tier: str) -> None:
    assert tier_for(vectors).name == tier


def test_auto_setup_leaves_a_whole_address_alone_and_refuses_what_it_cannot_set_up(tmp_path: Path) -> None:
    def say(_: str) -> None:
        raise AssertionError("nothing is set up here")

    given = ready_target("postgresql://u@host/db?schema=s", "any", say, dry_run=False)
    assert given == PostgresSettings("postgresql://u@host/db", "s")
    folder = ready_target(f"postgresql+embedded:{tmp_path}", "any", say, dry_run=False)
    assert folder == PostgresSettings("", None, tmp_path)
    with pytest.raises(ConfigError, match=r"nothing to set up for out\.sqlite"):
        ready_target("out.sqlite", "any", say, dry_run=False)
    with pytest.raises(ConfigError, match="nothing to set up for pinecone:") as caught:
        ready_target({"type": "pinecone", "index": "i", "apiKey": "hunter2"}, "any", say, dry_run=False)
    assert "hunter2" not in str(caught.value)


def test_the_demo_makes_no_folder_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "postgresql://u:hunter2@h/db"]) == 2
    assert "in a folder, not in a store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_imported_is_missed_only_by_its_own_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_PARTS", (("migrate.not_there", ("backup",)),))
    assert cli.main(["--help"]) == 0
    assert "backup" not in capsys.readouterr().out
    assert cli.main(["backup", "list", "x"]) == 2
    assert "memlift backup cannot be used here" in capsys.readouterr().err


def test_a_handler_of_another_part_answers_with_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        commands.add_parser("up").set_defaults(run=lambda args: 3)

    monkeypatch.setattr(cli, "_PARTS", (("some.part", ("up",)),))
    monkeypatch.setattr(cli, "import_module", lambda _: SimpleNamespace(register=register))
    assert cli.main(["up"]) == 3
