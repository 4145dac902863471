"""Looking at every vector: the truth that everything else is measured by."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.errors import ConfigError
from migrate.schema import Metric
from migrate.search.base import Means
from migrate.search.sqlite import best as best_module
from migrate.search.sqlite import exact as exact_module
from migrate.search.sqlite import scores
from migrate.search.sqlite.best import Best
from migrate.search.sqlite.scores import Asked
from migrate.search.sqlite.where import Allowed
from tests.search.hnsw.stores import TABLE, Asking, change, fill, truth, vectors

WITHOUT = Means(hnsw=False)
ODD = Allowed("t.kind = ?", ("odd",))


@pytest.fixture(params=[0, 2**30], ids=["read each time", "kept"])
def means(request: pytest.FixtureRequest) -> Means:
    return Means(hnsw=False, cache_bytes=request.param)


@pytest.mark.parametrize("metric", Metric)
def test_the_nearest_of_every_metric(metric: Metric, means: Means, tmp_path: Path) -> None:
    rows = vectors(700, 24)
    fill(tmp_path / "b.db", rows)
    asking = Asking(tmp_path / "b.db", means)
    for query in vectors(5, 24, seed=1):
        for k in (1, 10, 1000):
            for _ in range(3):
                near = asking.near(query, k, metric=metric)
                wanted = truth(rows, query, k, metric)
                assert [r - 1 for r, _ in near.found] == [r for r, _ in wanted]
                assert [s for _, s in near.found] == pytest.approx([s for _, s in wanted], abs=1e-12)
                assert near.how == "every vector"
                assert near.notes == ()


def test_equal_vectors_have_equal_scores_and_come_by_key(means: Means, tmp_path: Path) -> None:
    one, other = vectors(2, 384)
    cells = [one, other] * 40
    fill(tmp_path / "b.db", [])
    order = np.random.default_rng(0).permutation(80)
    change(
        tmp_path / "b.db",
        *(
            ("INSERT INTO memories VALUES (?, '', ?)", (f"m{i:03}", cells[i].tobytes()))
            for i in order.tolist()
        ),
    )
    asking = Asking(tmp_path / "b.db", means)
    rowids = {key: rowid for rowid, key in enumerate((f"m{i:03}" for i in order.tolist()), 1)}
    for k in (3, 50, 3, 50):
        found = asking.near(one, k).found
        assert [r for r, _ in found[:40]] == [rowids[f"m{i:03}"] for i in range(0, 80, 2)][:k]
        assert len({s for _, s in found[:40]}) == 1


def test_ties_beyond_what_is_kept_are_decided_by_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(best_module, "_MOST_TIED", 5)
    fill(tmp_path / "b.db", [[1.0] * 4] * 300)
    change(tmp_path / "b.db", "UPDATE memories SET id = 'a' WHERE rowid = 250")
    asking = Asking(tmp_path / "b.db", WITHOUT)
    assert [r for r, _ in asking.near(np.ones(4), 3).found] == [250, 1, 2]


def test_filters_and_what_they_cost(tmp_path: Path) -> None:
    rows = vectors(400)
    fill(tmp_path / "b.db", rows)
    wanted = [r for r, _ in truth(rows[1::2], rows[4], 10)]
    asking = Asking(tmp_path / "b.db", WITHOUT)
    for _ in range(4):  # in the statement, then by reading all, then by a mask
        found = asking.near(rows[4], allowed=ODD).found
        assert [(r - 2) // 2 for r, _ in found] == wanted
    (held,) = asking.nearest._exact._held.values()
    assert len(held.masks) == 1
    assert asking.near(rows[4], allowed=Allowed("0")).found == []


def test_a_filter_that_differs_in_type_alone_is_another(tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(30))
    asking = Asking(tmp_path / "b.db", WITHOUT)
    asking.near(np.ones(16))
    asking.near(np.ones(16))
    for bound, n in ((1, 0), (1.0, 30), (True, 0), (1, 0)):
        allowed = Allowed("typeof(?) = 'real'", (bound,))
        assert len(asking.near(np.ones(16), 99, allowed=allowed).found) == n


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_change_is_seen_at_once(mode: str, tmp_path: Path) -> None:
    rows = vectors(60)
    fill(tmp_path / "b.db", rows)
    change(tmp_path / "b.db", f"PRAGMA journal_mode={mode}")
    writer = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    asking = Asking(tmp_path / "b.db", WITHOUT)
    for i in range(1, 30):
        assert asking.near(rows[i], 1).found[0][0] == i + 1
        writer.execute("UPDATE memories SET embedding = ? WHERE rowid = ?", (rows[0].tobytes(), i + 1))
        assert asking.near(rows[0], i + 1).found[i][0] == i + 1
    writer.close()


def test_what_is_no_vector_is_passed_over_and_counted(means: Means, tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(200))
    asking = Asking(tmp_path / "b.db", means)
    asking.searched()
    odd = (
        None,
        b"\0" * 60,
        np.full(16, np.nan, np.float32).tobytes(),
        np.array([np.inf] + [0.0] * 15, np.float32).tobytes(),
        bytes(64),
        b"",
        "words",
    )
    for rowid, cell in enumerate(odd, 4):
        change(tmp_path / "b.db", ("UPDATE memories SET embedding = ? WHERE rowid = ?", (cell, rowid)))
    for _ in range(3):
        near = asking.near(np.ones(16), 500)
        assert {r - 1 for r, _ in near.found} == set(range(200)) - {3, 4, 5, 6, 7, 8, 9}
        assert near.notes == (
            "memories: not compared: 1 without a vector, 3 of another length or type,"
            " 2 with NaN or infinity, 1 all zeros, which have no direction",
        )
    assert len(asking.near(np.ones(16), 500, metric=Metric.EUCLID).found) == 194


def test_vectors_that_are_json_text_are_read(means: Means, tmp_path: Path) -> None:
    rows = vectors(50)
    fill(tmp_path / "b.db", rows)
    asking = Asking(tmp_path / "b.db", means)
    searched = asking.searched()
    for rowid in (1, 7, 50):
        text = json.dumps([float(x) for x in rows[rowid - 1]])
        change(tmp_path / "b.db", ("UPDATE memories SET embedding = ? WHERE rowid = ?", (text, rowid)))
    change(tmp_path / "b.db", ("UPDATE memories SET embedding = ? WHERE rowid = 9", ("[1, 2]",)))
    as_long_as_packed = json.dumps([-1] + [0] * 15).ljust(64)
    change(tmp_path / "b.db", ("UPDATE memories SET embedding = ? WHERE rowid = 11", (as_long_as_packed,)))
    assert searched.vector is not None
    searched = replace(searched, vector=replace(searched.vector, legacy_json=True))
    for _ in range(3):
        with asking.file.reading() as reading:
            near = asking.nearest.search(reading, searched, rows[6], 50)
        assert near.found[0][0] == 7
        assert {r for r, _ in near.found} == set(range(1, 51)) - {9}
        with asking.file.reading() as reading:
            (opposite,) = asking.nearest.search(reading, searched, np.eye(16, dtype=np.float32)[0], 50).found[
                -1:
            ]
        assert opposite == (11, -1.0)


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE memories (id TEXT PRIMARY KEY, kind TEXT, embedding BLOB) WITHOUT ROWID",
        "CREATE TABLE memories (id TEXT, kind TEXT, embedding BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    ],
)
def test_a_table_without_rowids_answers_by_key(table: str, means: Means, tmp_path: Path) -> None:
    rows = vectors(80)
    fill(tmp_path / "b.db", rows, table)
    asking = Asking(tmp_path / "b.db", means)
    for _ in range(3):
        found = asking.near(rows[8], 5, allowed=Allowed("t.kind = 'even'")).found
        assert [int(key[-1][1:]) // 2 for key, _ in found] == [r for r, _ in truth(rows[::2], rows[8], 5)]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_files_of_every_encoding(encoding: str, tmp_path: Path) -> None:
    rows = vectors(90)
    change(tmp_path / "b.db", f"PRAGMA encoding = '{encoding}'", TABLE)
    fill(tmp_path / "b.db", rows, "SELECT 1")
    found = Asking(tmp_path / "b.db", WITHOUT).near(rows[8], 5).found
    assert [r - 1 for r, _ in found] == [r for r, _ in truth(rows, rows[8], 5)]


def test_rowids_at_both_ends_are_found(means: Means, tmp_path: Path) -> None:
    rows = vectors(20)
    fill(tmp_path / "b.db", rows)
    change(
        tmp_path / "b.db",
        f"UPDATE memories SET rowid = {-(2**63)} WHERE rowid = 1",
        f"UPDATE memories SET rowid = {2**63 - 1} WHERE rowid = 2",
    )
    asking = Asking(tmp_path / "b.db", means)
    assert asking.near(rows[0], 1).found[0][0] == -(2**63)
    assert asking.near(rows[1], 1).found[0][0] == 2**63 - 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ([1.0] * 3, "3 numbers"),
        ([float("nan")] * 16, "NaN"),
        ([float("inf")] * 16, "NaN or infinity"),
        ([0.0] * 16, "no direction"),
        ([[1.0] * 16], "1 x 16"),
    ],
)
def test_a_query_that_cannot_be_compared_is_refused(query: object, words: str, tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(20))
    with pytest.raises(ConfigError, match=words):
        Asking(tmp_path / "b.db", WITHOUT).near(query)


def test_no_vectors_are_no_hits(tmp_path: Path) -> None:
    fill(tmp_path / "b.db", vectors(20))
    asking = Asking(tmp_path / "b.db", WITHOUT)
    searched = asking.searched()
    change(tmp_path / "b.db", "DELETE FROM memories")
    for _ in range(3):
        with asking.file.reading() as reading:
            assert asking.nearest.search(reading, searched, np.ones(16, np.float32), 5).found == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "b.db"
    fill(path, vectors(20_000, 384))
    return path


def test_memory_is_bounded_whatever_the_table_holds(large: Path) -> None:
    asking = Asking(large, Means(hnsw=False, cache_bytes=2**20))
    asking.near(np.ones(384), 1)
    tracemalloc.start()
    for _ in range(3):
        asking.near(np.ones(384))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 2**20  # of 31 MB
    assert not asking.nearest._exact._held


def test_kept_vectors_are_not_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(large, WITHOUT)
    first = asking.near(np.ones(384))
    assert not asking.nearest._exact._held
    assert asking.near(np.ones(384)) == first
    monkeypatch.setattr(exact_module, "scan", None)
    assert asking.near(np.ones(384)) == first
    (held,) = asking.nearest._exact._held.values()
    assert 30e6 < held.bytes < 64e6
    asking.close()
    assert not asking.nearest._exact._held


# --- scores -----------------------------------------------------------------------------

_SIZES = st.sampled_from([1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e17, 1e30, 3e38])


@given(data=st.data(), metric=st.sampled_from(list(Metric)))
def test_the_best_are_the_best_at_any_size_of_numbers(data: st.DataObject, metric: Metric) -> None:
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    n, dim, k = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    sizes = np.array(data.draw(st.lists(_SIZES, min_size=1, max_size=4)))
    rows = rng.uniform(-1, 1, (n, dim)) * sizes[rng.integers(0, len(sizes), n)][:, None]
    rows = rows[rng.integers(0, n, n)].astype(np.float32)
    query = (rng.uniform(-1, 1, dim) * data.draw(_SIZES)).astype(np.float32)
    if not query.any():
        return
    asked = Asked.of(metric, query, dim)
    plain = scores.exact(asked, rows)
    best = Best(asked, k, lambda ids: [(int(i),) for i in ids])
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    for i in range(0, n, 7):
        best.offer(np.arange(i, min(n, i + 7)), rows[i : i + 7], squares[i : i + 7])
    valid = [i for i in range(n) if not np.isnan(plain[i])]
    wanted = sorted(valid, key=lambda i: (-plain[i], i))[:k]
    assert best.found() == [(i, plain[i]) for i in wanted]


def test_a_score_depends_on_its_row_alone() -> None:
    rows = vectors(257, 131)
    for metric in Metric:
        asked = Asked.of(metric, rows[7], 131)
        together = scores.exact(asked, rows)
        assert together.tolist() == [scores.exact(asked, row[None])[0] for row in rows]
        assert together.tolist() == scores.exact(asked, rows[::-1].copy())[::-1].tolist()
