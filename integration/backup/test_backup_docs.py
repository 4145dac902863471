"""Every command of docs/backup.md is run, or (units, cron) at least parsed."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from backup_cli import __file__ as cli
from backup_data import make

from migrate.backup.cli import register
from migrate.backup.presets import CUSTOM, PRESETS

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "backup.md").read_text()
_UNTIL_IT_WAITS = (
    r"\1 2>service.log & service=$!\n"
    r"until grep -E ' (done|unchanged)' service.log; do kill -0 $service; sleep 0.1; done\n"
    r"kill -TERM $service; wait $service"
)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `memlift` is this tree, and `sqlite3` is Python's where the machine has none."""
    tools = tmp_path / "bin"
    tools.mkdir()
    query = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(db.execute(sys.argv[2]).fetchall()); db.commit()"
    (tools / "sqlite3").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{query}" "$@"\n')
    (tools / "memlift").write_text(f'#!/bin/sh\nexec {sys.executable} {cli} "$@"\n')
    (tools / "pip").write_text("#!/bin/sh\nexit 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}


def test_every_shell_command_of_the_guide_runs(
    tmp_path: Path, s3_server: tuple[str, int], shell: dict[str, str]
) -> None:
    make(tmp_path / "brain.sqlite")
    text = "\n".join(blocks("sh"))
    assert text.count("memlift backup") > 15
    text = text.replace("127.0.0.1:9000", f"127.0.0.1:{s3_server[1]}").replace("=...", "=test")
    text = text.replace("127.0.0.1:9187", "127.0.0.1:0").replace(
        "s3://backups/agent", f"s3://backups/docs-{os.getpid()}"
    )
    # A service runs until it is stopped; its status says whether a backup was cut off by that.
    text = re.sub(r"^(memlift backup run .*)", _UNTIL_IT_WAITS, text, flags=re.M)
    done = subprocess.run(
        ["bash", "-euxc", text],
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "unchanged since" in done.stdout
    assert "[('ok',)]" in done.stdout
    for name in ("restored", "from-folder", "by-hand", "agent-42", "small", "earlier", "unsealed"):
        with closing(sqlite3.connect(tmp_path / f"{name}.sqlite")) as db:
            assert db.execute("SELECT count(*) FROM memories").fetchone() == (300,), name


def test_units_and_cron_lines_parse() -> None:
    parser = argparse.ArgumentParser("memlift")
    register(parser.add_subparsers(required=True))
    lines = re.findall(r"memlift (backup [^&\n]+)", "\n".join(blocks("ini") + blocks("cron")))
    assert len(lines) == 4
    for line in lines:
        parser.parse_args(shlex.split(line))


def test_the_python_of_the_guide_runs(
    tmp_path: Path, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "brain.sqlite")
    (code,) = blocks("python")
    names = {"ENDPOINT": f"http://127.0.0.1:{s3_server[1]}"}
    exec(compile(code, "docs/backup.md", "exec"), names)  # noqa: S102 - our own guide
    assert (tmp_path / "copy.sqlite").exists()
    client = boto3.client("s3", endpoint_url=names["ENDPOINT"], region_name="us-east-1")
    assert client.list_objects_v2(Bucket="backups", Prefix="agent/")["KeyCount"] >= 3
    client.close()


def test_every_preset_is_in_the_guide() -> None:
    for preset in (*PRESETS, CUSTOM):
        assert f"| `{preset.name}` |" in GUIDE
