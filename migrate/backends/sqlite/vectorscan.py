"""Reading the vectors of a column, many rows at a time, without an object for each.

SQLite itself joins the cells of some thousand rows into one BLOB: 100,000 x 384
take 0.09 s instead of 0.14 s row by row. (`group_concat` takes a BLOB for text of
the file's encoding, so this is for files in UTF-8 only.) One connection is slower
than a disk, so a large column is read by several.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate import values, vectors
from migrate.backends.sqlite.fulltext import relation
from migrate.backends.sqlite.names import ident, rowid_name
from migrate.schema import Column, Kind, Table

PIECE_BYTES = 2 * 2**20
"""Of packed cells in a piece; more did not help, and four times this is what a scan needs of memory."""
FEW_ROWS = 128
"""That `few_cells_at` is for: of 500 another statement is quicker."""
_MOST_ROWS = 8192
_LARGE_PIECES = 8  # from which on more connections pay: opening one takes 0.5 ms, a piece 2
_TYPES: dict[Kind, np.dtype[Any]] = {
    Kind.VECTOR: vectors.F32,
    Kind.HALF: vectors.F16,
    Kind.U8: np.dtype("u1"),
}
FIRST, _LAST = -(2**63), 2**63 - 1

Ids = npt.NDArray[Any]
More = Callable[[], AbstractContextManager[Sequence[sqlite3.Connection]]]
"""Opens further connections that see the same rows; as many as help, none where that cannot be had."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows' vectors.

    ids:     (n,) int64 rowids; of a table without rowid, an object array of key tuples.
    rows:    (n, dim) float32, all finite; not to be written to.
    squares: (n,) float32, their squared lengths: infinite where that is no float32.
    """

    ids: Ids
    rows: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float32]


@dataclass(slots=True)
class Left:
    """Rows that a scan met and that have no vector to compare."""

    empty: int = 0
    misshapen: int = 0
    not_finite: int = 0

    def add(self, other: Left) -> None:
        """Count those of another as well."""
        self.empty += other.empty
        self.misshapen += other.misshapen
        self.not_finite += other.not_finite

    @property
    def any(self) -> bool:
        """Whether there were some."""
        return bool(self.empty or self.misshapen or self.not_finite)

    def words(self) -> str:
        """Say how many and why: "12 without a vector, 2 of another length"."""
        counts = (
            (self.empty, "without a vector"),
            (self.misshapen, "of another length or type"),
            (self.not_finite, "with NaN or infinity"),
        )
        return ", ".join(f"{n:,} {what}" for n, what in counts if n)


def can_scan(column: Column) -> bool:
    """Whether the cells of a column are dense vectors of a known dimension."""
    return column.kind in _TYPES and bool(column.dim)


def scan(
    connection: sqlite3.Connection,
    here: Table,
    column: Column,
    left: Left,
    *,
    utf8: bool = True,
    where: tuple[str, Sequence[Any]] | None = None,
    more: More | None = None,
) -> Iterator[Piece]:
    """Yield the vectors of a column, by rowid unless `where` or `more` are given: then in any order.

    here:   the table as the file declares it. left: counts what is passed over.
    where:  a condition on the table, called `t`, and what it binds.
    utf8:   whether the file keeps text as UTF-8.
    more:   for a large table, which several connections read at once.

    Nobody else may use the connection until the last piece was given, or the iterator closed.
    """
    rowid = rowid_name(here)
    if rowid is None or where is not None:
        yield from _by_row(connection, here, rowid, _Cells(column, left), where)
        return
    piece, at = span(connection, here, column, left, FIRST, utf8=utf8)
    (last,) = connection.execute(f"SELECT max(t.{rowid}) FROM {relation(here)} AS t").fetchone()
    if at is None or at > last:
        yield from [piece] if piece is not None else []
        return
    _keep_memory()
    with ExitStack() as stack:
        connections = [connection]
        if more is not None and last - at > _LARGE_PIECES * _Cells(column, left).at_once:
            connections += stack.enter_context(more())
        edges = [at + (last + 1 - at) * i // len(connections) for i in range(len(connections) + 1)]
        readers = [
            _Reader(partial(span, c, here, column, utf8=utf8), first, after - 1)
            for c, (first, after) in zip(connections, pairwise(edges), strict=True)
        ]
        yield from _as_they_come(readers, left, piece)


@dataclass(slots=True)
class _Reader:
    """Reads a range of rowids by a connection of its own. at: where the next piece begins, None at the end."""

    span: Callable[..., tuple[Piece | None, int | None]]
    at: int | None
    end: int
    left: Left = field(default_factory=Left)
    dense: bool = True

    def read(self) -> tuple[_Reader, Piece | None]:
        """Return itself and the next piece, if there are vectors in it."""
        piece, self.at = self.span(self.left, self.at, self.end, dense=self.dense)
        self.dense = piece is not None and int(piece.ids[-1]) - int(piece.ids[0]) == len(piece.ids) - 1
        return self, piece


def _as_they_come(readers: list[_Reader], left: Left, piece: Piece | None) -> Iterator[Piece]:
    """Yield a piece and those of the readers, each of which is at its next one while one is compared."""
    done: SimpleQueue[Future[tuple[_Reader, Piece | None]]] = SimpleQueue()
    with ThreadPoolExecutor(len(readers), "scan") as pool:
        for reader in readers:
            pool.submit(reader.read).add_done_callback(done.put)
        working = len(readers)
        if piece is not None:
            yield piece
        while working:
            reader, piece = done.get().result()
            if reader.at is not None:
                pool.submit(reader.read).add_done_callback(done.put)
            else:
                working -= 1
                left.add(reader.left)
            if piece is not None:
                yield piece


def _keep_memory() -> None:
    """Have glibc keep the memory of a piece for the next one.

    It gives a block back to the kernel, unless it has seen a larger one freed before (mallopt(3),
    M_MMAP_THRESHOLD, "dynamic"); to have each page anew takes a third of a scan.
    """
    np.empty(4 * PIECE_BYTES, np.uint8)  # of which no page is touched


def span(
    connection: sqlite3.Connection,
    here: Table,
    column: Column,
    left: Left,
    first: int,
    end: int = _LAST,
    *,
    utf8: bool = True,
    dense: bool = False,
) -> tuple[Piece | None, int | None]:
    """Return the vectors of a piece of a table with rowids, and the rowid from which the next one begins.

    first: the rowid from which this one begins, `FIRST` to begin with. end: the last one that is asked
    for. The next is None where no more are. dense: try first whether each rowid has a vector; they are
    then told and read in two thirds of the time.
    """
    cells, rowid = _Cells(column, left), rowid_name(here)
    if rowid is None:
        raise ValueError(f"{here.name} has no rowids")
    name, source = f"t.{ident(column.name)}", f"{relation(here)} AS t"
    good = f"typeof({name}) = 'blob' AND length({name}) = {cells.bytes}" if utf8 else "0"
    if dense and utf8:
        until = min(first + cells.at_once - 1, end)
        n, packed = connection.execute(
            f"SELECT count(*), CAST(group_concat({name}, '') AS BLOB) FROM {source} NOT INDEXED"
            f" WHERE t.{rowid} BETWEEN ? AND ? AND {good}",
            (first, until),
        ).fetchone()
        if n == until - first + 1:
            piece = cells.piece(first + np.arange(n, dtype=np.int64), packed)
            return piece, until + 1 if until < end else None
    rows = f"FROM {source} WHERE t.{rowid} BETWEEN ? AND ? ORDER BY t.{rowid} LIMIT {cells.at_once}"
    joined = "group_concat(id) FILTER (WHERE good), CAST(group_concat(cell, '') FILTER (WHERE good) AS BLOB)"
    n, until, whole, ids, packed = connection.execute(
        f"SELECT count(*), max(id), coalesce(sum(good), 0), {joined if utf8 else 'NULL, NULL'}"
        f" FROM (SELECT t.{rowid} AS id, {name if utf8 else 'NULL'} AS cell, {good} AS good {rows})",
        (first, end),
    ).fetchone()
    pieces = []
    if whole:
        pieces.append(cells.piece(np.fromstring(ids, np.int64, sep=","), packed))
    if whole < n:
        where = f"t.{rowid} BETWEEN ? AND ? AND NOT ({good})"
        pieces += _by_row(connection, here, rowid, cells, (where, (first, until)))
    after = until + 1 if n == cells.at_once and until < end else None
    return _in_order([piece for piece in pieces if piece is not None]), after


def vectors_at(
    connection: sqlite3.Connection, here: Table, column: Column, rowids: Sequence[int]
) -> Iterator[Piece]:
    """Yield the vectors of some rows of a table with rowids."""
    cells = _Cells(column, Left())
    rowid = rowid_name(here)
    for part in _parts(rowids):
        where = f"t.{rowid} IN ({', '.join('?' * len(part))})"
        yield from _by_row(connection, here, rowid, cells, (where, part))


def few_cells_at(
    connection: sqlite3.Connection, table: str, rowid: str, column: Column, rowids: Sequence[int]
) -> Sequence[bytes] | None:
    """Return the vectors of a few rows as they are stored, quickly; None where one is not there or not packed.

    rowid: its name in SQL. A third of what `vectors_at` takes, which is longer than asking an index for them.
    """
    n = len(rowids)
    more = -n % 8 if n > 16 else 0  # so that SQLite has prepared the statement more often
    sql = _few_sql(table, column.name, rowid, n + more)
    cells: tuple[bytes, ...] = connection.execute(sql, (*rowids, *[None] * more)).fetchone()[:n]
    size = _TYPES[column.kind].itemsize * (column.dim or 0)
    return cells if set(map(type, cells)) == {bytes} and set(map(len, cells)) == {size} else None


def unpacked(column: Column, cells: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return packed cells as (n, dim) float32."""
    packed = np.frombuffer(b"".join(cells), _TYPES[column.kind])
    return packed.reshape(len(cells), -1).astype(np.float32, copy=False)


@lru_cache
def _few_sql(table: str, column: str, rowid: str, n: int) -> str:
    """Return a statement with one row, a cell for each rowid: 15 us less for 10 of them than `IN`."""
    cell = f"(SELECT {ident(column)} FROM {ident(table)} WHERE {rowid} = ?)"
    return f"SELECT {', '.join([cell] * n)}"


def _parts(rowids: Sequence[int]) -> Iterator[list[int]]:
    for i in range(0, len(rowids), 500):  # SQLite takes at least 999 variables
        yield [int(r) for r in rowids[i : i + 500]]


class _Cells:
    """What a column's cells are, and how they become rows of a matrix."""

    def __init__(self, column: Column, left: Left) -> None:
        self.column, self._left = column, left
        self._type, self._dim = _TYPES[column.kind], column.dim or 0
        self.bytes = self._type.itemsize * self._dim
        self.at_once = max(1, min(_MOST_ROWS, PIECE_BYTES // self.bytes))

    def piece(self, ids: Ids, packed: bytes) -> Piece | None:
        """Return packed cells of the right length as a piece, without those that are not finite."""
        rows = np.frombuffer(packed, self._type).reshape(-1, self._dim).astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", rows, rows)
        odd = np.flatnonzero(~np.isfinite(squares))
        bad = odd[~np.isfinite(rows[odd]).all(axis=1)]
        if len(bad):
            self._left.not_finite += len(bad)
            good = np.ones(len(rows), bool)
            good[bad] = False
            ids, rows, squares = ids[good], rows[good], squares[good]
        return Piece(ids, rows, squares) if len(rows) else None

    def packed(self, cell: Any, is_text: bool) -> bytes | None:
        """Return a cell as `sql` gives it as the bytes of a row, or None (counted) where it is no vector."""
        if cell is None:
            self._left.empty += 1
            return None
        if isinstance(cell, bytes):
            if len(cell) == self.bytes and not is_text:
                return cell
            if self.column.legacy_json:
                found = vectors.from_json(cell)
                if found is not None and len(found) == self._dim * 4:
                    return bytes(vectors.to_array(found).astype(self._type).tobytes())
        self._left.misshapen += 1
        return None

    def sql(self) -> str:
        """Return the cell as two expressions: itself, text as its bytes, for it may be no UTF-8; whether it is text."""
        name = f"t.{ident(self.column.name)}"
        is_text = f"typeof({name}) = 'text'"
        return f"CASE WHEN {is_text} THEN CAST({name} AS BLOB) ELSE {name} END, {is_text}"


def _in_order(pieces: list[Piece]) -> Piece | None:
    """Merge the pieces of one span into one, by rowid."""
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    ids = np.concatenate([p.ids for p in pieces])
    order = np.argsort(ids)
    rows = np.concatenate([p.rows for p in pieces])[order]
    return Piece(ids[order], rows, np.concatenate([p.squares for p in pieces])[order])


def _by_row(
    connection: sqlite3.Connection,
    here: Table,
    rowid: str | None,
    cells: _Cells,
    where: tuple[str, Sequence[Any]] | None,
) -> Iterator[Piece]:
    names = [f"t.{rowid}"] if rowid is not None else [f"t.{ident(k)}" for k in here.key]
    sql = f"SELECT {', '.join(names)}, {cells.sql()} FROM {relation(here)} AS t"
    bindings: Sequence[Any] = ()
    if where is not None:
        sql, bindings = f"{sql} WHERE {where[0]}", where[1]
    cursor, plain = connection.cursor(), connection.text_factory
    try:
        cursor.execute(sql, tuple(bindings))
        while True:
            connection.text_factory = values.bytes_text  # of keys
            rows = cursor.fetchmany(cells.at_once)
            connection.text_factory = plain
            if not rows:
                return
            found = [(row[:-2], packed) for row in rows if (packed := cells.packed(*row[-2:])) is not None]
            if found and (
                piece := cells.piece(_ids(rowid, [f[0] for f in found]), b"".join(f[1] for f in found))
            ):
                yield piece
    finally:
        connection.text_factory = plain
        cursor.close()


def _ids(rowid: str | None, keys: list[tuple[Any, ...]]) -> Ids:
    if rowid is not None:
        return np.array([key[0] for key in keys], np.int64)
    return np.fromiter(keys, object, len(keys))
