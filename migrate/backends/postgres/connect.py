"""Connections to Postgres: settings that notice a dead peer and work through a pooler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migrate.backends.postgres.names import ident, translating
from migrate.config import PostgresSettings
from migrate.errors import ConfigError

Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST = 140000  # TID range scans, client_connection_check_interval

# A peer behind a black hole is noticed within 30 s: keepalives free a waiting
# read after 10 + 3 * 5 s, tcp_user_timeout (ms) a COPY that is sending after 20 s.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "memlift",
}
# The same from the server's side, and no timeout of a careful administrator's in
# the middle of a long COPY. Set inside each transaction: through a pooler in
# transaction mode anything else would leak to other clients.
_LOCAL = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "client_connection_check_interval": "5000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}


@dataclass(frozen=True, slots=True)
class Server:
    """What a server is: version as a number (180004), where pgvector is, and which."""

    version: int
    schema: str
    schema_exists: bool
    vector_schema: str | None
    vector_version: tuple[int, ...]
    vector_available: str | None


def connect(settings: PostgresSettings, *, first: bool = False) -> Connection:
    """Connect. Raises ConfigError on a `first` connection that is refused, else TransientError."""
    with translating("connect", connecting=first):
        try:
            given = conninfo_to_dict(settings.conninfo)
        except psycopg.ProgrammingError:  # not told as the cause: it quotes the address, password and all
            raise ConfigError(
                "the Postgres address cannot be read", hint="postgresql://user:password@host:5432/database"
            ) from None
        defaults = {k: v for k, v in _DEFAULTS.items() if k not in given}
        # prepare_threshold=None: prepared statements break once two clients share a
        # pooled server connection (DuplicatePreparedStatement).
        return psycopg.connect(
            make_conninfo(settings.conninfo, **defaults), autocommit=True, prepare_threshold=None
        )


def local_settings(connection: Connection, **more: str) -> None:
    """Set what a transaction of ours needs, for this transaction only, in one round trip."""
    wanted = {**_LOCAL, **more}
    marks = ", ".join("(%s, %s)" for _ in wanted)
    parameters = [text for pair in wanted.items() for text in pair]
    connection.execute(
        "SELECT set_config(s.name, v.value, true) FROM pg_catalog.pg_settings s"
        f" JOIN (VALUES {marks}) v (name, value) ON lower(s.name) = lower(v.name)",
        parameters,
    )


def look_at(connection: Connection, wanted_schema: str | None) -> Server:
    """Return what the server is. Raises ConfigError where it is too old."""
    with translating("ask the server what it is", connecting=True):
        row = connection.execute(
            "SELECT current_setting('server_version_num')::int,"
            " coalesce(%s, current_schema(), 'public'),"
            " (SELECT n.nspname FROM pg_catalog.pg_extension e"
            "  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'),"
            " (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'vector'),"
            " (SELECT a.default_version FROM pg_catalog.pg_available_extensions a WHERE a.name = 'vector')",
            (wanted_schema,),
        ).fetchone()
        if row is None:
            raise ConfigError("the server answered nothing")
        version, schema, vector_schema, vector_version, available = row
        found = connection.execute(
            "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,)
        ).fetchone()
    if version < OLDEST:
        raise ConfigError(
            f"Postgres {version // 10000} is too old: memlift needs {OLDEST // 10000} or newer",
            hint="upgrade the server, or use another (memlift up postgres)",
        )
    parsed = tuple(int(p) for p in (vector_version or "0").split(".") if p.isdigit())
    return Server(version, schema, found is not None, vector_schema, parsed, available)


def qualified(schema: str, name: str) -> str:
    """Return a quoted name with its schema: nothing of ours depends on search_path."""
    return f"{ident(schema)}.{ident(name)}"
