"""Typed values: golden vectors that can never change, and equality without Python's blind spots."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from migrate import values
from migrate.schema import Column, Kind, Table

NAN_WITH_PAYLOAD = struct.unpack(">d", bytes.fromhex("7ff8000000000abc"))[0]
OTHER_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]

# (kind of the column, cell, tag | length | payload). Stored ids and digests are made of these.
GOLDEN: list[tuple[Kind, Any, str]] = [
    (Kind.INTEGER, None, "00 00000000"),
    (Kind.INTEGER, 0, "01 00000001 30"),
    (Kind.INTEGER, -1, "01 00000002 2d31"),
    (Kind.INTEGER, 2**63, "01 00000013 39323233333732303336383534373735383038"),
    (Kind.TEXT, 5, "01 00000001 35"),
    (Kind.REAL, 1.0, "02 00000008 3ff0000000000000"),
    (Kind.REAL, -0.0, "02 00000008 8000000000000000"),
    (Kind.REAL, 0.0, "02 00000008 0000000000000000"),
    (Kind.REAL, float("inf"), "02 00000008 7ff0000000000000"),
    (Kind.REAL, NAN_WITH_PAYLOAD, "02 00000008 7ff8000000000abc"),
    (Kind.TEXT, "", "03 00000000"),
    (Kind.TEXT, "é😀", "03 00000006 c3a9f09f9880"),
    (Kind.TEXT, "a\x00b", "03 00000003 610062"),
    (Kind.TEXT, "\udcff", "03 00000001 ff"),
    (Kind.INTEGER, "5", "03 00000001 35"),
    (Kind.BLOB, b"", "04 00000000"),
    (Kind.BLOB, b"5", "04 00000001 35"),
    (Kind.TEXT, b"\xff\x00", "04 00000002 ff00"),
    (Kind.BOOL, False, "05 00000001 00"),
    (Kind.BOOL, True, "05 00000001 01"),
    (Kind.JSON, ' {"b": 1.0, "a": [1, null]} ', "06 00000016 7b2261223a5b312c6e756c6c5d2c2262223a312e307d"),
    (Kind.JSON, "{broken", "03 00000007 7b62726f6b656e"),
    (Kind.JSON, 7, "01 00000001 37"),
    (
        Kind.TIMESTAMP,
        "2024-01-02T03:04:05.000006+00:00",
        "07 00000020 323032342d30312d30325430333a30343a30352e3030303030362b30303a3030",
    ),
    (Kind.NATIVE, "1.50", "08 00000004 312e3530"),
    (Kind.VECTOR, bytes.fromhex("0000803f000000c0"), "09 00000008 0000803f000000c0"),
    (Kind.HALF, bytes.fromhex("003c00c0"), "0a 00000004 003c00c0"),
    (Kind.SPARSE, bytes.fromhex("0500000000000000"), "0b 00000008 0500000000000000"),
    (Kind.MULTI, bytes.fromhex("0000000000000000"), "0c 00000008 0000000000000000"),
    (Kind.U8, b"\x00\xff", "0d 00000002 00ff"),
]

texts = st.text(st.characters())  # all code points: lone surrogates and surrogate escapes as well
escaped = st.binary().map(lambda b: b.decode("utf-8", "surrogateescape"))
reals = st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack(">d", b)[0])
cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**400), 2**400),
    reals,
    texts,
    escaped,
    st.binary(),
)
TEXT_KINDS = [Kind.TEXT, Kind.JSON, Kind.TIMESTAMP, Kind.NATIVE]


def typed(cell: Any) -> tuple[type, Any]:
    """Return what tells two cells apart by an oracle of its own."""
    return type(cell), struct.pack(">d", cell) if isinstance(cell, float) else cell


@pytest.mark.parametrize(("kind", "cell", "wanted"), GOLDEN)
def test_the_canonical_encoding_is_the_one_that_was_stored(kind: Kind, cell: Any, wanted: str) -> None:
    assert values.canonical(kind, cell).hex() == wanted.replace(" ", "")


def test_every_kind_has_a_golden_vector() -> None:
    tags = {wanted[:2] for _, _, wanted in GOLDEN}
    assert tags == {f"{tag:02x}" for tag in range(14)}


def test_a_key_is_its_version_its_length_and_its_typed_values() -> None:
    kinds = [Kind.INTEGER, Kind.TEXT, Kind.BLOB]
    assert values.key_bytes(kinds, [1, "1", b"1"]).hex(" ", -1) == (
        "01 00 00 00 03 01 00 00 00 01 31 03 00 00 00 01 31 04 00 00 00 01 31"
    )
    assert values.key_bytes([], []).hex() == "0100000000"


def test_one_the_text_one_and_the_byte_one_are_three_keys() -> None:
    keys = [values.key_bytes([Kind.BLOB], [cell]) for cell in (1, "1", b"1", 1.0, True)]
    assert len(set(keys)) == 5


def test_composite_keys_do_not_run_together() -> None:
    two = [Kind.TEXT, Kind.TEXT]
    assert values.key_bytes(two, ["a", "bc"]) != values.key_bytes(two, ["ab", "c"])


def test_digests_are_xxh3_of_the_canonical_bytes() -> None:
    kinds, row = [Kind.INTEGER, Kind.TEXT], (7, "x")
    seven, x = bytes.fromhex("010000000137"), bytes.fromhex("030000000178")
    assert values.row_digest(kinds, row) == xxhash.xxh3_128_digest(b"\x01\0\0\0\x02" + seven + x)
    assert values.row_digest(kinds, row).hex() == "6f096092ae2589b595bd8c807c6476a1"
    assert values.column_digests(kinds, row) == xxhash.xxh3_64_digest(seven) + xxhash.xxh3_64_digest(x)


U = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("kind", "cell", "wanted"),
    [
        (Kind.INTEGER, 0, 0),
        (Kind.INTEGER, 2**64 - 1, 2**64 - 1),
        (Kind.TEXT, 7, 7),
        (Kind.TEXT, U, U),
        (Kind.TEXT, "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_a_key_that_is_an_id_is_the_id(kind: Kind, cell: Any, wanted: Any) -> None:
    assert values.point_id([kind], [cell]) == wanted
    assert type(values.point_id([kind], [cell])) is type(wanted)


@pytest.mark.parametrize(
    ("kinds", "cells_", "wanted"),
    [
        ([Kind.INTEGER], [2**64], "612ff89a-83db-5fdc-83b8-0e26f371c979"),
        ([Kind.INTEGER], [-1], "fe7b0416-07f2-509e-9744-8188e88f37ca"),
        ([Kind.TEXT], ["5"], "bd445e01-ba8c-57c5-a00f-66ed80200342"),
        ([Kind.BOOL], [True], "51b5cb0c-ff1d-5b0c-805f-56dbc98555e1"),
        ([Kind.REAL], [1.0], "4748aa4f-0077-52b2-8514-e9baf8778f3c"),
        ([Kind.INTEGER], [None], "695d36e9-44a9-5d3d-ab23-5855785cd38e"),
        ([Kind.BLOB], [b"\x05"], "d2ffe0e3-b60e-5f46-8277-770e821d5ad3"),
        ([Kind.NATIVE], [U], "dfbb6496-df38-5cff-9814-0ad4ac4419ab"),
        ([Kind.TEXT], [U.upper()], "7f10916a-2ff5-5d31-8a31-6c89ed4dcdb0"),
        ([Kind.TEXT], [f"urn:uuid:{U}"], "af3f9e72-3e32-51b0-bb46-4ca6e67c22bb"),
        ([Kind.TEXT], [f"{{{U}}}"], "da9d699f-a53a-51e7-876f-575ff484710b"),
        ([Kind.TEXT], [U.replace("-", "")], "fa782443-5231-54c9-b5f3-87d3b6a76b86"),
        ([Kind.TEXT], [U + "\n"], "28e3328a-a61d-5036-a72d-0ca80927ee26"),
        ([Kind.TEXT, Kind.INTEGER], [U, 1], "38471be3-b696-5022-83f9-2396b9dd8857"),
        ([Kind.INTEGER, Kind.INTEGER], [1, 2], "ce60bebd-342b-516e-9782-f8207c38783d"),
        ([], [], "e6cffbc3-92b4-5c89-9b42-a8585065978f"),
    ],
)
def test_any_other_key_gets_the_id_that_was_stored(kinds: list[Kind], cells_: list[Any], wanted: str) -> None:
    made = values.point_id(kinds, cells_)
    assert made == wanted
    assert uuid.UUID(str(made)).version == 5
    assert uuid.UUID(str(made)).variant == uuid.RFC_4122


def test_five_spellings_of_one_uuid_do_not_meet() -> None:
    spellings = [U, U.upper(), f"urn:uuid:{U}", f"{{{U}}}", U.replace("-", "")]
    assert len({values.point_id([Kind.TEXT], [s]) for s in spellings}) == 5


@given(st.lists(st.tuples(st.sampled_from(TEXT_KINDS), cells), max_size=5))
@example([(Kind.TEXT, "\ud800")])
@example([(Kind.TEXT, "\ud800\udcff")])
@example([(Kind.REAL, OTHER_NAN), (Kind.REAL, -0.0)])
@example([(Kind.INTEGER, 10**5000), (Kind.INTEGER, -(10**4301) + 1)])
def test_exact_bytes_give_the_very_same_cells_back(row: list[tuple[Kind, Any]]) -> None:
    kinds, given_cells = [k for k, _ in row], tuple(c for _, c in row)
    back = values.from_exact_row(values.exact_row(kinds, given_cells))
    assert list(map(typed, back)) == list(map(typed, given_cells))
    for kind, cell in row:
        assert typed(values.from_exact(values.exact(kind, cell))) == typed(cell)


@given(st.binary(), st.sampled_from([Kind.BLOB, Kind.VECTOR, Kind.HALF, Kind.SPARSE, Kind.MULTI, Kind.U8]))
def test_packed_cells_come_back_whatever_they_are_called(data: bytes, kind: Kind) -> None:
    assert values.from_exact(values.exact(kind, data)) == data


@given(st.sampled_from([Kind.TEXT, Kind.TIMESTAMP, Kind.NATIVE]), cells, cells)
@example(Kind.TEXT, "\ud800", "\udced\udca0\udc80")
@example(Kind.TEXT, 1, 1.0)
@example(Kind.TEXT, 1, True)
@example(Kind.TEXT, 0.0, -0.0)
@example(Kind.TEXT, NAN_WITH_PAYLOAD, OTHER_NAN)
def test_canonical_bytes_are_equal_only_for_equal_typed_values(kind: Kind, a: Any, b: Any) -> None:
    assert (values.canonical(kind, a) == values.canonical(kind, b)) == (typed(a) == typed(b))


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "03",
        "0300000001",
        "030000000261",
        "03000000016161",
        "0e0000000161",
        "ff0000000161",
        "02000000043ff00000",
        "0200000009000000000000000000",
        "0100000000",
        "010000000120",
        "0100000003315f30",
        "01000000022b31",
        "0100000002202d",
        "010000000130" + "00",
        "0500000000",
        "050000000102",
        "05000000020001",
        "000000000161",
    ],
)
def test_damaged_exact_bytes_raise_value_error(damaged: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the contract names the class only
        values.from_exact(bytes.fromhex(damaged))


@pytest.mark.parametrize(
    "damaged", ["", "01", "0200000000", "01ffffffff", "010000000100", "0100000000" + "00"]
)
def test_damaged_exact_rows_raise_value_error(damaged: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        values.from_exact_row(bytes.fromhex(damaged))


@given(st.binary(max_size=40))
def test_bytes_that_are_read_as_exact_were_written_by_exact(data: bytes) -> None:
    try:
        cell = values.from_exact(data)
    except ValueError:
        return
    assert any(values.exact(kind, cell) == data for kind in Kind)


SAME_LOOKING = [1, 1.0, True, 0, 0.0, -0.0, False, "1", b"1", None, "", b"", NAN_WITH_PAYLOAD, OTHER_NAN]


@given(st.one_of(st.sampled_from(SAME_LOOKING), cells), st.one_of(st.sampled_from(SAME_LOOKING), cells))
def test_same_is_typed_equality(a: Any, b: Any) -> None:
    assert values.same(Kind.TEXT, a, b) == (typed(a) == typed(b))


def test_json_cells_are_the_same_as_values_and_other_kinds_are_not() -> None:
    assert values.same(Kind.JSON, '{"a":1,"b":2}', '{ "b": 2, "a": 1 }')
    assert not values.same(Kind.JSON, "1", "1.0")
    assert not values.same(Kind.TEXT, '{"a":1}', '{"a": 1}')
    assert not values.same(Kind.JSON, "1", 1)


@given(
    st.lists(st.tuples(*[st.one_of(st.sampled_from(SAME_LOOKING), cells)] * 2), min_size=1, max_size=6),
    st.lists(st.tuples(*[st.one_of(st.sampled_from(SAME_LOOKING), cells)] * 2), min_size=1, max_size=6),
)
def test_surely_same_is_never_true_for_rows_that_differ(a: list[Any], b: list[Any]) -> None:
    if values.surely_same(a, b):
        assert [tuple(map(typed, row)) for row in a] == [tuple(map(typed, row)) for row in b]


@given(st.data())
def test_surely_same_sees_any_single_changed_cell(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[st.sampled_from(SAME_LOOKING[:10])] * 3), min_size=1, max_size=4))
    assert values.surely_same(rows, [tuple(row) for row in rows])
    i, j = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 2))
    other = data.draw(st.sampled_from([c for c in SAME_LOOKING if typed(c) != typed(rows[i][j])]))
    changed = [*rows[:i], (*rows[i][:j], other, *rows[i][j + 1 :]), *rows[i + 1 :]]
    assert not values.surely_same(rows, changed)


def test_column_digests_differ_in_the_columns_that_differ_and_nowhere_else() -> None:
    kinds = [Kind.INTEGER, Kind.REAL, Kind.JSON, Kind.TEXT]
    a = values.column_digests(kinds, (1, 0.0, '{"a":1,"b":2}', "x"))
    b = values.column_digests(kinds, (1, -0.0, '{"b":2, "a":1}', "y"))
    assert [a[i : i + 8] == b[i : i + 8] for i in range(0, 32, 8)] == [True, False, True, False]


def test_the_key_of_a_row_is_its_key_cells_in_key_order_or_the_whole_row() -> None:
    columns = (Column("v", Kind.TEXT), Column("b", Kind.INTEGER), Column("a", Kind.TEXT))
    keyed, loose = Table("t", columns, ("a", "b")), Table("t", columns)
    assert values.row_key(keyed, ("v", 1, "x")) == values.key_bytes([Kind.TEXT, Kind.INTEGER], ["x", 1])
    assert values.row_key(loose, ("v", 1, "x")) == values.key_bytes(
        [Kind.TEXT, Kind.INTEGER, Kind.TEXT], ["v", 1, "x"]
    )


def test_a_cell_of_a_foreign_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a cell cannot be a bytearray"):
        values.canonical(Kind.BLOB, bytearray(b"x"))


@given(st.lists(cells, max_size=4))
def test_keys_for_reports_can_always_be_printed(key: list[Any]) -> None:
    for cell in values.key_text(key):
        str(cell).encode()


def test_keys_for_reports_show_bytes_as_hex_and_bad_text_escaped() -> None:
    assert values.key_text([1, "é", b"\xff", None, "\udcff"]) == [1, "é", "x'ff'", None, "\\udcff"]
