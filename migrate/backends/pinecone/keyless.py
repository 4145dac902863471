"""Records of tables without a key: found by what is in them, numbered on after the last."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.backends.numbering import ids_of
from migrate.backends.pinecone.ids import number_of
from migrate.backends.pinecone.names import Spot
from migrate.backends.pinecone.plane import Plane
from migrate.backends.pinecone.reading import Place, read
from migrate.backends.pinecone.shape import Shape
from migrate.batch import Row

_PAGE = 500


def find(plane: Plane, spot: Spot, shape: Shape, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return namespace and id of the records of rows, one for each; reads the namespace."""
    namespace = spot.namespace or ""
    pages = (
        ([(namespace, r.id) for r in part.records], shape.rows(part.records))
        for part in read(plane, namespace, _PAGE, Place())
    )
    return ids_of(shape.table, rows, pages)


def after_last(plane: Plane, spot: Spot) -> int:
    """Return the first number beyond all records; lists their ids."""
    last, token = -1, None
    while True:
        ids, token = plane.listed(spot.namespace or "", 100, token, "row-")
        last = max([last, *(n for one in ids if (n := number_of(one)) is not None)])
        if token is None:
            return last + 1
