"""One Postgres data folder and the programs that work on it: initdb, postgres --single, pg_ctl.

Every program gets the folder as an open descriptor, by the name `/proc/self/fd/N`.
So spaces, quotes and any length of its path do no harm (pg_ctl hands it to a shell,
and Postgres cuts paths at 1024 bytes), and root's service user reaches it below folders
of mode 0700 with no permission changed: following such a name asks for the rights of
the folder itself alone (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from migrate.config import mask
from provisioners import files, pgbinaries, pgprobe, pgtuning
from provisioners.errors import ProvisionError

# musl and old systems have no C.UTF-8; both sort text by its bytes.
_LOCALES = (["--locale=C.UTF-8"], ["--no-locale"])


class Cluster:
    """The data folder `data`, with the programs of its version and the user who runs them.

    version: the major that a new folder gets; None: the default. An existing folder keeps its own.
    alive, in its methods: an open descriptor whose lock every program holds as long as
    one of its processes lives, also when we are killed meanwhile.
    Raises ProvisionError where the folder has another version than the asked one.
    """

    def __init__(self, data: Path, version: int | None) -> None:
        self.data = data
        found = version_of(data)
        if found is not None and version not in (None, found):
            raise ProvisionError(
                f"the folder holds Postgres {found}, not {version}",
                hint=f"use version {found}, or another folder and a migration into it",
                path=data.parent,
            )
        self.exists = found is not None
        self.version = found or version or pgbinaries.DEFAULT_VERSION
        self.who = pgbinaries.identity_for(data)
        programs = pgbinaries.bin_folder(self.version, pgbinaries.package_folder())
        self._bin = pgbinaries.reachable(programs, self.who)

    def create(self, password: str, *, alive: int) -> None:
        """Make the database under a passing name, so that `data` is whole or not there."""
        parent = self.data.parent
        for leftover in parent.glob(".data-*"):
            shutil.rmtree(leftover)
        for locale in _LOCALES:
            fresh = Path(tempfile.mkdtemp(prefix=".data-", dir=parent))
            os.chown(fresh, self.who.uid, self.who.gid)
            done = self._initdb(fresh, password, locale, alive)
            if done.returncode == 0:
                break
            shutil.rmtree(fresh)
        else:
            raise ProvisionError(
                f"cannot make the database:\n{tail(done.stdout)}", hint="mend what it says", path=parent
            )
        self._write(fresh / "pg_hba.conf", f"host all all {pgprobe.HOST}/32 scram-sha-256\n")
        conf = (fresh / "postgresql.conf").read_text(encoding="utf-8")
        self._write(fresh / "postgresql.conf", conf + "\ninclude 'memlift.conf'\n")
        fresh.rename(self.data)
        files.sync_dir(parent)
        self.exists = True

    def _initdb(
        self, fresh: Path, password: str, locale: list[str], alive: int
    ) -> subprocess.CompletedProcess[str]:
        # Not on the command line, where every user of the machine could read the password.
        with opened(fresh) as fd, tempfile.TemporaryFile(dir=self.data.parent) as secret:
            secret.write(f"{password}\n".encode())
            secret.flush()
            os.fchown(secret.fileno(), self.who.uid, self.who.gid)
            args = ["-D", address(fd, fresh), "-U", pgprobe.ROLE, "-E", "UTF8", "-k", *locale]
            args += ["--auth=scram-sha-256", f"--pwfile=/dev/fd/{secret.fileno()}"]
            return self.who.run([self._bin / "initdb", *args], fds=[fd, secret.fileno(), alive])

    def configure(self, port: int) -> None:
        """Write our settings for this machine as it is now; the user's own stay in postgresql.auto.conf."""
        values = pgtuning.settings(
            port=port,
            memory=pgtuning.memory_limit(),
            free_disk=shutil.disk_usage(self.data).free,
            shm=pgtuning.shared_memory(),
            cpus=os.cpu_count() or 1,
        )
        self._write(self.data / "memlift.conf", pgtuning.as_conf(values))

    def set_password(self, password: str, *, alive: int) -> None:
        """Give the role a new password while the server is down, where the old one was lost."""
        with opened(self.data) as fd:
            done = self.who.run(
                [self._bin / "postgres", "--single", "-D", address(fd, self.data), "postgres"],
                fds=[fd, alive],
                input=f"ALTER ROLE {pgprobe.ROLE} PASSWORD '{password}'\n",
            )
        if done.returncode != 0:
            raise ProvisionError(
                f"cannot set a new password:\n{tail(mask(done.stdout))}",
                hint="mend what it says",
                path=self.data,
            )

    def clear_stale_pid(self) -> None:
        """Remove the pid file of a server that is known to be gone.

        Postgres itself asks only whether the pid exists, and takes a zombie or a reused pid
        for a server. Raises ProvisionError where a server runs that was started by hand.
        """
        path = self.data / "postmaster.pid"
        try:
            pid = int(path.read_text(encoding="utf-8").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        with contextlib.suppress(OSError):  # no such process, a zombie, or somebody else's
            if os.path.samefile(f"/proc/{pid}/cwd", self.data):
                raise ProvisionError(
                    f"a server that memlift did not start runs on this data (pid {pid})",
                    hint="stop it with pg_ctl stop",
                    path=self.data,
                )
        path.unlink(missing_ok=True)

    def start(self, port: int, *, log: int, alive: int) -> bool:
        """Start the server in the background; return whether pg_ctl could. It is not yet ready then.

        log: an open descriptor that the server writes to.
        """
        with opened(self.data) as fd:
            # -W: waiting is ours, by a query and for as long as recovery takes.
            args = ["start", "-W", "-s", "-D", address(fd, self.data), "-o", f"-p {port} -h {pgprobe.HOST}"]
            done = self.who.run([self._bin / "pg_ctl", *args], fds=[fd, alive], stdout=log, stderr=log)
        return done.returncode == 0

    def stop(self, mode: str, *, timeout: int) -> None:
        """Ask the server to stop and wait up to `timeout` seconds; look at its lock for whether it did.

        mode: `fast` (ends connections, writes a checkpoint) or `immediate` (the next start recovers).
        """
        with opened(self.data) as fd, contextlib.suppress(subprocess.TimeoutExpired):
            args = ["stop", "-s", "-m", mode, "-t", str(timeout), "-D", address(fd, self.data)]
            self.who.run([self._bin / "pg_ctl", *args], fds=[fd], timeout=timeout + 10)

    def _write(self, path: Path, text: str) -> None:
        files.write_private(path, text, owner=(self.who.uid, self.who.gid))


def version_of(data: Path) -> int | None:
    """Return the major version of the database in `data`, or None before it is made.

    Raises ProvisionError where there is a folder, but no database to be seen in it.
    """
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        if not data.exists():
            return None
        raise ProvisionError(
            "the data folder is damaged: PG_VERSION is missing",
            hint="restore it from a backup, or choose a new folder",
            path=data,
        ) from None
    except PermissionError:
        raise ProvisionError(
            "the database belongs to another user",
            hint="run as its owner, or choose another folder",
            path=data,
        ) from None


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Keep a folder open and give its descriptor."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def address(fd: int, folder: Path) -> str:
    """Return a plain, short name of an open folder for the processes that inherit `fd`."""
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        return f"/proc/self/fd/{fd}"
    text = str(folder)  # no /proc (macOS): pg_ctl passes it to a shell in double quotes
    if any(c in text for c in "\"$`\\'\n") or len(os.fsencode(text)) > 900:
        raise ProvisionError(
            "this system needs a shorter path without quotes or $", hint="choose another folder", path=folder
        )
    return text


def tail(text: str, lines: int = 20) -> str:
    """Return the last lines of a text, or `(none)`."""
    return "\n".join(text.rstrip().split("\n")[-lines:]) or "(none)"
