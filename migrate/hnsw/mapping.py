"""A file as memory, for the time in which nobody can change it."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_POPULATE_READ = 22  # MADV_POPULATE_READ of linux/mman.h, since Linux 5.14; Python 3.11 has no name for it


class ChangedError(Exception):
    """The file was written, by somebody who had waited long enough."""


@contextmanager
def steady(descriptor: int) -> Iterator[Bytes | None]:
    """Give a whole file as read-only memory without copying it; None where that cannot be done safely.

    A read lease (fcntl(2)) keeps it as it is: who would write it or cut it off waits until the lease
    is given back, 45 s at most (`fs.lease-break-time`). Linux gives one to the owner of a file that nobody
    has open for writing. All pages are brought in by one call, which fails where a disk cannot be
    read; touching such a page would end the process.

    Raises ChangedError at the end if it was written after all; what was done with the bytes is of no use then.
    """
    if not _leased(descriptor):
        yield None
        return
    try:
        before = os.fstat(descriptor)
        yield _populated(descriptor, before.st_size)
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            raise ChangedError("it was written while it was read")
    finally:
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _leased(descriptor: int) -> bool:
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # The kernel tells that somebody waits; SIGIO, its usual word for it, would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _populated(descriptor: int, size: int) -> Bytes | None:
    try:
        mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        mapped.madvise(_POPULATE_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    return np.frombuffer(mapped, np.uint8)
