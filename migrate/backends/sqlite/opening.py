"""Open a SQLite file as a source without touching it.

No way of SQLite fits every state of a file, and the wrong one loses rows in
silence: `immutable=1` on the file of a live WAL writer saw 0 of 100 committed
rows; `mode=ro` creates `-wal` and `-shm` beside a file that was closed cleanly.
So the state decides (`Opened.how`):

wal        `-wal` and `-shm` are there: read with SQLite's own locks, `-shm` not
           written. Writers go on; so do checkpoints, up to this snapshot.
no-lock    `-wal` without `-shm` (a copied pair, a killed writer): both read
           without locks, as creating `-shm` is the only way to have them.
immutable  a WAL database that was closed cleanly, or whose `-wal` has no
           committed transaction: only the file itself is read.
locks      a rollback-journal database: read under SQLite's shared lock, which
           makes its writers wait at commit until the source is closed.
copy       a `-journal` of a killed writer: file and journal are copied into a
           private folder and rolled back there.

In `no-lock` and `immutable` no lock keeps a writer that comes later away;
`Opened.check()` finds what it did. What is left is a race of microseconds: a
last writer that closes between the look at its `-wal` and the opening of it
can make SQLite create an empty `-wal` again.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from migrate.backends.sqlite.hostile import (
    HEADER_BYTES,
    WAL_HEADER_BYTES,
    allow_reading_only,
    descriptor_of,
    distrust,
    explaining,
    parse_header,
    refuse_truncated,
    refuse_unrecoverable,
    unrecoverable,
    wal_has_commit,
    wal_is_sound,
)
from migrate.backends.sqlite.names import PASSING
from migrate.errors import BackendError, ConfigError, TransientError

# Seconds that SQLite itself waits for a lock; longer waits are the caller's retries.
_BUSY_TIMEOUT_S = 1.0
# A second change within one tick of the kernel's clock (4 to 10 ms) leaves the mtime as it was.
_CLOCK_TICK_S = 0.02
# Against a writer that opens and closes the file 900 times a second, 5 attempts failed 3 of 60
# openings, 20 failed none of 205 (1 ms in the middle, 0.3 s at worst).
_ATTEMPTS = 20
_COPY_BYTES = 8 * 2**20
_INDEX_HEAD_BYTES = 48  # https://www.sqlite.org/walformat.html#the_wal_index_header

_URI_OPTIONS = {
    "wal": "mode=ro&readonly_shm=1",
    "no-lock": "mode=ro&vfs=unix-none",
    "immutable": "mode=ro&immutable=1",
    "locks": "mode=ro&readonly_shm=1",  # so that a file that turns WAL just now gets no -shm from us
}
_LOCKLESS = ("no-lock", "immutable", "copy")
_OWN_SNAPSHOT = ("wal", "copy")  # by SQLite's locks on the WAL, or in files of our own


@dataclass(frozen=True, slots=True)
class Opened:
    """A source in one read transaction: every reading sees the rows committed before it was opened.

    connection: usable from any thread, by one at a time; it can only read, and
                cannot end its transaction (see `allow_reading_only`).
    how:        the way it is read, a word of this module's list, for reports.
    state:      equal states of a file mean equal rows, also between processes and days; None where
                that cannot be told (see `_state`).
    """

    connection: sqlite3.Connection
    how: str
    state: str | None
    _changed: Callable[[], str | None] = field(repr=False)
    _as_opened: Callable[[], bool] = field(repr=False)
    _closing: ExitStack = field(repr=False)

    def is_current(self) -> bool:
        """Whether this is as good as to open the file anew, and costs its writers nothing to keep.

        Only ever so of a file that is read as `immutable`. Any other way keeps
        writers or checkpoints waiting; and a program that opens its own live
        WAL file after us could not write to it (see `open_source`).
        """
        return self.how == "immutable" and self._as_opened()

    def check(self) -> None:
        """Raise BackendError where the file changed in a way that this way of reading does not see.

        What was read before is then in doubt, too. Call it after reading and
        before anything read is declared complete.
        """
        if (change := self._changed()) is not None:
            raise BackendError(
                f"the source changed while it was read without its writers' locks: {change}",
                hint="run it again; stop the programs that write to the source, or keep them running",
                way=self.how,
            )

    def close(self) -> None:
        """End the transaction and remove private copies; again is harmless."""
        self._closing.close()


def open_source(path: Path) -> Opened:
    """Open a file for reading; nothing is created, changed or deleted beside it.

    Raises ConfigError for what is no readable SQLite database, TransientError
    where another program holds it exclusively or is changing it just now.

    A program that reads its own live WAL file this way must have it open
    already: SQLite shares `-shm` within a process, so a connection that it
    opens after this one gets SQLITE_READONLY when it writes.
    """
    with explaining(path):
        place = _real(path)
        for _ in range(_ATTEMPTS):
            with ExitStack() as stack:
                if (opened := _attempt(place, path, stack)) is not None:
                    return opened
        raise TransientError(
            "the source changes while it is being opened",
            hint="its writers open and close it all the time; try again, or stop them for a moment",
            file=str(path),
        )


def _attempt(place: Path, path: Path, stack: ExitStack) -> Opened | None:
    """Open by the state of the files, or return None where that changed meanwhile."""
    descriptor = stack.enter_context(descriptor_of(place))
    before = _look(place, descriptor)
    how = _way(before, place, path)
    if how in _LOCKLESS and _just_written(before):
        time.sleep(_CLOCK_TICK_S)
        if _look(place, descriptor) != before:
            return None
    try:
        connection = _connect(place, how) if how != "copy" else None
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorname", "")
        if before.journal_begun and code in ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY"):
            how, connection = "copy", None
        elif code.startswith(PASSING):
            raise
        elif _look(place, descriptor) != before:
            return None
        else:
            if how in ("locks", "immutable"):  # say more than "malformed" where we can
                refuse_truncated(parse_header(before.head, before.main.size, path), before.main.size, path)
            raise
    if connection is None:
        connection = _connect_copy(place, descriptor, before, stack, path)
    stack.callback(connection.close)
    now = _look(place, descriptor)
    if how == "locks":
        before = now  # from here on our lock keeps writers away
    if _changed(before, now, how) or not (now.same_file or how == "copy"):
        return None
    if how in ("locks", "immutable"):
        header = parse_header(now.head, now.main.size, path)
        if header.wal != (how == "immutable") and not now.wal:
            return None  # it changed its journal mode
        refuse_truncated(header, now.main.size, path)
    changed = partial(_changed_since, before, how, place, descriptor)
    as_opened = partial(_is_as_before, before, place, descriptor)
    return Opened(connection, how, _state(before, now, how), changed, as_opened, stack.pop_all())


def identity(path: Path) -> dict[str, int]:
    """Return what tells one state of a file from another, for plans and notes.

    Free of device and inode numbers, so that a copy which keeps the mtime
    counts as the same. What a writer has only in its `-wal` does not show.
    """
    with explaining(path):
        place = _real(path)
        with descriptor_of(place) as descriptor:
            look = _look(place, descriptor)
        header = parse_header(look.head, look.main.size, path)
        return {
            "size": look.main.size,
            "page_size": header.page_size,
            "change_counter": header.change_counter,
            "schema_cookie": header.schema_cookie,
            "user_version": header.user_version,
            "mtime_ns": look.main.mtime_ns,
        }


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One file as `stat` has it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class _Look:
    """A database and the files beside it at one moment; `wal_head` has the salts of this round of the WAL."""

    main: _Stamp
    same_file: bool  # our descriptor is of the file that now has this name
    head: bytes
    wal: _Stamp | None
    wal_head: bytes
    shm: bool
    index_head: bytes  # of the -shm: what readers see of the WAL, twice
    journal: _Stamp | None
    journal_begun: bool  # its first byte is not zero: it may be hot, SQLite decides under its locks


@lru_cache(maxsize=64)
def _beside(place: Path, suffix: str) -> Path:
    """Return a file beside the database; kept, as making a path takes longer than looking for the file."""
    return place.with_name(place.name + suffix)


def _stamp(path: Path) -> _Stamp | None:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return _Stamp(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open(path, "rb") as file:  # never the database itself: see descriptor_of
            return file.read(count)
    except FileNotFoundError:
        return b""


def _look(place: Path, descriptor: int) -> _Look:
    main, wal, journal = (_stamp(_beside(place, s)) for s in ("", "-wal", "-journal"))
    if main is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    held = os.fstat(descriptor)
    return _Look(
        main=main,
        same_file=(held.st_dev, held.st_ino) == (main.device, main.inode),
        head=os.pread(descriptor, HEADER_BYTES, 0),
        wal=wal,
        wal_head=_first_bytes(_beside(place, "-wal"), WAL_HEADER_BYTES) if wal else b"",
        shm=os.path.exists(_beside(place, "-shm")),
        index_head=_index_head(_beside(place, "-shm")) if wal else b"",
        journal=journal,
        journal_begun=_first_bytes(_beside(place, "-journal"), 1) not in (b"", b"\0") if journal else False,
    )


def _index_head(shm: Path) -> bytes:
    try:
        with descriptor_of(shm) as descriptor:  # SQLite's locks on a WAL are locks on this file
            return os.pread(descriptor, 2 * _INDEX_HEAD_BYTES, 0)
    except OSError:
        return b""


def _state(before: _Look, now: _Look, how: str) -> str | None:
    """Name the rows that a snapshot sees, opened between two looks; None where that cannot be told.

    The head of a WAL's index has the number of its frames, a checksum over all
    of them and salts that are drawn anew each round: a name that no clock is
    needed for. The WAL itself would not do, as a commit stands there before its
    readers are told of it, until the disk has it. A rollback journal's writers
    count in the file's header. What is left to the mtime are the files of a WAL
    that was emptied or that has no index.
    """
    if how == "copy":
        return None
    if how == "wal":
        first, second = now.index_head[:_INDEX_HEAD_BYTES], now.index_head[_INDEX_HEAD_BYTES:]
        if before.index_head != now.index_head or first != second or len(first) < _INDEX_HEAD_BYTES:
            return None
        if int.from_bytes(first[16:20], sys.byteorder):
            return f"wal {now.main.device} {now.main.inode} {first.hex()}"
    main, wal = before.main, before.wal if how == "no-lock" else None
    if how != "locks" and _just_written(before):
        return None
    kept = f"{main.device} {main.inode} {main.size} {main.mtime_ns} {before.head.hex()}"
    return f"file {kept}" + (f" {wal.size} {wal.mtime_ns} {before.wal_head.hex()}" if wal else "")


def _just_written(look: _Look) -> bool:
    """Whether one more write could leave all the mtimes as they are."""
    since = time.time_ns() - int(_CLOCK_TICK_S * 1e9)
    return any(stamp is not None and stamp.mtime_ns > since for stamp in (look.main, look.wal, look.journal))


def _way(look: _Look, place: Path, path: Path) -> str:
    header = parse_header(look.head, look.main.size, path)
    if look.wal and look.shm and not _endless(look):
        return "wal"
    # SQLite reads a -wal even where the header says rollback journal.
    if look.journal_begun and (header.wal or look.wal):
        return "copy"
    if look.wal and wal_has_commit(_beside(place, "-wal")):
        return "no-lock"
    return "immutable" if header.wal or look.wal else "locks"


def _endless(look: _Look) -> bool:
    """Whether SQLite would read this `-wal` again and again, for 10 s, if no writer is there to write `-shm`.

    It compares the salts of the header with those that it read for the sake of the frames, and
    reads none for a header that is alone (a writer was killed between it and the first frame) or
    damaged. No row is in such a `-wal`.
    """
    size = look.wal.size if look.wal else 0
    return size == WAL_HEADER_BYTES or (size > WAL_HEADER_BYTES and not wal_is_sound(look.wal_head))


def _changed(before: _Look, now: _Look, how: str) -> str | None:
    """Say what changed of that which this way of reading relies on, or None."""
    if how in _OWN_SNAPSHOT:
        return None
    if (now.main, now.head) != (before.main, before.head):
        return "the file was written or replaced"
    if how == "no-lock" and (now.wal is None or now.wal_head != before.wal_head):
        return "its -wal was begun anew"  # that it only grew is fine: the new rows come after our snapshot
    return None


def _changed_since(before: _Look, how: str, place: Path, descriptor: int) -> str | None:
    if how in _OWN_SNAPSHOT:
        return None
    try:
        return _changed(before, _look(place, descriptor), how)
    except OSError as exc:
        return f"it is gone: {exc.strerror}"


def _is_as_before(before: _Look, place: Path, descriptor: int) -> bool:
    try:
        return _look(place, descriptor) == before
    except OSError:
        return False


def _connect(place: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{place.as_uri()}?{_URI_OPTIONS[how]}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        distrust(connection)
        if how == "no-lock":  # keeps the index of the WAL in memory instead of in a -shm
            connection.execute("PRAGMA locking_mode=exclusive").close()
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # the snapshot begins here
        allow_reading_only(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_copy(
    place: Path, descriptor: int, before: _Look, stack: ExitStack, path: Path
) -> sqlite3.Connection:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memlift-"))
    needed = sum(stamp.size for stamp in (before.main, before.journal, before.wal) if stamp)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"no room for a private copy: {needed} bytes needed in {folder}, {free} free",
            hint="set TMPDIR to a folder with more room, or open the source once with its own program",
            file=str(path),
        )
    copy = Path(folder) / "source.db"
    with open(copy, "wb") as file:
        at = 0
        while part := os.pread(descriptor, _COPY_BYTES, at):
            at += file.write(part)
    for suffix in ("-journal", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(_beside(place, suffix), _beside(copy, suffix))
    if _look(place, descriptor) != before:
        raise TransientError(
            "the source was changed while a private copy of it was made",
            hint="another program is rolling its last transaction back; try again",
            file=str(path),
        )
    refuse_unrecoverable(_beside(copy, "-journal"), path)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        distrust(connection)
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # rolls back
        # A journal that is not this file's "recovers" it into a broken one. The structure is looked at
        # before the rows, whose own faults (NULL in a NOT NULL column) are no reason to refuse.
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found.startswith("***"):
        raise unrecoverable(f"it is damaged after that: {' '.join(found.split())}", path)
    size = os.stat(copy).st_size
    refuse_truncated(parse_header(_first_bytes(copy, HEADER_BYTES), size, path), size, path)
    return _connect(copy, "immutable")


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path, strict=True))  # -wal lies beside the file, not beside a link
    except ValueError as exc:  # a NUL in the name
        raise OSError(errno.EINVAL, str(exc)) from exc
