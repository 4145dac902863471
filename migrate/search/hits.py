"""From a row that was found to a hit: the same on every tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrate.search import cells
from migrate.search.base import Hit, Key, Searched


def hit(searched: Searched, key: Key, score: float, row: Mapping[str, Any] | None) -> Hit:
    """Return a hit. row: the source's cells by column; None where only keys and scores were asked for.

    The metadata are the columns that are shown and neither in the key nor the hit's text.
    """
    if row is None:
        return Hit(searched.name, key, score)
    first = searched.text[0] if searched.text else None
    left_out = {first, *searched.table.key}
    text = None if first is None else cells.shown(searched.table.column(first).kind, row.get(first))
    return Hit(
        searched.name,
        key,
        score,
        None if text is None else str(text),
        {
            c.name: cells.shown(c.kind, row[c.name])
            for c in searched.table.columns
            if cells.is_shown(c.kind) and c.name not in left_out and c.name in row
        },
    )
