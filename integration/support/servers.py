"""Postgres servers for tests, and a database for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import psycopg

from provisioners.embedded import EmbeddedPostgres

_TEMPLATE = "with_vector"

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Database:
    """One database; `url` has the password."""

    url: str

    def at(self, schema: str, **options: str) -> str:
        """Return the URL of a schema of this database."""
        return with_query(self.url, schema=schema, **options)

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a plain connection, in autocommit."""
        return psycopg.connect(self.url, autocommit=True, **options)

    def run(self, *statements: str) -> Rows:
        """Run statements one by one; return the rows of the last."""
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def role(self, name: str, password: str | None = None) -> Database:
        """Return this database as another role sees it; a test's roles have the password `secret`."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return Database(
            urlunsplit(parts._replace(netloc=f"{quote(name)}:{quote(password or 'secret')}@{host}"))
        )

    def through(self, port: int, **options: str) -> Database:
        """Return this database behind another port of this machine."""
        parts = urlsplit(self.url)
        secrets = parts.netloc.rpartition("@")[0]
        moved = urlunsplit(parts._replace(netloc=f"{secrets}@127.0.0.1:{port}"))
        return Database(with_query(moved, **options))

    @property
    def port(self) -> int:
        """Return the server's port."""
        return int(urlsplit(self.url).port or 0)


def with_query(url: str, **options: str) -> str:
    """Add options to a URL."""
    return url + ("&" if "?" in url else "?") + urlencode(options) if options else url


class Postgres:
    """A running embedded server.

    ahead: databases are made before they are asked for and dropped while the next test
           runs; not for a server that a test may stop.
    """

    def __init__(self, server: EmbeddedPostgres, *, ahead: bool) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._ahead = ahead
        self._made: Future[Database] | None = None
        self._pool = ThreadPoolExecutor(1, "databases")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.server.stop(force=True)

    @property
    def main(self) -> Database:
        """Return the server's first database."""
        return Database(self.server.url)

    def _make(self, template: str) -> Database:
        name = f"t{next(self._numbers)}"
        self.main.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Database(urlunsplit(urlsplit(self.server.url)._replace(path=f"/{name}")))

    def _drop(self, made: Database) -> None:
        self.main.run(f"DROP DATABASE {made.url.rpartition('/')[2]} WITH (FORCE)")

    @contextmanager
    def database(self, *, vector: bool = True) -> Iterator[Database]:
        """Make a database, and drop it at the end."""
        if not vector or not self._ahead:
            made = self._make(_TEMPLATE if vector else "template0")
            try:
                yield made
            finally:
                self._drop(made)
            return
        made = (self._made or self._pool.submit(self._make, _TEMPLATE)).result()
        self._made = self._pool.submit(self._make, _TEMPLATE)
        try:
            yield made
        finally:
            self._pool.submit(self._drop, made)

    @property
    def postmaster(self) -> int:
        """Return the server's process id."""
        return int((self.server.data / "postmaster.pid").read_text().split("\n")[0])


def a_server(folder: Path, version: int, *, ahead: bool = True) -> Postgres:
    """Start a server with a template that has pgvector."""
    server = EmbeddedPostgres(folder, version=version)
    server.start()
    running = Postgres(server, ahead=ahead)
    # What is tested is our promise of durability, not the disk's: kill -9 keeps what the kernel has.
    running.main.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    running.main.run(f"CREATE DATABASE {_TEMPLATE}")
    parts = urlsplit(server.url)
    Database(urlunsplit(parts._replace(path=f"/{_TEMPLATE}"))).run("CREATE EXTENSION vector")
    return running
