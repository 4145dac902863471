"""The command with an embedded Postgres: the demo, signals on a busy server, set-up, secrets."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest

from integration.support.servers import Database, Postgres

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "migrate" / "samples" / "brain.sqlite"


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEMLIFT_", "PG", "DATABASE_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def start(*words: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "migrate", *map(str, words)],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def memlift(*words: str | Path, cwd: Path, **env: str) -> tuple[int, str, str]:
    process = start(*words, cwd=cwd, **env)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture
def locked(database: Database) -> Iterator[psycopg.Connection]:
    """A connection that holds up whoever writes to a table it has locked."""
    with psycopg.connect(database.url) as connection:
        yield connection
        connection.rollback()


def test_the_demo_twice_in_one_folder_then_its_commands_then_nothing_is_left(tmp_path: Path) -> None:
    code, out, err = memlift("demo", "here", "--keep", cwd=tmp_path)
    assert code == 0, err
    assert "verified: every row compared, no difference" in out
    assert "postgresql://memlift:***@" in out
    shown = [line.split("$ ", 1)[1] for line in out.splitlines() if "$ memlift inspect" in line]
    assert shown == ["memlift inspect 'postgresql+embedded:here/pgdata?schema=brain'"]
    code, out, _ = memlift("inspect", "postgresql+embedded:here/pgdata?schema=brain", "--json", cwd=tmp_path)
    assert (code, json.loads(out)["layout"]) == (0, "agentos")

    code, out, err = memlift("demo", "here", "--json", "--quiet", cwd=tmp_path)
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert sum(t["rows_unchanged"] for t in report["tables"]) == report["total_rows"] == 857
    assert (tmp_path / "here" / "pgdata").exists(), "what an earlier demo was told to keep stays"


def test_a_demo_in_a_folder_of_its_own_leaves_nothing_but_that_folder_if_it_was_there(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert memlift("demo", cwd=tmp_path, TMPDIR=str(temporary))[0] == 0
    assert list(temporary.iterdir()) == []

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "brain.sqlite").write_text("something else")
    code, _, err = memlift("demo", "mine", cwd=tmp_path)
    assert code == 2
    assert "is not the sample" in err
    assert (tmp_path / "mine" / "brain.sqlite").read_text() == "something else"


def stopped(process: subprocess.Popen[str], database: Database, busy: str) -> str:
    """Ask a run to stop once its server is busy in a way, and return what it printed. It does so within 5 s."""
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE {busy}"
    with database.connect() as watching:
        limit = time.monotonic() + 60
        while watching.execute(sessions.encode()).fetchone() == (0,):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - since < 6
        assert process.returncode == 143, err
        assert watching.execute(sessions.encode()).fetchone() == (0,), "the server was told to stop, too"
    return out


def test_a_signal_ends_a_long_index_build_within_five_seconds(tmp_path: Path, database: Database) -> None:
    """20,000 vectors take some 10 s to index; a build is broken off after 3."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db, db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)")
        vectors = np.random.default_rng(3).standard_normal((20_000, 96), np.float32)
        db.executemany("INSERT INTO t (embedding) VALUES (?)", ((row.tobytes(),) for row in vectors))
    process = start("migrate", "a.sqlite", database.at("store"), "--json", "--quiet", cwd=tmp_path)
    out = stopped(process, database, "query LIKE 'CREATE INDEX%'")
    assert json.loads(out)["exit_code"] == 143
    assert database.run("SELECT count(*) FROM store.t") == [(20_000,)]


def test_a_signal_while_the_server_is_held_up_ends_within_five_seconds_and_the_run_goes_on(
    tmp_path: Path, database: Database, locked: psycopg.Connection
) -> None:
    target = database.url + ("&" if "?" in database.url else "?") + "schema=held"
    code, out, err = memlift("migrate", SAMPLE, target, "--table", "documents", "--quiet", cwd=tmp_path)
    assert code == 0, err
    locked.execute("DELETE FROM held.documents WHERE id = (SELECT min(id) FROM held.documents)")
    locked.commit()
    locked.execute("LOCK TABLE held.documents IN SHARE ROW EXCLUSIVE MODE")  # may be read, not written

    words = ("migrate", SAMPLE, target, "--table", "documents", "--update", "--json", "--quiet")
    out = stopped(start(*words, cwd=tmp_path), database, "wait_event_type = 'Lock'")
    assert json.loads(out)["exit_code"] == 143
    assert database.run("SELECT owner FROM held.memlift_lease") == [("",)]
    locked.rollback()

    code, out, err = memlift(*words, cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)["verified"]


def test_the_environments_database_is_the_target_and_its_password_is_never_shown(
    tmp_path: Path, postgres: Postgres, database: Database
) -> None:
    secret = database.url.split("://")[1].split("@")[0].partition(":")[2]
    assert len(secret) > 8
    for words in (
        ("migrate", SAMPLE, "postgresql://"),
        ("migrate", SAMPLE, "postgresql://", "--json"),
        ("inspect", "postgresql://"),
        ("verify", SAMPLE, "postgresql://", "--json"),
        ("undo", "postgresql://", "--yes"),
    ):
        code, out, err = memlift(*words, cwd=tmp_path, DATABASE_URL=database.url)
        assert code == 0, err
        assert secret not in out + err

    wrong = database.url.replace(secret, secret[::-1])
    code, out, err = memlift("migrate", SAMPLE, wrong, cwd=tmp_path)
    assert code == 2, err
    assert err.splitlines()[-1].startswith("hint:")
    assert secret[::-1] not in out + err


def test_auto_setup_makes_a_server_and_migrates_into_it(tmp_path: Path) -> None:
    words = ("migrate", SAMPLE, "postgresql:?schema=auto", "--auto-setup", "embedded", "--json")
    home = {"MEMLIFT_HOME": str(tmp_path / "home")}
    code, out, err = memlift(*words, "--dry-run", cwd=tmp_path, **home)
    assert code == 0, err
    assert not (tmp_path / "home").exists(), "a dry run sets nothing up"
    try:
        code, out, err = memlift(*words, cwd=tmp_path, **home)
        assert code == 0, err
        assert json.loads(out)["verified"]
        assert json.loads(out)["target"].endswith("schema=auto")
    finally:
        assert memlift("down", "--volumes", "--yes", cwd=tmp_path, **home)[0] == 0


@pytest.mark.timeout(900)
def test_the_demo_script_works_from_anywhere_twice(tmp_path: Path) -> None:
    env = environment(MEMLIFT_VENV=str(tmp_path / "venv"), PYTHON=sys.executable)
    env.pop("PYTHONPATH")
    env.pop("PYTHONWARNINGS")
    for time_ in ("first", "second"):
        done = subprocess.run(
            [ROOT / "scripts" / "demo"],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "verified: every row compared" in done.stdout
        assert ("making an environment" in done.stderr) == (time_ == "first")
