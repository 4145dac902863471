"""Formulas of memory against figures that were measured or that the makers give."""

from __future__ import annotations

import pytest

from migrate import footprint


def test_hnswlib_takes_what_was_measured_beside_its_vectors() -> None:
    assert footprint.sidecar_file([(1_000_000, 384)], 24) == 1_000_000 * (4 * 384 + 225)
    assert footprint.hnswlib([(1_000_000, 384)], 24) == 1_000_000 * (4 * 384 + 290)
    assert footprint.sidecar_file([(1, 0)], 16) == pytest.approx(148, rel=0.1)
    # The rule of thumb of its makers: 8 to 10 bytes times m.
    for m in (8, 16, 32, 48):
        assert 8 * m <= footprint.sidecar_file([(1, 0)], m) <= 10 * m + 40


@pytest.mark.parametrize(
    ("vectors", "dim", "megabytes"),
    [(20_000, 384, 41), (5_000, 1536, 41), (1_000, 3072, 8.2)],  # 1536 has a page for each; 3072 as float16
)
def test_pgvector_fills_whole_pages(vectors: int, dim: int, megabytes: float) -> None:
    assert footprint.pgvector([(vectors, dim)]) == pytest.approx(megabytes * 1e6, rel=0.02)


def test_qdrant_takes_what_its_makers_say_and_less_when_quantized() -> None:
    shapes = [(1_000_000, 1024)]
    assert footprint.qdrant(shapes) == 6_144_000_000  # the example of their capacity planning
    assert footprint.qdrant(shapes, "scalar") == footprint.qdrant(shapes) // 4
    assert footprint.qdrant(shapes, "binary") > 1_000_000 * (1024 // 8)  # the graph is not quantized


def test_several_tables_add_up_and_none_take_nothing() -> None:
    for formula in (footprint.hnswlib, footprint.sidecar_file, footprint.pgvector, footprint.qdrant):
        assert formula([(10, 8), (0, 8)]) == formula([(10, 8)])
        assert formula([]) == 0
    assert footprint.pgvector_build([]) == 0
    assert footprint.pgvector_build([(10, 8), (1000, 8)]) == footprint.pgvector_build([(1000, 8)])


def test_this_machine_has_memory() -> None:
    found = footprint.machine_memory()
    assert found is None or found > 2**26
