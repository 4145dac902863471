"""From a row that was found to a hit: the same on every tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrate.schema import Kind
from migrate.search import cells
from migrate.search.base import Hit, Key, Searched
from migrate.search.text import words_of


def hit(searched: Searched, key: Key, score: float, row: Mapping[str, Any] | None) -> Hit:
    """Return a hit. row: the source's cells by column; None where only keys and scores were asked for.

    The metadata are the columns that are shown and neither in the key nor the hit's text. Of a
    first column that is JSON the text are its strings, and the whole stays in the metadata.
    """
    if row is None:
        return Hit(searched.name, key, score)
    first = searched.text[0] if searched.text else None
    kind = None if first is None else searched.table.column(first).kind
    left_out = {*searched.table.key, *(() if kind is Kind.JSON else (first,))}
    cell = None if first is None else row.get(first)
    text = None if kind is None or cell is None else _text(kind, cell)
    return Hit(
        searched.name,
        key,
        score,
        text,
        {
            c.name: cells.shown(c.kind, row[c.name])
            for c in searched.table.columns
            if cells.is_shown(c.kind) and c.name not in left_out and c.name in row
        },
    )


def _text(kind: Kind, cell: Any) -> str:
    return str(cells.shown(Kind.TEXT, words_of(kind, cell) if kind is Kind.JSON else cell))
