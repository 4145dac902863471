"""Rows of two stores matched by key, in any order and in constant memory.

Rows that were not seen to be equal side by side are entered here from both
sides. Equal entries cancel out at once while they are near each other; what is
left beyond a bound goes to a private temporary database on disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

_HELD = 20_000  # entries kept in memory: about 5 MB


@dataclass(frozen=True, slots=True)
class Difference:
    """What is left of one key: digests that only the source (left) or only the target (right) has."""

    key: bytes
    left: tuple[bytes, ...]
    right: tuple[bytes, ...]


class Ledger:
    """Entries (side, key, digest); equal ones of the two sides cancel out, repeated rows are counted."""

    def __init__(self) -> None:
        self._near: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
        self._held = 0
        self._disk: sqlite3.Connection | None = None

    def close(self) -> None:
        """Remove the temporary database."""
        if self._disk is not None:
            self._disk.close()
            self._disk = None

    def enter(self, side: int, key: bytes, digest: bytes) -> None:
        """Enter a row of the source (side 0) or the target (side 1)."""
        entry = self._near.get(key)
        if entry is None:
            entry = self._near[key] = ([], [])
        if digest in entry[1 - side]:
            entry[1 - side].remove(digest)
            self._held -= 1
            if not entry[0] and not entry[1]:
                del self._near[key]
            return
        entry[side].append(digest)
        self._held += 1
        if self._held > _HELD:
            self._flush()

    def _flush(self) -> None:
        if self._disk is None:
            self._disk = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._disk.execute("PRAGMA journal_mode = OFF")
            self._disk.execute("PRAGMA cache_size = -16384")
            self._disk.execute("CREATE TABLE entry (key BLOB, side INTEGER, digest BLOB)")
            self._disk.execute("BEGIN")
        self._disk.executemany(
            "INSERT INTO entry VALUES (?, ?, ?)",
            (
                (key, side, digest)
                for key, sides in self._near.items()
                for side, digests in enumerate(sides)
                for digest in digests
            ),
        )
        self._near.clear()
        self._held = 0

    def differences(self) -> Iterator[Difference]:
        """Yield what did not cancel out. On disk it comes in order of keys."""
        if self._disk is None:
            for key, (left, right) in self._near.items():
                yield Difference(key, tuple(left), tuple(right))
            return
        self._flush()
        current: bytes | None = None
        sides: tuple[list[bytes], list[bytes]] = ([], [])
        for key, side, digest in self._disk.execute("SELECT key, side, digest FROM entry ORDER BY key"):
            if key != current:
                yield from _left_over(current, sides)
                current, sides = key, ([], [])
            if digest in sides[1 - side]:
                sides[1 - side].remove(digest)
            else:
                sides[side].append(digest)
        yield from _left_over(current, sides)


def _left_over(key: bytes | None, sides: tuple[list[bytes], list[bytes]]) -> Iterator[Difference]:
    if key is not None and (sides[0] or sides[1]):
        yield Difference(key, tuple(sides[0]), tuple(sides[1]))


class Wanted:
    """Keys that a second pass is to fetch, with how many rows of each; on disk beyond a bound."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE wanted (key BLOB PRIMARY KEY, n INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self.total = 0

    def close(self) -> None:
        """Remove the temporary database."""
        self._db.close()

    def add(self, key: bytes, n: int = 1) -> None:
        """Want n rows of a key."""
        self._db.execute(
            "INSERT INTO wanted VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET n = n + excluded.n", (key, n)
        )
        self.total += n

    def take(self, key: bytes) -> bool:
        """Whether one more row of this key is wanted; counts it off."""
        found = self._db.execute("UPDATE wanted SET n = n - 1 WHERE key = ? AND n > 0", (key,)).rowcount
        return found > 0

    def each(self) -> Iterator[bytes]:
        """Yield the keys."""
        for (key,) in self._db.execute("SELECT key FROM wanted"):
            yield key
