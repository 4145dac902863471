"""How many hits there are, which, and what a filter leaves, by the index and by every vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.backends.sqlite.vectorscan import few_cells_at
from migrate.schema import Metric
from migrate.search.base import Means
from migrate.search.sqlite import indexed
from migrate.search.sqlite.where import Allowed
from tests.search.hnsw.stores import EVERY, INDEX, Asking, N, Rows, both, change, fill, vectors


def filtered(asking: Asking, query: object, allowed: Allowed, k: int = 10) -> str:
    near = asking.near(query, k, allowed=allowed)
    assert near.found == asking.near(query, k, allowed=allowed, exact=True).found
    return near.how


def test_a_filter_follows_rows_that_change_while_their_vectors_stay(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.search.sqlite.indexed.FEW", 100)
    asking, odd = Asking(store), Allowed("t.kind = ?", ("odd",))
    asking.settled()
    assert filtered(asking, rows[8], odd) == INDEX
    change(store, "UPDATE memories SET kind = CASE kind WHEN 'odd' THEN 'even' ELSE 'odd' END")
    asking.settled()
    assert filtered(asking, rows[8], odd) == INDEX
    change(store, ("INSERT INTO memories VALUES ('new', 'odd', ?)", (rows[8].tobytes(),)))
    asking.settled()
    assert filtered(asking, rows[8], odd) == INDEX
    asking.close()


def test_filters_are_heeded_by_the_index(store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexed, "FEW", 100)
    asking = Asking(store)
    asking.settled()
    for query in rows[::100]:
        assert filtered(asking, query, Allowed("t.rowid > 5")) == INDEX  # nearly all
        assert filtered(asking, query, Allowed("t.kind = ?", ("odd",))) == INDEX
        assert filtered(asking, query, Allowed("t.rowid < 90")) == EVERY  # few
        assert filtered(asking, query, Allowed("0")) == EVERY


def test_rows_that_were_met_are_read_once_until_they_change(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    def reading(*given: Any) -> Any:
        read.append(given[-1])
        return few_cells_at(*given)

    monkeypatch.setattr(indexed, "few_cells_at", reading)
    asking = Asking(store, Means(cache_bytes=0))  # which keeps no vectors for exact search
    asking.settled()
    first = asking.near(rows[8])
    assert asking.near(rows[8]) == first
    assert len(read) == 1

    moved = rows[8] + np.float32(0.1) * rows[9]  # near enough to be found by its old vector, too
    change(store, ("UPDATE memories SET embedding = ? WHERE id = 'm000008'", (moved.tobytes(),)))
    asking.settled()
    assert both(asking, rows[8]) == INDEX
    assert asking.near(rows[8]) != first
    assert len(read) == 2


def test_what_is_kept_of_met_rows_is_bounded(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed, "MET_BYTES", 100 * rows[0].nbytes)
    asking = Asking(store, Means(cache_bytes=0))
    asking.settled()
    for query in rows[::40]:
        assert both(asking, query) == INDEX
    (met,) = asking.nearest._met.values()
    assert 90 < len(met._cells) <= 100


@pytest.mark.parametrize("k", [15, 17, 100, 128, 129])
def test_as_many_rows_as_one_statement_reads_and_more(
    k: int, store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed, "_WIDEST_SHARE", 10)
    asking = Asking(store, Means(cache_bytes=0))
    asking.settled()
    assert both(asking, rows[3], k) == INDEX


def test_as_many_are_found_as_there_are(store: Path, rows: Rows) -> None:
    asking = Asking(store)
    asking.settled()
    for k, n in ((1, 1), (300, 300), (N, N), (5 * N, N)):
        assert len(asking.near(rows[0], k).found) == n
    assert asking.near(rows[0], 0).found == []
    assert len(asking.near(rows[0], 50, allowed=Allowed("t.rowid <= 1180 AND t.rowid > 20")).found) == 50


def test_elements_that_are_not_reached_are_found_by_looking_at_every_vector(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(store)
    asking.settled()
    monkeypatch.setattr("migrate.hnsw.graph.Graph.ask", lambda *a: (np.empty(0, np.uint64), np.empty(0)))
    assert both(asking, rows[0]) == EVERY


def test_vectors_that_an_index_cannot_tell_apart_are_not_asked_of_it(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.hnsw.build.WANTED_RECALL", 1.1)
    asking = Asking(store)
    asking.settled()
    near = asking.near(rows[0])
    assert near.how == EVERY
    assert "no structure that an HNSW index could use" in near.notes[0]


def test_equal_vectors_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "brain.sqlite"
    fill(path, [np.ones(16).tolist()] * 1100)
    asking = Asking(path)
    asking.settled()
    near = asking.near(np.ones(16))
    assert (near.how, len(near.found), {s for _, s in near.found}) == (INDEX, 10, {1.0})


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_beyond_float32s_squares_are_no_trouble_under_cosine(size: float, tmp_path: Path) -> None:
    path = tmp_path / "brain.sqlite"
    rows = (vectors(1100) * size).astype(np.float32)
    fill(path, vectors(1100))
    asking = Asking(path)
    asking.searched()
    change(
        path,
        "BEGIN",
        *(
            ("UPDATE memories SET embedding = ? WHERE rowid = ?", (row.tobytes(), rowid))
            for rowid, row in enumerate(rows, 1)
        ),
        "COMMIT",
    )
    asking.settled()
    for row in rows[::100]:
        near, exact = asking.near(row), asking.near(row, exact=True)
        assert near.how == INDEX
        assert near.found[0] == exact.found[0]
    near = asking.near(rows[0], metric=Metric.EUCLID)
    assert near.how == EVERY
