"""Small databases and what is in them, for the tests of backups."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from contextlib import closing
from pathlib import Path


def make(path: Path, rows: int = 300, *, wal: bool = True, seed: int = 1) -> Path:
    """Write a database: memories with text and vectors, and odd names."""
    source = random.Random(seed)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode={'wal' if wal else 'delete'}")
        db.execute("BEGIN")
        db.execute(
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB, importance REAL)"
        )
        db.execute('CREATE TABLE "odd ""name"" ☃" (k TEXT PRIMARY KEY, v) WITHOUT ROWID')
        db.execute("CREATE TABLE empty (x)")
        db.execute("CREATE INDEX by_importance ON memories (importance)")
        db.execute("CREATE VIEW strong AS SELECT id FROM memories WHERE importance > 0.5")
        db.executemany(
            "INSERT INTO memories VALUES (?, ?, ?, ?)",
            ((n, f"memory {n} " * 5, source.randbytes(256), source.random()) for n in range(rows)),
        )
        db.execute('INSERT INTO "odd ""name"" ☃" VALUES (?, ?)', ("🙂", 2**63 - 1))
        db.execute("COMMIT")
    return path


def change(path: Path, first: int = 0, count: int = 3, seed: int = 2) -> None:
    """Update a few rows and commit."""
    source = random.Random(seed)
    with closing(sqlite3.connect(path, timeout=30)) as db:
        for row in range(first, first + count):
            db.execute("UPDATE memories SET embedding = ? WHERE id = ?", (source.randbytes(256), row))
        db.commit()


def content(path: Path) -> str:
    """Return a digest of everything that the database says."""
    with closing(sqlite3.connect(path)) as db:
        dump = "\n".join(db.iterdump())
    return hashlib.sha256(dump.encode()).hexdigest()


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as db:
        return bool(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


def files(folder: Path) -> list[str]:
    """All files below a folder, as relative names."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
