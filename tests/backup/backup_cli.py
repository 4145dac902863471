"""`memlift backup ...` in a process of its own, as people run it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", __file__, "backup", *map(str, arguments)]


def run(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command, check its exit code."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run_json(*arguments: object, code: int = 0, **environment: str) -> dict[str, Any]:
    """Run a command with --json; stdout must be one document and nothing else."""
    document = json.loads(run(*arguments, "--json", code=code, **environment).stdout)
    assert isinstance(document, dict)
    return document


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from migrate.backup.cli import register
    from migrate.errors import MigrateError

    parser = argparse.ArgumentParser("memlift")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args()
    try:
        return int(args.run(args))
    except MigrateError as exc:
        sys.stderr.write(f"{exc}\nhint: {exc.hint}\n")
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
