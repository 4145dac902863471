"""On a terminal: bars, colour, questions; and pages that fit."""

from __future__ import annotations

import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_command import environment, memlift, sample

from migrate.cli_report import report_text
from migrate.cli_text import Field, Page, columns, size_text, time_text
from migrate.progress import Lines
from migrate.report import Report, TableReport


def on_a_terminal(*words: str, cwd: Path, answer: str | None = None, **env: str) -> tuple[int, str]:
    """Run memlift with a terminal as stdin, stdout and stderr; answer its question, if it has one."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", *words],
        cwd=cwd,
        env=environment(TERM="xterm", COLUMNS="100", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said, limit = b"", time.monotonic() + 60
    while time.monotonic() < limit:
        if not select.select([ours], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        said += part
        if answer is not None and b"[y/N]" in said:
            os.write(ours, answer.encode())
            answer = None
    os.close(ours)
    return process.wait(timeout=30), said.decode()


def test_bars_for_each_phase_and_colour_on_a_terminal(tmp_path: Path) -> None:
    sample(tmp_path)
    code, said = on_a_terminal("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)

    assert code == 0
    for phase in ("audit", "copy", "verify"):
        assert re.search(rf"{phase} memory_traces: +\d+%\|", said), phase
    assert re.search(r"index \w+: create", said)
    assert "\x1b[32m✓\x1b[0m" in said


def test_no_color_is_respected_and_quiet_draws_nothing(tmp_path: Path) -> None:
    sample(tmp_path)
    code, said = on_a_terminal("migrate", "brain.sqlite", "out.sqlite", "--quiet", cwd=tmp_path, NO_COLOR="1")

    assert code == 0
    assert "\x1b[" not in said
    assert "%|" not in said
    assert "✓  memory_traces" in said


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 2, 14), ("y\n", 0, 0), ("\n", 2, 14)])
def test_undo_names_the_tables_and_takes_the_answer(
    tmp_path: Path, answer: str, code: int, left: int
) -> None:
    sample(tmp_path)
    memlift("migrate", "brain.sqlite", "out.sqlite", cwd=tmp_path)
    exit_code, said = on_a_terminal("undo", "out.sqlite", cwd=tmp_path, answer=answer)

    assert exit_code == code
    assert "  memory_traces" in said
    assert "Drop 14 tables? [y/N]" in said
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    found = connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
        " AND name NOT LIKE 'memlift%' AND name NOT LIKE '%fts%' AND name NOT LIKE 'sqlite%'"
    ).fetchone()[0]
    connection.close()
    assert found == left


FIELDS = (Field("table", left=True), Field("rows"), Field("vector", keep=2), Field("size", keep=1))


def test_columns_that_do_not_fit_go_by_their_weight_and_names_are_cut_last() -> None:
    rows = [["a_rather_long_name", "1,000", "32 dims", "1.0 MB"]]
    assert columns(Page(80), FIELDS, rows)[1] == "a_rather_long_name  1,000  32 dims  1.0 MB"
    assert columns(Page(36), FIELDS, rows)[1] == "a_rather_long_name  1,000  32 dims"
    assert columns(Page(26), FIELDS, rows)[1] == "a_rather_long_name  1,000"
    assert columns(Page(20), FIELDS, rows)[1] == "a_rather_lon…  1,000"
    assert columns(Page(20, plain=True), FIELDS, rows)[1] == "a_rather_l...  1,000"


def test_a_column_without_anything_is_left_out() -> None:
    assert columns(Page(80), FIELDS, [["a", "1", "", "-"]])[0] == "table  rows"


def test_no_line_of_a_report_is_wider_than_the_page() -> None:
    table = TableReport("a_table_with_quite_a_long_name", "table", 10, 10, types={"c": "text"}, copy_s=1.0)
    for width in (60, 80, 200):
        for dry_run in (True, False):
            report = Report("a.db", "b.db", dry_run=dry_run, tables=(table,), notes=("word " * 100,))
            assert max(map(len, report_text(report, Page(width)).splitlines())) <= width


def test_a_name_cannot_steer_the_terminal() -> None:
    report = Report("a.db", "b.db", tables=(TableReport("evil\x1b[2J\n", "table", 1),))
    assert "\x1b" not in report_text(report, Page(80))


def test_times_and_sizes_are_told_in_the_units_of_people() -> None:
    assert [time_text(s) for s in (0.014, 12.34, 150, 7890)] == [
        "0.01 s",
        "12.3 s",
        "2 min 30 s",
        "2 h 11 min",
    ]
    assert [size_text(b) for b in (0, 999, 1500, 273_000, 6e9, 2e13)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "273 kB",
        "6.0 GB",
        "20.0 TB",
    ]


def test_lines_come_every_few_seconds_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(sys.stderr, every_s=0.2)
    lines.step("copy", "traces", 100, 1000)
    time.sleep(0.05)
    lines.step("copy", "traces", 600, 1000)
    time.sleep(0.25)
    lines.step("copy", "traces", 1000, 1000)
    time.sleep(0.25)  # nothing more is to be said of it
    lines.say("to postgresql://me:hidden@host/db")
    lines.close()
    said = capsys.readouterr().err.splitlines()

    assert len(said) == 2
    assert re.fullmatch(r"copy traces: 600 of 1,000 rows \(60 %\), [\d,]+ rows/s, about \d s left", said[0])
    assert said[1] == "to postgresql://me:***@host/db"


def test_a_step_that_says_nothing_is_heard_of_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(sys.stderr, every_s=0.1)
    lines.step("index", "traces: vector index", 0, 1)
    time.sleep(0.35)
    lines.close()
    time.sleep(0.15)
    said = capsys.readouterr().err.splitlines()
    lines.step("index", "traces: vector index", 0, 1)  # a second run may be watched by the same observer
    time.sleep(0.25)
    lines.close()

    assert capsys.readouterr().err
    assert 2 <= len(said) <= 3
    assert set(said) == {"index traces: vector index: for 0 s"}
