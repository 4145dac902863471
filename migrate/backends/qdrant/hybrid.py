"""Sparse BM25 vectors beside the dense ones, so that a collection can be searched by words too.

The encoder is the engine's own (`qdrant_edge.Bm25`): token ids are hashes, so
nothing is downloaded and nothing has to be kept; the collection's modifier
`idf` weighs rare words. Queries are encoded by `Bm25().embed_query(text)`, or by
a server's `Document(model="qdrant/bm25")`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from migrate.backends.qdrant.engine import Json, Point, Sparse
from migrate.batch import Row
from migrate.schema import TEXT_KINDS, Table

VECTOR = "bm25"
SETTINGS: Json = {VECTOR: {"modifier": "idf"}}


class Bm25:
    """Adds a BM25 vector of some text columns to points. columns: names separated by commas."""

    def __init__(self, columns: str) -> None:
        self._wanted = [c.strip() for c in columns.split(",") if c.strip()]
        self._encoder: Any = None

    def columns(self, table: Table) -> list[int]:
        """Return where the text columns stand in a table's rows; none where the table has none of them."""
        if any(c.name == VECTOR for c in table.vectors):
            return []
        return [i for i, c in enumerate(table.columns) if c.name in self._wanted and c.kind in TEXT_KINDS]

    def add(self, table: Table, rows: Sequence[Row], points: Sequence[Point]) -> None:
        """Enter the vectors of rows into their points. A row without a word gets none."""
        at = self.columns(table)
        if not at:
            return
        if self._encoder is None:
            from qdrant_edge import Bm25 as Encoder

            self._encoder = Encoder()
        for row, point in zip(rows, points, strict=True):
            text = "\n".join([row[i] for i in at if isinstance(row[i], str)])
            if not text:
                continue
            found = self._encoder.embed_document(text.encode("utf-8", "replace").decode())
            if found.indices:
                order = sorted(range(len(found.indices)), key=found.indices.__getitem__)
                point.vectors[VECTOR] = Sparse(
                    array("I", [found.indices[i] for i in order]).tobytes(),
                    array("f", [found.values[i] for i in order]).tobytes(),
                )
