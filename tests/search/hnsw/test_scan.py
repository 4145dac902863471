"""Reading a column of vectors by one connection or several: each row once, whatever rowids and cells there are."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.backends.sqlite import vectorscan
from migrate.backends.sqlite.vectorscan import Left, More, scan
from migrate.schema import Column, Kind, Table
from migrate.search.base import Means
from migrate.search.sqlite.reading import SqliteFile
from tests.search.hnsw.stores import Asking, change, fill, truth, vectors

DIM = 4
COLUMN = Column("v", Kind.VECTOR, dim=DIM)
HERE = Table("t", (Column("id", Kind.INTEGER), COLUMN), key=("id",))
FIRST, LAST = -(2**63), 2**63 - 1

Cell = bytes | str | None

_NUMBERS = st.floats(-1e6, 1e6, width=32)
_VECTORS = st.lists(_NUMBERS, min_size=DIM, max_size=DIM).map(lambda row: np.array(row, "<f4").tobytes())
_ODD = st.sampled_from(
    [None, b"", b"\0" * 15, "text", "0123456789abcdef", np.full(DIM, np.nan, "<f4").tobytes()]
)
_DENSE = st.tuples(st.integers(-20, 20), st.integers(0, 60)).map(lambda x: set(range(x[0], x[0] + x[1])))
_ROWIDS = st.builds(
    lambda dense, some, ends, gone: sorted((dense | some | ends) - gone),
    _DENSE,
    st.sets(st.integers(FIRST, LAST), max_size=8),
    st.sets(st.sampled_from([FIRST, FIRST + 1, LAST - 1, LAST])),
    st.sets(st.integers(-20, 80), max_size=5),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorscan, "PIECE_BYTES", 5 * 4 * DIM)
    monkeypatch.setattr(vectorscan, "_LARGE_PIECES", 1)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)


def _more(path: Path, n: int) -> More:
    @contextmanager
    def opened() -> Iterator[Sequence[sqlite3.Connection]]:
        connections = [_connect(path) for _ in range(n)]
        yield connections
        for connection in connections:
            connection.close()

    return opened


def _counted(cells: Sequence[Cell]) -> Left:
    left = Left()
    for cell in cells:
        left.empty += cell is None
        good = isinstance(cell, bytes) and len(cell) == 4 * DIM
        left.misshapen += cell is not None and not good
        left.not_finite += (
            isinstance(cell, bytes) and good and bool(np.isnan(np.frombuffer(cell, "<f4")).any())
        )
    return left


@given(
    rowids=_ROWIDS,
    cells=st.lists(_VECTORS | _ODD, min_size=1, max_size=12),
    oddly=st.integers(1, 40),
    several=st.integers(0, 3),
)
def test_each_vector_is_given_once(rowids: list[int], cells: list[Cell], oddly: int, several: int) -> None:
    plain = np.arange(DIM, dtype="<f4").tobytes()
    rows: dict[int, Cell] = {
        rowid: cells[i % len(cells)] if i % oddly == 0 else plain for i, rowid in enumerate(rowids)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.db"
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
            writer.execute("CREATE INDEX tempting ON t (length(v), typeof(v), v)")
            writer.executemany("INSERT INTO t VALUES (?, ?)", rows.items())
            writer.commit()
        left = Left()
        with closing(_connect(path)) as connection:
            more = _more(path, several) if several else None
            pieces = list(scan(connection, HERE, COLUMN, left, more=more))
    found = [
        (int(i), row.tobytes()) for piece in pieces for i, row in zip(piece.ids, piece.rows, strict=True)
    ]
    bad = (_counted([cell]).any for cell in rows.values())
    wanted = [(rowid, cell) for (rowid, cell), odd in zip(rows.items(), bad, strict=True) if not odd]
    assert (sorted(found) if several else found) == wanted
    assert left == _counted(list(rows.values()))


def test_who_stops_early_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
        writer.executemany("INSERT INTO t VALUES (?, ?)", ((i, bytes(4 * DIM)) for i in range(500)))
        writer.commit()
    opened: list[sqlite3.Connection] = []

    @contextmanager
    def more() -> Iterator[Sequence[sqlite3.Connection]]:
        with closing(_connect(path)) as other:
            opened.append(other)
            yield [other]

    with closing(_connect(path)) as connection:
        pieces = scan(connection, HERE, COLUMN, Left(), more=more)
        next(pieces)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert connection.execute("SELECT 1").fetchone() == (1,)
    (other,) = opened
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        other.execute("SELECT 1")


def test_an_error_of_one_connection_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(200))
    with (
        closing(_connect(tmp_path / "b.db")) as connection,
        closing(sqlite3.connect(":memory:", check_same_thread=False)) as empty,
    ):
        here = Table("memories", (Column("embedding", Kind.VECTOR, dim=16),))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            list(scan(connection, here, here.columns[0], Left(), more=lambda: nullcontext([empty])))


# --- further connections of a file ------------------------------------------------------


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("writer_is_there", [True, False])
def test_several_connections_answer_as_one(journal: str, writer_is_there: bool, tmp_path: Path) -> None:
    rows = vectors(300)
    fill(tmp_path / "b.db", rows)
    change(tmp_path / "b.db", f"PRAGMA journal_mode = {journal}", "UPDATE memories SET kind = 'x'")
    wait = sqlite3.connect(tmp_path / "b.db")
    wait.execute("UPDATE memories SET kind = 'y'")
    wait.commit()
    if not writer_is_there:
        wait.close()
    asking = Asking(tmp_path / "b.db", Means(hnsw=False, cache_bytes=0))
    for query in vectors(3, seed=1):
        assert [r - 1 for r, _ in asking.near(query).found] == [r for r, _ in truth(rows, query, 10)]
    wait.close()


def test_vectors_that_are_kept_are_in_the_order_of_their_rowids(tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(300))  # an index looks them up by that
    asking = Asking(tmp_path / "b.db", Means(hnsw=False))
    for query in vectors(2, seed=1):
        asking.near(query)
    (held,) = asking.nearest._exact._held.values()
    assert held.ids.tolist() == list(range(1, 301))


def test_a_connection_that_would_see_other_rows_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    fill(path, vectors(20))
    change(path, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("UPDATE memories SET kind = 'x'")
        writer.commit()
        with SqliteFile(path).reading() as reading:
            with reading.more(3) as more:
                assert len(more) == 3
            writer.execute("DELETE FROM memories")
            writer.commit()
            with reading.more(3) as more:
                assert more == []
            assert reading.connection.execute("SELECT count(*) FROM memories").fetchone() == (20,)


def test_a_file_that_is_gone_is_left_to_the_first_connection(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    fill(path, vectors(20))
    file = SqliteFile(path)
    reading = file._opened().reading
    path.unlink()
    with reading.more(2) as more:
        assert more == []
    file.close()
