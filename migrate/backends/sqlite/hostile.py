"""What the bytes of a SQLite file say before SQLite is let near them, and what its connection may do.

Offsets and the checksum are those of https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import struct
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.names import PASSING
from migrate.errors import ConfigError, TransientError

_Words: TypeAlias = npt.NDArray[np.uint32]

HEADER_BYTES = 100
WAL_HEADER_BYTES = 32
_MAGIC = b"SQLite format 3\x00"
_WAL_MAGIC = 0x377F0682  # the lowest bit tells the byte order of the checksum
_WAL_VERSION = 3007000
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

# Pragmas that only tell, as long as no value is given.
_TELLING_PRAGMAS = {
    *("application_id", "auto_vacuum", "cell_size_check", "compile_options", "data_version", "encoding"),
    *("freelist_count", "journal_mode", "mmap_size", "page_count", "page_size", "query_only"),
    *("schema_version", "trusted_schema", "user_version"),
}
# These take a name, or set something of this connection only (the last two).
_TELLING_PRAGMAS_WITH_NAME = {
    *("collation_list", "database_list", "foreign_key_check", "foreign_key_list", "function_list"),
    *("index_info", "index_list", "index_xinfo", "integrity_check", "module_list", "pragma_list"),
    *("quick_check", "table_info", "table_list", "table_xinfo", "cache_size", "temp_store"),
}
_DANGEROUS_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})


@dataclass(frozen=True, slots=True)
class Header:
    """The parts of the first 100 bytes that opening and fingerprints need.

    pages: the database's size in pages, or 0 where the header does not vouch
           for it (last written by a SQLite before 3.7).
    """

    page_size: int
    wal: bool
    change_counter: int
    schema_cookie: int
    user_version: int
    pages: int


def parse_header(raw: bytes, size: int, path: Path) -> Header:
    """Read a header, or raise ConfigError for bytes that are no database. `size`: bytes of the file."""
    if size == 0:
        raise ConfigError(
            "the file is empty, not a SQLite database",
            hint="check the path; a program that was only just started may not have written to it yet",
            file=str(path),
        )
    if raw[: len(_MAGIC)] != _MAGIC[: len(raw)]:
        raise ConfigError(
            "not a SQLite database, or an encrypted one",
            hint="check the path; an encrypted database (SQLCipher, SEE) must first be exported to a plain one",
            file=str(path),
        )
    if len(raw) < HEADER_BYTES:
        raise _truncated(f"{size} bytes, fewer than a header has", path)
    word = int.from_bytes
    stored_size = word(raw[16:18], "big")
    counter = word(raw[24:28], "big")
    return Header(
        page_size=65536 if stored_size == 1 else stored_size,
        wal=raw[19] == 2,  # the reader's version; the writer's (18) does not change how a file is read
        change_counter=counter,
        schema_cookie=word(raw[40:44], "big"),
        user_version=word(raw[60:64], "big", signed=True),
        pages=word(raw[28:32], "big") if counter == word(raw[92:96], "big") else 0,
    )


def refuse_truncated(header: Header, size: int, path: Path) -> None:
    """Raise ConfigError where pages are missing at the end.

    SQLite itself overlooks a cut inside the last page: it reads the missing
    bytes as zeros. Only for a file whose `-wal` and `-journal` have nothing to
    add: with those the last pages may be there.
    """
    if header.pages * header.page_size > size:
        raise _truncated(f"{size} of {header.pages * header.page_size} bytes", path)


def _truncated(what: str, path: Path) -> ConfigError:
    return ConfigError(
        f"the SQLite database is truncated: {what}",
        hint="copy it again, or restore it from a backup",
        file=str(path),
    )


def wal_has_commit(wal: Path) -> bool:
    """Whether SQLite would find a committed transaction in a `-wal` file.

    Needed because a lock-less connection deletes, when it closes, a `-wal` in
    which it found none (measured on 3.40: empty, garbage, and uncommitted
    frames alike). Reads up to the first commit, at about 330 MB/s.
    """
    try:
        with open(wal, "rb") as file:
            return _reaches_commit(file)
    except FileNotFoundError:
        return False


def wal_is_sound(head: bytes) -> bool:
    """Whether these are the first 32 bytes of a `-wal` whose frames count, if it has any."""
    magic, version, page_size = (int.from_bytes(head[i : i + 4], "big") for i in (0, 4, 8))
    if len(head) < WAL_HEADER_BYTES or magic & ~1 != _WAL_MAGIC or version != _WAL_VERSION:
        return False
    if not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return False
    return head[24:] == _packed(_checksum(head[:24], (0, 0), _order(head)))


def _order(head: bytes) -> str:
    return ">" if head[3] & 1 else "<"


def _reaches_commit(file: BinaryIO) -> bool:
    head = file.read(WAL_HEADER_BYTES)
    if not wal_is_sound(head):
        return False
    page_size, order = int.from_bytes(head[8:12], "big"), _order(head)
    sums = _checksum(head[:24], (0, 0), order)
    while len(frame := file.read(24 + page_size)) == 24 + page_size:
        sums = _checksum(frame[:8] + frame[24:], sums, order)
        if frame[:4] == b"\0\0\0\0" or frame[8:16] != head[16:24] or frame[16:24] != _packed(sums):
            return False
        if frame[4:8] != b"\0\0\0\0":
            return True
    return False


def _packed(sums: tuple[int, int]) -> bytes:
    return sums[0].to_bytes(4, "big") + sums[1].to_bytes(4, "big")


# A frame has 8 bytes of header and a page of at most 65536 to sum, in words of 4.
_MAX_WORDS = (8 + 65536) // 4


@lru_cache(maxsize=1)
def _fibonacci_numbers() -> _Words:
    numbers = [0, 1]
    while len(numbers) < _MAX_WORDS + 2:
        numbers.append((numbers[-1] + numbers[-2]) & 0xFFFFFFFF)
    return np.array(numbers, dtype=np.uint32)


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Continue the two sums of a WAL over `data`, an even number of words.

    Defined as a loop over words, s[k] = s[k-2] + s[k-1] + word[k]: so word k
    counts Fibonacci(n - k) times in the last sum of n, and a dot product mod
    2**32 stands for the loop (which took 100 microseconds a page of 4096).
    """
    words = np.frombuffer(data, dtype=f"{order}u4").astype(np.uint32)
    n, fibonacci = len(words), _fibonacci_numbers()

    def sum_after(count: int) -> int:
        weighted = int(words[:count] @ fibonacci[count:0:-1])
        before = sums[0] * int(fibonacci[count]) + sums[1] * int(fibonacci[count + 1])
        return (weighted + before) & 0xFFFFFFFF

    return sum_after(n - 1), sum_after(n)


def refuse_unrecoverable(journal: Path, path: Path) -> None:
    """Raise ConfigError for a rollback journal that must not be played back into a copy.

    One that ends early: SQLite restores the pages that are there and says
    nothing of the rest, which stay as the cut-off transaction left them. One
    that is part of a transaction over several databases: it names a file that
    SQLite deletes after the rollback if none of the journals listed in it is
    left, so a crafted one has any file deleted.
    """
    size = os.path.getsize(journal)
    with open(journal, "rb") as file:
        file.seek(max(0, size - len(_JOURNAL_MAGIC)))
        if file.read() == _JOURNAL_MAGIC:
            raise unrecoverable("it was a transaction over several databases", path)
        at = 0
        while True:  # one part per sync; each begins at a sector
            file.seek(at)
            head = file.read(28)
            if len(head) < 28 or head[:8] != _JOURNAL_MAGIC:
                return
            records, _, _, sector, page = (int.from_bytes(head[i : i + 4], "big") for i in range(8, 28, 4))
            end = at + sector + records * (page + 8)
            if records == 0 or records == 0xFFFFFFFF or sector < 512:
                return  # not synced yet: nothing of it reached the database; or not counted
            if end > size:
                raise unrecoverable(f"its -journal is truncated: {size} of {end} bytes", path)
            at = -(-end // sector) * sector


def rolls_back_to_nothing(journal: Path) -> bool:
    """Whether a `-journal` is of the first transaction of its file: no page was there before, none is left then."""
    try:
        with open(journal, "rb") as file:
            head = file.read(28)
    except FileNotFoundError:
        return False
    return len(head) == 28 and head[:8] == _JOURNAL_MAGIC and head[16:20] == b"\0\0\0\0"


def unrecoverable(why: str, path: Path) -> ConfigError:
    """Return the error for a source whose last transaction we cannot roll back in a copy."""
    return ConfigError(
        f"a writer of the source was killed in a transaction that cannot be rolled back in a copy: {why}",
        hint="open it once with the program that writes to it, or restore a backup",
        file=str(path),
    )


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn the errors of opening into ours."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise ConfigError(
            f"cannot open the SQLite file: {reason[:1].lower()}{reason[1:]}",
            hint="check the path and that you may read the file, its folder and what lies beside it",
            file=str(path),
        ) from exc
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorname", "")
        message = f"cannot open the SQLite file: {exc}"
        if code.startswith((*PASSING, "SQLITE_READONLY_CANT")):
            raise TransientError(
                message, hint="another program is writing to it; wait for it or stop it", file=str(path)
            ) from exc
        raise ConfigError(message, hint=_hint(code), file=str(path)) from exc


def _hint(code: str) -> str:
    if code.startswith("SQLITE_CORRUPT"):
        return "the file is damaged: restore a backup, or save what is left with sqlite3's .recover"
    if code.startswith("SQLITE_NOTADB"):
        return "check the path; an encrypted or damaged file cannot be read, nor one of a newer SQLite"
    return "check that you may read the file, its -wal and its -shm, and that its path is below 500 bytes"


def distrust(connection: sqlite3.Connection) -> None:
    """Settings for a file of unknown origin; before its first statement, as they guard that one too.

    `cell_size_check` finds damaged pages earlier, and no mapping because a file
    that is cut while it is mapped kills the process (SIGBUS).
    """
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}").close()


def allow_reading_only(connection: sqlite3.Connection, parts: Collection[str] = ()) -> None:
    """Refuse everything but SELECT from tables and pragmas that only tell ("not authorized").

    parts: names of WITH in statements of our own, which are let through.

    Also refused: views, as a hostile one may never end (and WITH, which looks
    the same from here); ATTACH; the end of the transaction, so that nobody
    gives up the snapshot by a stray commit. SQLite asks when it prepares a
    statement, not for each row.
    """

    def authorize(
        action: int, first: str | None, second: str | None, database: str | None, via: str | None
    ) -> int:
        if action == sqlite3.SQLITE_RECURSIVE:
            return sqlite3.SQLITE_OK
        return _authorize(action, first, second, database, None if via in parts else via)

    connection.set_authorizer(authorize if parts else _authorize)


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, via: str | None
) -> int:
    if via is not None:  # a view, or a name of WITH
        return sqlite3.SQLITE_DENY
    if action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_UPDATE and first in ("sqlite_master", "sqlite_schema"):
        # Asked when a virtual table or a pragma_...() is set up, and nothing is written then. A real
        # UPDATE fails in any case: the file is opened read-only, and writable_schema stays off.
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second not in _DANGEROUS_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first is not None:
        name = first.lower()
        if name in _TELLING_PRAGMAS_WITH_NAME or (name in _TELLING_PRAGMAS and second is None):
            return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@dataclass(slots=True)
class _Held:
    descriptors: list[int]
    users: int


_held: dict[tuple[int, int], _Held] = {}  # by device and inode
_held_lock = threading.Lock()


@contextmanager
def descriptor_of(place: Path) -> Iterator[int]:
    """Give a descriptor of a database, for the bytes that SQLite does not tell.

    Closing *any* descriptor of a file drops all locks that this process has on
    it (POSIX), also those of SQLite and of an agent that we run inside of. So
    there is one for all users of a file, and it is closed only when no
    connection of ours is left and the file has no locks.
    """
    with _held_lock:
        info = os.stat(place)
        _refuse_special(info.st_mode)
        held = _held.get((info.st_dev, info.st_ino))
        if held is None:
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo must not block
            info = os.fstat(descriptor)
            held = _held.setdefault((info.st_dev, info.st_ino), _Held([], 0))
            held.descriptors.append(descriptor)
        held.users += 1
    try:
        _refuse_special(info.st_mode)
        yield held.descriptors[0]
    finally:
        with _held_lock:
            held.users -= 1
            for key, one in list(_held.items()):
                if one.users == 0 and not _locked(one.descriptors[0]):
                    for descriptor in one.descriptors:
                        os.close(descriptor)
                    del _held[key]


def _refuse_special(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError("it is not a regular file, but a device, pipe or socket")


def _locked(descriptor: int) -> bool:
    """Whether anybody, this process included, has a lock on the file; only Linux can tell."""
    if sys.platform != "linux":
        return False
    question = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    except OSError:  # a file system without such locks
        return False
    return bool(struct.unpack("hhqqi0q", answer)[0] != fcntl.F_UNLCK)
