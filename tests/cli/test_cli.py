"""The commands as a user runs them: what they print where, and how they end."""

from __future__ import annotations

import json
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_command import document, environment, error_lines, memlift, sample

from migrate import api
from migrate.cli import main

ROWS = 857


def table_of_misfits(path: Path, n: int = 25) -> Path:
    """Make a store whose text cells with NUL no Postgres can hold."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
    connection.executemany("INSERT INTO notes VALUES (?, ?)", [(i, f"a\0{i}") for i in range(n)])
    connection.execute("INSERT INTO notes VALUES (1000, 'fits')")
    connection.commit()
    connection.close()
    return path


def test_migrating_prints_a_report_on_stdout_and_nothing_but_progress_on_stderr(tmp_path: Path) -> None:
    sample(tmp_path)
    done = memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)

    assert done.returncode == 0
    assert "✓  memory_traces" in done.stdout
    assert "verified: every row compared, no difference" in done.stdout
    assert "derived, not copied: memory_traces_fts" in done.stdout
    assert f"{ROWS} rows in 14 tables" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert error_lines(done.stderr) == []


def test_json_is_one_document_and_the_only_thing_on_stdout(tmp_path: Path) -> None:
    sample(tmp_path)
    done = memlift("migrate", "brain.sqlite", "out.sqlite", "--json", "--quiet", cwd=tmp_path)

    report = document(done)
    assert done.returncode == 0
    assert done.stderr == ""
    assert report["verified"] is True
    assert report["total_rows"] == sum(t["rows_written"] for t in report["tables"]) == ROWS
    traces = next(t for t in report["tables"] if t["name"] == "memory_traces")
    assert traces["vector"] == {"column": "embedding", "dim": 32, "metric": "cosine"}
    assert "error" not in report


def test_a_second_run_writes_nothing_and_says_so(tmp_path: Path) -> None:
    sample(tmp_path)
    memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    report = document(memlift("migrate", "brain.sqlite", "out.sqlite", "--json", cwd=tmp_path))

    assert sum(t["rows_written"] for t in report["tables"]) == 0
    assert sum(t["rows_unchanged"] for t in report["tables"]) == ROWS


def test_only_the_tables_that_are_asked_for_are_migrated(tmp_path: Path) -> None:
    sample(tmp_path)
    words = ("--table", "messages", "--table", "conversations", "--exclude", "messages")
    report = document(memlift("migrate", "brain.sqlite", "out.sqlite", *words, "--json", cwd=tmp_path))

    assert [t["name"] for t in report["tables"]] == ["conversations"]


def test_a_dry_run_tells_types_order_time_size_and_free_space_and_writes_nothing(tmp_path: Path) -> None:
    sample(tmp_path)
    done = memlift("migrate", "brain.sqlite", "postgresql+embedded:./pg", "--dry-run", cwd=tmp_path)

    assert done.returncode == 0
    for said in ("embedding vector(32)", "tables in the order of writing", "estimated time", "free there"):
        assert said in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["brain.sqlite"]


def test_an_audit_of_what_does_not_fit_exits_4_and_names_the_first_20_cells(tmp_path: Path) -> None:
    table_of_misfits(tmp_path / "notes.db")
    done = memlift("audit", "notes.db", "postgresql+embedded:./pg", cwd=tmp_path)

    assert done.returncode == 4
    assert "25 cells do not fit the target" in done.stdout
    assert done.stdout.count("notes.body where key is") == 20
    assert "and 5 more" in done.stdout
    assert error_lines(done.stderr)[0] == "error: 25 cells do not fit the target"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.db"]

    report = document(memlift("audit", "notes.db", "--json", cwd=tmp_path))
    assert report["exit_code"] == 4
    assert report["tables"][0]["misfits"]["cells"] == 25


def test_verify_names_rows_that_differ_and_exits_3(tmp_path: Path) -> None:
    sample(tmp_path)
    memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    connection.execute("DELETE FROM messages WHERE rowid = (SELECT min(rowid) FROM messages)")
    connection.execute("UPDATE documents SET title = 'another' WHERE rowid = 1")
    connection.commit()
    connection.close()

    done = memlift("verify", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    assert done.returncode == 3
    assert "messages: 1 missing, 0 extra, 0 different" in done.stdout
    assert "columns title" in done.stdout
    assert "✗  messages" in done.stdout
    report = document(memlift("verify", "brain.sqlite", "out.sqlite", "--json", cwd=tmp_path))
    assert (report["exit_code"], report["verified"]) == (3, False)

    again = memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)  # adds, changes nothing
    assert again.returncode == 3
    assert "--update" in again.stderr
    assert memlift("migrate", "brain.sqlite", "out.sqlite", "--update", cwd=tmp_path).returncode == 0
    assert memlift("verify", "brain.sqlite", "out.sqlite", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("migrate", "nowhere.sqlite", "out.sqlite"), "nowhere.sqlite"),
        (("migrate", "text.db", "out.sqlite"), "not a"),
        (("migrate", "brain.sqlite", "mongodb://host/db"), "mongodb://"),
        (("migrate", "brain.sqlite", "brain.sqlite"), "same store"),
        (("migrate", "brain.sqlite", "out.sqlite", "--table", "nope"), "nope"),
        (("migrate", "brain.sqlite", "postgresql://u:hidden@127.0.0.1:1/db"), "127.0.0.1"),
        (("migrate", "brain.sqlite"), "TARGET"),
        (("migrate", "brain.sqlite", "out.sqlite", "--verify", "hope"), "hope"),
        (("migrate", "brain.sqlite", "out.sqlite", "--batch-size", "0"), "'0'"),
        (("verify", "brain.sqlite", "nowhere.sqlite"), "nowhere.sqlite"),
        (("inspect", "nowhere.sqlite"), "nowhere.sqlite"),
        (("undo", "nowhere.sqlite", "--yes"), "nowhere.sqlite"),
        (("undo", "brain.sqlite", "--frob"), "--frob"),
        (("frobnicate",), "frobnicate"),
        ((), "COMMAND"),
    ],
)
def test_what_cannot_begin_is_one_line_and_a_hint_and_exits_2(
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample(tmp_path)
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one" * 100)
    before = sorted(p.name for p in tmp_path.iterdir())
    done = memlift(*words, cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    assert len(error_lines(done.stderr)) == 2
    assert done.stderr.splitlines()[-2:] == list(error_lines(done.stderr))
    assert said in error_lines(done.stderr)[0]
    assert done.stdout == ""
    assert "hidden" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == 2
    as_json = json.loads(capsys.readouterr().out)
    assert as_json["exit_code"] == 2
    assert said in as_json["error"]
    assert as_json["hint"]


def test_an_unknown_error_is_told_as_a_bug_and_its_traceback_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops\npassword=hidden")

    monkeypatch.setattr(api, "run", broken)
    monkeypatch.delenv("MEMLIFT_DEBUG", raising=False)
    assert main(["migrate", "a", "b"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: unexpected ZeroDivisionError: oops | password=***"
    assert "MEMLIFT_DEBUG=1" in said[1]
    assert len(said) == 2

    monkeypatch.setenv("MEMLIFT_DEBUG", "1")
    assert main(["migrate", "a", "b"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_undo_asks_and_drops_only_what_memlift_made(tmp_path: Path) -> None:
    sample(tmp_path)
    memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()

    unasked = memlift("undo", "out.sqlite", cwd=tmp_path, given="y\n")
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr

    done = memlift("undo", "out.sqlite", "--yes", "--json", cwd=tmp_path)
    assert done.returncode == 0
    dropped = document(done)["dropped"]
    assert len(dropped) == 14
    assert "memory_traces" in dropped
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    left = connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
    connection.close()
    assert left == [("mine",)]

    again = memlift("undo", "out.sqlite", "--yes", cwd=tmp_path)
    assert again.returncode == 0
    assert "has made nothing" in again.stdout


def test_inspect_shows_layout_tables_vectors_and_tier(tmp_path: Path) -> None:
    sample(tmp_path)
    found = document(memlift("inspect", "brain.sqlite", "--json", cwd=tmp_path))

    assert found["layout"] == "agentos"
    assert found["tier"] == "sqlite"
    traces = next(t for t in found["tables"] if t["name"] == "memory_traces")
    assert traces["rows"] == 317
    assert traces["vectors"] == 317 - 47
    assert traces["key"] == ["brain_id", "id"]
    assert (traces["vector"], traces["metric"]) == ({"column": "embedding", "dim": 32}, "cosine")
    assert traces["bytes"] > 100_000
    text = memlift("inspect", "brain.sqlite", cwd=tmp_path).stdout
    assert "layout: agentos" in text
    assert "embedding, 32, cosine" in text


def test_inspect_reckons_the_size_of_large_tables_from_a_part(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "large.db")
    connection.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, embedding BLOB)")
    vector = struct.pack("<4f", 0.1, 0.2, 0.3, 0.4)
    connection.executemany("INSERT INTO facts VALUES (?, 'abcd', ?)", [(i, vector) for i in range(30_000)])
    connection.commit()
    connection.close()
    found = document(memlift("inspect", "large.db", "--json", cwd=tmp_path))

    (facts,) = found["tables"]
    assert (facts["rows"], facts["vectors"], facts["exact"]) == (30_000, 30_000, False)
    assert facts["bytes"] == pytest.approx(30_000 * (8 + 4 + 16), rel=0.2)
    assert found["tier"] == "sqlite+hnsw"


@pytest.mark.parametrize(
    "command", ["migrate", "audit", "verify", "undo", "inspect", "advise", "demo", "backup", "up"]
)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    done = memlift(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"memlift {command}" in done.stdout


def test_help_imports_no_driver(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "migrate", "--help"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"numpy", "orjson", "psycopg", "boto3", "docker", "qdrant_client", "pinecone", "tqdm"}
    assert imported & heavy == set()
    assert "argparse" in imported
    for command in ("backup", "status", "migrate"):
        assert command in done.stdout


def test_a_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    sample(tmp_path)
    line = f"'{sys.executable}' -m migrate audit brain.sqlite --json | head -n 1"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("words", "where", "code"),
    [
        ("inspect missing.sqlite --json", "| true", 2),  # a failure that nobody reads
        ("inspect brain.sqlite --json", ">&-", 0),
        ("migrate brain.sqlite out.sqlite", "0<&- >&- 2>&-", 0),
        ("inspect missing.sqlite --json", ">&-", 2),
        ("inspect brain.sqlite", "> /dev/full", 1),
        ("inspect missing.sqlite --json", "> /dev/full", 2),
    ],
)
def test_an_output_that_is_closed_or_full_is_no_crash(
    words: str, where: str, code: int, tmp_path: Path
) -> None:
    sample(tmp_path)
    line = f"'{sys.executable}' -m migrate {words}"
    if where.startswith("|"):  # the pipe must be gone before anything is printed
        line = f"({line}; echo $? >code) | true; while ! [ -s code ]; do sleep 0.1; done; exit $(cat code)"
    else:
        line = f"{line} {where}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert len(error_lines(done.stderr)) == (2 if code else 0)


def test_a_file_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = memlift("inspect", "no\x1b[31m", cwd=tmp_path)

    assert done.returncode == 2
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("words", ["inspect {}", "migrate brain.sqlite {}", "search {} --text x"])
def test_a_traceback_has_no_password_though_the_driver_quotes_the_address(words: str, tmp_path: Path) -> None:
    sample(tmp_path)
    words = words.format("postgresql://u:hunter2@[::1/db")  # the bracket is never closed
    done = memlift(*words.split(), "--json", cwd=tmp_path, env=environment(MEMLIFT_DEBUG="1"))

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "scheme"),
    [
        ("migrate brain.sqlite {}", "qdrant+http"),
        ("migrate {} out.sqlite", "qdrant+http"),
        ("verify brain.sqlite {}", "qdrant+http"),
        ("inspect {}", "qdrant+http"),
        ("undo {} --yes", "qdrant+http"),
        ("audit brain.sqlite {}", "pinecone+http"),
        ("search {} --text x", "pinecone+http"),
        ("undo {} --yes", "pinecone+http"),
    ],
)
def test_a_server_that_nobody_can_reach_ends_a_command_within_seconds_with_2(
    words: str, scheme: str, tmp_path: Path
) -> None:
    sample(tmp_path)
    with socket.socket() as closed:  # bound, never listening: every connection is refused
        closed.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}"
        env = environment(PINECONE_API_KEY="hunter2", MEMLIFT_HOME=str(tmp_path / "home"))
        started = time.monotonic()
        done = memlift(*words.format(address).split(), cwd=tmp_path, env=env)

    assert done.returncode == 2
    assert "Connection refused" in error_lines(done.stderr)[0]
    assert error_lines(done.stderr)[1].startswith("hint: is the")
    assert "hunter2" not in done.stdout + done.stderr
    assert time.monotonic() - started < 40
