"""Runs the real AgentOS package on a brain."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_PINNED = ("package.json", "package-lock.json", ".npmrc")
_HEADERS = Path("/usr/include/node/node_api.h")  # where Debian's libnode-dev and Node's own packages put them


class UnavailableError(Exception):
    """Node, npm or the package cannot be had on this machine."""


def cache_folder() -> Path:
    """Return where installed packages are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "memlift-tests"


def installed() -> Path:
    """Return a folder with the harness and its packages, installed once for each set of versions.

    The first time takes minutes: better-sqlite3 is compiled. Raises
    UnavailableError with what went wrong.
    """
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not on PATH")
    version = _run(["node", "--version"], HERE, 60).stdout.strip()
    pinned = b"".join((HERE / name).read_bytes() for name in _PINNED)
    digest = hashlib.sha256(version.encode() + pinned).hexdigest()[:16]
    folder = cache_folder() / f"agentos-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs install once
        if not (folder / ".installed").exists():
            for name in _PINNED:
                shutil.copy(HERE / name, folder / name)
            done = _run(["npm", "ci"], folder, 1500)
            if done.returncode:
                raise UnavailableError(f"npm ci failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            (folder / ".installed").touch()
    shutil.copy(HERE / "harness.mjs", folder / "harness.mjs")
    return folder


def _run(command: list[str], folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if _HEADERS.exists():  # else node-gyp wants to download them
        environment.setdefault("npm_config_nodedir", "/usr")
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@dataclass(frozen=True, slots=True)
class AgentOS:
    """The package, ready to open brains."""

    folder: Path
    now: int = 1_800_000_000_000  # the same clock in each run: strength depends on it

    def open(self, path: Path, brain_id: str, dims: int, **request: Any) -> dict[str, Any]:
        """Open a brain, do what is asked (see harness.mjs) and return what an agent sees.

        The answer has `error` where the package throws. The file is changed.
        """
        request |= {"path": str(path), "brain_id": brain_id, "dims": dims, "now": self.now}
        done = _run(["node", "harness.mjs", json.dumps(request)], self.folder, 120)
        if not done.stdout:
            raise RuntimeError(f"the harness said nothing: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@dataclass(frozen=True, slots=True)
class Seen:
    """What an agent recalls from a brain: for each query the scores by trace id."""

    hits: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Seen:
        """Take the hits out of an answer; traces of equal score have no order."""
        return cls({q: {h["id"]: h["score"] for h in hits} for q, hits in answer["hits"].items()})


if __name__ == "__main__":
    sys.stdout.write(f"{installed()}\n")
