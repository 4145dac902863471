"""The commands: what goes to stdout, what to stderr, and what is asked."""

from __future__ import annotations

import argparse
import json

import pytest
from fake_engine import FakeEngine

from migrate.errors import ConfigError
from provisioners import census, cli, lifecycle, saved, setup
from provisioners.census import Census
from provisioners.errors import ProvisionError


@pytest.fixture
def world(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(lifecycle, "_find_engine", lambda: engine)
    monkeypatch.setattr(setup, "_find_engine", lambda publish: engine)
    monkeypatch.setattr(census, "of_postgres", lambda url: Census(42, since=None))
    monkeypatch.setattr(census, "of_qdrant", lambda url, key: Census(7))
    return engine


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def test_up_says_its_steps_on_stderr_and_the_address_on_stdout(
    world: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("up", "postgres") == 0
    out, err = capsys.readouterr()
    assert (
        out.splitlines()[0]
        == "postgres 16.14, pgvector 0.8.5: postgresql://memlift:***@127.0.0.1:5432/memory"
    )
    assert "[5/7] starting" in err
    password = saved.load()["memlift-postgres"]["password"]
    assert password not in out + err
    run("up", "postgres", "--quiet")
    assert capsys.readouterr().err == ""


def test_json_is_one_document_without_secrets(world: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    run("up", "qdrant", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["address"] == "http://127.0.0.1:6333"
    assert found["digest"] == "sha256:digestq"
    run("up", "postgres", "--json")
    capsys.readouterr()
    run("status", "--json")
    out = capsys.readouterr().out
    rows = {item["name"]: (item["state"], item["health"], item["rows"]) for item in json.loads(out)}
    assert rows == {
        "memlift-postgres": ("running", "healthy", 42),
        "memlift-qdrant": ("running", "healthy", 7),
    }
    secrets = [entry["password"] for entry in saved.load().values()]
    assert not any(secret in out for secret in secrets)
    run("stop", "--json")
    assert json.loads(capsys.readouterr().out) == {"stopped": ["memlift-postgres", "memlift-qdrant"]}


def test_status_is_a_table(world: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 0
    assert "no store has been set up" in capsys.readouterr().out
    run("up", "postgres", "--quiet")
    capsys.readouterr()
    run("status")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "WHERE", "STATE", "HEALTH", "VERSION", "ROWS", "DISK", "SINCE", "ADDRESS"]
    assert row.index("running") == head.index("STATE")
    assert "16.14 (pgvector 0.8.5)" in row
    assert "2.1 MB" in row


def test_logs_are_those_of_the_one_store(world: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProvisionError, match="no such store"):
        run("logs")
    run("up", "postgres", "--quiet")
    capsys.readouterr()
    run("logs")
    assert capsys.readouterr().out == "last words of the server\n"
    run("up", "qdrant", "--quiet")
    with pytest.raises(ProvisionError, match=r"which one\? \(memlift-postgres, memlift-qdrant\)"):
        run("logs")


def test_down_keeps_data_and_with_volumes_asks_first(
    world: FakeEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("up", "postgres", "--quiet")
    with pytest.raises(ProvisionError, match=r"memlift-postgres-16, 42 rows, 2\.1 MB") as caught:
        run("down", "--volumes")
    assert "--yes" in str(caught.value.hint)
    assert "memlift-postgres" in world.boxes
    run("down")
    assert list(world.disks) == ["memlift-postgres-16"]
    answers = iter(["n\n", "y\n"])
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    with pytest.raises(ProvisionError, match="nothing was removed"):
        run("down", "--volumes")
    assert list(world.disks) == ["memlift-postgres-16"]
    run("down", "--volumes")
    assert world.disks == {}
    assert "removes for good" in capsys.readouterr().err
    run("up", "postgres", "--quiet")
    run("down", "--volumes", "--yes")
    assert (world.disks, world.boxes, saved.load()) == ({}, {}, {})


class Terminal:
    def __init__(self, answers: object) -> None:
        self._answers = answers

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return str(next(self._answers))  # type: ignore[call-overload]


def test_containers_of_another_home_are_listed_and_left_alone(
    world: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    run("up", "postgres", "--quiet")
    saved.path().unlink()
    capsys.readouterr()
    run("status")
    assert "set up from another MEMLIFT_HOME" in capsys.readouterr().out
    run("stop")
    run("down", "--volumes", "--yes")
    assert world.boxes["memlift-postgres"].state == "running"


def test_several_stores_by_name(world: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    run("up", "postgres", "--quiet")
    run("up", "postgres", "--quiet", "--name", "second")
    run("down", "--name", "second")
    assert list(world.boxes) == ["memlift-postgres"]
    capsys.readouterr()
    run("status", "--name", "second", "--json")
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["note"]) == ("missing", "data kept in second-postgres-16")


@pytest.mark.parametrize(
    "words",
    [
        ["up", "mysql"],
        ["up", "postgres", "--name", "../x"],
        ["up", "postgres", "--port", "0"],
        ["up", "postgres", "--memory", "lots"],
        ["up", "postgres", "--embedded", "--docker"],
        ["up", "postgres", "--wait", "-1"],
        ["up", "postgres", "--wait", "nan"],
        ["logs", "-n", "-5"],
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "x"], "--folder is for an embedded store"),
        (["--docker", "--folder", "x"], "--folder is for an embedded store"),
        (["--embedded", "--memory", "2g"], "--memory is for a store in Docker"),
        (["--embedded", "--port", "5433"], "--port is for a store in Docker"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    words: list[str], message: str, world: FakeEngine
) -> None:
    with pytest.raises(ConfigError, match=message):
        run("up", "postgres", *words)
    assert list(world.boxes) == []


def test_sizes_are_read_as_people_write_them() -> None:
    assert [cli._size(text) for text in ("512", "4k", "256m", "2G", "2gb")] == [
        512, 4096, 256 * 1024**2, 2 * 1024**3, 2 * 1024**3
    ]  # fmt: skip
