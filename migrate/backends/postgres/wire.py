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
import threading
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import orjson

from migrate import vectors
from migrate.batch import Row

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_int = struct.Struct(">i")
_length = _int.pack
_LENGTHS = tuple(map(_length, range(4096)))  # a look at a list is quicker than a call
_int8 = struct.Struct(">iq").pack
_float8 = struct.Struct(">id").pack

_PIECE = 256  # rows; see `pieces`

Fields = list[Any]  # of bytes or memoryview: a length and its bytes


def _encode_int8(cells: Sequence[Any]) -> Fields:
    if None in cells:
        return [_NULL if c is None else _int8(8, c) for c in cells]
    return [_int8(8, c) for c in cells]


def _encode_small(form: str) -> Callable[[Sequence[Any]], Fields]:
    pack = struct.Struct(form).pack
    size = struct.calcsize(form) - 4
    return lambda cells: [_NULL if c is None else pack(size, c) for c in cells]


def _encode_float8(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _float8(8, c) for c in cells]


def _encode_bool(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else b"\0\0\0\1\1" if c else b"\0\0\0\1\0" for c in cells]


def _encode_bytea(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _length(len(c)) + c for c in cells]


def _encode_text(cells: Sequence[Any]) -> Fields:
    if None in cells:
        return _encode_bytea([None if c is None else c.encode() for c in cells])
    known = _LENGTHS
    return [(known[n] if (n := len(b)) < 4096 else _length(n)) + b for b in map(str.encode, cells)]


def _encode_jsonb(cells: Sequence[Any]) -> Fields:
    return [_NULL if c is None else _length(len(b := c.encode()) + 1) + b"\1" + b for c in cells]


class _Scratch(threading.local):
    """Memory that is used again for each batch, one piece a column.

    Fresh memory of a batch's size comes from the kernel page by page each
    time: turning 1,000 x 384 floats around took 2.0 us a row, in memory that
    is there already 0.25 us.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, Any] = {}

    def take(self, slot: int, size: int) -> Any:
        """Return `size` bytes as an array; their content is lost with the next call for the same slot."""
        piece = self._pieces.get(slot)
        if piece is None or len(piece) < size:
            piece = self._pieces[slot] = np.empty(size, np.uint8)
        return piece[:size]


_scratch = _Scratch()


def _encode_vector(cells: Sequence[Any], slot: int) -> Fields:
    """int16 dim, int16 zero, then big-endian float32 (pgvector's vector_send)."""
    sizes = set(map(len, cells)) if None not in cells else set()
    if len(sizes) != 1:
        return [_NULL if c is None else _one_vector(c) for c in cells]
    size = sizes.pop()
    flat = _scratch.take(slot, len(cells) * (8 + size))
    block = flat.reshape(len(cells), 8 + size)
    block[:, :8] = np.frombuffer(struct.pack(">ihh", 4 + size, size // 4, 0), np.uint8)
    block[:, 8:].view(">u4")[...] = np.frombuffer(b"".join(cells), vectors.U32).reshape(len(cells), size // 4)
    octets = memoryview(flat.data)
    return [octets[i : i + 8 + size] for i in range(0, len(octets), 8 + size)]


def _one_vector(cell: bytes) -> bytes:
    return struct.pack(">ihh", 4 + len(cell), len(cell) // 4, 0) + vectors.swap(cell)


def _encode_halfvec(cells: Sequence[Any]) -> Fields:
    return [
        _NULL
        if c is None
        else struct.pack(">ihh", 4 + len(c), len(c) // 2, 0) + np.frombuffer(c, "<u2").byteswap().tobytes()
        for c in cells
    ]


_ENCODE: dict[str, Callable[[Sequence[Any]], Fields]] = {
    "int8": _encode_int8,
    "int4": _encode_small(">ii"),
    "int2": _encode_small(">ih"),
    "oid": _encode_small(">iI"),
    "float4": _encode_small(">if"),
    "float8": _encode_float8,
    "bool": _encode_bool,
    "bytea": _encode_bytea,
    "text": _encode_text,
    "jsonb": _encode_jsonb,
    "halfvec": _encode_halfvec,
}


def pieces(columns: Sequence[Sequence[Any]], codecs: Sequence[str]) -> list[bytes]:
    """Return rows, given as columns, as binary COPY data (without header and trailer).

    A piece has 256 rows: what it takes to make one stays in the processor's own cache.
    """
    return [
        _piece([cells[at : at + _PIECE] for cells in columns], codecs)
        for at in range(0, len(columns[0]), _PIECE)
    ]


def _piece(columns: Sequence[Sequence[Any]], codecs: Sequence[str]) -> bytes:
    fields = [
        _encode_vector(cells, slot) if codec == "vector" else _ENCODE[codec](cells)
        for slot, (codec, cells) in enumerate(zip(codecs, columns, strict=True))
    ]
    count = struct.pack(">h", len(codecs))
    return b"".join(chain.from_iterable(zip(repeat(count), *fields)))


def encode(rows: Sequence[Row], codecs: Sequence[str]) -> bytes:
    """Return rows as binary COPY data (without header and trailer), in one piece."""
    return _piece(list(zip(*rows, strict=True)), codecs)


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
    if codec in ("float8", "float4"):
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


def text_of(columns: Sequence[Sequence[Any]], codecs: Sequence[str]) -> bytes:
    """Return rows, given as columns, as text COPY data."""
    fields = [
        ["\\N" if cell is None else _text_of(codec, cell) for cell in cells]
        for codec, cells in zip(codecs, columns, strict=True)
    ]
    return "".join(["\t".join(row) + "\n" for row in zip(*fields, strict=True)]).encode()


def encode_text(rows: Sequence[Row], codecs: Sequence[str]) -> bytes:
    """Return rows as text COPY data."""
    return text_of(list(zip(*rows, strict=True)), codecs)


# --- reading ------------------------------------------------------------------


class Block:
    """Rows of binary COPY data, joined, with where each field of each row begins and ends."""

    def __init__(self, rows: Sequence[Any], fields: int) -> None:
        self.data = b"".join(rows)
        self.view = memoryview(self.data)
        octets = np.frombuffer(self.data, np.uint8)
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        at = np.cumsum(sizes) - sizes + 2
        lanes = np.arange(4)
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        self.nulls: list[Any] = []
        for _ in range(fields):
            lengths = octets[at[:, None] + lanes].view(">i4").ravel().astype(np.int64)
            null = lengths < 0
            start = at + 4
            at = start + np.where(null, 0, lengths)
            self.starts.append(start)
            self.ends.append(at)
            self.nulls.append(null)

    def numbers(self, field: int, dtype: str) -> list[Any]:
        """Return a column of fixed-size numbers."""
        null = self.nulls[field]
        width = np.dtype(dtype).itemsize
        start = np.where(null, 0, self.starts[field])
        octets = np.frombuffer(self.data, np.uint8)
        cells: list[Any] = octets[start[:, None] + np.arange(width)].view(dtype).ravel().tolist()
        if null.any():
            return [None if gone else cell for cell, gone in zip(cells, null.tolist(), strict=True)]
        return cells

    def slices(self, field: int) -> list[Any]:
        """Return a column as memoryviews, None for NULL."""
        view = self.view
        pairs = zip(self.starts[field].tolist(), self.ends[field].tolist(), strict=True)
        if self.nulls[field].any():
            gone = self.nulls[field].tolist()
            return [None if n else view[a:b] for (a, b), n in zip(pairs, gone, strict=True)]
        return [view[a:b] for a, b in pairs]

    def texts(self, field: int) -> list[Any]:
        """Return a column of texts."""
        data = self.data
        pairs = zip(self.starts[field].tolist(), self.ends[field].tolist(), strict=True)
        if self.nulls[field].any():
            gone = self.nulls[field].tolist()
            return [None if n else data[a:b].decode() for (a, b), n in zip(pairs, gone, strict=True)]
        return [data[a:b].decode() for a, b in pairs]

    def last_ctid(self, field: int) -> str:
        """Return the ctid of the last row, as text."""
        raw = self.data[int(self.starts[field][-1]) : int(self.ends[field][-1])]
        return f"({int.from_bytes(raw[:4])},{int.from_bytes(raw[4:])})"


Decoder = Callable[[Block, int], list[Any]]


def _numbers(dtype: str) -> Decoder:
    return lambda block, field: block.numbers(field, dtype)


def _bytes(block: Block, field: int) -> list[Any]:
    return [None if c is None else bytes(c) for c in block.slices(field)]


def _bools(block: Block, field: int) -> list[Any]:
    return [None if c is None else c == 1 for c in block.numbers(field, "u1")]


def _vectors(block: Block, field: int) -> list[Any]:
    cells = block.slices(field)
    sizes = {len(c) for c in cells if c is not None}
    if len(sizes) != 1 or None in cells:
        return [None if c is None else vectors.swap(c[4:]) for c in cells]
    size = sizes.pop() - 4
    flat = _scratch.take(-1, len(cells) * size)
    np.copyto(flat, np.frombuffer(b"".join([c[4:] for c in cells]), np.uint8))
    flat.view(vectors.U32).byteswap(inplace=True)
    octets = memoryview(flat.data)
    return [bytes(octets[i : i + size]) for i in range(0, len(octets), size)] if size else [b""] * len(cells)


def _halfs(block: Block, field: int) -> list[Any]:
    return [
        None if c is None else np.frombuffer(c, "<u2", offset=4).byteswap().tobytes()
        for c in block.slices(field)
    ]


def _sparses(block: Block, field: int) -> list[Any]:
    """int32 dim, int32 n, int32 zero, n int32 indices from 0, n float32 (pgvector's sparsevec_send)."""

    def one(cell: memoryview) -> bytes:
        dim, n, _ = struct.unpack_from(">iii", cell)
        return vectors.pack_sparse(
            np.frombuffer(cell, ">u4", n, 12).tolist(),
            np.frombuffer(cell, vectors.F32_BIG, n, 12 + 4 * n),
            dim,
        )

    return [None if c is None else one(c) for c in block.slices(field)]


def _timestamps(block: Block, field: int) -> list[Any]:
    return [None if c is None else iso_utc(c) for c in block.texts(field)]


_DECODE: dict[str, Decoder] = {
    "int8": _numbers(">i8"),
    "int4": _numbers(">i4"),
    "int2": _numbers(">i2"),
    "oid": _numbers(">u4"),
    "float8": _numbers(">f8"),
    "float4": _numbers(">f4"),
    "text": lambda block, field: block.texts(field),
    "bytea": _bytes,
    "bool": _bools,
    "vector": _vectors,
    "halfvec": _halfs,
    "sparsevec": _sparses,
    "timestamptz": _timestamps,
}


def decode(block: Block, codecs: Sequence[str]) -> list[Row]:
    """Turn a block's first fields into rows of cells."""
    return list(zip(*(_DECODE[codec](block, i) for i, codec in enumerate(codecs)), strict=True))


_UTC = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d)(\.\d+)?\+00")


def iso_utc(text: str) -> str:
    """Return a timestamptz as ISO 8601 in UTC with microseconds; infinity, BC and years of five digits as they are."""
    found = _UTC.fullmatch(text)
    if found is None:
        return text
    year, month, day, clock, fraction = found.groups()
    return f"{year}-{month}-{day}T{clock}{(fraction or '.').ljust(7, '0')}+00:00"
