"""Making an index of a column, and making an index equal to the column again."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

from migrate.backends.sqlite.names import ident
from migrate.backends.sqlite.vectorscan import FIRST, Ids, Left, Piece, scan, span, vectors_at
from migrate.hnsw.graph import Graph, Shape
from migrate.hnsw.settings import (
    EF_LADDER,
    MOST_CHANGED,
    MOST_DELETED,
    QUERIES,
    RECALL_K,
    WANTED_DISTURBED,
    WANTED_RECALL,
)
from migrate.schema import Column, Metric, Table

Rows = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Told vectors done and in all; what it raises ends the work."""

_SHORTEST, _LONGEST = 1e-15, 1e15  # lengths whose squares and sums of squares float32 holds
_ROUNDING = 1e-5  # of a distance, by which equal ones may differ


class UnfitError(Exception):
    """Vectors that no index can be made of."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot of a store: what is needed to scan one of its columns.

    here: the table as the file declares it. state: equal states mean equal rows.
    """

    connection: sqlite3.Connection
    here: Table
    column: Column
    utf8: bool
    state: str | None


Store = Callable[[], AbstractContextManager[Reading]]
"""Opens a store for a short reading."""


@dataclass(slots=True)
class Index:
    """A graph, and what its labels stand for.

    rowids, digests: by label; the digest is of the vector that was added. alive: not deleted.
    count:   how many vectors it finds, which are those alive.
    width:   how many candidates a search for 10 weighs to find enough of them; None where no
             width found enough, so that the index is not to be used.
    recall:  that was measured with this width (or the widest).
    """

    graph: Graph
    rowids: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    alive: npt.NDArray[np.bool_]
    width: int | None
    recall: float
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = int(np.count_nonzero(self.alive))

    @property
    def bytes(self) -> int:
        """Return about how long its file is."""
        return len(self.alive) * (self.graph.shape.element.itemsize + 24)


def count(reading: Reading) -> int:
    """Return how many cells may be vectors, without reading them."""
    name = ident(reading.column.name)
    sql = f"SELECT count({name}) FROM {ident(reading.here.name)}"
    (n,) = reading.connection.execute(sql).fetchone()
    return int(n)


def digests_of(rows: Rows) -> npt.NDArray[np.uint64]:
    """Return a digest of each row's bytes.

    64 bits are enough: were two vectors taken for one, the row would be harder to find, and no
    answer wrong, for scores are computed from the store.
    """
    step, flat = rows.shape[1] * 4, np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    hashed = (xxhash.xxh3_64_intdigest(flat[i : i + step]) for i in range(0, len(flat), step))
    return np.fromiter(hashed, np.uint64, len(rows))


def build(
    store: Store, column: Column, metric: Metric, progress: Progress
) -> tuple[Index | None, str | None]:
    """Make an index of a column, and name the state of the store that it is equal to.

    None where there are no vectors. No state where the store was written meanwhile: it is read in
    many short snapshots, as a long one would make the writers of a rollback-journal file wait, and
    a WAL grow. `compare` finds what is to be done then.

    Some rows are held out until the end: with them as queries the width is found that a search
    needs, which vectors of one kind have in common and no default has for all.
    """
    with store() as reading:
        total = count(reading)
    graph, every = Graph.new(Shape(metric, column.dim or 0), total), max(2, total // QUERIES)
    rowids: list[Ids] = []
    digests: list[npt.NDArray[np.uint64]] = []
    held: list[Piece] = []
    states: set[str | None] = set()
    seen = 0
    at: int | None = FIRST
    while at is not None:
        with store() as reading:
            piece, at = span(reading.connection, reading.here, column, Left(), at, utf8=reading.utf8)
            states.add(reading.state)
        if piece is None or not len((piece := _with_direction(metric, piece)).ids):
            continue
        out = (np.arange(seen, seen + len(piece.ids)) % every) == every - 1
        seen += len(piece.ids)
        held.append(_some(piece, out))
        kept = _some(piece, ~out)
        graph.add(tame(metric, kept))
        rowids.append(kept.ids)
        digests.append(digests_of(kept.rows))
        progress(min(seen, total), total)
    if not seen:
        return None, None
    queries = [h for h in held if len(h.ids)][: 2 * QUERIES]
    with store() as reading:
        width, recall = measured(reading, graph, np.concatenate(rowids), queries)
    for piece in held:
        graph.add(tame(metric, piece))
        rowids.append(piece.ids)
        digests.append(digests_of(piece.rows))
    alive = np.ones(seen, np.bool_)
    index = Index(graph, np.concatenate(rowids), np.concatenate(digests), alive, width, recall)
    return index, states.pop() if len(states) == 1 else None


def pieces(reading: Reading, metric: Metric) -> Iterator[Piece]:
    """Scan the vectors that an index holds."""
    for piece in scan(reading.connection, reading.here, reading.column, Left(), utf8=reading.utf8):
        piece = _with_direction(metric, piece)
        if len(piece.ids):
            yield piece


def _with_direction(metric: Metric, piece: Piece) -> Piece:
    """Leave out rows of zeros under cosine: they are in no answer."""
    if metric is not Metric.COSINE or piece.squares.all():
        return piece
    return _some(piece, np.any(piece.rows != 0, axis=1))


def _some(piece: Piece, which: npt.NDArray[np.bool_]) -> Piece:
    return Piece(piece.ids[which], piece.rows[which], piece.squares[which])


def tame(metric: Metric, piece: Piece) -> Rows:
    """Return rows as hnswlib can take them: under cosine, lengths that float32 cannot square are changed.

    Raises UnfitError where lengths count and are beyond that.
    """
    wild = ~((piece.squares > _SHORTEST**2) & (piece.squares < _LONGEST**2))
    if metric is not Metric.COSINE:
        if (piece.squares >= _LONGEST**2).any():
            raise UnfitError("its vectors are too long for float32 sums")
        return piece.rows
    if not wild.any():
        return piece.rows
    rows = piece.rows.copy()
    rows[wild] /= np.abs(rows[wild]).max(axis=1, keepdims=True)
    return rows


def measured(reading: Reading, graph: Graph, among: Ids, held: list[Piece]) -> tuple[int | None, float]:
    """Return the smallest width that finds enough of the true neighbours, and the recall with it.

    among: the rowids that the graph holds. Asked are the rows held out of it, and the same with noise
    as long as they are: questions are not quite where the memories are. What is as near as the last
    of the true ones counts as found, for which of equal vectors is found says nothing.
    """
    if not held:
        return EF_LADDER[0], 1.0
    metric = graph.shape.metric
    plain = np.concatenate([tame(metric, h) for h in held])
    queries = np.concatenate([plain, _disturbed(plain)])
    last = _last_distances(reading, metric, among, queries)
    recalls: dict[int, float] = {}

    def enough(width: int) -> bool:
        distances = graph.ask_all(queries, min(width, graph.count))[:, :RECALL_K]
        found = (distances <= last[:, None]).sum(axis=1) / min(RECALL_K, graph.count)
        recalls[width], disturbed = (float(half.mean()) for half in np.split(found, 2))
        return recalls[width] >= WANTED_RECALL and disturbed >= WANTED_DISTURBED

    at = bisect_left(EF_LADDER, True, key=enough)
    if at == len(EF_LADDER):
        return None, recalls[EF_LADDER[-1]]
    return EF_LADDER[at], recalls[EF_LADDER[at]]


def _disturbed(rows: Rows) -> Rows:
    noise = np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
    noise *= (lengths / np.sqrt(rows.shape[1])).astype(np.float32)
    return rows + noise


def _last_distances(reading: Reading, metric: Metric, among: Ids, queries: Rows) -> npt.NDArray[np.float32]:
    """Return the distance of each query's tenth neighbour as hnswlib has it, by looking at every vector."""
    near = np.empty((len(queries), 0), np.float32)
    for piece in pieces(reading, metric):
        known = np.isin(piece.ids, among, assume_unique=True)
        near = np.concatenate([near, _distances(metric, queries, tame(metric, _some(piece, known)))], axis=1)
        if near.shape[1] > RECALL_K:
            near = np.partition(near, RECALL_K - 1, axis=1)[:, :RECALL_K]
    last: npt.NDArray[np.float32] = near.max(axis=1, initial=-np.inf)
    scale = np.square(queries).sum(axis=1) if metric is not Metric.COSINE else 1.0
    bounds: npt.NDArray[np.float32] = (last + _ROUNDING * (np.abs(last) + scale)).astype(np.float32)
    return bounds


def _distances(metric: Metric, queries: Rows, rows: Rows) -> Rows:
    products: Rows = queries @ rows.T
    if metric is Metric.EUCLID:
        products *= -2
        products += np.square(queries).sum(axis=1)[:, None]
        products += np.square(rows).sum(axis=1)
        return products
    if metric is Metric.COSINE:
        products /= np.sqrt(np.square(rows).sum(axis=1)) * np.sqrt(np.square(queries).sum(axis=1))[:, None]
    return np.subtract(1, products, out=products)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a column has that an index has not, and the other way round.

    moved: (label, rowid) of vectors that are the same under another rowid, as VACUUM leaves them.
    added: rowids, and `pieces` their vectors. removed: labels.
    worn:  the index is better built anew; there are no `pieces` then.
    state: of the store, that the index will be equal to.
    """

    moved: list[tuple[int, int]]
    added: list[int]
    removed: list[int]
    pieces: list[Piece]
    worn: bool
    state: str | None

    @property
    def count(self) -> int:
        """Return how many elements have to change."""
        return len(self.added) + len(self.removed)

    @property
    def any(self) -> bool:
        """Whether there is something to do."""
        return bool(self.moved or self.added or self.removed)


def compare(reading: Reading, index: Index, progress: Progress) -> Changes:
    """Compare a column with an index by the digests of its vectors."""
    labels = np.flatnonzero(index.alive)
    labels = labels[np.argsort(index.rowids[labels], kind="stable")]
    known = index.rowids[labels]
    kept = np.zeros(len(labels), np.bool_)
    fresh: list[tuple[int, int]] = []  # rowid, digest
    seen, total = 0, len(labels)
    for piece in pieces(reading, index.graph.shape.metric):
        digests = digests_of(piece.rows)
        at = np.minimum(np.searchsorted(known, piece.ids), max(0, len(known) - 1))
        same = np.zeros(len(at), np.bool_)
        if len(known):
            same = (known[at] == piece.ids) & (index.digests[labels[at]] == digests)
        kept[at[same]] = True
        fresh += zip(piece.ids[~same].tolist(), digests[~same].tolist(), strict=True)
        seen += len(piece.ids)
        progress(min(seen, total), total)
    waiting: dict[int, list[int]] = {}
    for label in labels[~kept].tolist():
        waiting.setdefault(int(index.digests[label]), []).append(label)
    moved: list[tuple[int, int]] = []
    added: list[int] = []
    for rowid, digest in fresh:
        if same_vector := waiting.get(digest):
            moved.append((same_vector.pop(), rowid))
        else:
            added.append(rowid)
    removed = [label for left in waiting.values() for label in left]
    is_worn = _worn(index, len(added), len(removed))
    fetched = [] if is_worn else _vectors_of(reading, added)
    return Changes(moved, added, removed, fetched, is_worn, reading.state)


def _vectors_of(reading: Reading, rowids: list[int]) -> list[Piece]:
    return list(vectors_at(reading.connection, reading.here, reading.column, rowids))


def _worn(index: Index, added: int, removed: int) -> bool:
    gone = len(index.alive) - index.count + removed
    changed = added + removed > MOST_CHANGED * max(1, index.count)
    return changed or gone > MOST_DELETED * (len(index.alive) + added)


def apply(index: Index, changes: Changes, progress: Progress) -> None:
    """Make an index equal to the column. Nobody may ask it meanwhile; one that failed is of no use."""
    for label, rowid in changes.moved:
        index.rowids[label] = rowid
    index.graph.delete(changes.removed)
    index.alive[changes.removed] = False
    index.count -= len(changes.removed)
    done = 0
    for piece in changes.pieces:
        index.graph.add(tame(index.graph.shape.metric, piece))
        index.rowids = np.concatenate([index.rowids, piece.ids])
        index.digests = np.concatenate([index.digests, digests_of(piece.rows)])
        index.alive = np.concatenate([index.alive, np.ones(len(piece.ids), np.bool_)])
        index.count += len(piece.ids)
        done += len(piece.ids)
        progress(done, len(changes.added))
