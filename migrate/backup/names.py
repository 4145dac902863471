"""Names: which database, which backup, which object; and what may never be a name.

Under a store's prefix every database has one folder, and every object of a
backup begins with the backup's id:

    <database>/<sequence>-<time>-<random>.sqlite.gz       a full backup
    <database>/<sequence>-<time>-<random>.pages.gz        changed pages only
    <database>/<sequence>-<time>-<random>.index           page hashes, for the next incremental
    <database>/<sequence>-<time>-<random>.side0.gz        a file that goes along (HNSW index)
    <database>/<sequence>-<time>-<random>.manifest.json   written last
    <database>/proofs/<sequence>-<time>-<random>.json     a restore drill that passed
    <database>/lease.json                                 the one owner

The sequence comes first: a clock that jumps cannot put a new backup before an
old one, and the random part keeps two in one second apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from migrate.errors import ConfigError

MANIFEST = ".manifest.json"
LEASE = "lease.json"
PROOFS = "proofs/"

_DATABASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_ID = re.compile(r"(?P<seq>\d{10})-(?P<time>\d{8}T\d{6}Z)-(?P<random>[0-9a-f]{8})")
_PIECE = re.compile(_ID.pattern + r"\.(?:sqlite|pages|index|side\d{1,2})(?:\.gz|\.zst)?(?:\.enc)?")


@dataclass(frozen=True, slots=True, order=True)
class BackupId:
    """Identity of a backup; sorts by sequence, then time, then the random part."""

    sequence: int
    time: str
    random: str

    def __str__(self) -> str:
        return f"{self.sequence:010d}-{self.time}-{self.random}"

    @classmethod
    def new(cls, sequence: int, at: datetime) -> BackupId:
        """Make an id that no other backup has, also in the same second."""
        return cls(sequence, at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> BackupId | None:
        """Read an id; None where the text is none."""
        found = _ID.fullmatch(text)
        return cls(int(found["seq"]), found["time"], found["random"]) if found else None


def owner_of(name: str) -> BackupId | None:
    """Return the backup that an object name (inside a database's folder) belongs to, or None."""
    if name.endswith(MANIFEST):
        return BackupId.parse(name.removesuffix(MANIFEST))
    found = _PIECE.fullmatch(name)
    return BackupId.parse(name.split(".", 1)[0]) if found else None


def is_piece(name: str, of: BackupId) -> bool:
    """Whether `name` is a data object of backup `of` and nothing else (no path, no manifest)."""
    return _PIECE.fullmatch(name) is not None and name.startswith(f"{of}.")


def database_id(path: Path) -> str:
    """Return the default id of a database: its name and a hash of its resolved path.

    A file that is moved gets another id; pass `database_id=` (`--db`) to keep the old one.
    """
    real = path.resolve()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", real.stem).strip("-")[:60] or "db"
    return f"{stem}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"


def check_database_id(text: str) -> str:
    """Return the id; raises ConfigError where it could not be a folder of its own."""
    if not _DATABASE.fullmatch(text) or text == PROOFS.rstrip("/"):
        raise ConfigError(
            f"{text!r} cannot be a database id",
            hint="use 1 to 100 letters, digits, '-' and '_', beginning with a letter or digit",
        )
    return text


def check_key(key: str) -> str:
    """Return the key; raises ConfigError where it could leave its prefix on any store."""
    parts = key.split("/")
    if (
        not key
        or len(key.encode("utf-8", "replace")) > 1000  # S3 takes 1,024 bytes
        or "\\" in key
        or any(ord(c) < 32 or ord(c) == 127 for c in key)
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ConfigError(
            f"{key!r} cannot be an object key", hint="no empty, '.' or '..' parts, no backslash"
        )
    return key
