"""pgbouncer in transaction mode, as hosted Postgres often has it in front."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from integration.support.servers import Database


def _program() -> str | None:
    """Return where pgbouncer is, or None."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextmanager
def pooled(database: Database, folder: Path, *, size: int) -> Iterator[Database]:
    """Run pgbouncer in front of a database, with `size` server connections for all clients.

    A test is skipped where there is none.
    """
    found = _program()
    if found is None:
        pytest.skip(
            "the pooler itself is missing: install pgbouncer (on Debian, scripts/test does so as root)"
        )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    parts = urlsplit(database.url)
    name = parts.path.strip("/")
    folder.mkdir()
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={parts.port} dbname={name}"
        f" user={parts.username} password={parts.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 100\nquery_wait_timeout = 60\n"
    )
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = "nobody"
        who = pwd.getpwnam(user)
        for path in (folder, folder / "pgbouncer.ini"):
            os.chown(path, who.pw_uid, who.pw_gid)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [found, f"/proc/self/fd/{fd}/pgbouncer.ini"],
        user=user,
        pass_fds=[fd],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    os.close(fd)
    try:
        behind = database.through(port)
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(behind.url).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise AssertionError((folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
        yield behind
    finally:
        process.terminate()
        process.wait(10)
        log.close()
