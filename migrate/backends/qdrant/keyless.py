"""Points of tables without a key: numbered in the order of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from migrate import values
from migrate.backends.base import Position
from migrate.backends.qdrant.engine import Engine, PointId
from migrate.backends.qdrant.shape import Shape

_PAGE = 500


class Keyless:
    """Gives out numbers, the same ones when a run is broken off and goes on.

    A position counts all rows of the source; those kept aside whole have no point,
    so the first free number is the position less their count.
    """

    def __init__(self, aside: Callable[[str], int]) -> None:
        self._aside = aside
        self._durable: dict[str, int] = {}
        self._ahead: dict[str, int] = {}

    def next(self, table: str, rows: int, positions: Callable[[], dict[str, Position]]) -> int:
        """Return the number of the first of some rows."""
        if table not in self._durable:
            at = positions().get(table)
            self._durable[table] = at.rows - self._aside(table) if at is not None else 0
            self._ahead[table] = self._durable[table]
        first = self._ahead[table]
        self._ahead[table] += rows
        return first

    def committed(self) -> None:
        """Keep the numbers given out."""
        self._durable = dict(self._ahead)

    def rolled_back(self) -> None:
        """Give the numbers since the last commit out again; ask the books when next needed."""
        self._durable.clear()
        self._ahead.clear()

    def find(self, engine: Engine, name: str, shape: Shape, rows: Sequence[bytes]) -> list[PointId]:
        """Return the points of rows (`values.exact_row`), one for each; reads the collection."""
        kinds = [c.kind for c in shape.table.columns]
        wanted = Counter(values.row_digest(kinds, values.from_exact_row(row)) for row in rows)
        found: list[PointId] = []
        offset: PointId | None = None
        while wanted:
            points, offset = engine.scroll(name, _PAGE, offset)
            for point, row in zip(points, shape.rows(points), strict=True):
                digest = values.row_digest(kinds, row)
                if wanted[digest] > 0:
                    wanted[digest] -= 1
                    found.append(point.id)
            wanted += Counter()  # forgets those at zero
            if offset is None:
                break
        return found

    def after_last(self, engine: Engine, name: str) -> int:
        """Return the first number beyond all points; reads their ids."""
        last, offset = -1, None
        while True:
            points, offset = engine.scroll(name, 10 * _PAGE, offset, payload=False, vectors=False)
            last = max((p.id for p in points if isinstance(p.id, int)), default=last)
            if offset is None:
                return last + 1
