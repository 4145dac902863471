"""Rows to COPY bytes and back, a column at a time.

The binary format is Postgres' own (https://www.postgresql.org/docs/current/sql-copy.html):
a header, then for each row the number of fields (int16) and each field as its
length (int32, -1 for NULL) and bytes. Vectors are turned to big endian a batch
at once, so no number of theirs ever becomes a Python object.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import orjson

from migrate import values, vectors
from migrate.batch import Row

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_int = struct.Struct(">i")
_length = _int.pack
_int8 = struct.Struct(">iq").pack
_float8 = struct.Struct(">id").pack

Fields = list[bytes]


def _encode_int8(cells: Sequence[Any]) -> Fields:
    if None in cells:
        return [_NULL if c is None else _int8(8, c) for c in cells]
    return [_int8(8, c) for c in cells]


def _encode_float8(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _float8(8, c) for c in cells]


def _encode_bool(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else b"\0\0\0\1\1" if c else b"\0\0\0\1\0" for c in cells]


def _encode_bytea(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _length(len(c)) + c for c in cells]


def _encode_text(cells: Sequence[Any]) -> Fields:
    if None in cells:
        return _encode_bytea([None if c is None else c.encode() for c in cells])
    return [_length(len(b)) + b for b in map(str.encode, cells)]


def _encode_jsonb(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _length(len(b := c.encode()) + 1) + b"\1" + b for c in cells]


def _encode_vector(cells: Sequence[Any]) -> Fields:
    """int16 dim, int16 zero, then big-endian float32 (pgvector's vector_send)."""
    given = [c for c in cells if c is not None]
    sizes = set(map(len, given))
    if len(sizes) == 1 and len(given) == len(cells):
        size = sizes.pop()
        head = struct.pack(">ihh", 4 + size, size // 4, 0)
        block = vectors.swap(b"".join(given))
        return [head + block[i : i + size] for i in range(0, len(block), size)]
    return [
        _NULL if c is None else struct.pack(">ihh", 4 + len(c), len(c) // 4, 0) + vectors.swap(c)
        for c in cells
    ]


def _encode_halfvec(cells: Sequence[Any]) -> Fields:
    return [
        _NULL
        if c is None
        else struct.pack(">ihh", 4 + len(c), len(c) // 2, 0) + np.frombuffer(c, "<u2").byteswap().tobytes()
        for c in cells
    ]


_ENCODE: dict[str, Callable[[Sequence[Any]], Fields]] = {
    "int8": _encode_int8,
    "float8": _encode_float8,
    "bool": _encode_bool,
    "bytea": _encode_bytea,
    "text": _encode_text,
    "jsonb": _encode_jsonb,
    "vector": _encode_vector,
    "halfvec": _encode_halfvec,
}


def encode(rows: Sequence[Row], codecs: Sequence[str]) -> bytes:
    """Return rows as binary COPY data (without header and trailer)."""
    columns = [_ENCODE[codec](cells) for codec, cells in zip(codecs, zip(*rows, strict=True), strict=True)]
    count = struct.pack(">h", len(codecs))
    return b"".join(chain.from_iterable(zip(repeat(count), *columns)))


# --- text COPY, for types that have no encoder above --------------------------

_ESCAPES = str.maketrans(
    {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
)


def _text_of(codec: str, cell: Any) -> str:
    if codec == "bytea":
        return "\\\\x" + str(cell.hex())
    if codec == "vector":
        return orjson.dumps(vectors.to_array(cell), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    if codec == "halfvec":
        return json.dumps([float(x) for x in np.frombuffer(cell, vectors.F16)])
    if codec == "sparsevec":
        return sparse_text(cell)
    if codec == "bool":
        return "t" if cell else "f"
    if codec == "float8":
        return (
            repr(cell)
            if math.isfinite(cell)
            else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(cell, "NaN")
        )
    return str(cell).translate(_ESCAPES)


def plain_text(codec: str, cell: Any) -> str | None:
    """Return a cell as the text that a cast to its type reads; None for NULL."""
    if cell is None:
        return None
    if codec == "bytea":
        return "\\x" + str(cell.hex())
    return str(cell) if codec in ("text", "jsonb", "native", "int8") else _text_of(codec, cell)


def sparse_text(cell: bytes) -> str:
    """Return a packed sparse vector as pgvector writes it: `{index:value,...}/dim`, indices from 1."""
    indices, weights, dim = vectors.unpack_sparse(cell)
    printed = orjson.loads(orjson.dumps(weights, option=orjson.OPT_SERIALIZE_NUMPY))
    pairs = ",".join(f"{int(i) + 1}:{w!r}" for i, w in zip(indices, printed, strict=True))
    return f"{{{pairs}}}/{dim or (int(indices[-1]) + 1 if len(indices) else 1)}"


def encode_text(rows: Sequence[Row], codecs: Sequence[str]) -> bytes:
    """Return rows as text COPY data."""
    lines = [
        "\t".join("\\N" if c is None else _text_of(codec, c) for codec, c in zip(codecs, row, strict=True))
        for row in rows
    ]
    return ("\n".join(lines) + "\n").encode()


# --- reading ------------------------------------------------------------------

Decoder = Callable[[Sequence[Any]], Sequence[Any]]


def _numbers(form: str) -> Decoder:
    unpack = struct.Struct(form).unpack
    return lambda cells: [None if c is None else unpack(c)[0] for c in cells]


def _texts(cells: Sequence[Any]) -> Sequence[Any]:
    return [None if c is None else str(c, "utf-8") for c in cells]


def _bytes(cells: Sequence[Any]) -> Sequence[Any]:
    return cells


def _bools(cells: Sequence[Any]) -> Sequence[Any]:
    return [None if c is None else c == b"\1" for c in cells]


def _vectors(cells: Sequence[Any]) -> Sequence[Any]:
    given = [c for c in cells if c is not None]
    sizes = set(map(len, given))
    if len(sizes) == 1 and len(given) == len(cells):
        size = sizes.pop() - 4
        block = vectors.swap(b"".join([c[4:] for c in given]))
        return [block[i : i + size] for i in range(0, len(block), size)] if size else cells
    return [None if c is None else vectors.swap(c[4:]) for c in cells]


def _halfs(cells: Sequence[Any]) -> Sequence[Any]:
    return [None if c is None else np.frombuffer(c, "<u2", offset=4).byteswap().tobytes() for c in cells]


def _sparses(cells: Sequence[Any]) -> Sequence[Any]:
    """int32 dim, int32 n, int32 zero, n int32 indices from 0, n float32 (pgvector's sparsevec_send)."""

    def one(cell: bytes) -> bytes:
        dim, n, _ = struct.unpack_from(">iii", cell)
        return vectors.pack_sparse(
            np.frombuffer(cell, ">u4", n, 12).tolist(),
            np.frombuffer(cell, vectors.F32_BIG, n, 12 + 4 * n),
            dim,
        )

    return [None if c is None else one(c) for c in cells]


_DECODE: dict[str, Decoder] = {
    "int8": _numbers(">q"),
    "int4": _numbers(">i"),
    "int2": _numbers(">h"),
    "oid": _numbers(">I"),
    "float8": _numbers(">d"),
    "float4": _numbers(">f"),
    "text": _texts,
    "bytea": _bytes,
    "bool": _bools,
    "vector": _vectors,
    "halfvec": _halfs,
    "sparsevec": _sparses,
}


def split_row(data: bytes | bytearray | memoryview, fields: int) -> tuple[Any, ...]:
    """Return the raw fields of one row of binary COPY data; None for NULL."""
    unpack = _int.unpack_from
    at = 2
    out: list[Any] = []
    for _ in range(fields):
        size = unpack(data, at)[0]
        at += 4
        if size < 0:
            out.append(None)
        else:
            out.append(data[at : at + size])
            at += size
    return tuple(out)


def decode(raw: Sequence[tuple[Any, ...]], codecs: Sequence[str]) -> list[Row]:
    """Turn raw fields of rows into cells."""
    columns = zip(*raw, strict=True)
    cells = [_DECODE[codec](column) for codec, column in zip(codecs, columns, strict=True)]
    return list(zip(*cells, strict=True))


_UTC = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d)(\.\d+)?\+00")


def iso_utc(text: str) -> str:
    """Return a timestamptz as ISO 8601 in UTC with microseconds; infinity, BC and years of five digits as they are."""
    found = _UTC.fullmatch(text)
    if found is None:
        return text
    year, month, day, clock, fraction = found.groups()
    return f"{year}-{month}-{day}T{clock}{(fraction or '.').ljust(7, '0')}+00:00"


def iso_column(cells: Sequence[Any]) -> Sequence[Any]:
    """Apply `iso_utc` to a column."""
    return [None if c is None else iso_utc(values.bytes_text(bytes(c))) for c in cells]


_DECODE["timestamptz"] = iso_column
