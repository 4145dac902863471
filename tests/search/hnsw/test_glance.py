"""The first questions, answered by looking at every vector of a sidecar's file."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.hnsw import container, places, sidecar
from migrate.hnsw.container import BrokenError, Bytes
from migrate.hnsw.glance import glance
from migrate.hnsw.graph import Shape
from migrate.schema import Metric
from migrate.search.base import Means
from tests.search.hnsw.stores import INDEX, Asking, N, Rows, change, fill, vectors


def in_memory(asking: Asking) -> bool:
    """Whether the index was read."""
    return any(one._index is not None for one in asking.nearest._sidecars.values())


def same(asking: Asking, query: Any, k: int = 10, metric: Metric | None = None) -> None:
    near, exact = asking.near(query, k, metric=metric), asking.near(query, k, metric=metric, exact=True)
    assert (near.found, near.how) == (exact.found, INDEX)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT, Metric.EUCLID])
def test_the_first_questions_find_what_every_vector_finds_without_an_index_in_memory(
    metric: Metric, store: Path, rows: Rows
) -> None:
    made = Asking(store)
    made.settled(metric)
    made.close()
    asking = Asking(store, Means(cache_bytes=0))
    for k in (1, 10, 300, N):
        same(asking, rows[k % 7], k, metric)
        assert not in_memory(asking)
    same(asking, rows[5], 10, metric)
    assert in_memory(asking)


def test_what_was_deleted_and_what_was_added_later(store: Path, rows: Rows) -> None:
    made = Asking(store)
    made.settled()
    change(
        store,
        "DELETE FROM memories WHERE rowid % 10 = 0",
        ("INSERT INTO memories VALUES ('new', '', ?)", ((2 * rows[9]).tobytes(),)),
    )
    made.settled()
    made.close()
    asking = Asking(store, Means(cache_bytes=0))
    same(asking, rows[9])
    same(asking, rows[9], N)
    assert not in_memory(asking)


def test_rows_as_near_as_the_last_are_ordered_by_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "brain.sqlite"
    equal = np.tile(vectors(11), (100, 1))
    fill(path, equal)
    Asking(path).settled()
    same(Asking(path, Means(cache_bytes=0)), equal[3])


def test_a_filter_is_not_for_a_glance(store: Path, rows: Rows) -> None:
    from migrate.search.sqlite.where import Allowed

    Asking(store).settled()
    asking = Asking(store, Means(cache_bytes=0))
    near = asking.near(rows[0], allowed=Allowed("t.kind = ?", ("odd",)))
    assert all(rowid % 2 == 0 for rowid, _ in near.found)  # the first row is even, its rowid 1


def test_a_store_that_changed_is_not_answered_from_the_file_of_before(store: Path, rows: Rows) -> None:
    Asking(store).settled()
    change(store, ("UPDATE memories SET embedding = ? WHERE rowid = 7", (rows[0].tobytes(),)))
    asking = Asking(store, Means(cache_bytes=0))
    near = asking.near(rows[0])
    assert near.how == "every vector"
    assert {1, 7} <= {rowid for rowid, _ in near.found}
    asking.close()


def test_a_file_that_is_written_while_it_is_looked_at_is_not_believed(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asking(store).settled()
    file = store.with_name("brain.hnsw")

    def written(*given: Any, **more: Any) -> Any:
        assert more["trusted"]
        rowids, distances = glance(*given, **more)
        os.utime(file)
        return rowids[::-1].copy(), distances

    monkeypatch.setattr(sidecar, "glance", written)
    asking = Asking(store, Means(cache_bytes=0))
    same(asking, rows[3])
    asking.close()


def test_forged_labels_are_refused(store: Path, rows: Rows) -> None:
    Asking(store).settled()
    file, shape = store.with_name("brain.hnsw"), Shape(Metric.COSINE, rows.shape[1])
    with places.opened(file) as descriptor:
        found = container.manifest(descriptor)
        sections = container.read(descriptor, found, trusted=False)
    shape = replace(shape, m=int(found.told["m"]))
    sections["elements"].view(shape.element)["label"][5] = N + 1
    with open(file, "r+b") as out:
        container.write(out.fileno(), found.told, sections)
        out.flush()
        with pytest.raises(BrokenError, match="labels"):
            glance(out.fileno(), container.manifest(out.fileno()), shape, rows[0], 10, trusted=False)
    asking = Asking(store, Means(cache_bytes=0))
    near, exact = asking.near(rows[5]), asking.near(rows[5], exact=True)
    assert (near.found, near.how) == (exact.found, "every vector")
    asking.close()


# --- the container ------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1, 3, 100, 511, 512, 513, 1000, 4096])
@pytest.mark.parametrize("units", [0, 1, 2, 7, 50])
def test_all_units_are_shown_once_wherever_parts_and_pieces_end(
    unit: int, units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(container, "_PIECE_BYTES", 700)
    data = np.random.default_rng(unit).integers(0, 256, unit * units, np.uint8)
    shown: dict[int, bytes] = {}

    def visit(first: int, piece: Bytes) -> None:
        for i in range(len(piece) // unit):
            assert first + i not in shown
            shown[first + i] = piece[i * unit : (i + 1) * unit].tobytes()

    with open(tmp_path / "file", "w+b") as file:
        container.write(file.fileno(), {}, {"before": data[:5], "it": data, "after": data[:3]})
        found = container.manifest(file.fileno())
        container.stream(file.fileno(), found, "it", unit, visit, trusted=False)
        assert container.read(file.fileno(), found, "it", trusted=False)["it"].tobytes() == data.tobytes()
    assert b"".join(shown[i] for i in sorted(shown)) == data.tobytes()
    assert sorted(shown) == list(range(units))


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(container, "_PIECE_BYTES", 700)
    data = np.random.default_rng(1).integers(0, 256, 3003, np.uint8)
    with open(tmp_path / "file", "w+b") as file:
        container.write(file.fileno(), {}, {"it": data})
        found = container.manifest(file.fileno())
        offset = found.sections["it"][0]
        for at in range(0, len(data), 13):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1]), offset + at)
            with pytest.raises(BrokenError):
                container.stream(file.fileno(), found, "it", 11, lambda first, piece: None, trusted=False)
            os.pwrite(file.fileno(), bytes([data[at]]), offset + at)
        os.ftruncate(file.fileno(), offset + 2000)
        with pytest.raises(BrokenError, match="cut off"):
            container.stream(file.fileno(), found, "it", 11, lambda first, piece: None, trusted=True)


def test_a_row_that_is_gone_is_not_made_up(store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a store may be read in one state and its sidecar be of another only by a fault of ours."""
    Asking(store).settled()
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM memories WHERE rowid = 1")
    connection.close()
    asking = Asking(store, Means(cache_bytes=0))
    monkeypatch.setattr(sidecar.Sidecar, "_from_file", _any_state)
    near, exact = asking.near(rows[0]), asking.near(rows[0], exact=True)
    assert near.found == exact.found
    asking.close()


_from_file = sidecar.Sidecar._from_file


def _any_state(self: Any, only: Any, use: Any) -> Any:
    return _from_file(self, None, use)
