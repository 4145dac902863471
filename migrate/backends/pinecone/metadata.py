"""Cells as metadata and back: only what Pinecone gives back as it was.

    NULL                                  nothing under the column's name
    text (UTF-8, no NUL), JSON text       the string
    a JSON list of strings                the list; where the text is to be kept, or where there are others
                                          among them, it is none: no filter would find them in a text
    boolean                               the boolean
    integer to 2^53, finite double        the number; Pinecone keeps doubles

Numbers come back as integers where they are whole, but in columns of kind REAL: so a whole
double elsewhere, an integer in a REAL column, and -0.0 are not metadata. What is none of
these is an exact cell of the sidecar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson

from migrate.backends.pinecone.limits import EXACT_INTEGER, METADATA_BYTES
from migrate.schema import Column, Kind

Value = str | float | bool | list[str]
Metadata = dict[str, Value]

ROOM_FOR_NAME = 6  # quotes, colon, comma and the quotes of a string


def is_name(name: str) -> bool:
    """Whether a column's name can be a field's name."""
    if not name or name.startswith("$") or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def problem(column: Column, cell: Any, *, json_text: bool = False) -> str | None:
    """Return why a cell is no metadata, None where it is. json_text: JSON keeps its text, so a list is none."""
    if cell is None or type(cell) is bool:
        return None
    if type(cell) is str:
        return _text_problem(cell) or (_list_problem(cell, json_text) if column.kind is Kind.JSON else None)
    if type(cell) is int:
        if column.kind is Kind.REAL:
            return "an integer among doubles"
        return None if -EXACT_INTEGER <= cell <= EXACT_INTEGER else "an integer beyond 2^53"
    if type(cell) is float:
        if not math.isfinite(cell):
            return "NaN or infinity"
        if cell == 0 and math.copysign(1, cell) < 0:
            return "a negative zero"
        return "a whole double" if cell.is_integer() and column.kind is not Kind.REAL else None
    return "bytes"


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character in text"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "text that is no UTF-8"
    return None


def _list_problem(text: str, json_text: bool) -> str | None:
    if '"' not in text or not text.lstrip(" \t\n\r").startswith("["):
        return None
    if not json_text and _strings(text) is not None:
        return None
    try:
        strings = any(type(item) is str for item in orjson.loads(text))
    except ValueError:
        strings = True  # also JSON that is too odd for this parser
    return "a list of strings whose text is kept" if strings else None


def encode(column: Column, cell: Any, *, json_text: bool) -> Value:
    """Return the value of a cell that has no `problem` and is not None."""
    if column.kind is Kind.JSON and type(cell) is str and not json_text:
        found = _strings(cell)
        if found is not None:
            return found
    value: Value = cell
    return value


def _strings(text: str) -> list[str] | None:
    """Return the strings of a JSON list that begins with one and has nothing else; None where it is another text."""
    if not text.startswith('["'):
        return None
    try:
        found = orjson.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(type(item) is str and "\0" not in item for item in found):
        return None
    return found


def decode(column: Column, value: Any) -> Any:
    """Return the cell of a value; what another program has put there comes back as JSON text."""
    if isinstance(value, (list, dict)):
        return orjson.dumps(value).decode()
    if type(value) is int and column.kind is Kind.REAL:
        return float(value)
    if type(value) is float and column.kind is not Kind.REAL and value.is_integer():
        return int(value)
    return value


def size(metadata: Metadata) -> int:
    """Return the bytes that count towards the limit: compact JSON."""
    return len(orjson.dumps(metadata))


def cell_sizes(columns: Sequence[Column], cells: Sequence[Any]) -> list[int]:
    """Return at most how many bytes each cell takes in metadata, its name included."""
    found = []
    for column, cell in zip(columns, cells, strict=True):
        if cell is None:
            found.append(0)
            continue
        name = len(column.name.encode("utf-8", "replace"))
        body = len(orjson.dumps(cell)) if type(cell) is str else 24
        found.append(name + body + ROOM_FOR_NAME)
    return found


def to_json(found: Metadata) -> str | None:
    """Return a record's whole metadata as JSON text; None where there is none."""
    return orjson.dumps(found).decode() if found else None


def from_json(text: str) -> Metadata:
    """Return the metadata of a JSON text that `problem_whole` finds nothing wrong with."""
    found: Metadata = orjson.loads(text)
    return found


def problem_whole(text: Any) -> str | None:
    """Return why a JSON text can not be a record's whole metadata, None where it can."""
    if text is None:
        return None
    try:
        found = orjson.loads(text) if type(text) is str else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return "metadata that is no JSON object"
    for name, value in found.items():
        strings = isinstance(value, list) and all(type(item) is str for item in value)
        number = type(value) is float or (type(value) is int and abs(value) <= EXACT_INTEGER)
        if not is_name(name) or not (strings or number or type(value) in (str, bool)):
            return f"metadata that Pinecone has no place for: {name!r}"
    if size(found) > METADATA_BYTES:
        return f"{size(found)} bytes of metadata; Pinecone takes {METADATA_BYTES}"
    return None
