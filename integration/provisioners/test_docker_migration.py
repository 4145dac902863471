"""The sample brain of AgentOS into a container that auto-setup makes: restarts, a new container, a move to a tier."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from docker_kit import DockerKit

import provisioners
from migrate import migrate
from migrate.promotion import where_is
from provisioners import saved

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_home")]
ROOT = Path(__file__).parents[2]
BRAIN = ROOT / "migrate" / "samples" / "brain.sqlite"
NAME = "memlift-postgres"


def migrated(*words: str | Path) -> dict[str, Any]:
    """Run `memlift migrate ... --auto-setup docker --json` in a process; return its report."""
    done = subprocess.run(
        [sys.executable, "-m", "migrate", "migrate", *words, "--auto-setup", "docker", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[7/7] saved" in done.stderr
    assert saved.load()[NAME]["password"] not in done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["verified"] is True
    return report


def test_a_brain_moves_in_and_stays_whole(kit: DockerKit, tmp_path: Path) -> None:
    brain = tmp_path / "brain.sqlite"
    shutil.copy(BRAIN, brain)
    with closing(sqlite3.connect(brain)) as conn:
        names = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert names
    report = migrated(brain, "postgresql:")
    assert report["total_rows"] > 0

    def is_whole() -> bool:
        """A second run compares every row: all are there, unchanged."""
        url = provisioners.up("postgres", "docker", ready_timeout=60).url
        again = migrate(str(brain), url)
        return bool(again.verified and again.total_rows == report["total_rows"]) and not any(
            table.rows_written for table in again.tables
        )

    found = migrate(str(brain), {"type": "postgres", "auto_setup": True})  # our running store
    assert found.verified
    assert not any(table.rows_written for table in found.tables)
    provisioners.stop()
    assert is_whole()
    kit.client.containers.get(NAME).kill("SIGKILL")
    assert is_whole()
    kit.client.containers.get(NAME).remove(force=True)
    assert is_whole()
    provisioners.down(volumes=True, confirm=lambda _: True)
    assert saved.load() == {}


def test_a_brain_goes_a_tier_up_into_a_container_and_its_new_address_opens_it(tmp_path: Path) -> None:
    brain = tmp_path / "brain.sqlite"
    shutil.copy(BRAIN, brain)
    report = migrated(brain, "--to-tier", "postgres")
    assert report["promotion"]["moved"] is True
    assert report["search"]["passed"] is True
    address = where_is(str(brain))
    assert address is not None
    again = migrate(str(brain), address)
    assert again.verified
    assert not any(table.rows_written for table in again.tables)
    provisioners.down(volumes=True, confirm=lambda _: True)
