"""The one format in which rows travel from a source to a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from migrate.schema import Table

Row = tuple[Any, ...]
Cursor = Any  # JSON-ready; what it holds is the source's own business


BATCH_BYTES = 16 * 2**20  # of a batch, about: beyond it a batch has fewer rows than were asked for


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one table, in the source's own order.

    rows:   one tuple per record, cells in `table.columns` order. A VECTOR cell
            is little-endian float32 bytes, 4 * dim long, or None.
    cursor: JSON-ready position after the last row; pass it to
            `Source.batches(after=...)` to go on without gap or overlap.
    packed: the rows as a target sends them, in pieces, where it packs them ahead (`Packer`).
    """

    table: Table
    rows: list[Row]
    cursor: Cursor
    packed: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class ExactCell:
    """One value that the target's type cannot hold, kept beside it.

    key:    canonical bytes of the row's key (`values.row_key`), None where it has none, or NULL in it.
    column: the column's name; None where the whole row is kept here, because
            its key cannot be held.
    value:  `values.exact` of the cell, or `values.exact_row` of the row.
    """

    table: str
    key: bytes | None
    column: str | None
    reason: str
    value: bytes
