"""One run in a process of its own, which may be killed: `python -m integration.support.child JSON`.

The JSON has `source`, `target`, `options` for `migrate()`, and `commit_bytes`, so that small
stores have many commits. Prints one line of JSON at the end; errors go there too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    """How a run ended: its exit status (negative: a signal), and what it printed."""

    status: int
    said: dict[str, Any]
    lines: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.status == -signal.SIGKILL


class Child:
    """A run in another process. `failpoint`: see `migrate.failpoints`."""

    def __init__(
        self,
        source: str | Path,
        target: str | Path,
        *,
        failpoint: str | None = None,
        commit_bytes: int = 4000,
        **options: Any,
    ) -> None:
        asked = {
            "source": str(source),
            "target": str(target),
            "options": options,
            "commit_bytes": commit_bytes,
        }
        env = {k: v for k, v in os.environ.items() if k != "MEMLIFT_FAILPOINT"}
        if failpoint is not None:
            env["MEMLIFT_FAILPOINT"] = failpoint
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "integration.support.child", json.dumps(asked)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, timeout_s: float = 120) -> Ended:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        lines = out.splitlines()
        said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if not said and self.process.returncode != -signal.SIGKILL:
            raise AssertionError(f"the run said nothing, status {self.process.returncode}: {err[-3000:]}")
        return Ended(self.process.returncode, said, lines)

    def lines_until(self, text: str) -> str:
        """Read its output up to a line that begins with a text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(text):
                return line
        raise AssertionError(f"the run ended without saying {text}")

    def kill(self) -> None:
        """End it as `kill -9` does, and take its end away."""
        self.process.kill()
        self.process.communicate()


def run(source: str | Path, target: str | Path, **options: Any) -> Ended:
    """Run in a process and wait."""
    return Child(source, target, **options).wait()


def main(asked: dict[str, Any]) -> int:
    """Run here."""
    from migrate import api, engine, failpoints
    from migrate.errors import MigrateError

    engine.COMMIT_BYTES = asked["commit_bytes"]

    def progress(done: int, total: int, table: str) -> None:
        print(f"copy {table} {done}/{total}", flush=True)

    class Said:
        def say(self, text: str) -> None:
            print(f"say {text}", flush=True)

        def step(self, phase: str, table: str, done: int, total: int) -> None:
            if phase != "copy":
                print(f"{phase} {table} {done}/{total}", flush=True)

    told: dict[str, Any] = {}
    status = 0
    try:
        report = api.migrate(
            asked["source"], asked["target"], observer=Said(), on_progress=progress, **asked["options"]
        )
        told["report"] = report.to_dict()
    except MigrateError as exc:
        status = exc.exit_code
        told |= {"error": type(exc).__name__, "message": str(exc), "hint": exc.hint}
        told["report"] = exc.report.to_dict() if exc.report else None
    told["hits"] = dict(failpoints.counts)
    print(json.dumps(told), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
