"""Who writes to a store, as far as it can be seen from here without touching it.

A SQLite file has no register of its users. On Linux /proc tells which processes
have it open for writing (they may write), and who holds a write lock at this
moment (they do). A Postgres tells its connections. Nothing is locked, opened for
writing or asked twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrate.config import PostgresSettings, Settings, SqliteSettings

_PROC = Path("/proc")
_LOOKS, _PAUSE_S = 5, 0.02
# Bytes that a SQLite writer locks (https://www.sqlite.org/fileformat2.html#the_lock_byte_page and
# https://www.sqlite.org/walformat.html#locks): RESERVED in the file; in the -shm file the first lock.
_RESERVED_BYTE = 0x40000001
_WAL_WRITE_BYTE = 120
_WAL_VERSION = 2  # bytes 18 and 19 of the header: the file is in WAL mode


@dataclass(frozen=True, slots=True)
class Writers:
    """What was seen of the writers of a store.

    count: how many may write at the same time, or None where that cannot be seen.
    busy:  how many were writing at the moments of looking, or None.
    how:   what `count` counts, to be read after the number ("processes have the file open ...").
    note:  what else is to be known. given: the user has said it.
    """

    count: int | None
    busy: int | None = None
    how: str = ""
    note: str = ""
    given: bool = False


def seen(settings: Settings) -> Writers:
    """Return what can be seen of the writers of a store; an embedded server must be running already."""
    if isinstance(settings, SqliteSettings):
        return _of_file(settings.path)
    if isinstance(settings, PostgresSettings):
        return _of_server(settings)
    return Writers(None, note=f"not measurable here: {settings.type} tells nothing of its writers")


def _of_file(path: Path, proc: Path = _PROC) -> Writers:
    mode = journal_mode(path)
    note = f"the file is in {mode} mode" if mode else ""
    if not (proc / "self" / "fd").is_dir():
        return Writers(None, note=f"{note}; not measurable here: this system has no /proc".lstrip("; "))
    opened, hidden = _writable_by(path, proc)
    busy: set[int] = set()
    for n in range(_LOOKS):
        busy |= _write_locks(path, proc)
        if n + 1 < _LOOKS:
            time.sleep(_PAUSE_S)
    busy.discard(os.getpid())
    if hidden:
        note += f"; {hidden} processes of other users could not be looked into"
    return Writers(
        len(opened | busy),
        len(busy),
        "other processes have the file open for writing"
        if len(opened | busy) != 1
        else "other process has the file open for writing",
        note,
    )


def journal_mode(path: Path) -> str | None:
    """Return "WAL" or "rollback", as the file's header says; None where it cannot be read."""
    from migrate.backends.sqlite.hostile import descriptor_of

    try:
        with descriptor_of(path) as descriptor:  # one that does not drop this process's own locks
            header = os.pread(descriptor, 20, 0)
    except OSError:
        return None
    if len(header) < 20:
        return None
    return "WAL" if header[18] == _WAL_VERSION else "rollback"


def _writable_by(path: Path, proc: Path) -> tuple[set[int], int]:
    """Return the other processes that have the file open for writing, and how many would not be looked into."""
    wanted = path.stat()
    found: set[int] = set()
    hidden = 0
    for folder in _processes(proc):
        try:
            descriptors = os.listdir(folder / "fd")
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it has ended meanwhile
            continue
        for name in descriptors:
            try:
                info = os.stat(folder / "fd" / name)
                if (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino) and _writes(folder, name):
                    found.add(int(folder.name))
                    break
            except OSError:
                continue
    return found, hidden


def _processes(proc: Path) -> Iterator[Path]:
    own = str(os.getpid())
    return (folder for folder in proc.iterdir() if folder.name.isdigit() and folder.name != own)


def _writes(folder: Path, descriptor: str) -> bool:
    """Whether a descriptor was opened for writing (octal flags of open(2) in fdinfo)."""
    for line in (folder / "fdinfo" / descriptor).read_text(encoding="ascii").splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _write_locks(path: Path, proc: Path) -> set[int]:
    """Return the processes that hold the lock of a writer just now."""
    places: dict[str, int] = {}
    for file, byte in ((path, _RESERVED_BYTE), (path.with_name(path.name + "-shm"), _WAL_WRITE_BYTE)):
        try:
            places[str(file.stat().st_ino)] = byte
        except OSError:
            continue
    try:
        lines = (proc / "locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return set()
    holders = set()
    for line in lines:  # `1: POSIX  ADVISORY  WRITE 1234 08:01:131074 120 120`
        words = [word for word in line.split() if word != "->"]
        if len(words) < 8 or words[3] != "WRITE":
            continue
        wanted = places.get(words[5].rpartition(":")[2])
        if wanted is None:
            continue
        if int(words[6]) <= wanted and (words[7] == "EOF" or wanted <= int(words[7])):
            holders.add(int(words[4]))
    return holders


def _of_server(settings: PostgresSettings) -> Writers:
    from migrate.backends.postgres.connect import connect
    from migrate.backends.postgres.names import translating

    with translating("ask who is connected", connecting=True), connect(settings, first=True) as connection:
        row = connection.execute(
            # Of other roles' connections a role without pg_read_all_stats sees little but that they are there.
            "SELECT count(*), count(backend_xid), count(*) FILTER (WHERE backend_type IS NULL)"
            " FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()"
            " AND coalesce(backend_type, 'client backend') = 'client backend'"
            " AND pid <> pg_catalog.pg_backend_pid() AND coalesce(application_name, '') <> 'memlift'"
        ).fetchone()
    others, busy, hidden = row or (0, 0, 0)
    note = f"{hidden} connections of other roles show nothing of what they do" if hidden else ""
    how = "other connection to the database" if others == 1 else "other connections to the database"
    return Writers(int(others), int(busy), how, note)
