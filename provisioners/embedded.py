"""A Postgres with pgvector of one's own, in a folder: no Docker, no compiler, no root needed.

The folder holds `data/` (the database; its owner runs the server), `password` and
`server.json` (0600), `postgres.log`, and three kinds of locks: `mutex` (one process at
a time starts or stops), `alive` (held by the server's own processes), `users/*` (one
for each `EmbeddedPostgres` in use). The kernel drops a lock with its holder, so a
`kill -9` of a user or of the server leaves nothing to mend by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from migrate.config import mask
from provisioners import files, pgprobe
from provisioners.errors import NotReadyError, ProvisionError
from provisioners.pgcluster import Cluster, tail
from provisioners.users import Users

_POLL_S = 0.05
KNOWN_NAMES = {"data", "password", "server.json", "postgres.log", "postgres.log.1", "mutex", "alive", "users"}
_MAX_LOG_BYTES = 10_000_000  # a longer log is set aside at the next start


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is remembered between starts; created: UTC, ISO 8601."""

    version: int
    port: int
    created: str


class EmbeddedPostgres:
    """The Postgres server of one folder, shared by all processes that name this folder.

    folder: created (0700) where it is missing; one that holds other things is refused.
    version: 16 or 18; None takes the folder's own, and 18 for a new one.
    start_timeout: seconds to wait for readiness, crash recovery included. A server that
        dies meanwhile ends the wait at once.

    As a context manager it starts the server, and stops it as the last user.
    """

    def __init__(
        self, folder: str | Path, *, version: int | None = None, start_timeout: float = 300.0
    ) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.start_timeout = start_timeout
        self._version = version
        self._users = Users(self.folder / "users")
        self._url: str | None = None

    @property
    def data(self) -> Path:
        """The folder of the database itself (Postgres' PGDATA)."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file of the server's messages."""
        return self.folder / "postgres.log"

    @property
    def url(self) -> str:
        """The libpq URL of the database `memory`, password included.

        Raises ProvisionError before `start()` and after `stop()`.
        """
        if self._url is None:
            raise ProvisionError("the server has not been started", hint="call start()", path=self.folder)
        return self._url

    def start(self, *, keep: bool = False) -> None:
        """Start the server, or attach to the one that runs here; return when it has answered a query.

        Idempotent, and safe from several processes at once. keep: the server stays
        up after its last user, until `stop(force=True)`.
        Raises ProvisionError (no such version, folder in use for something else, the
        server's own last messages), NotReadyError after `start_timeout`, MissingExtraError.
        """
        if os.name != "posix":
            raise ProvisionError("embedded Postgres needs Linux or macOS", hint="use Docker")
        files.private_dir(self.folder)
        try:
            self._refuse_strangers()
            with self._mutex():
                self._users.enter()
                try:
                    url = self._ensure_running()
                    # Also when attaching: who started it may have been killed before this.
                    pgprobe.make_database(url)
                    self._url = url
                    if keep:
                        self._users.keep()
                except BaseException:
                    self._users.leave()
                    raise
        except PermissionError as exc:
            raise ProvisionError(
                f"no permission in this folder: {exc.filename}",
                hint="run as its owner, or choose another folder",
                path=self.folder,
            ) from exc

    def stop(self, force: bool = False) -> None:
        """Stop the server if nobody else uses it; with `force`, for everybody.

        Open connections are ended, committed data is kept. Idempotent.
        Raises ProvisionError where the server does not end.
        """
        self._url = None
        if not (self.folder / "mutex").exists():
            return
        with self._mutex():
            self._users.leave()
            if force:
                self._users.clear()
            if force or not self._users.count():
                self._shut_down()

    def made(self) -> bool:
        """Whether a database may be in the folder, by its files; one that we may not look into counts as made."""
        return self.data.exists() if os.access(self.folder, os.X_OK) else self.folder.exists()

    def running(self) -> bool:
        """Whether processes of this folder's server live; not whether they answer."""
        return files.locked(self.folder / "alive")

    def state(self) -> ServerState | None:
        """Return what is remembered of this folder's server, or None where none was made."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            found = json.loads((self.folder / "server.json").read_text(encoding="utf-8"))
            return ServerState(int(found["version"]), int(found["port"]), str(found["created"]))
        return None

    def saved_url(self) -> str | None:
        """Return the URL of this folder's server, running or not, or None where none was made."""
        state, secret = self.state(), self.folder / "password"
        if state is None or not secret.exists():
            return None
        return pgprobe.url_of(state.port, secret.read_text(encoding="utf-8").strip())

    def user_count(self) -> int:
        """Return how many living users share the server; being kept counts as one."""
        return self._users.count()

    def last_log(self, lines: int = 20) -> str:
        """Return the server's last messages, secrets masked."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 1000 * lines))
            return tail(mask(file.read().decode(errors="replace")), lines)
        return "(none)"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _mutex(self) -> contextlib.AbstractContextManager[None]:
        return files.exclusive(
            self.folder / "mutex", timeout=self.start_timeout + 60, what="starting or stopping this database"
        )

    def _refuse_strangers(self) -> None:
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")} - KNOWN_NAMES
        if "PG_VERSION" in names:
            raise ProvisionError(
                "this folder is a Postgres data folder that memlift did not make",
                hint="start that server yourself and give its URL, or choose another folder",
                path=self.folder,
            )
        if names:
            raise ProvisionError(
                f"the folder holds other things ({', '.join(sorted(names)[:3])})",
                hint="choose a new folder for the database",
                path=self.folder,
            )

    def _ensure_running(self) -> str:
        deadline = time.monotonic() + self.start_timeout
        while (alive := files.try_lock(self.folder / "alive")) is None:  # it may be starting or stopping
            url = self.saved_url()
            if url is not None and pgprobe.answers(url, self.data):
                Cluster(self.data, self._version)  # refuses another version than the asked one
                return url
            self._check_time(deadline)
        try:
            cluster = Cluster(self.data, self._version)
            if cluster.exists:
                cluster.clear_stale_pid()
            password = self._password(cluster, alive)
            if not cluster.exists:
                cluster.create(password, alive=alive)
        finally:
            os.close(alive)
        return self._launch(cluster, password, deadline)

    def _password(self, cluster: Cluster, alive: int) -> str:
        """Return the saved password, else a new one that is saved and, if need be, made the database's."""
        path = self.folder / "password"
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text(encoding="utf-8").strip():
                return found
        password = secrets.token_urlsafe(32)
        if cluster.exists:
            cluster.set_password(password, alive=alive)
        files.write_private(path, password + "\n")
        return password

    def _launch(self, cluster: Cluster, password: str, deadline: float) -> str:
        state = self.state()
        port = state.port if state is not None and pgprobe.port_is_free(state.port) else pgprobe.free_port()
        created = state.created if state is not None else datetime.now(UTC).isoformat(timespec="seconds")
        for _ in range(3):
            cluster.configure(port)
            state = ServerState(cluster.version, port, created)
            files.write_private(self.folder / "server.json", json.dumps(asdict(state)) + "\n")
            self._spawn(cluster, port)
            url = pgprobe.url_of(port, password)
            if self._await_answer(url, deadline):
                return url
            if pgprobe.port_is_free(port):
                break
            port = pgprobe.free_port()  # somebody took it between our look and the server's bind
        raise self._dead()

    def _spawn(self, cluster: Cluster, port: int) -> None:
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_name("postgres.log.1"))
        alive = files.try_lock(self.folder / "alive")
        if alive is None:
            raise ProvisionError("the old server is still ending", hint="try again", path=self.folder)
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                started = cluster.start(port, log=log, alive=alive)
            finally:
                os.close(log)
        finally:
            os.close(alive)
        if not started:
            raise self._dead()

    def _await_answer(self, url: str, deadline: float) -> bool:
        """Return True once the server answers, False when it has died. Raises NotReadyError in time."""
        while True:
            if pgprobe.answers(url, self.data):
                return True
            if not self.running():
                return False
            self._check_time(deadline)

    def _check_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"the server did not answer within {self.start_timeout:.0f} s; "
                f"its last messages:\n{self.last_log()}",
                hint="after a crash it may still be recovering: try again later, or raise the limit",
                path=self.folder,
            )
        time.sleep(_POLL_S)

    def _dead(self) -> ProvisionError:
        return ProvisionError(
            f"the server did not start; its last messages:\n{self.last_log()}",
            hint=f"see {self.log}",
            path=self.folder,
        )

    def _shut_down(self) -> None:
        for mode, seconds in (("fast", 60), ("immediate", 10)):
            if not self.running():
                return
            Cluster(self.data, None).stop(mode, timeout=seconds)
            deadline = time.monotonic() + 5  # its last processes may need a moment after pg_ctl's answer
            while self.running() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        if self.running():
            raise ProvisionError(
                f"the server does not stop; its last messages:\n{self.last_log()}",
                hint=f"see {self.log} and the processes named 'postgres: memlift'",
                path=self.folder,
            )
