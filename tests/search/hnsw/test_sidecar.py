"""`brain.hnsw`: made from 1,000 vectors on, equal to the store or not asked."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from migrate.hnsw import container, places, settings
from migrate.hnsw.sidecar import Sidecar
from migrate.schema import Metric
from migrate.search.base import Means
from migrate.search.sqlite.where import Allowed
from tests.search.hnsw.stores import EVERY, INDEX, Asking, N, Rows, both, change, fill, vectors


@pytest.mark.parametrize("allowed", [None, Allowed("t.rowid < 90")])
@pytest.mark.parametrize(("n", "made"), [(998, False), (1000, True)])
def test_it_is_made_from_a_thousand_vectors_on(
    n: int, made: bool, allowed: Allowed | None, tmp_path: Path
) -> None:
    path = tmp_path / "brain.sqlite"
    fill(path, vectors(n))
    change(path, "INSERT INTO memories VALUES ('none', '', NULL), ('other', '', x'00')")
    asking = Asking(path)
    first = asking.near(np.ones(16), allowed=allowed)
    assert first.how == EVERY
    assert ("brain.hnsw is being brought up to date" in first.notes) == made
    asking.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["brain.hnsw", "brain.sqlite"][not made :]


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT, Metric.EUCLID])
def test_it_finds_what_every_vector_finds_with_the_same_scores(
    metric: Metric, store: Path, rows: Rows
) -> None:
    asking = Asking(store)
    asking.settled(metric)
    same = 0
    for query in vectors(40, seed=3):
        near = asking.near(query, metric=metric)
        assert near.how == INDEX
        exact = dict(asking.near(query, 50, metric=metric, exact=True).found)
        assert all(exact.get(rowid, score) == score for rowid, score in near.found)
        same += len(set(dict(near.found)) & set(list(exact)[:10]))
    assert same >= 0.95 * 400
    asking.close()


def test_manhattan_distances_are_compared_exactly_and_that_is_said(store: Path) -> None:
    near = Asking(store).near(np.ones(16), metric=Metric.MANHATTAN)
    assert near.how == EVERY
    assert near.notes == ("an HNSW index knows no manhattan distance, so every vector is looked at",)
    assert not store.with_name("brain.hnsw").exists()


def test_a_table_without_rowids_is_compared_exactly_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "brain.sqlite"
    fill(
        path,
        vectors(N),
        "CREATE TABLE memories (id TEXT PRIMARY KEY, kind TEXT, embedding BLOB) WITHOUT ROWID",
    )
    near = Asking(path).near(np.ones(16))
    assert (near.how, near.notes) == (EVERY, ("memories has no rowids, so every vector is looked at",))


def test_without_hnswlib_search_is_exact_and_says_so(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    near = Asking(store).near(np.ones(16))
    assert near.how == EVERY
    assert near.notes == (
        "hnswlib is not installed, so every vector is looked at: pip install 'memlift[hnsw]'",
    )
    assert not store.with_name("brain.hnsw").exists()


def test_who_wants_none_gets_none(store: Path) -> None:
    near = Asking(store, Means(hnsw=False)).near(np.ones(16))
    assert (near.how, near.notes) == (EVERY, ())


def test_the_next_program_reads_it_and_asks_it_at_once(store: Path, rows: Rows) -> None:
    first = Asking(store)
    first.settled()
    first.close()
    assert both(Asking(store), rows[5]) == INDEX


def test_it_is_as_readable_as_its_store(store: Path) -> None:
    store.chmod(0o640)
    asking = Asking(store)
    asking.settled()
    info, wanted = store.with_name("brain.hnsw").stat(), store.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, wanted.st_uid, wanted.st_gid)


def test_what_we_remember_is_private(store: Path, home: Path) -> None:
    Asking(store).settled()
    (kept,) = (home / "sidecars").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_written_costs_nothing_but_time(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMLIFT_HOME", "/dev/null/home")
    Asking(store).settled()
    assert both(Asking(store), rows[5]) == INDEX


# --- changes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM memories WHERE rowid % 9 = 0"],
        ["UPDATE memories SET embedding = (SELECT embedding FROM memories WHERE rowid = 7) WHERE rowid < 50"],
        ["INSERT INTO memories SELECT 'x' || id, kind, embedding FROM memories WHERE rowid < 90"],
        ["DELETE FROM memories WHERE rowid < 100", "VACUUM"],
        ["UPDATE memories SET rowid = -rowid"],
        ["UPDATE memories SET embedding = NULL WHERE rowid % 3 = 0"],
        ["DELETE FROM memories WHERE rowid > 300"],
        ["CREATE TABLE another (a)"],
    ],
)
def test_a_change_is_noticed_and_the_sidecar_brought_up_to_date(
    statements: list[str], store: Path, rows: Rows
) -> None:
    asking = Asking(store)
    asking.settled()
    change(store, *statements)
    assert both(asking, rows[6]) == EVERY  # meanwhile
    asking.settled()
    left = asking.near(rows[6], N * 2, exact=True).found
    for query in rows[::150]:
        assert both(asking, query) == (INDEX if len(left) >= settings.BUILD_FROM else EVERY)
    asking.close()
    again = Asking(store)
    both(again, rows[6])
    again.close()


def test_only_what_changed_is_added_again(store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(store)
    asking.settled()
    (sidecar,) = asking.nearest._sidecars.values()
    change(store, "DELETE FROM memories WHERE rowid IN (3, 5)", "VACUUM")
    change(store, ("UPDATE memories SET embedding = ? WHERE rowid = 9", (rows[0].tobytes(),)))
    asking.settled()
    index = sidecar._index
    assert index is not None
    assert (index.graph.count, index.count) == (N + 1, N - 2)
    assert both(asking, rows[0]) == INDEX


def test_a_worn_index_is_made_anew(store: Path, rows: Rows) -> None:
    asking = Asking(store)
    asking.settled()
    (sidecar,) = asking.nearest._sidecars.values()
    for i in range(4):
        change(
            store,
            "BEGIN",
            *(
                ("UPDATE memories SET embedding = ? WHERE rowid = ?", (row.tobytes(), rowid))
                for row, rowid in zip(vectors(N, seed=9 + i)[i::10], range(i, N, 10), strict=True)
            ),
            "COMMIT",
        )
        asking.settled()
    index = sidecar._index
    assert index is not None
    assert index.graph.count < N + 4 * N // 10
    assert both(asking, rows[4]) == INDEX


def test_small_changes_of_a_large_index_are_written_when_the_program_ends(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.hnsw.sidecar._WRITTEN_AT_ONCE", 1)
    asking = Asking(store)
    asking.settled()
    file = store.with_name("brain.hnsw")
    first = file.read_bytes()
    change(store, "DELETE FROM memories WHERE rowid = 77")
    asking.settled()
    assert both(asking, rows[3]) == INDEX
    assert file.read_bytes() == first
    asking.close()
    assert file.read_bytes() != first
    assert both(Asking(store), rows[3]) == INDEX


# --- places -------------------------------------------------------------------------------


def test_a_second_table_has_a_file_of_its_own(store: Path, rows: Rows) -> None:
    change(store, "CREATE TABLE others (id INTEGER PRIMARY KEY, vec BLOB)")
    change(store, "INSERT INTO others SELECT rowid, embedding FROM memories")
    asking = Asking(store)
    tables = {s.name: s for s in asking.file.tables()}
    for searched in (tables["memories"], tables["others"]):
        with asking.file.reading() as reading:
            asking.nearest.search(reading, searched, rows[0], 5)
        for sidecar in asking.nearest._sidecars.values():
            assert sidecar._thread is not None
            sidecar._thread.join()
    names = sorted(p.name for p in store.parent.glob("*.hnsw"))
    assert names == ["brain.hnsw", "brain.sqlite.others-vec.hnsw"]
    for searched in (tables["memories"], tables["others"]):
        with asking.file.reading() as reading:
            assert asking.nearest.search(reading, searched, rows[0], 5).how == INDEX


def test_two_stores_of_one_stem_do_not_share_a_file(store: Path, rows: Rows) -> None:
    other = store.with_name("brain.db")
    fill(other, rows[::-1][:1100])
    for path in (store, other, store, other):
        asking = Asking(path)
        asking.settled()
        assert both(asking, rows[9]) == INDEX
    assert {p.name for p in store.parent.glob("*.hnsw")} == {
        "brain.hnsw",
        "brain.db.memories-embedding.hnsw",
    }


def test_names_that_no_file_could_have_are_told_apart(tmp_path: Path) -> None:
    store = tmp_path / "brain.sqlite"
    names = {places.named_path(store, table, "e").name for table in ("a/b", "a_b", "a b", "ä", "a" * 300)}
    assert len(names) == 5
    assert all(len(name) < 200 and "/" not in name for name in names)
    assert places.usual_path(tmp_path / "brain.hnsw").name == "brain.hnsw.hnsw"


def test_a_folder_that_cannot_be_written_means_exact_search_and_a_note(store: Path) -> None:
    store.with_name("brain.hnsw.building").mkdir()  # nobody can write there, not even root
    asking = Asking(store)
    asking.settled()
    near = asking.near(np.ones(16))
    assert near.how == EVERY
    assert near.notes == ("brain.hnsw cannot be written here (Is a directory), so search is exact",)


def test_a_full_disk_means_exact_search_and_leaves_nothing(
    store: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        asking = Asking(store)
        asking.settled()
    near = asking.near(np.ones(16))
    assert near.notes[0].startswith("brain.hnsw could not be written (No space left on device)")
    assert [p.name for p in store.parent.iterdir()] == ["brain.sqlite"]


def test_a_link_is_never_followed_for_writing(store: Path, tmp_path: Path, rows: Rows) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    store.with_name("brain.hnsw").symlink_to(outside)
    store.with_name("brain.sqlite.memories-embedding.hnsw.building").symlink_to(outside)
    asking = Asking(store)
    asking.settled()
    assert asking.near(rows[0]).how == EVERY
    store.with_name("brain.sqlite.memories-embedding.hnsw.building").unlink()
    again = Asking(store)
    again.settled()
    assert both(again, rows[0]) == INDEX
    assert outside.read_bytes() == b"precious"
    assert store.with_name("brain.hnsw").is_symlink()


def test_a_store_behind_a_link_has_its_sidecar_where_it_lies(store: Path, tmp_path: Path, rows: Rows) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.sqlite").symlink_to(store)
    asking = Asking(elsewhere / "link.sqlite")
    asking.settled()
    assert [p.name for p in elsewhere.iterdir()] == ["link.sqlite"]
    assert both(Asking(store), rows[0]) == INDEX


# --- opening ------------------------------------------------------------------------------


@pytest.mark.parametrize("glances", [0, 4])
def test_a_file_that_proved_sound_is_hashed_once(
    glances: int, store: Path, rows: Rows, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.hnsw.sidecar._GLANCES", glances)
    Asking(store).settled()
    hashed: list[int] = []

    class Counted(container._Check):
        def end(self) -> None:
            super().end()
            if self._wanted is not None:
                hashed.append(1)

    monkeypatch.setattr(container, "_Check", Counted)
    assert both(Asking(store), rows[0]) == INDEX
    assert hashed == []  # by who wrote it
    for file in (home / "sidecars").iterdir():
        file.unlink()
    assert both(Asking(store), rows[0]) == INDEX
    n = len(hashed)
    assert n > 0
    assert both(Asking(store), rows[0]) == INDEX
    assert len(hashed) == n
    file = store.with_name("brain.hnsw")
    os.utime(file, ns=(0, file.stat().st_mtime_ns))
    assert both(Asking(store), rows[0]) == INDEX
    assert len(hashed) == 2 * n


def test_making_it_can_be_stopped(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    asking = Asking(store)
    searched = asking.searched()
    assert searched.vector is not None
    with asking.file.reading() as reading:
        here = reading.at(searched).table
    sidecar = Sidecar(store, here, searched.vector, searched.metric)
    with pytest.raises(KeyboardInterrupt):
        sidecar.bring_up_to_date(stop)
    assert [p.name for p in store.parent.iterdir()] == ["brain.sqlite"]
    assert sidecar.bring_up_to_date()
    told: list[tuple[int, int]] = []
    change(store, "DELETE FROM memories WHERE rowid = 4")
    sidecar.bring_up_to_date(lambda done, total: told.append((done, total)))
    assert told[-1] == (N - 1, N)
