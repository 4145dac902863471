"""Embedded stores through the same commands as those in Docker, and the environment on a real server."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import provisioners
from provisioners import cli, saved
from provisioners.embedded import EmbeddedPostgres
from provisioners.errors import ProvisionError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    monkeypatch.setenv("MEMLIFT_HOME", str(home))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    for variable in ("DATABASE_URL", "QDRANT_URL", "QDRANT_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    yield home
    provisioners.stop(how="embedded")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers(required=True))
    args = parser.parse_args([*words, "--quiet"])
    capsys.readouterr()
    assert args.run(args) == 0
    return capsys.readouterr().out


def test_the_life_of_an_embedded_postgres_keeps_every_row(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    out = run(capsys, "up", "postgres", "--embedded", "--json")
    url = saved.load()["memlift-postgres-embedded"]["url"]
    assert json.loads(out)["extension"] == "0.8.5"
    assert "***" in json.loads(out)["address"]
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE chunk AS SELECT g, '[1,2]'::vector FROM generate_series(1, 500) g")
    (now,) = json.loads(run(capsys, "status", "--json"))
    assert (now["state"], now["health"], now["rows"]) == ("running", "healthy", 500)
    assert now["disk"] > 10_000_000
    assert now["since"] is not None
    assert "ready to accept connections" in run(capsys, "logs")
    assert run(capsys, "stop") == "memlift-postgres-embedded\n"
    (now,) = json.loads(run(capsys, "status", "--json"))
    assert now["state"] == "stopped"
    run(capsys, "up", "postgres", "--embedded")
    run(capsys, "down")
    run(capsys, "up", "postgres", "--embedded")
    (now,) = json.loads(run(capsys, "status", "--json"))
    assert now["rows"] == 500
    run(capsys, "down", "--volumes", "--yes")
    assert not (home / "memlift-postgres").exists()
    assert saved.load() == {}


def test_an_embedded_store_is_found_again_without_asking_for_docker(tmp_path: Path) -> None:
    first = provisioners.up("postgres", "embedded", folder=tmp_path / "my data")
    assert provisioners.auto_setup("postgres").url == first.url
    provisioners.stop()
    assert provisioners.up("postgres", "embedded").url == first.url


def test_down_takes_only_what_memlift_made(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    provisioners.up("postgres", "embedded", folder=folder)
    (folder / ".notes").write_text("mine")
    provisioners.down(volumes=True, confirm=lambda question: str(folder) in question)
    assert [p.name for p in folder.iterdir()] == [".notes"]


def test_the_life_of_qdrants_engine_in_a_folder(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    endpoint = provisioners.up("qdrant", "embedded")
    assert endpoint.settings() == {"type": "qdrant", "path": str(home / "memlift-qdrant")}
    assert list((home / "memlift-qdrant").iterdir()) == []
    (now,) = json.loads(run(capsys, "status", "--json"))
    assert (now["state"], now["health"]) == ("running", "healthy")
    assert provisioners.up("qdrant", "embedded").url == endpoint.url
    provisioners.down(volumes=True, confirm=lambda _: True)
    assert not (home / "memlift-qdrant").exists()


def test_a_qdrant_folder_that_was_there_before_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "collection").mkdir()
    provisioners.up("qdrant", "embedded", folder=folder)
    provisioners.down(volumes=True, confirm=lambda _: True)
    assert [p.name for p in folder.iterdir()] == ["collection"]


@pytest.mark.parametrize("kind", ["postgres", "qdrant"])
def test_a_temporary_store_leaves_nothing(kind: str, home: Path) -> None:
    with provisioners.temporary(kind) as endpoint:
        assert endpoint.how == "embedded"
        path = Path(endpoint.details["folder"])
        assert path.is_dir()
    assert not path.parent.exists()
    assert saved.load() == {}


def test_the_environment_on_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedPostgres(tmp_path / "theirs") as server:
        monkeypatch.setenv("DATABASE_URL", server.url)
        endpoint = provisioners.auto_setup("postgres")
        assert (endpoint.how, endpoint.extension) == ("environment", "0.8.5")
        with psycopg.connect(server.url) as conn:
            conn.execute("CREATE TABLE orders (id int)")
            conn.execute("DROP EXTENSION vector")
        with pytest.raises(ProvisionError, match=r"tables that memlift did not make \(public\.orders\)"):
            provisioners.auto_setup("postgres")
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT count(*) FROM pg_extension WHERE extname = 'vector'").fetchone() == (
                0,
            )
        monkeypatch.setenv("DATABASE_URL", f"{server.url}?schema=agent")
        assert provisioners.auto_setup("postgres").url.endswith("?schema=agent")
        monkeypatch.setenv("DATABASE_URL", server.url)
        with psycopg.connect(server.url) as conn:
            conn.execute("CREATE TABLE memlift_runs (id int)")
        assert provisioners.auto_setup("postgres").how == "environment"
        wrong = server.url.replace(":" + server.url.split(":")[2].split("@")[0], ":wrong")
        monkeypatch.setenv("DATABASE_URL", wrong)
        with pytest.raises(ProvisionError, match="refuses the login"):
            provisioners.auto_setup("postgres")
    with pytest.raises(ProvisionError, match="DATABASE_URL is set, but does not work"):
        provisioners.auto_setup("postgres")


def test_a_role_without_rights_and_a_server_without_pgvector_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedPostgres(tmp_path / "theirs") as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
            conn.execute("REVOKE CREATE ON DATABASE memory FROM PUBLIC")
        guest = f"postgresql://guest:guest@{server.url.split('@')[1]}"
        with pytest.raises(ProvisionError, match="may not create the extension"):
            provisioners.auto_setup("postgres", url=guest)


def test_the_folder_is_reachable_in_a_home_of_root(home: Path) -> None:
    """The default folder lies in MEMLIFT_HOME, which is 0700: also for root's service user."""
    provisioners.up("postgres", "embedded")
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "memlift-postgres").stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert (home / "memlift-postgres" / "data").stat().st_uid != 0
