"""Points of tables without a key: numbered in the order of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from migrate import values
from migrate.backends.numbering import Numbers
from migrate.backends.qdrant.engine import Engine, PointId
from migrate.backends.qdrant.shape import Shape

_PAGE = 500


class Keyless(Numbers):
    """Numbers for points, and the points of rows."""

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
