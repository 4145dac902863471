"""SIGINT and SIGTERM, in real processes: a clean checkpoint within 5 s, the lease given back, a resume that works."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_command import document, environment, error_lines, memlift, sample, slow_memlift, wait_for

from migrate.cli_signals import Interruption

PROMISED_S = 5.0 + 1.0  # and a second for a busy machine


def interrupted(
    tmp_path: Path, mode: str, *signals: signal.Signals, more: tuple[str, ...] = ()
) -> tuple[int, str, str, float]:
    """Run until the slow part has begun, send signals; return exit code, stdout, stderr, seconds."""
    sample(tmp_path)
    process = slow_memlift(
        mode, "migrate", "brain.sqlite", "out.sqlite", "--batch-size", "5", *more, cwd=tmp_path
    )
    wait_for((tmp_path / "begun").exists, process)
    since = time.monotonic()
    for n, sent in enumerate(signals):
        if n:
            time.sleep(0.3)
        process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err, time.monotonic() - since


def lease_owner(tmp_path: Path) -> str:
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    try:
        return str(connection.execute("SELECT owner FROM memlift_lease").fetchone()[0])
    finally:
        connection.close()


def assert_resumes(tmp_path: Path) -> None:
    again = memlift("migrate", "brain.sqlite", "out.sqlite", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    report = document(again)
    assert report["resumed"]
    assert report["verified"]
    alike = memlift("verify", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    assert alike.returncode == 0, alike.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_copy_at_a_checkpoint_and_the_next_run_goes_on(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    exit_code, out, err, took = interrupted(tmp_path, "commits", sent, more=("--json",))

    assert exit_code == code
    assert took < PROMISED_S
    report = json.loads(out)
    assert report["exit_code"] == code
    assert report["error"].startswith("stopped")
    assert report["hint"] == "run the same command again to go on"
    assert not report["verified"]
    assert 0 < sum(t["rows_written"] for t in report["tables"]) < 857
    assert len(error_lines(err)) == 2
    assert "Traceback" not in err
    assert lease_owner(tmp_path) == ""
    assert_resumes(tmp_path)


def test_a_signal_breaks_off_one_long_call_after_three_seconds(tmp_path: Path) -> None:
    exit_code, out, err, took = interrupted(tmp_path, "call", signal.SIGINT, more=("--json",))

    assert exit_code == 130
    assert 2.5 < took < PROMISED_S
    assert json.loads(out)["tables"], "the partial report is kept"
    assert "Traceback" not in err
    assert lease_owner(tmp_path) == ""
    assert_resumes(tmp_path)


def test_a_second_signal_breaks_off_at_once(tmp_path: Path) -> None:
    exit_code, _, _, took = interrupted(tmp_path, "call", signal.SIGTERM, signal.SIGTERM)

    assert exit_code == 143
    assert took < 2.5
    assert lease_owner(tmp_path) == ""


def test_a_driver_that_answers_the_break_with_its_own_error_still_ends_as_interrupted(tmp_path: Path) -> None:
    exit_code, _, err, _ = interrupted(tmp_path, "swallow", signal.SIGINT, signal.SIGINT)

    assert exit_code == 130
    assert error_lines(err)[0].startswith("error: interrupted: statement cancelled")


def test_a_statement_that_cannot_be_interrupted_ends_with_the_process(tmp_path: Path) -> None:
    exit_code, out, err, took = interrupted(tmp_path, "stuck", signal.SIGTERM, more=("--json",))

    assert exit_code == 143
    assert took < PROMISED_S
    assert json.loads(out)["exit_code"] == 143
    assert len(error_lines(err)) == 2
    assert_resumes(tmp_path)


def test_a_signal_may_come_while_the_lock_of_the_stop_is_held() -> None:
    """As within `stop.wait`, in the thread that handles signals."""
    with Interruption() as watching:
        with watching.stop._cond:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGTERM)
            assert not watching.stop.is_set()
        assert watching.stop.wait(PROMISED_S)
    assert watching.exit_code == 143


def test_an_interrupt_while_modules_are_read_has_no_traceback(tmp_path: Path) -> None:
    program = """
import runpy, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "migrate.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
runpy.run_module("migrate", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert error_lines(done.stderr) == done.stderr.splitlines() != []
