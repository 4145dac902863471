"""Points of tables without a key: found by what is in them, numbered on after the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.backends.numbering import ids_of
from migrate.backends.qdrant.engine import Engine, Point, PointId
from migrate.backends.qdrant.shape import Shape
from migrate.batch import Row

_PAGE = 500


def find(engine: Engine, name: str, shape: Shape, rows: Sequence[Row]) -> list[PointId]:
    """Return the points of rows, one for each; reads the collection."""
    pages = (([p.id for p in points], shape.rows(points)) for points in _pages(engine, name, _PAGE))
    return ids_of(shape.table, rows, pages)


def after_last(engine: Engine, name: str) -> int:
    """Return the first number beyond all points; reads their ids."""
    numbers = (p.id for points in _pages(engine, name, 10 * _PAGE, bare=True) for p in points)
    return max((n for n in numbers if isinstance(n, int)), default=-1) + 1


def _pages(engine: Engine, name: str, size: int, *, bare: bool = False) -> Iterator[list[Point]]:
    offset: PointId | None = None
    while True:
        points, offset = engine.scroll(name, size, offset, payload=not bare, vectors=not bare)
        yield points
        if offset is None:
            return
