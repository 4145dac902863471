"""Cells as payload and back: every type intact, the plain part filterable.

What a cell becomes under its column's name:

    NULL                 null
    boolean, 64-bit integer, double, text
                         the same in JSON
    JSON text            the JSON itself where it is an object or an array, integers beyond 64 bits
                         as doubles; other JSON texts (`12`, `"a"`, `null`) and texts that are
                         no JSON stay strings
    bytes                base64 text
    larger integer       its digits as text
    NaN, infinity        null
    text that is no UTF-8 the text with its bad bytes replaced

Where that loses something, the point's `memlift` key has a mark for the column:
`{"cells": {column: [tag, data]}}`, as one JSON text, because the embedded engine
takes 10 us for each nested value. Qdrant's engine keeps payload as JSON text
and reads doubles with a parser that is one unit in the last place off for about
one in five of 17-digit doubles (measured with 0.9 over 120,000 of them; `1.1`
and the like are exact), so a double that it would change has its 64 bits in a
mark, while the near value stays under its name for filters. Whatever writes a
point's payload anew (`set_payload` of another key, each rebuild of a segment)
reads it first, so such a double may move once more each time (`DRIFT`).
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson

from migrate import jsontext, values
from migrate.backends.qdrant.names import MARKS
from migrate.schema import Column, Kind

INT64 = (-(2**63), 2**63 - 1)  # gRPC has no larger integer in a payload
# The most units in the last place that a double moves by, however often its payload is read and written
# (the server's `MmapPayloadStorage`): of 300,000, 5 % moved by more than 1, 1 % by more than 4, none by more than 98.
DRIFT = 128
_POWERS = tuple(float(f"1e{n}") for n in range(309))
_REALS = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+|-?\d+\.\d+")
_MANY_DIGITS = re.compile(r"\d{19}")
_NONE = type(None)
Marks = dict[int, dict[str, Any]]


def reread(number: float) -> float:
    """Return what the engine makes of a finite double that it reads: serde_json's quick parser, re-enacted.

    It reads the shortest digits as one integer and scales that once by a power of ten
    (https://docs.rs/serde_json, without its feature `float_roundtrip`).
    """
    text, _, power = repr(number).partition("e")
    whole, _, fraction = text.lstrip("-").partition(".")
    exponent = int(power or 0) - len(fraction)
    read = float(int(whole + fraction))
    while exponent < -308:
        read /= _POWERS[308]
        exponent += 308
    read = read / _POWERS[-exponent] if exponent < 0 else read * _POWERS[exponent]
    return math.copysign(read, number)


def kept_exactly(number: float) -> bool:
    """Whether the engine gives a double back as it was."""
    if number.is_integer() and abs(number) < 1e15:
        return True
    return math.isfinite(number) and reread(number) == number


def _rereads(number: float) -> Iterator[float]:
    """Yield a double as it is read the first time, the second, and so on, till it stays or returns."""
    seen: set[float] = set()
    while number not in seen and math.isfinite(number) and len(seen) <= DRIFT:
        seen.add(number)
        yield number
        number = reread(number)


def doubles_kept(text: str) -> bool:
    """Whether the engine gives all doubles of a JSON text back as they are."""
    return all(kept_exactly(float(t)) for t in _REALS.findall(text))


def depth(value: Any) -> tuple[int, int]:
    """Return how many levels of objects and lists are nested, and the levels of their protobuf form.

    An object costs 3 messages there (Value, Struct, map entry), a list 2.
    """
    deepest, heaviest = 0, 0
    waiting: list[tuple[Any, int, int]] = [(value, 0, 1)]
    while waiting:
        item, level, weight = waiting.pop()
        deepest, heaviest = max(deepest, level), max(heaviest, weight)
        if isinstance(item, dict):
            waiting += [(v, level + 1, weight + 3) for v in item.values()]
        elif isinstance(item, list):
            waiting += [(v, level + 1, weight + 2) for v in item]
    return deepest, heaviest


def _read_json(text: str) -> tuple[Any, bool]:
    """Return what stands in the payload for a JSON text, and whether that is the same value."""
    if text[:1] not in ("{", "[") and text.lstrip()[:1] not in ("{", "["):
        return text, True
    try:
        value = orjson.loads(text)
    except (ValueError, RecursionError):
        return _printable(text), _printable(text) == text
    if _MANY_DIGITS.search(text) and _made_double(value):
        return value, False
    written = orjson.dumps(value).decode()
    same = written == text or jsontext.canonical(written) == jsontext.canonical(text)
    return value, same and doubles_kept(written)


_short_json = lru_cache(maxsize=4096)(_read_json)  # tags, flags, empty objects: the same few in row after row


def _made_double(value: dict[str, Any] | list[Any]) -> bool:
    """Put doubles in place of the integers that gRPC cannot carry; whether there were any.

    Larger ones than 2^64 orjson has made doubles already. Filters find them by these near values.
    """
    waiting, changed = [value], False
    while waiting:
        item = waiting.pop()
        places: Any = list(item.items()) if isinstance(item, dict) else list(enumerate(item))
        for place, inner in places:
            if type(inner) is int and not INT64[0] <= inner <= INT64[1]:
                item[place], changed = float(inner), True
            elif isinstance(inner, dict | list):
                waiting.append(inner)
    return changed


def json_value(text: str) -> Any:
    """Return what a JSON text becomes in a payload."""
    return (_short_json if len(text) < 64 else _read_json)(text)[0]


def _printable(text: str) -> str:
    try:
        return values.text_bytes(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that escapes no byte
        return text.encode("utf-8", "replace").decode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def encode(
    columns: Sequence[Column], cells: Sequence[Sequence[Any]], n: int, *, json_text: bool
) -> list[dict[str, Any]]:
    """Return the payloads of n rows given as columns.

    json_text: JSON cells keep the very text they had, also its white space.
    """
    marks: Marks = {}
    written = [
        _json_cells(c.name, given, marks, json_text) if c.kind is Kind.JSON else _cells(c.name, given, marks)
        for c, given in zip(columns, cells, strict=True)
    ]
    names = [c.name for c in columns]
    payloads = [dict(zip(names, row, strict=True)) for row in zip(*written, strict=True)]
    payloads = payloads or [{} for _ in range(n)]
    for i, mark in marks.items():
        payloads[i][MARKS] = {"cells": mark}  # made a text where the vectors' marks have joined
    return payloads


def _json_cells(name: str, cells: Sequence[Any], marks: Marks, keep_text: bool) -> Sequence[Any]:
    out = list(cells)
    for i, cell in enumerate(cells):
        if type(cell) is not str:
            if cell is not None:
                out[i] = _odd(name, i, cell, marks)
            continue
        value, same = (_short_json if len(cell) < 64 else _read_json)(cell)
        if value == cell and not cell.isascii():  # not `is`: an equal text of another row may have been read
            out[i] = _odd(name, i, cell, marks)
            continue
        out[i] = value
        if not same or (keep_text and not isinstance(value, str)):
            marks.setdefault(i, {})[name] = _text_mark("j", cell)
    return out


def _text_mark(tag: str, text: str) -> list[str]:
    if text.isascii() or _printable(text) == text:
        return [tag, text]
    return ["t", _b64(values.exact(Kind.TEXT, text))]


def _cells(name: str, cells: Sequence[Any], marks: Marks) -> Sequence[Any]:
    types = set(map(type, cells))
    types.discard(_NONE)
    if types <= {bool}:
        return cells
    if types == {str}:
        joined = "".join([c for c in cells if c is not None])
        if joined.isascii() or _is_utf8(joined):
            return cells
    elif types == {int}:
        numbers = [c for c in cells if c is not None]
        if INT64[0] <= min(numbers) and max(numbers) <= INT64[1]:
            return cells
    return [c if c is None else _odd(name, i, c, marks) for i, c in enumerate(cells)]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _odd(name: str, row: int, cell: Any, marks: Marks) -> Any:
    """Return what stands for one cell, marking what that loses."""
    if type(cell) is bytes:
        marks.setdefault(row, {})[name] = ["b"]
        return _b64(cell)
    if type(cell) is float:
        finite = math.isfinite(cell)
        if not finite or not kept_exactly(cell):
            marks.setdefault(row, {})[name] = ["r", struct.pack(">d", cell).hex()]
        return cell if finite else None
    if type(cell) is int and not INT64[0] <= cell <= INT64[1]:
        marks.setdefault(row, {})[name] = ["i"]
        return str(cell)
    if type(cell) is str and not _is_utf8(cell):
        marks.setdefault(row, {})[name] = ["t", _b64(values.exact(Kind.TEXT, cell))]
        return _printable(cell)
    return cell


def decode(column: Column, payload: dict[str, Any], mark: Any) -> Any:
    """Return the cell of a column. `mark`: the column's entry under our key, or None."""
    value = payload.get(column.name)
    if isinstance(mark, list) and mark:
        found = _marked(value, mark)
        if found is not None:
            return found
    if isinstance(value, (dict, list)):
        return orjson.dumps(value).decode()
    return value


def _marked(value: Any, mark: list[Any]) -> Any:
    """Return what a mark says a cell was; None where somebody has written another value since."""
    try:
        match mark:
            case ["b"] if isinstance(value, str):
                return base64.b64decode(value, validate=True)
            case ["i"] if isinstance(value, str):
                return int(value)
            case ["r", str(bits)]:
                (number,) = struct.unpack(">d", bytes.fromhex(bits))
                return number if near(value, number if math.isfinite(number) else None) else None
            case ["j", str(text)]:
                return text if near(value, json_value(text)) else None
            case ["t", str(data)]:
                text = values.from_exact(base64.b64decode(data))
                return text if value == _printable(text) or near(value, json_value(text)) else None
    except (ValueError, struct.error):  # no base64, no digits: not what we wrote
        pass
    return None


def near(found: Any, written: Any) -> bool:
    """Whether a value is what was written but for doubles that the engine gives back a little off."""
    if isinstance(found, dict) and isinstance(written, dict):
        return found.keys() == written.keys() and all(near(v, written[k]) for k, v in found.items())
    if isinstance(found, list) and isinstance(written, list):
        return len(found) == len(written) and all(map(near, found, written))
    if float in (type(found), type(written)) and {type(found), type(written)} <= {int, float}:
        return bool(found == written) or any(
            abs(found - one) <= 4 * math.ulp(one) for one in _rereads(float(written))
        )
    return type(found) is type(written) and bool(found == written)
