"""Sparse vectors as they are given and kept, and which tables are asked by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.errors import ConfigError
from migrate.schema import Column, Kind, Metric, Table
from migrate.search import cells, shape, sparse
from migrate.search.base import Answer, Hit, Mode, Searched, Sparse
from migrate.search.question import Question, as_vector, choose, merged
from migrate.search.vector_file import read_asked, read_vectors
from migrate.vectors import pack_sparse


def _told(found: Sparse) -> tuple[list[int], list[float]]:
    assert (found.indices.dtype.name, found.values.dtype.name) == ("uint32", "float32")
    return found.indices.tolist(), found.values.tolist()


def test_a_sparse_vector_is_indices_and_values_in_any_order() -> None:
    given = {"indices": [2**32 - 1, 0, 7], "values": [0.5, -2, 1.5]}
    assert _told(sparse.parse(given)) == ([0, 7, 2**32 - 1], [-2.0, 1.5, 0.5])
    arrays = {"indices": np.array([9, 3], np.uint32), "values": (np.float32(1), np.float64(2))}
    assert _told(sparse.parse(arrays)) == ([3, 9], [2.0, 1.0])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"indices": [1, 2], "values": [1.0]}, "has 2 indices and 1 values"),
        ({"indices": [4, 4, 5], "values": [1, 2, 3]}, "has the index 4 2 times"),
        ({"indices": [-1], "values": [1.0]}, "-1 is no index"),
        ({"indices": [2**32], "values": [1.0]}, "4294967296 is no index"),
        ({"indices": [1.0], "values": [1.0]}, "1.0 is no index"),
        ({"indices": [True], "values": [1.0]}, "True is no index"),
        ({"indices": ["1"], "values": [1.0]}, "'1' is no index"),
        ({"indices": [1], "values": [float("nan")]}, "no finite float32"),
        ({"indices": [1], "values": [float("-inf")]}, "no finite float32"),
        ({"indices": [1], "values": [1e39]}, "no finite float32"),
        ({"indices": [1], "values": [10**400]}, "no finite float32"),
        ({"indices": [1], "values": ["1"]}, "'1' is no value"),
        ({"indices": [1], "values": [None]}, "None is no value"),
        ({"indices": [1], "values": [False]}, "False is no value"),
        ({"indices": [], "values": []}, "is empty"),
        ({"indices": 1, "values": [1]}, "the indices of the sparse vector are no list"),
        ({"indices": [1], "values": "1"}, "the values of the sparse vector are no list"),
        ({"indices": [1]}, "has indices and values, and nothing else"),
        ({"indices": [1], "values": [1], "weights": [1]}, "has indices and values, and nothing else"),
        ({}, "has indices and values, and nothing else"),
    ],
)
def test_a_malformed_sparse_vector_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        as_vector(given)
    assert caught.value.hint


def test_a_list_stays_a_dense_vector_and_a_sparse_one_what_it_is() -> None:
    assert isinstance(as_vector([1, 2]), np.ndarray)
    given = sparse.parse({"indices": [1], "values": [1]})
    assert as_vector(given) is given


def test_a_file_holds_one_sparse_vector_as_an_object(tmp_path: Path) -> None:
    file = tmp_path / "v.json"
    file.write_text('{"indices": [7, 3], "values": [1, 0.5]}')
    found = read_asked(file)
    assert isinstance(found, Sparse)
    assert _told(found) == ([3, 7], [0.5, 1.0])
    with pytest.raises(ConfigError, match="holds a sparse vector"):  # to check search by
        read_vectors(file)
    file.write_text('{"indices": [1], "values": [NaN]}')
    with pytest.raises(ConfigError, match="no finite float32"):
        read_asked(file)
    file.write_text(json.dumps([1, 2]))
    dense = read_asked(file)
    assert isinstance(dense, np.ndarray)
    assert dense.tolist() == [1, 2]


def test_a_cell_is_unpacked_where_it_can_be_compared() -> None:
    found = cells.sparse(pack_sparse([9, 2], [0.5, -1], 12))
    assert found is not None
    assert _told(found) == ([2, 9], [-1.0, 0.5])
    good = pack_sparse([1, 2], [1, 2])
    for cell in (
        None,
        "text",
        b"",
        pack_sparse([], []),
        good[:-1],
        good[:-4],
        good + bytes(8),
        good[:8] + good[12:16] + good[8:12] + good[16:],  # indices that descend
        good[:8] + good[8:12] * 2 + good[16:],  # one twice
        pack_sparse([1], [float("nan")]),
    ):
        assert cells.sparse(cell) is None, cell


def _table(name: str, *kinds: Kind) -> Table:
    columns = [Column("id", Kind.INTEGER)]
    columns += [Column(f"c{i}", kind, dim=2 if kind is Kind.VECTOR else None) for i, kind in enumerate(kinds)]
    return Table(name, tuple(columns), ("id",))


HYBRID = shape.searched(_table("hybrid", Kind.VECTOR, Kind.SPARSE, Kind.SPARSE))
ALONE = shape.searched(_table("alone", Kind.SPARSE))
DENSE = shape.searched(_table("dense", Kind.VECTOR))


def test_the_first_column_of_sparse_vectors_is_compared_by_inner_product() -> None:
    assert HYBRID is not None
    assert ALONE is not None
    assert HYBRID.vector is not None
    assert HYBRID.sparse is not None
    assert (HYBRID.vector.name, HYBRID.sparse.name, HYBRID.metric) == ("c0", "c1", Metric.COSINE)
    assert (ALONE.vector, ALONE.metric, ALONE.has_sparse) == (None, Metric.DOT, True)
    assert shape.searched(_table("none")) is None


def _question(vector: Any, *tables: str) -> Question:
    return Question(Mode.VECTOR, None, as_vector(vector), 10, None, None, False, tables)


def _all() -> list[Searched]:
    return [s for s in (HYBRID, ALONE, DENSE) if s is not None]


def test_tables_are_asked_that_have_such_vectors() -> None:
    asked, told = choose(_all(), _question({"indices": [1], "values": [1]}))
    assert [s.name for s, _ in asked] == ["hybrid", "alone"]
    assert told == []
    assert all(query.vector is None and query.sparse is not None for _, query in asked)
    asked, _ = choose(_all(), _question([1, 2]))
    assert [s.name for s, _ in asked] == ["hybrid", "dense"]
    assert all(query.vector is not None and query.sparse is None for _, query in asked)


def test_tables_that_cannot_be_asked_say_so() -> None:
    one = {"indices": [1], "values": [1]}
    with pytest.raises(ConfigError, match="dense has no sparse vectors"):
        choose(_all(), _question(one, "dense"))
    with pytest.raises(ConfigError, match="alone has sparse vectors alone"):
        choose(_all(), _question([1, 2], "alone"))
    with pytest.raises(ConfigError, match="this store has no sparse vectors that it can compare"):
        choose([s for s in _all() if s.name == "dense"] * 3, _question(one))


def test_inner_products_of_several_tables_are_merged_by_score() -> None:
    question = _question({"indices": [1], "values": [1]})
    answers = [
        (s, Answer((Hit(s.name, (1,), score),), "")) for s, score in zip(_all()[:2], (3.0, 4.0), strict=True)
    ]
    hits, told = merged(answers, question)
    assert [(h.table, h.score) for h in hits] == [("alone", 4.0), ("hybrid", 3.0)]
    assert told == []
