"""Private files, and locks that the kernel drops when their holder dies.

Locks are `flock` locks: they belong to an open file, pass to a child that
inherits it, and vanish with the last process that has it open, whatever
killed it. So a lock answers "does this process still live?" where a pid cannot:
a pid may be reused, belong to a zombie, or be counted in another container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from provisioners.errors import ProvisionError

_POLL_S = 0.05


def private_dir(path: Path) -> None:
    """Create `path` with mode 0700 where it is missing; an existing folder keeps its mode.

    Missing parents are created with the process's umask, as `mkdir -p` does.
    Raises ProvisionError where the path is a file or may not be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            hint = "name a folder, or a path that is free"
            raise ProvisionError("not a folder", hint=hint, path=path) from None
    except OSError as exc:
        hint = "choose a folder that you may write to"
        raise ProvisionError(f"cannot create the folder: {exc.strerror}", hint=hint, path=path) from exc


def write_private(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Replace `path` by `text`, mode 0600, durable: readers see the old file or the new, never half.

    owner: user and group id of the new file, if not our own.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if owner is not None:
                # By descriptor: in a folder of somebody else a name could be swapped for a link.
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Make renames and removals in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Return the bytes that the files below `path` occupy; files that vanish meanwhile count as 0."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(info.st_mode):
                    total += info.st_blocks * 512
    return total


def try_lock(path: Path) -> int | None:
    """Take the exclusive lock of `path` and return its open descriptor, or None where it is held.

    The file is created where it is missing (0600). Closing the descriptor, in
    every process that has it, gives the lock back. Raises ProvisionError on a file
    system without locks (some network mounts).
    """
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise ProvisionError(
            f"this file system cannot lock files: {exc.strerror}",
            hint="use a folder on a local disk",
            path=path,
        ) from exc
    return fd


def locked(path: Path) -> bool:
    """Whether a living process holds the lock of `path`; a missing file is not locked."""
    if not path.exists():
        return False
    fd = try_lock(path)
    if fd is None:
        return True
    os.close(fd)
    return False


@contextlib.contextmanager
def exclusive(path: Path, *, timeout: float, what: str) -> Iterator[None]:
    """Hold the lock of `path`; wait for another holder up to `timeout` seconds.

    Raises ProvisionError when the other holder does not finish in time.
    """
    deadline = time.monotonic() + timeout
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise ProvisionError(
                f"another process has been busy with {what} for {timeout:.0f} s",
                hint="wait for it to end, or end it, then run this again",
                path=path.parent,
            )
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(fd)
