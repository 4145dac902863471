"""Typed values: canonical bytes, equality, digests, keys and point ids.

Python's `==` takes 1, 1.0 and True for one value, -0.0 for 0.0, and NaN for
unlike itself. Here a value is a kind and its exact bytes. Everything that asks
"is this the same?" is built on the encoding below: the verifier, the reconcile
pass, keys, point ids and exact cells.

The encoding is version 1 and cannot change: ids and digests made with it are
stored. One value is

    tag (1 byte) | length of the payload (4 bytes, big endian) | payload

and a tuple (a key, a row) is the version byte, the number of values (4 bytes,
big endian) and the values one after another.
"""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import xxhash

from migrate import jsontext
from migrate.batch import Row
from migrate.schema import PACKED_KINDS, TEXT_KINDS, Kind, Table

VERSION = 1
NAMESPACE = uuid.UUID("9d3c1b62-6f0e-5f8a-9c51-6d656d6c6966")  # for ids of keys that are no ids themselves

_TAGS: dict[Kind | None, int] = {
    None: 0,
    Kind.INTEGER: 1,
    Kind.REAL: 2,
    Kind.TEXT: 3,
    Kind.BLOB: 4,
    Kind.BOOL: 5,
    Kind.JSON: 6,
    Kind.TIMESTAMP: 7,
    Kind.NATIVE: 8,
    Kind.VECTOR: 9,
    Kind.HALF: 10,
    Kind.SPARSE: 11,
    Kind.MULTI: 12,
    Kind.U8: 13,
}
_KINDS = {tag: kind for kind, tag in _TAGS.items()}
_ODD_TEXT = 0x80
_PIECE_DIGITS = 4000
_PIECE = 10**_PIECE_DIGITS
_FORMS = {  # what the payload of a value must look like
    None: re.compile(rb""),
    Kind.BOOL: re.compile(rb"[\x00\x01]"),
    Kind.INTEGER: re.compile(rb"0|-?[1-9][0-9]*"),
    Kind.REAL: re.compile(rb".{8}", re.S),
}
_head = struct.Struct(">BI").pack
_real = struct.Struct(">d")
_LIKE_ONLY_THEIR_OWN = frozenset({str, bytes, type(None)})  # never equal to a value of another type
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def text_bytes(text: str) -> bytes:
    """Return a text's UTF-8; bytes that were no UTF-8 come back as they were."""
    return text.encode("utf-8", "surrogateescape")


def bytes_text(data: bytes) -> str:
    """Return bytes as text; bytes that are no UTF-8 ride along as surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")


def kind_of(kind: Kind, cell: Any) -> Kind | None:
    """Return what a cell of a column of `kind` is by its own type; None for NULL.

    Raises TypeError on a Python type that no store gives.
    """
    if cell is None:
        return None
    if isinstance(cell, bool):
        return Kind.BOOL
    if isinstance(cell, int):
        return Kind.INTEGER
    if isinstance(cell, float):
        return Kind.REAL
    if isinstance(cell, str):
        return kind if kind in (Kind.JSON, Kind.TIMESTAMP, Kind.NATIVE) else Kind.TEXT
    if isinstance(cell, bytes):
        return kind if kind in PACKED_KINDS else Kind.BLOB
    raise TypeError(f"a cell cannot be a {type(cell).__name__}")


def _payload(kind: Kind | None, cell: Any) -> bytes:
    if kind is None:
        return b""
    if kind is Kind.BOOL:
        return b"\x01" if cell else b"\x00"
    if kind is Kind.INTEGER:
        return _digits(cell)
    if kind is Kind.REAL:
        return _real.pack(cell)
    return bytes(cell)


def _encoded(kind: Kind | None, cell: Any) -> bytes:
    """Return tag, length and payload.

    A text with a surrogate that escapes no byte (from JSON, or a client's own
    string) has the highest bit of its tag set, so that it meets no other.
    """
    tag = _TAGS[kind]
    if isinstance(cell, str):
        try:
            payload = text_bytes(cell)
        except UnicodeEncodeError:
            payload, tag = cell.encode("utf-8", "surrogatepass"), tag | _ODD_TEXT
    else:
        payload = _payload(kind, cell)
    return _head(tag, len(payload)) + payload


def _digits(number: int) -> bytes:
    """Return a number in decimal, also one of more digits than Python prints at once (4,300)."""
    if -_PIECE < number < _PIECE:
        return b"%d" % number
    sign, rest = (b"-", -number) if number < 0 else (b"", number)
    pieces = []
    while rest:
        rest, piece = divmod(rest, _PIECE)
        pieces.append(piece)
    return sign + b"%d" % pieces[-1] + b"".join(b"%0*d" % (_PIECE_DIGITS, p) for p in reversed(pieces[:-1]))


def _number(digits: bytes) -> int:
    negative, rest = digits.startswith(b"-"), digits.lstrip(b"-")
    first = len(rest) % _PIECE_DIGITS
    number = int(rest[:first] or b"0")
    for at in range(first, len(rest), _PIECE_DIGITS):
        number = number * _PIECE + int(rest[at : at + _PIECE_DIGITS])
    return -number if negative else number


def canonical(kind: Kind, cell: Any) -> bytes:
    """Return the canonical bytes of a cell: equal bytes mean the same typed value, and only they do.

    JSON cells are brought to their canonical form first; a text in a JSON
    column that is no JSON is a TEXT.
    """
    own = kind_of(kind, cell)
    if own is Kind.JSON:
        form = jsontext.canonical(cell)
        if form is not None:
            return _head(6, len(form)) + form
        own = Kind.TEXT
    return _encoded(own, cell)


def exact(kind: Kind, cell: Any) -> bytes:
    """Return bytes from which `from_exact` gives the very same cell back (JSON keeps its text)."""
    return _encoded(kind_of(kind, cell), cell)


def exact_row(kinds: Sequence[Kind], row: Sequence[Any]) -> bytes:
    """Return bytes from which `from_exact_row` gives the very same row back."""
    return _tuple_head(len(row)) + b"".join(map(exact, kinds, row))


def from_exact(data: bytes) -> Any:
    """Return the cell that `exact` was given. Raises ValueError on bytes it did not write."""
    cell, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("an exact value has bytes left over")
    return cell


def from_exact_row(data: bytes) -> Row:
    """Return the row that `exact_row` was given. Raises ValueError on bytes it did not write."""
    if len(data) < 5 or data[0] != VERSION:
        raise ValueError("an exact row of an unknown version")
    (n,) = struct.unpack_from(">I", data, 1)
    cells, at = [], 5
    for _ in range(n):
        cell, at = _decode(data, at)
        cells.append(cell)
    if at != len(data):
        raise ValueError("an exact row has bytes left over")
    return tuple(cells)


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    if len(data) < at + 5 or data[at] & ~_ODD_TEXT not in _KINDS:
        raise ValueError("not an exact value")
    tag, size = struct.unpack_from(">BI", data, at)
    odd, tag = bool(tag & _ODD_TEXT), tag & ~_ODD_TEXT
    payload = data[at + 5 : at + 5 + size]
    if len(payload) != size:
        raise ValueError("an exact value is cut short")
    kind, end = _KINDS[tag], at + 5 + size
    form = _FORMS.get(kind)
    if (form is not None and not form.fullmatch(payload)) or (odd and kind not in TEXT_KINDS):
        raise ValueError("an exact value is damaged")
    if kind is None:
        return None, end
    if kind is Kind.BOOL:
        return payload == b"\x01", end
    if kind is Kind.INTEGER:
        return _number(payload), end
    if kind is Kind.REAL:
        return _real.unpack(payload)[0], end
    if kind in PACKED_KINDS:
        return payload, end
    return payload.decode("utf-8", "surrogatepass") if odd else bytes_text(payload), end


def _tuple_head(n: int) -> bytes:
    return struct.pack(">BI", VERSION, n)


def key_bytes(kinds: Sequence[Kind], cells: Sequence[Any]) -> bytes:
    """Return the canonical bytes of a key: 1, '1' and x'31' are three keys."""
    return _tuple_head(len(cells)) + b"".join(map(canonical, kinds, cells))


def key_text(cells: Iterable[Any]) -> list[Any]:
    """Return a key as JSON-ready data for reports: bytes as `x'hex'`, odd text escaped."""
    return [
        f"x'{c.hex()}'" if isinstance(c, bytes) else text_bytes_safe(c) if isinstance(c, str) else c
        for c in cells
    ]


def text_bytes_safe(text: str) -> str:
    """Return a text that prints: what is no UTF-8 shows as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def same(kind: Kind, a: Any, b: Any) -> bool:
    """Whether two cells of a column are the same typed value."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return _real.pack(a) == _real.pack(b)
    if a == b:
        return True
    return kind is Kind.JSON and isinstance(a, str) and canonical(kind, a) == canonical(kind, b)


def surely_same(a: list[Row], b: list[Row]) -> bool:
    """Whether two lists of rows are the same typed values, told in a few strides.

    True is proof: cells are equal, of the same types, and doubles of the same
    bits. False only means that a closer look is needed (NaN, JSON).
    """
    if a != b:
        return False
    for left, right in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True):
        types = set(map(type, left))
        if types <= _LIKE_ONLY_THEIR_OWN:
            continue
        if len(types) > 1 or set(map(type, right)) != types:
            if list(map(type, left)) != list(map(type, right)):
                return False
            left, right = (tuple(c for c in cells if type(c) is float) for cells in (left, right))
        if float in types and array("d", left).tobytes() != array("d", right).tobytes():
            return False
    return True


def column_digests(kinds: Sequence[Kind], row: Row) -> bytes:
    """Return 8 bytes a cell (xxh3-64 of its canonical bytes), so that a difference names its column."""
    return b"".join(xxhash.xxh3_64_digest(canonical(k, c)) for k, c in zip(kinds, row, strict=True))


def match_key(table: Table, row: Row) -> bytes:
    """Return by what a row is matched with its twin in another store.

    That is its key; a row without one, or with NULL in it, is matched by a
    digest of the whole row (which begins with a zero byte, as no key does).
    """
    at = table.key_positions
    if at and all(row[i] is not None for i in at):
        return row_key(table, row)
    return b"\0" + row_digest([c.kind for c in table.columns], row)


def row_digest(kinds: Sequence[Kind], row: Row) -> bytes:
    """Return the 16-byte xxh3-128 digest of a row's canonical bytes."""
    return xxhash.xxh3_128_digest(_tuple_head(len(row)) + b"".join(map(canonical, kinds, row)))


def row_key(table: Table, row: Row) -> bytes:
    """Return the canonical bytes of a row's key, or of the whole row where its table has no key."""
    at = table.key_positions or range(len(row))
    return key_bytes([table.columns[i].kind for i in at], [row[i] for i in at])


def point_id(kinds: Sequence[Kind], cells: Sequence[Any]) -> int | str:
    """Return the id of a point for a key.

    One INTEGER from 0 to 2^64-1, or one TEXT that is a canonical lower-case
    hyphenated UUID, is the id itself; all else is UUIDv5 of `NAMESPACE` and the
    canonical key. The original key is always stored beside it.
    """
    if len(cells) == 1:
        kind, cell = kind_of(kinds[0], cells[0]), cells[0]
        if kind is Kind.INTEGER and 0 <= cell < 2**64:
            return int(cell)
        if kind is Kind.TEXT and _UUID.fullmatch(cell):
            return str(cell)
    digest = bytearray(
        hashlib.sha1(NAMESPACE.bytes + key_bytes(kinds, cells), usedforsecurity=False).digest()[:16]
    )
    digest[6] = digest[6] & 0x0F | 0x50  # RFC 9562: version 5,
    digest[8] = digest[8] & 0x3F | 0x80  # variant 10
    return str(uuid.UUID(bytes=bytes(digest)))
