"""COPY bytes by hand: what is sent and what is read, to the last byte."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.backends.postgres import wire
from migrate.vectors import pack_sparse

NULL = b"\xff\xff\xff\xff"


def f32(*numbers: float, order: str = "<") -> bytes:
    return struct.pack(f"{order}{len(numbers)}f", *numbers)


def field(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def row(*fields: bytes) -> bytes:
    return struct.pack(">h", len(fields)) + b"".join(fields)


# codec, cell, the field's bytes without their length
CELLS: list[tuple[str, Any, bytes]] = [
    ("int8", 1, bytes.fromhex("0000000000000001")),
    ("int8", -(2**63), bytes.fromhex("8000000000000000")),
    ("float8", -0.0, bytes.fromhex("8000000000000000")),
    ("float8", 1.5, bytes.fromhex("3ff8000000000000")),
    ("bool", True, b"\1"),
    ("bool", False, b"\0"),
    ("bytea", b"\x00\xff", b"\x00\xff"),
    ("bytea", b"", b""),
    ("text", "é\n\\", b"\xc3\xa9\n\\"),
    ("text", "", b""),
    ("vector", f32(1.0, -2.0), bytes.fromhex("00020000 3f800000 c0000000")),
    ("halfvec", struct.pack("<2e", 1.0, -2.0), bytes.fromhex("00020000 3c00 c000")),
]


@pytest.mark.parametrize(("codec", "cell", "data"), CELLS)
def test_a_cell_is_sent_and_read_as_the_server_has_it(codec: str, cell: Any, data: bytes) -> None:
    rows = [(cell,), (None,), (cell,)]
    sent = wire.encode(rows, [codec])
    assert bytes(sent) == row(field(data)) + row(NULL) + row(field(data))
    assert bytes(wire.encode([(cell,)] * 2, [codec])) == row(field(data)) * 2
    block = wire.Block([row(field(data)), row(NULL), row(field(data))], 1)
    assert wire.decode(block, [codec]) == rows
    assert wire.decode(wire.Block([row(field(data))] * 2, 1), [codec]) == [(cell,)] * 2


def test_jsonb_is_sent_with_its_version_byte() -> None:
    assert bytes(wire.encode([('{"a":1}',), (None,)], ["jsonb"])) == row(field(b'\1{"a":1}')) + row(NULL)


def test_a_row_is_its_fields_in_order() -> None:
    rows = [(1, "a", None, f32(1.0)), (2, None, b"x", None)]
    codecs = ["int8", "text", "bytea", "vector"]
    vector = bytes.fromhex("00010000 3f800000")
    wanted = [
        row(field(struct.pack(">q", 1)), field(b"a"), NULL, field(vector)),
        row(field(struct.pack(">q", 2)), NULL, field(b"x"), NULL),
    ]
    assert bytes(wire.encode(rows, codecs)) == b"".join(wanted)
    assert wire.decode(wire.Block(wanted, 4), codecs) == rows


def test_vectors_of_several_dimensions_are_sent_one_by_one() -> None:
    cells = [(f32(1.0),), (f32(1.0, 2.0),), (None,)]
    sent = bytes(wire.encode(cells, ["vector"]))
    assert wire.decode(wire.Block(split(sent), 1), ["vector"]) == cells


def split(data: bytes) -> list[bytes]:
    """Cut rows of one field out of COPY data."""
    rows = []
    while data:
        size = struct.unpack_from(">i", data, 2)[0]
        end = 6 + max(size, 0)
        rows.append(data[:end])
        data = data[end:]
    return rows


cells = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.text(st.characters(codec="utf-8")),
    st.none() | st.binary(),
    st.none() | st.booleans(),
    st.none() | st.binary(min_size=12, max_size=12),
)


@given(st.lists(cells, min_size=1, max_size=5))
def test_what_was_sent_is_read_back(rows: list[tuple[Any, ...]]) -> None:
    codecs = ["int8", "float8", "text", "bytea", "bool", "vector"]
    one_by_one = [bytes(wire.encode([r], codecs)) for r in rows]
    assert bytes(wire.encode(rows, codecs)) == b"".join(one_by_one)
    found = wire.decode(wire.Block(one_by_one, len(codecs)), codecs)
    assert repr(found) == repr(rows)


@pytest.mark.parametrize(
    ("codec", "data", "wanted"),
    [
        ("int4", bytes.fromhex("ffffffff"), -1),
        ("int2", bytes.fromhex("8000"), -32768),
        ("oid", bytes.fromhex("ffffffff"), 2**32 - 1),
        ("float4", bytes.fromhex("3dcccccd"), struct.unpack(">f", bytes.fromhex("3dcccccd"))[0]),
        ("timestamptz", b"2024-01-02 03:04:05.5+00", "2024-01-02T03:04:05.500000+00:00"),
        (
            "sparsevec",
            struct.pack(">iiiiiff", 9, 2, 0, 2, 7, -1.0, 0.5),
            pack_sparse([2, 7], [-1.0, 0.5], 9),
        ),
        ("sparsevec", struct.pack(">iii", 9, 0, 0), pack_sparse([], [], 9)),
    ],
)
def test_types_that_only_the_server_sends_are_read(codec: str, data: bytes, wanted: Any) -> None:
    assert wire.decode(wire.Block([row(field(data)), row(NULL)], 1), [codec]) == [(wanted,), (None,)]


def test_the_last_ctid_is_told_as_text() -> None:
    block = wire.Block([row(field(bytes(6))), row(field(bytes.fromhex("00010000ffff")))], 1)
    assert block.last_ctid(0) == "(65536,65535)"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-01-02 03:04:05+00", "2024-01-02T03:04:05.000000+00:00"),
        ("2024-01-02 03:04:05.000006+00", "2024-01-02T03:04:05.000006+00:00"),
        ("2024-01-02 03:04:05.12+00", "2024-01-02T03:04:05.120000+00:00"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("0044-03-15 00:00:00+00 BC", "0044-03-15 00:00:00+00 BC"),
        ("10000-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
    ],
)
def test_timestamps_become_utc_iso_with_microseconds_where_iso_has_them(text: str, wanted: str) -> None:
    assert wire.iso_utc(text) == wanted


# --- COPY in text -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "cell", "wanted"),
    [
        ("native", "plain", "plain"),
        ("native", "a\tb\nc\rd\\e", r"a\tb\nc\rd\\e"),
        ("native", "\b\f\v", r"\b\f\v"),
        ("native", "\\N", r"\\N"),
        ("native", "\\.", r"\\."),
        ("native", "", ""),
        ("native", None, r"\N"),
        ("jsonb", '{"a":"\\n"}', r'{"a":"\\n"}'),
        ("text", "é😀", "é😀"),
        ("int8", -5, "-5"),
        ("float8", 0.1, "0.1"),
        ("float8", float("inf"), "Infinity"),
        ("float8", float("-inf"), "-Infinity"),
        ("float8", float("nan"), "NaN"),
        ("float8", -0.0, "-0.0"),
        ("bool", True, "t"),
        ("bool", False, "f"),
        ("bytea", b"\x00\xff", r"\\x00ff"),
        ("bytea", b"", r"\\x"),
        ("vector", f32(1.5, -0.0, 0.1), "[1.5,-0.0,0.1]"),
        ("halfvec", struct.pack("<2e", 1.5, -2.0), "[1.5, -2.0]"),
        ("sparsevec", pack_sparse([2, 7], [-1.0, 0.1], 9), "{3:-1.0,8:0.1}/9"),
    ],
)
def test_a_cell_in_text_is_escaped_as_copy_reads_it(codec: str, cell: Any, wanted: str) -> None:
    assert (
        bytes(
            wire.encode_text(
                [(cell,), (cell,)],
                [
                    codec,
                ],
            )
        )
        == f"{wanted}\n{wanted}\n".encode()
    )


def test_cells_of_a_text_row_are_parted_by_tabs() -> None:
    assert bytes(wire.encode_text([(1, None, "a\tb")], ["int8", "text", "native"])) == b"1\t\\N\ta\\tb\n"


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        (pack_sparse([0], [1e-45], 1), "{1:1e-45}/1"),
        (pack_sparse([], [], 5), "{}/5"),
        (pack_sparse([3], [2.0]), "{4:2.0}/4"),
        (pack_sparse([], []), "{}/1"),
    ],
)
def test_sparse_vectors_are_written_with_indices_from_one(cell: bytes, wanted: str) -> None:
    assert wire.sparse_text(cell) == wanted


@pytest.mark.parametrize(
    ("codec", "cell", "wanted"),
    [
        ("int8", 5, "5"),
        ("text", "a\tb\\", "a\tb\\"),
        ("native", "x", "x"),
        ("jsonb", '"\\n"', '"\\n"'),
        ("bytea", b"\xff", "\\xff"),
        ("bool", True, "t"),
        ("float8", float("nan"), "NaN"),
        ("vector", f32(1.0), "[1.0]"),
        ("text", None, None),
    ],
)
def test_a_plain_text_is_what_a_cast_reads(codec: str, cell: Any, wanted: str | None) -> None:
    assert wire.plain_text(codec, cell) == wanted
