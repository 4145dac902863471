"""A consistent copy of a live SQLite database, and what is true of it.

Only SQLite itself opens the live file: a plain open() and close() in a process
that also has the database open would drop that process's POSIX locks
(https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from migrate.backup.patience import Patience
from migrate.errors import BackendError, ConfigError, TransientError, VerifyError

Progress = Callable[[int, int], None]
_SETTLING_S = 0.1
_WAITING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass(frozen=True, slots=True)
class Limits:
    """How gently a live database is copied.

    pages: pages a step; pause_s: seconds between two steps, so that a writer
    gets the disk. max_pin_s, max_wal_bytes: the read transaction that pins the
    snapshot keeps the WAL from being reset; at half of either bound the pauses
    end, at the bound the copy is given up and the WAL is free again.
    """

    # 100 pages and 2 ms: commit p99 3.2 -> 3.9 ms for a writer at 100 commits/s, 2.3 s for 208 MB.
    pages: int = 100
    pause_s: float = 0.002
    max_pin_s: float = 900.0
    max_wal_bytes: int = 1 << 30
    busy_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checked private copy. size: bytes; tables: rows by name; seconds: how long the copy took."""

    path: Path
    size: int
    page_size: int
    journal_mode: str
    tables: dict[str, int]
    schema_sha256: str
    seconds: float
    wal_growth: int


def uri(path: Path, *options: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{'&'.join(options)}"


def database_size(path: Path) -> int:
    """Return the bytes a copy may take: the file and what its WAL may add.

    Raises ConfigError for what is no database, is empty or was cut off; SQLite is not let near it, which
    would leave a -wal and a -shm beside it, or take the missing end of its last page for zeros.
    """
    if not path.is_file():
        raise ConfigError(f"no such database: {path}", hint="check the path")
    problem = _cut_off(path)
    if problem is not None:
        time.sleep(_SETTLING_S)  # a writer may just have been at it
        problem = _cut_off(path)
    if problem is not None:
        raise problem
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())


def _cut_off(path: Path) -> ConfigError | None:
    """Return what is wrong with a file, where nothing beside it can make up for that."""
    # The backend brings numpy along, which `memlift --help` does without.
    from migrate.backends.sqlite.hostile import HEADER_BYTES, descriptor_of, parse_header, refuse_truncated

    def beside() -> bool:
        return any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal"))

    if beside():
        return None
    try:
        with descriptor_of(path) as descriptor:
            size = os.fstat(descriptor).st_size
            header = parse_header(os.pread(descriptor, HEADER_BYTES, 0), size, path)
        refuse_truncated(header, size, path)
    except ConfigError as exc:
        return None if beside() else exc
    except OSError:  # said later, by what has more to say
        return None
    return None


def take(
    source: Path,
    copy: Path,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Snapshot:
    """Copy `source` as of one moment to `copy` and check it; the source is not changed.

    progress: called with pages done and pages in all. Raises ConfigError where
    the source cannot be read, VerifyError where it is damaged, BackendError
    where the disk is full or a bound of `limits` was met, InterruptedRunError
    where `cancel` was set.
    """
    copier = _Copier(source, copy, limits or Limits(), progress, Patience(cancel=cancel or threading.Event()))
    started = time.monotonic()
    database_size(source)
    with _reading(source):
        mode = copier.run()
    seconds = time.monotonic() - started
    with _reading(source):
        facts = inspect(copy)
    return Snapshot(
        copy, copy.stat().st_size, facts.page_size, mode, facts.tables, facts.schema_sha256, seconds,
        copier.wal_growth,
    )  # fmt: skip


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as exc:
        name = getattr(exc, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise TransientError(f"the database is locked: {exc}", path=str(path)) from exc
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE")):
            raise BackendError(f"disk full: {exc}", hint="make room, or give another --workdir") from exc
        if name.startswith("SQLITE_CORRUPT"):
            raise VerifyError(
                f"the database is damaged: {exc}", path=str(path), hint="restore an earlier backup"
            ) from exc
        raise ConfigError(f"cannot read the database: {exc}", path=str(path)) from exc
    except OSError as exc:
        raise BackendError(
            f"cannot copy: {exc.strerror}", hint="make room, or give another --workdir"
        ) from exc


class _Copier:
    def __init__(
        self, source: Path, copy: Path, limits: Limits, progress: Progress | None, patience: Patience
    ) -> None:
        self.source, self.copy, self.limits = source, copy, limits
        self.progress, self.patience = progress, patience
        self.wal = Path(f"{source}-wal")
        self.wal_growth = 0

    def run(self) -> str:
        """Make the copy; return the source's journal mode."""
        if self._is_quiet():
            before = _identity(self.source)
            with contextlib.suppress(sqlite3.DatabaseError):  # a writer came: the locked way finds out
                with contextlib.closing(self._open("mode=ro", "immutable=1")) as quiet:
                    self._backup(quiet, pinned=False)
                if self._is_quiet() and _identity(self.source) == before:
                    return "wal" if _is_wal(self.copy) else "delete"
            self.copy.unlink(missing_ok=True)
        try:
            return self._locked()
        except sqlite3.OperationalError as exc:
            name = getattr(exc, "sqlite_errorname", "") or ""
            if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
                raise
            self.copy.unlink(missing_ok=True)
            return self._recovered()

    def _is_quiet(self) -> bool:
        """Whether nobody seems to have the database open: then it is read without locks, and looked at
        again afterwards. Opened with locks, one in WAL mode would be left with a -wal and a -shm.

        A file of the last second is not: another write might not change its time.
        """
        companions = any(Path(f"{self.source}{suffix}").exists() for suffix in ("-wal", "-journal"))
        return not companions and time.time() - self.source.stat().st_mtime > 1.0

    def _locked(self) -> str:
        with contextlib.closing(self._open("mode=ro")) as live:
            live.execute(f"PRAGMA busy_timeout={int(self.limits.busy_s * 1000)}")
            mode = _mode(live)
            pinned = mode == "wal"
            if pinned:
                live.execute("BEGIN")
                live.execute("SELECT 1 FROM sqlite_master").fetchone()
            self._backup(live, pinned=pinned)
            return mode

    def _recovered(self) -> str:
        """Copy the files of a database that only recovery makes readable, and recover the copy.

        A hot journal or a WAL without -shm in a folder that we cannot write: nobody has
        it open, or it would have been recovered.
        """
        aside = self.copy.with_name("recover.db")
        suffixes = [s for s in ("", "-wal", "-journal") if Path(f"{self.source}{s}").exists()]
        before = [_identity(Path(f"{self.source}{s}")) for s in suffixes]
        for suffix in suffixes:
            shutil.copyfile(f"{self.source}{suffix}", f"{aside}{suffix}")
        if [_identity(Path(f"{self.source}{s}")) for s in suffixes] != before:
            raise TransientError("the database changed while it was copied", path=str(self.source))
        with contextlib.closing(sqlite3.connect(aside, isolation_level=None)) as db:
            db.execute("PRAGMA trusted_schema=OFF")
            mode = _mode(db)
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        aside.rename(self.copy)
        return mode

    def _open(self, *options: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri(self.source, *options), uri=True, isolation_level=None)
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA query_only=ON")
        return db

    def _backup(self, db: sqlite3.Connection, *, pinned: bool) -> None:
        started, wal_before = time.monotonic(), _size(self.wal)

        def step(status: int, remaining: int, total: int) -> None:
            self.patience.check()
            self.wal_growth = max(self.wal_growth, _size(self.wal) - wal_before)
            held = time.monotonic() - started
            limits = self.limits
            if status in _WAITING and held > limits.busy_s:
                raise TransientError("the database is locked by a writer", path=str(self.source))
            if held > limits.max_pin_s or self.wal_growth > limits.max_wal_bytes:
                raise BackendError(
                    f"the copy was given up: the WAL was held for {held:.0f} s and grew by {self.wal_growth:,} bytes",
                    hint="raise the limits, or back up at a quieter time",
                    path=str(self.source),
                )
            if self.progress:
                self.progress(total - remaining, total)
            hurry = held > limits.max_pin_s / 2 or self.wal_growth > limits.max_wal_bytes / 2
            if pinned and limits.pause_s and not hurry and remaining:
                time.sleep(limits.pause_s)

        fd = os.open(self.copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(fd)
        with contextlib.closing(sqlite3.connect(self.copy, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            # Unpinned, a stepped copy starts again at every foreign commit and never ends under load.
            db.backup(target, pages=self.limits.pages if pinned else -1, progress=step, sleep=0.05)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database file holds. tables: rows by name, without virtual tables (their shadow tables count)."""

    page_size: int
    tables: dict[str, int]
    schema_sha256: str


def inspect(path: Path, *, check: str = "quick_check") -> Facts:
    """Check a private database file that nobody else opens, and count its rows.

    check: `quick_check` or `integrity_check`. Raises VerifyError where SQLite
    finds damage; sqlite3.DatabaseError where the file is no database.
    """
    with contextlib.closing(sqlite3.connect(uri(path, "mode=ro", "immutable=1"), uri=True)) as db:
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("PRAGMA query_only=ON")
        db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        found = [str(row[0]) for row in db.execute(f"PRAGMA {check}(5)")]
        if found != ["ok"]:
            raise VerifyError(f"{check}: {'; '.join(found)[:500]}", path=str(path))
        schema = db.execute(
            "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_master ORDER BY type, name"
        ).fetchall()
        tables = [name for kind, name, _, _, root in schema if kind == "table" and root]
        rows = {
            name: int(db.execute(f"SELECT count(*) FROM {_ident(name)}").fetchone()[0]) for name in tables
        }
        marks = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        text = json.dumps([[row[:4] for row in schema], marks], ensure_ascii=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Facts(int(db.execute("PRAGMA page_size").fetchone()[0]), rows, digest)


def _ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mode(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA journal_mode").fetchone()[0])


def _is_wal(copy: Path) -> bool:
    """Read the file format of a private copy (https://www.sqlite.org/fileformat.html, 1.3.3)."""
    with copy.open("rb") as file:
        return file.read(19)[18:] == b"\x02"


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
