"""Running the command as a user does: in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "migrate" / "samples" / "brain.sqlite"
SLOW = Path(__file__).with_name("slow_memlift.py")


def environment(**more: str) -> dict[str, str]:
    """Return an environment without a user's settings, in which the checkout is importable."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MEMLIFT_", "PG", "DATABASE_", "COLUMNS"))
    }
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def memlift(
    *words: str | Path, cwd: Path, env: dict[str, str] | None = None, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m migrate` to its end. `given`: what stdin holds; None is an empty one."""
    return subprocess.run(
        [sys.executable, "-m", "migrate", *map(str, words)],
        cwd=cwd,
        env=env or environment(),
        input=given or "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one JSON document of a run's stdout."""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def sample(folder: Path) -> Path:
    """Return a copy of the demo's brain."""
    return Path(shutil.copyfile(SAMPLE, folder / "brain.sqlite"))


def slow_memlift(mode: str, *words: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start memlift with a target that is slow in one way (see slow_memlift.py)."""
    return subprocess.Popen(
        [sys.executable, str(SLOW), mode, *map(str, words)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    """Wait until something is so; fail where the process ends before."""
    limit = time.monotonic() + timeout_s
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def error_lines(text: str) -> Sequence[str]:
    """Return the lines of stderr that tell a failure."""
    return [line for line in text.splitlines() if line.startswith(("error:", "hint:"))]
