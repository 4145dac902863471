"""Put a restored file in the place of another: atomically, and with nothing of the old one left to undo it.

A left-over -wal is replayed over the new file by the next reader (measured:
`integrity_check` says ok and the data are the old ones). So the old database's
WAL is first folded into it by SQLite, which changes nothing that it says, and
only then one rename puts the new file in its place: at every moment the path
holds the old database whole or the new one whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from migrate.backup.folder import fsync_dir
from migrate.backup.snapshot import uri
from migrate.errors import BackendError, ConfigError

_COMPANIONS = ("-wal", "-shm", "-journal")


class InUseError(ConfigError):
    """Another process has the database open; nothing was changed."""


def users_of(path: Path) -> list[int]:
    """Return the processes that have a database or its WAL open, as far as we may see them (Linux: /proc).

    The file itself is not opened, which would drop our own process's locks on it.
    """
    wanted = set(_identities(path))
    found: set[int] = set()
    if not wanted or not os.path.isdir("/proc/self/fd"):
        return []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    stat = os.stat(f"/proc/{pid}/fd/{fd}")
                    if (stat.st_dev, stat.st_ino) in wanted:
                        found.add(int(pid))
                        break
    return sorted(found)


def _identities(path: Path) -> Iterator[tuple[int, int]]:
    for suffix in ("", *_COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(f"{path}{suffix}")
            yield stat.st_dev, stat.st_ino


def refuse_if_used(path: Path) -> None:
    """Raise InUseError where a process has the database open."""
    if users := users_of(path):
        who = ", ".join("this process" if pid == os.getpid() else str(pid) for pid in users)
        raise InUseError(
            f"{path} is open in process {who}", hint="stop the agent that uses it, then restore again"
        )


def put_in_place(
    new: Path, target: Path, *, keep: bool, sidecars: dict[Path, Path], old_sidecars: list[Path]
) -> Path | None:
    """Replace `target` by `new` (same folder, complete, closed); return where the old file is kept.

    sidecars: finished files and their places; old_sidecars: files that belong to
    the old database and go before it does. Raises InUseError, BackendError.
    """
    refuse_if_used(target)
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S%fZ")
    existed = target.exists()
    settled = existed and _settle(target)
    if existed:
        stat = target.stat()
        os.chmod(new, stat.st_mode & 0o777)
        with contextlib.suppress(PermissionError):  # only root may give files away
            os.chown(new, stat.st_uid, stat.st_gid)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    refuse_if_used(target)
    kept = Path(f"{target}.replaced-{stamp}")
    # An index of other content finds other things. Without one the agent builds it anew.
    for old in old_sidecars:
        old.rename(kept.with_name(f"{kept.name}.{old.name}"))
    if not settled:
        # The old file is damaged or gone, so its WAL cannot be folded in; kept beside it.
        for suffix in _COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{target}{suffix}", f"{kept}{suffix}")
    fsync_dir(target.parent)
    if existed:
        _link(target, kept)
    os.replace(new, target)
    fsync_dir(target.parent)
    for source, place in sidecars.items():
        os.replace(source, place)
    if existed and settled and not keep:
        for path in (kept, *target.parent.glob(f"{kept.name}.*")):
            path.unlink(missing_ok=True)
    fsync_dir(target.parent)
    return kept if kept.exists() else None


def _link(target: Path, kept: Path) -> None:
    try:
        os.link(target, kept)
    except OSError:
        # No hard links here (FAT, some network disks): a copy costs space, but the swap stays atomic.
        import shutil

        try:
            shutil.copy2(target, kept)
        except OSError as exc:
            kept.unlink(missing_ok=True)
            raise BackendError(f"cannot keep the replaced file: {exc.strerror}", path=str(kept)) from exc


def _settle(target: Path) -> bool:
    """Fold WAL or hot journal into the old database; False where it is too damaged for that."""
    db = sqlite3.connect(uri(target, "mode=rw"), uri=True, isolation_level=None, timeout=2.0)
    with contextlib.closing(db):
        try:
            db.execute("PRAGMA trusted_schema=OFF")
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
            db.execute("BEGIN EXCLUSIVE")
            db.execute("COMMIT")
            if mode == "wal":
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if busy:
                    raise InUseError(f"{target} is being read", hint="stop what uses it, then restore again")
        except sqlite3.DatabaseError as exc:
            name = getattr(exc, "sqlite_errorname", "") or ""
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise InUseError(
                    f"{target} is locked by another process", hint="stop what uses it, then restore again"
                ) from exc
            if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_FULL")):
                raise BackendError(f"cannot prepare the old file: {exc}", path=str(target)) from exc
            return False
    left = [s for s in _COMPANIONS if os.path.exists(f"{target}{s}") and os.path.getsize(f"{target}{s}")]
    if "-wal" in left or "-journal" in left:
        raise InUseError(
            f"{target}{left[0]} came back: something opened the file", hint="stop it, then restore again"
        )
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{target}{suffix}")
    return True
