"""Packed vectors: every form a cell can have, to the last bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import vectors

floats32 = st.floats(width=32, allow_nan=False)
FLOAT32_MAX = 3.4028234663852886e38


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@given(st.lists(floats32, max_size=9))
def test_a_cell_is_its_numbers_as_little_endian_float32(numbers: list[float]) -> None:
    cell = vectors.pack(numbers)
    assert cell == packed(*numbers)
    assert vectors.to_array(cell).astype("<f4").tobytes() == cell
    assert vectors.dim_of(cell) == len(numbers)


def test_a_matrix_has_a_row_for_each_cell() -> None:
    array = vectors.matrix([packed(1, 2, 3), packed(4, 5, 6)], 3)
    assert array.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert vectors.matrix([], 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        ([1, -2.5], packed(1, -2.5)),
        ([FLOAT32_MAX, -FLOAT32_MAX], packed(FLOAT32_MAX, -FLOAT32_MAX)),
        ([1e-50, -0.0], packed(0.0, -0.0)),
        ([1e39], None),
        ([float("nan")], None),
        ([float("inf")], None),
        ([[1.0]], None),
        ([], b""),
    ],
)
def test_numbers_that_overflow_or_are_none_do_not_pack(numbers: Any, wanted: bytes | None) -> None:
    assert vectors.pack_exact(numbers) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[1, 2.5]", packed(1, 2.5)),
        (b"[0.1]", packed(0.1)),
        ("[]", None),
        ("[true]", None),
        ('["1"]', None),
        ("[null]", None),
        ("[NaN]", None),
        ("[1e999]", None),
        ("[[1]]", None),
        ('{"0": 1}', None),
        ("1", None),
        ("[1", None),
        (b"\xff\xfe", None),
        ("[" * 100_000, None),
    ],
)
def test_a_vector_written_as_json_is_an_array_of_finite_numbers(
    text: str | bytes, wanted: bytes | None
) -> None:
    assert vectors.from_json(text) == wanted


def test_cells_with_nan_or_infinity_are_found_by_position() -> None:
    nan, inf = float("nan"), float("inf")
    cells = [packed(1, 2), packed(nan, 0), packed(0, -inf), packed(FLOAT32_MAX, 0)]
    assert vectors.not_finite(cells, 2) == [1, 2]
    assert vectors.not_finite([], 2) == []
    assert vectors.not_finite([b"", b""], 0) == []


@given(st.binary(max_size=40).filter(lambda b: len(b) % 4 == 0))
def test_swapping_twice_changes_no_bit(cell: bytes) -> None:
    assert vectors.swap(vectors.swap(cell)) == cell
    assert vectors.swap(cell) == b"".join(cell[i : i + 4][::-1] for i in range(0, len(cell), 4))


def test_a_norm_is_computed_in_double_precision() -> None:
    assert vectors.norm(packed(3, 4)) == 5.0
    assert vectors.norm(packed(FLOAT32_MAX, FLOAT32_MAX)) == pytest.approx(FLOAT32_MAX * 2**0.5)
    assert vectors.norm(packed(0, 0)) == 0.0


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (packed(1, 1), packed(1000, 1000), True),
        (packed(1, 0), packed(1, 5e-7), True),
        (packed(1, 0), packed(1, 1e-5), False),
        (packed(1, 1), packed(-1, -1), False),
        (packed(0, 0), packed(-0.0, 0), True),
        (packed(0, 0), packed(1e-30, 0), False),
        (packed(1, 0), packed(1, 0, 0), False),
        (packed(1e-30, 1e-30), packed(1e30, 1e30), True),
        (packed(float("nan"), 1), packed(float("nan"), 1), False),
    ],
)
def test_directions_are_compared_by_unit_vectors(a: bytes, b: bytes, wanted: bool) -> None:
    assert vectors.same_direction(a, b) is wanted


@given(
    st.dictionaries(st.integers(0, 2**32 - 1), floats32, max_size=6), st.integers(0, 2**32 - 1), st.randoms()
)
def test_sparse_vectors_come_back_in_order_of_their_indices(
    pairs: dict[int, float], dim: int, random: Any
) -> None:
    indices = list(pairs)
    random.shuffle(indices)
    cell = vectors.pack_sparse(indices, [pairs[i] for i in indices], dim)
    found, weights, back = vectors.unpack_sparse(cell)
    assert found.tolist() == sorted(pairs)
    assert weights.tobytes() == packed(*(pairs[i] for i in sorted(pairs)))
    assert back == dim
    assert len(cell) == 8 + 8 * len(pairs)


def test_a_sparse_cell_is_dim_count_indices_and_values() -> None:
    assert vectors.pack_sparse([3, 1], [0.5, -2.0], 7) == struct.pack("<IIIIff", 7, 2, 1, 3, -2.0, 0.5)


@pytest.mark.parametrize("indices", [[1, 1], [-1, 2], [2**32, 1]])
def test_sparse_indices_that_repeat_or_do_not_fit_are_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="sparse vector"):
        vectors.pack_sparse(indices, [1.0, 2.0])


def test_a_multivector_keeps_its_shape_and_its_bits() -> None:
    rows = np.array([[1.5, -0.0], [3.0, float("inf")], [0.1, 1e-45]], "<f4")
    cell = vectors.pack_multi(rows)
    assert cell == struct.pack("<II", 3, 2) + rows.tobytes()
    assert vectors.unpack_multi(cell).tobytes() == rows.tobytes()
    assert vectors.unpack_multi(vectors.pack_multi(np.empty((0, 4)))).shape == (0, 4)
    with pytest.raises(ValueError, match="two dimensions"):
        vectors.pack_multi([1.0, 2.0])
