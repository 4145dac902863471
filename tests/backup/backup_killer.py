"""Run a backup command and kill the process, as `kill -9` does, at its n-th step.

Steps are what Python's audit events see: files opened, renamed and removed,
SQLite opened, requests sent. `python backup_killer.py 0 FILE ...` counts them
into FILE; `python backup_killer.py 17 FILE ...` dies at the 17th.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = (
    "open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
    "sqlite3.connect", "sqlite3.connect/handle", "http.client.send", "http.client.connect", "fcntl.flock",
)  # fmt: skip


def main() -> int:
    at, counter, ours = int(sys.argv.pop(1)), Path(sys.argv.pop(1)), sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    # Everything that will be imported is imported first, so that all steps are the command's own.
    import boto3
    from backup_cli import main as command

    import migrate.backup.codecs
    import migrate.backup.drill
    import migrate.backup.manager
    import migrate.backup.s3
    import migrate.backup.sealing
    import migrate.backup.swap

    migrate.backup.codecs.library("isal.isal_zlib")
    boto3.client("s3", region_name="us-east-1").close()
    seen = 0

    def step(event: str, _arguments: Any) -> None:
        nonlocal seen
        if event in STEPS:
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    assert ours
    sys.addaudithook(step)
    code = command()
    if not at:
        counter.write_text(str(seen))
    return code


if __name__ == "__main__":
    sys.exit(main())
