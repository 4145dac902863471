"""Where a sidecar lies, who may write it, and what we remember of it.

`brain.hnsw` beside `brain.sqlite`; for further tables of a store, and where that
name is taken by somebody else's file (AgentOS writes its own index there),
`brain.sqlite.<table>-<column>.hnsw`. A file that memlift did not write is never
read as an index and never changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from migrate import config
from migrate.hnsw import container

SUFFIX = ".hnsw"
_BUILDING = ".building"
_MAPS = (".map.json", ".meta.json")  # that AgentOS writes beside its indexes
_CLOCK_TICK_S = 0.02  # a second change within one tick of the kernel's clock may leave all times as they are


class BusyError(Exception):
    """Another program is writing the sidecar."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What a sidecar is of: `store` is the file's name, not its path, so that a folder can be moved."""

    store: str
    table: str
    column: str


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the sidecar of a column lies, or is to be.

    path:     None where both names are taken. there: whether a file of ours for this column is there.
    stranger: a file of the usual name that is not ours, and is left alone.
    """

    path: Path | None
    there: bool
    stranger: Path | None = None


def spot(store: Path, table: str, column: str) -> Spot:
    """Find the place of a column's sidecar. `store` is the real path of the file."""
    owner = Owner(store.name, table, column)
    usual, named = usual_path(store), named_path(store, table, column)
    kinds = {path: _kind(path, owner) for path in (usual, named)}
    if kinds[usual] == "free" and any(os.path.lexists(f"{usual}{s}") for s in _MAPS):
        kinds[usual] = "strange"  # the index of that map is gone, and ours must not be taken for it
    for path in (named, usual):
        if kinds[path] == "ours":
            return Spot(path, True, usual if kinds[usual] == "strange" else None)
    stranger = next((path for path in (usual, named) if kinds[path] == "strange"), None)
    for path in (usual, named):
        if kinds[path] == "free":
            return Spot(path, False, stranger)
    return Spot(None, False, stranger)


def usual_path(store: Path) -> Path:
    """Return `brain.hnsw` for `brain.sqlite`."""
    path = store.with_suffix(SUFFIX)
    return path if path != store else store.with_name(store.name + SUFFIX)


def named_path(store: Path, table: str, column: str) -> Path:
    """Return the name for a second table; one that no other pair of table and column has."""
    plain = f"{table}-{column}"
    slug = re.sub(r"[^A-Za-z0-9_]", "_", table)[:60] + "-" + re.sub(r"[^A-Za-z0-9_]", "_", column)[:60]
    if slug != plain:
        slug += "-" + hashlib.sha256(f"{table}\0{column}".encode()).hexdigest()[:12]
    return store.with_name(f"{store.name}.{slug}{SUFFIX}")


def _kind(path: Path, owner: Owner) -> str:
    """Say whose a file is: "ours" (this column's), "other" (another column's), "strange", or "free"."""
    try:
        with opened(path) as descriptor:
            told = container.manifest(descriptor).told
    except FileNotFoundError:
        return "free"
    except container.BrokenError:
        return "ours"  # written by memlift, and of no use to anybody
    except (container.NotOursError, OSError):
        return "strange"
    if (told.get("table"), told.get("column")) != (owner.table, owner.column):
        return "other"
    if told.get("store") != owner.store and os.path.lexists(path.with_name(str(told.get("store")))):
        return "other"  # brain.db and brain.sqlite in one folder
    return "ours"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file for reading, never through a link, never waiting for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


class Writing:
    """The right to write a sidecar: a lock on the file that is to take its place.

    What a killed writer left is found unlocked, and used again.
    """

    def __init__(self, path: Path, store: Path) -> None:
        """Take the right. Raises BusyError, OSError (a folder that cannot be written)."""
        self.path, self._store = path, store
        self._temporary = path.with_name(path.name + _BUILDING)
        self.published = False
        self.descriptor = self._locked()

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            descriptor = os.open(self._temporary, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.fstat(descriptor)
                if not stat.S_ISREG(held.st_mode) or held.st_nlink > 1:
                    raise OSError("the name of its temporary file is taken")
                with suppress(FileNotFoundError):
                    now = os.lstat(self._temporary)
                    if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino):
                        return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise BusyError from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was renamed by its writer between our two calls

    def publish(self) -> None:
        """Put what was written into place, as readable as the store is."""
        info = os.stat(self._store)
        if os.geteuid() == 0:
            os.fchown(self.descriptor, info.st_uid, info.st_gid)
        os.fchmod(self.descriptor, stat.S_IMODE(info.st_mode) & 0o666)
        os.fsync(self.descriptor)
        os.rename(self._temporary, self.path)
        self.published = True
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Give the right back; nothing is left of what was not published."""
        if not self.published:
            with suppress(OSError):
                os.unlink(self._temporary)
        os.close(self.descriptor)


def remove(store: Path) -> list[str]:
    """Remove every sidecar that memlift made for a store; return their names."""
    removed = []
    for path in sorted(store.parent.glob(f"*{SUFFIX}*")):
        base = path.name.removesuffix(_BUILDING)
        if base != usual_path(store).name and not base.startswith(f"{store.name}."):
            continue
        if base != path.name:
            with suppress(BusyError, OSError):
                Writing(path.with_name(base), store).close()
        elif _is_of(path, store):
            path.unlink()
            removed.append(path.name)
            memory(path).unlink(missing_ok=True)
    return removed


def _is_of(path: Path, store: Path) -> bool:
    try:
        with opened(path) as descriptor:
            return bool(container.manifest(descriptor).told.get("store") == store.name)
    except container.BrokenError:
        return True
    except (container.NotOursError, OSError):
        return False


# --- what we remember ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier reading or writing of a sidecar proved.

    identity: of the file that had the right hash. root: that hash. state: of the store that it covers.
    """

    identity: str
    root: str
    state: str | None


def identity(descriptor: int) -> str:
    """Return what changes with any write to a file: the kernel sets the last of these, no program can."""
    info = os.fstat(descriptor)
    return f"{info.st_dev} {info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"


def memory(path: Path) -> Path:
    """Return the private file in which we remember a sidecar."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]
    return config.home() / "sidecars" / f"{name}.json"


def recall(path: Path) -> Known | None:
    """Return what we remember of a sidecar, or None."""
    try:
        told = json.loads(memory(path).read_text())
        return Known(str(told["identity"]), str(told["root"]), told["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(path: Path, root: str, state: str | None) -> None:
    """Remember that the file at `path` has this hash and covers this state of its store.

    Where our folder cannot be written the next opening reads and hashes again.
    """
    with suppress(OSError):
        with opened(path) as descriptor:
            changed_ns = os.fstat(descriptor).st_ctime_ns
            time.sleep(max(0.0, min(_CLOCK_TICK_S, changed_ns / 1e9 + _CLOCK_TICK_S - time.time())))
            if container.manifest(descriptor).root != root:
                return
            known = {"identity": identity(descriptor), "root": root, "state": state}
        file = memory(path)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w"
        ) as out:
            json.dump(known, out)
        os.rename(temporary, file)
