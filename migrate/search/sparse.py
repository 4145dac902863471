"""Sparse vectors as people write them: `{"indices": [3, 9], "values": [0.5, 1.2]}`, as in Pinecone and Qdrant."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from migrate.errors import ConfigError
from migrate.search.base import Sparse

MOST_INDEX = 2**32 - 1
_HINT = 'as in {"indices": [3, 9], "values": [0.5, 1.2]}'


def parse(given: Mapping[str, Any]) -> Sparse:
    """Return a sparse vector, its indices in ascending order.

    Raises ConfigError for lists of different lengths or of nothing, indices that are no whole numbers from
    0 to 2^32 - 1 or come twice, and values that are no finite float32.
    """
    if set(given) != {"indices", "values"}:
        raise ConfigError("a sparse vector has indices and values, and nothing else", hint=_HINT)
    indices = [_index(i) for i in _listed(given["indices"], "indices")]
    values = _values(_listed(given["values"], "values"))
    if len(indices) != len(values):
        raise ConfigError(
            f"the sparse vector has {len(indices):,} indices and {len(values):,} values",
            hint="one value an index",
        )
    if not indices:
        raise ConfigError("the sparse vector is empty", hint=_HINT)
    index, times = Counter(indices).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"the sparse vector has the index {index} {times} times", hint="each index once")
    order = sorted(range(len(indices)), key=indices.__getitem__)
    return Sparse(np.array([indices[i] for i in order], np.uint32), values[order])


def _listed(given: Any, name: str) -> list[Any]:
    found = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise ConfigError(f"the {name} of the sparse vector are no list", hint=_HINT)
    return list(found)


def _index(given: Any) -> int:
    try:
        found = operator.index(given)
    except TypeError:
        found = -1
    if isinstance(given, bool) or not 0 <= found <= MOST_INDEX:
        raise ConfigError(
            f"{given!r:.40} is no index of a sparse vector", hint=f"whole numbers from 0 to {MOST_INDEX:,}"
        )
    return found


def _values(given: list[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    for value in given:
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise ConfigError(f"{value!r:.40} is no value of a sparse vector", hint="finite numbers")
    with np.errstate(over="ignore"):
        try:
            found = np.asarray(given, np.float64).astype(np.float32)
        except OverflowError:  # an integer beyond every float
            found = np.array([np.inf], np.float32)
    if not np.isfinite(found).all():
        raise ConfigError("the sparse vector has a value that is no finite float32", hint="finite numbers")
    return found
