"""What is damaged, forged, foreign or old is never loaded, and never makes an answer wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.hnsw import container, places
from migrate.hnsw.graph import Arrays, DamagedError, Graph, Shape
from migrate.schema import Metric
from tests.search.hnsw.stores import Asking, Rows, fill, vectors

N, DIM = 1100, 16


@pytest.fixture(scope="module")
def rows() -> Rows:
    return vectors(N, DIM)


@pytest.fixture(scope="module")
def made(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and its sidecar, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEMLIFT_HOME", str(folder / "home"))
        fill(folder / "brain.sqlite", rows)
        asking = Asking(folder / "brain.sqlite")
        asking.settled()
        asking.close()
    return folder


@pytest.fixture
def sidecar(made: Path, tmp_path: Path) -> Path:
    """A copy of both; as the store's inode is another, the sidecar covers another state."""
    for name in ("brain.sqlite", "brain.hnsw"):
        shutil.copy2(made / name, tmp_path / name)
    return tmp_path / "brain.hnsw"


@pytest.fixture(params=[0, 4], ids=["read at once", "glanced at"], autouse=True)
def glances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some questions are answered by a glance at the file, or none."""
    monkeypatch.setattr("migrate.hnsw.sidecar._GLANCES", request.param)


def _read(descriptor: int) -> tuple[container.Manifest, dict[str, Any]]:
    found = container.manifest(descriptor)
    return found, container.read(descriptor, found, trusted=False)


def answers(sidecar: Path, rows: Rows) -> None:
    """Check answers before, while and after the sidecar is mended; in the end it is sound."""
    asking = Asking(sidecar.with_name("brain.sqlite"))
    for _ in range(2):
        for query in (rows[1], rows[N // 2]):
            near, exact = asking.near(query), asking.near(query, exact=True)
            assert near.found == exact.found
        asking.settled()
    assert near.how == "every vector" or near.how == "HNSW sidecar"
    assert asking.near(rows[1]).how == "HNSW sidecar"
    asking.close()
    again = Asking(sidecar.with_name("brain.sqlite"))
    assert again.near(rows[1]).how == "HNSW sidecar"
    again.close()


def test_a_copied_pair_is_compared_and_used(sidecar: Path, rows: Rows) -> None:
    before = sidecar.read_bytes()
    answers(sidecar, rows)
    assert sidecar.read_bytes() == before


def test_flipped_bits_are_noticed_wherever_they_are(sidecar: Path, rows: Rows) -> None:
    sound = sidecar.read_bytes()
    draw = random.Random(1)
    for _ in range(200):
        damaged = bytearray(sound)
        at = draw.randrange(len(damaged))
        damaged[at] ^= 1 << draw.randrange(8)
        sidecar.write_bytes(damaged)
        with places.opened(sidecar) as descriptor:
            try:
                sections = _read(descriptor)[1]
            except (container.NotOursError, container.BrokenError):
                continue
        # Bytes that say nothing: what is left of the first page, and what rounds sections up.
        assert 72 <= at < 4096
        assert sections
    sidecar.write_bytes(sound)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: data[:16] + struct.pack("<I", 99) + data[20:],  # of a version to come
        lambda data: data[:5000] + bytes([data[5000] ^ 4]) + data[5001:],
        lambda data: data[:100_000] + bytes(1000) + data[101_000:],
    ],
    ids=["half", "head", "short", "long", "empty", "version", "bit", "hole"],
)
def test_a_damaged_file_is_made_anew(spoil: Callable[[bytes], bytes], sidecar: Path, rows: Rows) -> None:
    sidecar.write_bytes(spoil(sidecar.read_bytes()))
    answers(sidecar, rows)
    names = sorted(p.name for p in sidecar.parent.glob("*.hnsw*"))
    if sidecar.stat().st_size:
        assert names == ["brain.hnsw"]
    else:  # an empty file may be anybody's
        assert names == ["brain.hnsw", "brain.sqlite.memories-embedding.hnsw"]


def test_damage_to_a_file_that_had_proved_sound_is_noticed(sidecar: Path, rows: Rows) -> None:
    answers(sidecar, rows)
    times = sidecar.stat()
    with open(sidecar, "r+b") as file:
        file.seek(9000)
        byte = file.read(1)[0]
        file.seek(9000)
        file.write(bytes([byte ^ 64]))
    os.utime(sidecar, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had been written
    asking = Asking(sidecar.with_name("brain.sqlite"))
    near = asking.near(rows[1])
    assert near.how == "every vector"
    assert near.notes == ("brain.hnsw was of no use (its hash is not that of its manifest) and is made anew",)
    asking.close()
    answers(sidecar, rows)


@pytest.mark.parametrize("change", ["dim", "metric", "hnswlib", "store"])
def test_a_manifest_of_something_else_is_not_believed(change: str, sidecar: Path, rows: Rows) -> None:
    with places.opened(sidecar) as descriptor:
        found, sections = _read(descriptor)
    other = {"dim": DIM * 2, "metric": "euclid", "hnswlib": "0.7.0", "store": "gone.sqlite"}[change]
    with open(sidecar, "r+b") as file:
        container.write(file.fileno(), {**found.told, change: other}, sections)
    answers(sidecar, rows)


def test_the_sidecar_of_another_store_finds_nothing_wrong(sidecar: Path, rows: Rows) -> None:
    other = vectors(N, DIM, seed=8)
    store = sidecar.with_name("brain.sqlite")
    store.unlink()
    fill(store, other)
    answers(sidecar, other)


def test_the_frameworks_own_index_is_left_alone(sidecar: Path, rows: Rows) -> None:
    import hnswlib  # type: ignore[import-untyped]

    index = hnswlib.Index("cosine", DIM)
    index.init_index(N, M=16, ef_construction=200)
    index.add_items(rows[::-1])
    index.save_index(str(sidecar))
    sidecar.with_name("brain.hnsw.map.json").write_text(json.dumps({"nextLabel": N, "entries": []}))
    before = sidecar.read_bytes()
    answers(sidecar, rows)
    assert sidecar.read_bytes() == before
    assert sidecar.with_name("brain.sqlite.memories-embedding.hnsw").exists()


def test_a_map_whose_index_is_gone_is_not_given_ours(sidecar: Path, rows: Rows) -> None:
    sidecar.rename(sidecar.with_name("brain.hnsw.map.json"))
    answers(sidecar, rows)
    assert not sidecar.exists()


def test_a_pipe_or_a_folder_of_its_name_is_left_alone(sidecar: Path, rows: Rows) -> None:
    sidecar.unlink()
    os.mkfifo(sidecar)
    answers(sidecar, rows)
    assert sidecar.is_fifo()


# --- forged: every hash is right, and the arrays are not ------------------------------------


def _arrays(n: int = 3000, dim: int = 4) -> tuple[Shape, Arrays]:
    shape = Shape(Metric.COSINE, dim)
    graph = Graph.new(shape, n)
    graph.add(vectors(n, dim))
    return shape, graph.arrays()


SHAPE, ARRAYS = _arrays()


def forged(**parts: Any) -> Arrays:
    from dataclasses import replace

    return replace(ARRAYS, **parts)


def _changed(field: str, at: Any, value: int) -> Arrays:
    elements = ARRAYS.elements.copy()
    elements.view(SHAPE.element)[field][at] = value
    return forged(elements=elements)


def _upper(field: str, at: Any, value: int) -> Arrays:
    upper = ARRAYS.upper.copy()
    upper.view(SHAPE.upper)[field][at] = value
    return forged(upper=upper)


def _levels(at: int, value: int) -> Arrays:
    levels = ARRAYS.levels.copy()
    levels.view("<i4")[at] = value
    return forged(levels=levels)


@pytest.mark.parametrize(
    "arrays",
    [
        _changed("to", (5, 0), 3000),
        _changed("to", (2999, 3), 2**32 - 1),
        _changed("links", 7, 49),
        _changed("links", 7, 2**16 - 1),
        _changed("label", 7, int(ARRAYS.elements.view(SHAPE.element)["label"][8])),
        _changed("label", 7, 2**63),
        _upper("to", (0, 0), 3000),
        _upper("to", (0, 0), int(np.flatnonzero(ARRAYS.levels.view("<i4") == 0)[0])),
        _upper("links", 0, 25),
        _levels(0, -1),
        _levels(0, 65),
        _levels(0, 2**31 - 1),
        forged(entry=3000),
        forged(entry=-1),
        forged(entry=int(np.flatnonzero(ARRAYS.levels.view("<i4") == 0)[0])),
        forged(top=ARRAYS.top + 1),
        forged(elements=ARRAYS.elements[:-1]),
        forged(elements=ARRAYS.elements[: -SHAPE.element.itemsize]),
        forged(elements=ARRAYS.elements[:0], levels=ARRAYS.levels[:0], upper=ARRAYS.upper[:0]),
        forged(levels=ARRAYS.levels[:-4]),
        forged(levels=ARRAYS.levels[:-1]),
        forged(upper=ARRAYS.upper[: -SHAPE.upper.itemsize]),
        forged(upper=ARRAYS.upper[:-1]),
    ],
)
def test_arrays_that_would_end_the_process_are_refused(arrays: Arrays) -> None:
    with pytest.raises(DamagedError):
        Graph.of(SHAPE, arrays, trusted=False)


def test_sound_arrays_are_the_index_they_were_taken_from() -> None:
    again = Graph.of(SHAPE, ARRAYS, trusted=False)
    assert again.arrays().elements.tobytes() == ARRAYS.elements.tobytes()
    assert again.arrays().upper.tobytes() == ARRAYS.upper.tobytes()
    again.add(vectors(50, 4, seed=5))
    labels, _ = again.ask(vectors(50, 4, seed=5)[3], 5)
    assert labels[0] == 3003
