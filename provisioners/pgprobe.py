"""Asking a Postgres on this machine: ports, connections that keep the password safe, who answers."""

from __future__ import annotations

import random
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.errors import MissingExtraError
from provisioners.errors import ProvisionError

if TYPE_CHECKING:
    from psycopg import Connection

HOST = "127.0.0.1"
ROLE = "memlift"
DATABASE = "memory"

# 20000-32000: below the ports that the kernel hands to outgoing connections (32768 up), so it stays ours.
PORTS = range(20000, 32000)


def url_of(port: int, password: str) -> str:
    """Return the libpq URL of our database on a local port."""
    return f"postgresql://{ROLE}:{password}@{HOST}:{port}/{DATABASE}"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a free port of 127.0.0.1, at random so that two programs seldom choose the same."""
    for port in random.sample(PORTS, 200):
        if port_is_free(port):
            return port
    raise ProvisionError(
        f"no free port on {HOST}", hint=f"end programs that listen on ports {PORTS.start} to {PORTS.stop}"
    )


def driver() -> Any:
    """Import psycopg. Raises MissingExtraError where it is not installed."""
    try:
        import psycopg
    except ImportError:
        raise MissingExtraError(
            "Postgres needs the package psycopg", hint="pip install 'memlift[embedded]'"
        ) from None
    return psycopg


def connect(url: str, database: str) -> Connection[tuple[Any, ...]]:
    """Connect as our role, never giving the password to a stranger who sits on our port."""
    psycopg = driver()
    # libpq 16 and later: only a server that knows the password too can pass SCRAM.
    extra = {"require_auth": "scram-sha-256"} if psycopg.pq.version() >= 160000 else {}
    connection: Connection[tuple[Any, ...]] = psycopg.connect(
        url,
        dbname=database,
        connect_timeout=3,
        autocommit=True,
        sslmode="disable",
        gssencmode="disable",
        **extra,
    )
    return connection


def answers(url: str, data: Path) -> bool:
    """Whether the server of the folder `data`, and not another one on its port, answers a query.

    Raises ProvisionError where it refuses the password.
    """
    psycopg = driver()
    try:
        with connect(url, "postgres") as conn:
            row = conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    except psycopg.OperationalError as exc:
        # psycopg has no SQLSTATE for a refused login; lc_messages is ours, so the text is English.
        if "password authentication failed" in str(exc) and port_of(
            data
        ) == psycopg.conninfo.conninfo_to_dict(url).get("port"):
            raise ProvisionError(
                "the server refuses the password that is saved beside it",
                hint="stop it, remove the file 'password', and start it: it gets a new one",
                path=data.parent,
            ) from None
        return False
    return row is not None and int(row[0]) == identifier(data)


def identifier(data: Path) -> int | None:
    """Return the system identifier of a data folder: the first 8 bytes of pg_control, as SQL shows it."""
    try:
        head = (data / "global" / "pg_control").read_bytes()[:8]
    except FileNotFoundError:
        return None
    return int.from_bytes(head, sys.byteorder, signed=True)


def port_of(data: Path) -> str | None:
    """Return the port that the running server wrote into its pid file (line 4), or None."""
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8").split("\n")[3]
    except (FileNotFoundError, IndexError):
        return None


def make_database(url: str) -> None:
    """Create our database on the server of `url` where it is missing.

    The server goes on with a CREATE DATABASE whose client was killed: then ours collides
    with it, over the name or over the template, and looks again.
    """
    errors = driver().errors
    with connect(url, "postgres") as conn:
        for attempt in range(100):
            if conn.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).rowcount:
                return
            try:
                conn.execute(f"CREATE DATABASE {DATABASE}")
            except (errors.DuplicateDatabase, errors.UniqueViolation, errors.ObjectInUse):
                if attempt == 99:
                    raise
                time.sleep(0.1)


def set_password(url: str, password: str) -> None:
    """Give the role of `url` a new password; only its SCRAM verifier crosses the wire and any log.

    Raises NotReadyError or RefusedError as `ready.ask_postgres` does.
    """
    psycopg = driver()
    try:
        with psycopg.connect(url, connect_timeout=3, autocommit=True) as conn:
            verifier = conn.pgconn.encrypt_password(
                password.encode(), ROLE.encode(), b"scram-sha-256"
            ).decode()
            conn.execute(f"ALTER ROLE {ROLE} PASSWORD '{verifier}'")
    except psycopg.Error as exc:
        from provisioners.ready import postgres_error

        raise postgres_error(exc) from exc
