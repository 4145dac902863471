"""A private folder for the one temporary copy; a dead process's folders are removed by the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from migrate.config import env
from migrate.errors import BackendError, ConfigError

_NAME = "memlift-backup-"
# Room left for others on the same disk.
_MARGIN = 16 << 20


def default_folder() -> Path:
    """Return where temporary copies go: TMPDIR, else /var/tmp (a disk where /tmp may be memory)."""
    given = env("TMPDIR")
    if given:
        return Path(given)
    var = Path("/var/tmp")  # noqa: S108 - a mkdtemp of mode 0700 inside
    return var if os.access(var, os.W_OK) else Path(tempfile.gettempdir())


@contextlib.contextmanager
def workspace(folder: Path | None, *, need: int) -> Iterator[Path]:
    """Yield an empty 0700 folder with `need` bytes free, removed afterwards.

    Raises ConfigError where the folder cannot be used, BackendError where the disk is too full.
    """
    parent = folder or default_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(parent)
        place, fd = _make(parent)
    except OSError as exc:
        raise ConfigError(f"cannot write to {parent}: {exc.strerror}", hint="give another --workdir") from exc
    try:
        check_room(place, need)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(fd)


def _make(parent: Path) -> tuple[Path, int]:
    """Make a folder and lock the folder itself, so that no moment of a dead process's life leaves one
    without the mark; another process may remove ours before it is locked, then the next one is made."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=_NAME, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if place.exists():
                return place, fd
            os.close(fd)


def check_room(folder: Path, need: int) -> None:
    """Raise BackendError where fewer than `need` bytes (and a margin of 16 MiB) are free."""
    free = shutil.disk_usage(folder).free
    if free < need + _MARGIN:
        raise BackendError(
            f"disk full: {need + _MARGIN:,} bytes needed in {folder}, {free:,} free",
            hint="make room, or give another --workdir",
        )


def _remove_dead(parent: Path) -> None:
    for place in parent.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError):  # another user's folder, or gone already
            if place.lstat().st_uid != os.getuid():
                continue
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(fd)
