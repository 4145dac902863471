"""Who uses a shared server: one locked file for each, so that the dead are known from the living."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from provisioners import files

_KEPT = "kept"


class Users:
    """The register of one server, as seen by one of its users.

    Call its methods under the server's mutex. A user who dies, however, leaves a file
    that nobody has locked; the next look removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: tuple[int, Path, int] | None = None  # process, file, its open descriptor

    def enter(self) -> None:
        """Register; again is harmless."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._own is not None and self._own[0] == os.getpid() and self._own[1].exists():
            return
        self.leave()  # somebody stopped the server for all, and our entry went with it
        path = self._folder / secrets.token_hex(8)
        fd = files.try_lock(path)
        if fd is None:
            raise RuntimeError(f"a new file is locked: {path}")
        self._own = (os.getpid(), path, fd)

    def leave(self) -> None:
        """Take the own entry back. In a forked child it closes the child's copy, and the parent stays."""
        if self._own is None:
            return
        process, path, fd = self._own
        self._own = None
        os.close(fd)
        if process == os.getpid():
            path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Leave a mark that outlives every user, until `clear()`."""
        (self._folder / _KEPT).touch(mode=0o600)

    def count(self) -> int:
        """Return the number of living users, the mark of a kept server among them."""
        alive = 0
        for path in self._entries():
            if path.name == _KEPT or files.locked(path):
                alive += 1
            else:
                path.unlink(missing_ok=True)
        return alive

    def clear(self) -> None:
        """Forget everybody, and that the server is kept."""
        for path in self._entries():
            path.unlink(missing_ok=True)

    def _entries(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []
