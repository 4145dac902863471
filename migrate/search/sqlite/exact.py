"""Nearest neighbours by looking at every vector, in memory that is bounded.

A query reads the vectors a piece at a time. The second one keeps those that fit
the limit, as long as the file is in the state they were read in; from then on a
query is one product of a matrix with a vector.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate import values
from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import ident, rowid_alias, translating
from migrate.backends.sqlite.vectorscan import Ids, Left, Piece, scan
from migrate.schema import Column
from migrate.search.base import Key, Searched
from migrate.search.sqlite import scores
from migrate.search.sqlite.best import Best, KeysOf
from migrate.search.sqlite.reading import Place, Reading
from migrate.search.sqlite.scores import Asked, F32Array
from migrate.search.sqlite.where import Allowed

Mask = npt.NDArray[np.bool_]

_BLOCK_BYTES = 32 * 2**20
_FILTERS = 16  # whose rows are remembered, per column
_VARIABLES = 500  # SQLite takes at least 999 a statement


@dataclass(slots=True)
class Held:
    """The vectors of a column as they were in one state of the file.

    blocks: (n, dim) float32 each. starts: where in `ids` and `squares` each block begins.
    """

    state: str
    blocks: list[F32Array]
    starts: npt.NDArray[np.intp]
    ids: Ids
    squares: F32Array
    left: Left
    masks: OrderedDict[tuple[str, str], Mask] = field(default_factory=OrderedDict)

    @property
    def bytes(self) -> int:
        """Return the memory that it takes."""
        masks = sum(mask.nbytes for mask in self.masks.values())
        return self.ids.nbytes + self.squares.nbytes + masks + sum(b.nbytes for b in self.blocks)

    def rows_at(self, at: npt.NDArray[np.intp]) -> F32Array:
        """Return the rows at some places."""
        block = np.searchsorted(self.starts, at, side="right") - 1
        found = [self.blocks[b][i] for b, i in zip(block, at - self.starts[block], strict=True)]
        return np.stack(found) if found else np.empty((0, 0), np.float32)

    def best(self, asked: Asked, best: Best, allowed: Mask | None) -> None:
        """Offer all rows that are allowed."""
        quick = np.empty(len(self.ids), np.float32)
        for start, rows in zip(self.starts, self.blocks, strict=True):
            end = start + len(rows)
            scores.quick(asked, rows, self.squares[start:end], quick[start:end])
        best.choose(self.ids, quick, self.squares, self.rows_at, allowed)


class _Holding:
    """Copies pieces into blocks of a size at which a product is quick; what is not used of one is no memory yet."""

    def __init__(self, dim: int, most_bytes: int) -> None:
        self._dim = dim
        self._most_rows = max(1, min(_BLOCK_BYTES, most_bytes) // (4 * dim))
        self._blocks: list[F32Array] = []
        self._used = 0  # rows of the last block
        self._ids: list[Ids] = []
        self._squares: list[F32Array] = []
        self.bytes = 0

    def add(self, piece: Piece) -> None:
        """Copy a piece."""
        self._ids.append(piece.ids)
        self._squares.append(piece.squares)
        self.bytes += piece.rows.nbytes + piece.ids.nbytes + piece.squares.nbytes
        rows = piece.rows
        while len(rows):
            if not self._blocks or self._used == len(self._blocks[-1]):
                self._blocks.append(np.empty((self._most_rows, self._dim), np.float32))
                self._used = 0
            free = len(self._blocks[-1]) - self._used
            part, rows = rows[:free], rows[free:]
            self._blocks[-1][self._used : self._used + len(part)] = part
            self._used += len(part)

    def held(self, state: str, left: Left) -> Held:
        """Return all that was added."""
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: self._used]
        starts = np.cumsum([0, *map(len, self._blocks)])[: len(self._blocks)]
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        squares = np.concatenate(self._squares) if self._squares else np.empty(0, np.float32)
        return Held(state, self._blocks, starts, ids, squares, left)


@dataclass(frozen=True, slots=True)
class Compared:
    """What looking at every vector found. kept: from memory. total: vectors that were compared."""

    found: list[tuple[Any, float]]
    left: Left
    directionless: int
    kept: bool
    total: int


class Exact:
    """Looks at every vector, keeping at most `most_bytes` of them from one query to the next."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[tuple[str, str], Held] = OrderedDict()
        self._asked_before: dict[tuple[str, str], str] = {}
        self._too_big: dict[tuple[str, str], int] = {}
        self._lock = Lock()

    def search(
        self, at: Reading, searched: Searched, column: Column, asked: Asked, k: int, allowed: Allowed | None
    ) -> Compared:
        """Return the k nearest rows that are allowed."""
        place, name = at.at(searched), (searched.name, column.name)
        best = Best(asked, k, keys_of(at.connection, place))
        with translating("compare vectors", table=searched.name, column=column.name):
            held = self.held(name, at.state)
            if held is not None:
                mask = self.mask(held, at, place, allowed)
                held.best(asked, best, mask)
                total = len(held.ids) if mask is None else int(np.count_nonzero(mask))
                return Compared(best.found(), held.left, best.directionless, True, total)
            left, total = Left(), 0
            for piece, mask in self._pieces(at, place, column, name, allowed, left):
                best.offer(piece.ids, piece.rows, piece.squares, mask)
                total += len(piece.ids) if mask is None else int(np.count_nonzero(mask))
            return Compared(best.found(), left, best.directionless, False, total)

    def held(self, name: tuple[str, str], state: str | None) -> Held | None:
        """Return the vectors of a column if they are kept as they are in this state."""
        with self._lock:
            held = self._held.get(name)
            if held is None or state is None or held.state != state:
                return None
            self._held.move_to_end(name)
            return held

    def _pieces(
        self,
        at: Reading,
        place: Place,
        column: Column,
        name: tuple[str, str],
        allowed: Allowed | None,
        left: Left,
    ) -> Iterator[tuple[Piece, Mask | None]]:
        """Yield what is to be compared, and keep it where that pays.

        The first time nothing is kept: a command asks once, and memory that was not used before
        costs more than the reading (0.5 s for 150 MB on a virtual machine). A filter goes into the
        statement then, for it may have an index. Who asks a second time about the same state is
        served better by reading all of it once.
        """
        fill = self._may_fill(name, at.state)
        if allowed is not None and not fill:
            where = (allowed.sql, allowed.bindings)
            for piece in scan(at.connection, place.table, column, left, utf8=at.utf8, where=where):
                yield piece, None
            return
        only = rows_allowed(at.connection, place, allowed) if allowed is not None else None
        holding = _Holding(column.dim or 1, self._most) if fill else None
        for piece in scan(
            at.connection, place.table, column, left, utf8=at.utf8, more=None if fill else at.more
        ):
            yield piece, None if only is None else _among(piece.ids, only)
            if holding is not None:
                holding.add(piece)
                if holding.bytes > self._most:
                    self._too_big[name] = holding.bytes
                    holding = None
        if holding is not None and at.state is not None:
            self._keep(name, holding.held(at.state, left))

    def _may_fill(self, name: tuple[str, str], state: str | None) -> bool:
        if state is None or self._too_big.get(name, 0) > self._most:
            return False
        again, self._asked_before[name] = self._asked_before.get(name) == state, state
        return self._most > 0 and again

    def _keep(self, name: tuple[str, str], held: Held) -> None:
        with self._lock:
            self._held[name] = held
            self._held.move_to_end(name)
            while sum(h.bytes for h in self._held.values()) > self._most and len(self._held) > 1:
                self._held.popitem(last=False)

    def mask(self, held: Held, at: Reading, place: Place, allowed: Allowed | None) -> Mask | None:
        """Return which of the held rows are allowed; remembered for the last filters."""
        if allowed is None:
            return None
        name = (allowed.sql, repr(allowed.bindings))  # 1, 1.0 and True are equal and not the same to SQL
        if (known := held.masks.get(name)) is not None:
            held.masks.move_to_end(name)
            return known
        mask = held.masks[name] = _among(held.ids, rows_allowed(at.connection, place, allowed))
        while len(held.masks) > _FILTERS:
            held.masks.popitem(last=False)
        return mask

    def forget(self) -> None:
        """Let go of all vectors."""
        with self._lock:
            self._held.clear()


def rows_allowed(connection: sqlite3.Connection, place: Place, allowed: Allowed) -> Ids:
    """Return the rowids of the rows that a filter allows (or their keys, where they have no rowid)."""
    source = f"FROM {relation(place.table)} AS t WHERE {allowed.sql}"
    if place.rowid is not None:
        (text,) = connection.execute(
            f"SELECT group_concat(t.{place.rowid}) {source}", allowed.bindings
        ).fetchone()
        return np.fromstring(text or "", np.int64, sep=",")
    names = ", ".join(f"t.{ident(k)}" for k in place.key)
    keys = _rows(connection, f"SELECT {names} {source}", allowed.bindings)
    return np.fromiter(keys, object, len(keys))


def keys_of(connection: sqlite3.Connection, place: Place) -> KeysOf:
    """Return what reads the keys of rows."""
    if place.rowid is None:
        return lambda ids: [tuple(key) for key in ids]
    if not place.key or rowid_alias(place.table) is not None:
        return lambda ids: [(int(i),) for i in ids]
    names = ", ".join(f"t.{ident(k)}" for k in place.key)
    sql = f"SELECT t.{place.rowid}, {names} FROM {relation(place.table)} AS t WHERE t.{place.rowid} IN "

    def read(ids: Ids) -> list[Key]:
        found: dict[int, Key] = {}
        for i in range(0, len(ids), _VARIABLES):
            part = [int(r) for r in ids[i : i + _VARIABLES]]
            rows = _rows(connection, f"{sql}({', '.join('?' * len(part))})", part)
            found.update((row[0], row[1:]) for row in rows)
        return [found[int(i)] for i in ids]

    return read


def _rows(connection: sqlite3.Connection, sql: str, bindings: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement whose texts may be no UTF-8."""
    plain, connection.text_factory = connection.text_factory, values.bytes_text
    try:
        return connection.execute(sql, tuple(bindings)).fetchall()
    finally:
        connection.text_factory = plain


def _among(ids: Ids, allowed: Ids) -> Mask:
    if ids.dtype != object:
        return np.isin(ids, allowed)
    known = set(allowed)
    return np.fromiter((key in known for key in ids), np.bool_, len(ids))
