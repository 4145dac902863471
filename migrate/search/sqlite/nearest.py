"""Nearest neighbours in a SQLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from migrate.backends.sqlite.vectorscan import can_scan
from migrate.errors import ConfigError
from migrate.schema import Column
from migrate.search.base import Health, Means, Searched
from migrate.search.sqlite.exact import Compared, Exact
from migrate.search.sqlite.reading import Reading
from migrate.search.sqlite.scores import Asked
from migrate.search.sqlite.where import Allowed

EVERY_VECTOR = "every vector"


@dataclass(frozen=True, slots=True)
class Nearby:
    """What was found near a vector.

    found: (rowid, score), best first, equal scores in the order of their keys; of tables without
           rowid (key, score).
    """

    found: list[tuple[Any, float]]
    how: str
    notes: tuple[str, ...] = ()


class Nearest:
    """Finds the nearest rows of a file; kept from one query to the next, for one at a time."""

    def __init__(self, path: Path, means: Means) -> None:
        self._path, self._means = path, means
        self._exact = Exact(means.cache_bytes)

    def search(
        self,
        at: Reading,
        searched: Searched,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> Nearby:
        """Return the k rows nearest to a vector, of those that are allowed.

        exact: look at every vector, whatever index there is. Raises ConfigError where the
        vector cannot be compared with the column's.
        """
        column = _column(searched)
        asked = Asked.of(searched.metric, vector, column.dim or 0)
        if k < 1:
            return Nearby([], EVERY_VECTOR)
        compared = self._exact.search(at, searched, column, asked, k, allowed)
        return Nearby(compared.found, EVERY_VECTOR, _notes(searched, compared))

    def health(self, at: Reading, searched: Searched) -> Health:
        """Return what stands ready for a table."""
        return Health(None)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self._exact.forget()


def _column(searched: Searched) -> Column:
    column = searched.vector
    if column is None or not can_scan(column):
        raise ConfigError(
            f"{searched.name} has no dense vectors to compare", hint="ask another table, or by words"
        )
    return column


def _notes(searched: Searched, compared: Compared) -> tuple[str, ...]:
    parts = [compared.left.words()] if compared.left.any else []
    if compared.directionless:
        parts.append(f"{compared.directionless:,} all zeros, which have no direction")
    return (f"{searched.name}: not compared: {', '.join(parts)}",) if parts else ()
