"""Ids of records: a row's key where it can be one, else a reversible spelling of it.

What a key becomes (Pinecone takes 1 to 512 ASCII characters):

    one TEXT of 1 to 512 printable ASCII characters, not beginning with `~`    the text
    one INTEGER                                                              its digits
    all other keys                             `~` and the typed key in base64 (URL alphabet)
    a key that is too long for that, or has JSON in it         `~.` and a hash of the typed key

All but the last give the key back; where an id is a hash, the key's cells stand in the
record's metadata. The typed key (`values.key_bytes`) tells 1, '1' and x'31' apart, and a
plain id is always of the column's own kind, so no two keys meet.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from migrate import values
from migrate.backends.pinecone.limits import ID_CHARS
from migrate.batch import Row
from migrate.schema import Kind, Table

_ESCAPE, _HASHED = "~", "~."
_PLAIN = re.compile(r"[ -}][ -~]{0,511}")
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,510}")
_TEXTS = (Kind.TEXT, Kind.NATIVE, Kind.TIMESTAMP)
_LONG = 10**400  # more digits than any plain id needs; Python refuses to print far longer ones


class Ids:
    """The ids of one table's keys."""

    def __init__(self, table: Table) -> None:
        self._kinds = [table.column(name).kind for name in table.key]
        self._json = Kind.JSON in self._kinds

    def of(self, key: Sequence[Any]) -> str:
        """Return the id of a key, cells in `table.key` order, none of them NULL."""
        if len(key) == 1:
            cell, kind = key[0], self._kinds[0]
            if kind in _TEXTS and type(cell) is str and _PLAIN.fullmatch(cell):
                return cell
            if kind is Kind.INTEGER and type(cell) is int and -_LONG < cell < _LONG:
                return str(cell)
        typed = values.key_bytes(self._kinds, key)
        if not self._json:
            spelled = _ESCAPE + base64.urlsafe_b64encode(typed).decode().rstrip("=")
            if len(spelled) <= ID_CHARS:
                return spelled
        return _HASHED + hashlib.blake2b(typed, digest_size=32).hexdigest()

    def key(self, record_id: str) -> Row | None:
        """Return the key that an id spells; None where it is a hash, or no id of ours."""
        if record_id.startswith(_ESCAPE):
            return None if record_id.startswith(_HASHED) else self._spelled(record_id)
        if len(self._kinds) != 1:
            return None
        if self._kinds[0] in _TEXTS:
            return (record_id,)
        if self._kinds[0] is Kind.INTEGER and _DIGITS.fullmatch(record_id):
            return (int(record_id),)
        return None

    def _spelled(self, record_id: str) -> Row | None:
        text = record_id[len(_ESCAPE) :]
        try:
            key = values.from_exact_row(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        except ValueError:  # somebody else's record
            return None
        return key if len(key) == len(self._kinds) else None


def tells_key(record_id: str) -> bool:
    """Whether an id that `Ids.of` gave spells its key."""
    return not record_id.startswith(_HASHED)


def numbered(number: int) -> str:
    """Return the id of a row without a key; ids sort as their rows do."""
    return f"row-{number:012}"


def number_of(record_id: str) -> int | None:
    """Return the number in an id of `numbered`."""
    found = re.fullmatch(r"row-([0-9]{12,})", record_id)
    return int(found[1]) if found else None
