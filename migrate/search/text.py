"""Words: what a user asked for, and what of a cell is searched, the same for every store that we index ourselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrate.schema import Kind
from migrate.search import cells

_MOST_TERMS = 256
"""More distinct words than this add little but time: a question has ten, a page some 200."""


# They stand in every other sentence, so they find everything and mean nothing.
_EVERYWHERE = """
    a an and are as at be been but by can did do does for from had has have how i if in into is it its me my of on or
    our so than that the their them then there these they this to was we were what when where which who will with you
    your
"""
_SAYS_NOTHING = frozenset(_EVERYWHERE.split())


def terms(text: str) -> list[str]:
    """Return the words of a question, each once, in the order given; none where it has none.

    A word with marks in it (`foo-bar`, `user's`) stays one: a store looks for
    its parts side by side. English words that stand everywhere are left out,
    unless there are no others.
    """
    words: dict[str, str] = {}
    for word in text.replace("\0", " ").split():
        if any(map(str.isalnum, word)):
            words.setdefault(
                word.casefold(), word
            )  # as it is: what counts as the same letter, a store decides
    telling = [word for folded, word in words.items() if folded.strip("?!.,;:") not in _SAYS_NOTHING]
    return (telling or list(words.values()))[:_MOST_TERMS]


def words_of(kind: Kind, cell: Any) -> str:
    """Return what of a cell is searched: of JSON the strings in it, without keys; of bytes nothing."""
    if isinstance(cell, bytes) or cell is None:
        return ""
    if kind is Kind.JSON and isinstance(cell, str):
        value = cells.quickly_from_json(cell)
        return value if isinstance(value, str) else " ".join(_strings(value))
    return str(cell)


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))
