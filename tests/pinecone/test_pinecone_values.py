"""Rows become records and are the same when they come back: any key, any cell, any vector."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from migrate import values, vectors
from migrate.backends.base import Options
from migrate.backends.pinecone import limits, metadata, wire
from migrate.backends.pinecone.fit import fit
from migrate.backends.pinecone.foreign import describe
from migrate.backends.pinecone.ids import Ids, number_of, numbered, tells_key
from migrate.backends.pinecone.names import SPARSE, Form, Spot, index_name, namespace_name
from migrate.backends.pinecone.sending import requests
from migrate.backends.pinecone.shape import Shape, beside, chosen, is_records, left_out
from migrate.batch import Row
from migrate.schema import Column, Kind, Metric, Table

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ODD_TEXT = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "\udcff",
        "\ud800",
        "a\0b",
        "~",
        "~.",
        "~AQ",
        "-0",
        "01",
        "1",
        "é",
        " ",
        "",
        '["a"]',
        "x" * 512,
        "x" * 513,
    ]
)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(),
    ODD_TEXT,
    st.binary(max_size=20),
    st.sampled_from(['["a", "b"]', '["a\\u0000"]', "[]", '["a", 1]', '{"a": [1, 2.50]}', "[", '["\\ud800"]']),
)
KINDS = st.sampled_from([Kind.INTEGER, Kind.REAL, Kind.TEXT, Kind.BLOB, Kind.BOOL, Kind.JSON, Kind.NATIVE])


def table_of(kinds: list[Kind], keys: int, names: list[str] | None = None) -> Table:
    columns = [Column(names[i] if names else f"c{i}", kind) for i, kind in enumerate(kinds)]
    vector = Column("v", Kind.VECTOR, dim=3, metric=Metric.COSINE)
    sparse = Column("s", Kind.SPARSE, dim=9)
    other = Column("o", Kind.VECTOR, dim=2)
    key = tuple(c.name for c in columns[:keys])
    return Table("t", (*columns, vector, sparse, other), key)


def doubles(value: Any) -> Any:
    """Return what Pinecone makes of metadata: every number a double."""
    return float(value) if type(value) is int else value


def there_and_back(table: Table, rows: list[Row]) -> list[Row]:
    """Return rows after a trip through records, exact cells put back; what stays beside is not asked."""
    shape, judged = Shape(table), fit(table, Options())
    found = judged.check(list(zip(*rows, strict=True)))
    kept, exact = judged.split(rows, found)
    taken = shape.is_record(list(zip(*kept, strict=True))) if kept else []
    mine = [row for row, ours in zip(kept, taken, strict=True) if ours]
    bodies = [wire.packed(r) for r in shape.records(mine)]
    told = wire.parse(wire.upsert_body(bodies, "ns"))["vectors"]
    for one in told:
        given_metadata = one.get("metadata") or {}
        assert metadata.size(given_metadata) <= limits.METADATA_BYTES
        for name, value in given_metadata.items():
            assert name
            assert not name.startswith("$")
            assert type(value) in (str, bool, float, int) or all(type(v) is str for v in value)
        assert 1 <= len(one["id"]) <= limits.ID_CHARS
        assert one["id"].isascii()
        one["metadata"] = {k: doubles(v) for k, v in given_metadata.items()}
    back = shape.rows([wire.record(one, "ns") for one in told])
    cells = {(c.key, c.column): values.from_exact(c.value) for c in exact if c.column is not None}
    whole = [values.from_exact_row(c.value) for c in exact if c.column is None]
    beside_rows = [row for row, ours in zip(kept, taken, strict=True) if not ours]
    restored = [
        tuple(
            cells.get((values.row_key(table, row), c.name), cell)
            for c, cell in zip(table.columns, row, strict=True)
        )
        for row in [*back, *beside_rows]
    ]
    return restored + whole


def typed(table: Table, rows: list[Row]) -> list[bytes]:
    kinds = [c.kind for c in table.columns]
    return sorted(b"".join(map(values.canonical, kinds, row)) for row in rows)


VECTORS = st.one_of(
    st.none(),
    st.tuples(FLOATS, FLOATS, FLOATS).map(lambda v: struct.pack("<3f", *v)),
    st.just(bytes(12)),
    st.just(struct.pack("<3f", -0.0, 1e-45, 1.0)),
)
SPARSES = st.none() | st.dictionaries(st.integers(0, 8), FLOATS, max_size=4).map(
    lambda d: vectors.pack_sparse(list(d), list(d.values()), 9)
)


@given(st.data())
def test_any_row_is_the_same_after_the_way_back(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(KINDS, min_size=2, max_size=4))
    keys = data.draw(st.integers(1, 2))
    table = table_of(kinds, keys)
    seen: dict[bytes, Row] = {}
    for _ in range(data.draw(st.integers(1, 4))):
        cells = [data.draw(CELLS) for _ in kinds]
        row = (*cells, data.draw(VECTORS), data.draw(SPARSES), data.draw(st.none() | st.binary(max_size=8)))
        seen[values.match_key(table, row)] = row
    rows = list(seen.values())
    assert typed(table, there_and_back(table, rows)) == typed(table, rows)


@given(
    st.lists(st.text(max_size=4), min_size=2, max_size=3, unique=True).filter(
        lambda n: not {"v", "s", "o"} & set(n)
    )
)
def test_any_name_of_a_column_is_carried(names: list[str]) -> None:
    table = table_of([Kind.TEXT] * len(names), 1, names)
    rows: list[Row] = [(*(f"{n}" for n in range(len(names))), struct.pack("<3f", 1, 2, 3), None, None)]
    assert typed(table, there_and_back(table, rows)) == typed(table, rows)


@given(st.lists(st.integers(0, 60_000), min_size=3, max_size=3))
@example([40_000, 900, 900])
@example([13_600, 13_600, 13_800])
def test_metadata_that_is_too_large_goes_to_the_sidecar_largest_first(sizes: list[int]) -> None:
    table = table_of([Kind.TEXT] * 4, 1)
    rows: list[Row] = [("k", *("é" * (n // 2) for n in sizes), struct.pack("<3f", 1, 2, 3), None, None)]
    assert typed(table, there_and_back(table, rows)) == typed(table, rows)
    found = fit(table, Options()).check(list(zip(*rows, strict=True)))
    if sum(sizes) <= 40_000:
        assert not found
    left = [f.column for f in found]
    assert left == sorted(left, key=lambda at: -sizes[(at or 1) - 1])


@given(st.lists(CELLS.filter(lambda c: c is not None), min_size=1, max_size=3), st.data())
def test_an_id_spells_its_key_or_says_that_it_does_not(key: list[Any], data: st.DataObject) -> None:
    kinds = [data.draw(KINDS) for _ in key]
    ids = Ids(
        Table(
            "t",
            tuple(Column(f"c{i}", k) for i, k in enumerate(kinds)),
            tuple(f"c{i}" for i in range(len(key))),
        )
    )
    one = ids.of(key)
    assert re.fullmatch(r"[ -~]{1,512}", one)
    assert tells_key(one) is (Kind.JSON not in kinds and ids.key(one) is not None)
    if tells_key(one):
        back = ids.key(one)
        assert back is not None
        assert values.key_bytes(kinds, back) == values.key_bytes(kinds, key)


@given(CELLS.filter(lambda c: c is not None), CELLS.filter(lambda c: c is not None), KINDS)
def test_two_keys_never_share_an_id(a: Any, b: Any, kind: Kind) -> None:
    ids = Ids(Table("t", (Column("k", kind),), ("k",)))
    same = values.key_bytes([kind], [a]) == values.key_bytes([kind], [b])
    assert (ids.of([a]) == ids.of([b])) is same


def test_ids_are_the_keys_where_they_can_be() -> None:
    """Golden: ids stand in indexes, and can never change."""
    text = Ids(Table("t", (Column("k", Kind.TEXT),), ("k",)))
    whole = Ids(Table("t", (Column("k", Kind.INTEGER),), ("k",)))
    both = Ids(Table("t", (Column("a", Kind.TEXT), Column("b", Kind.INTEGER)), ("a", "b")))
    assert text.of(["mt_a4e2 #1"]) == "mt_a4e2 #1"
    assert text.of([7]) == "~AQAAAAEBAAAAATc"
    assert text.of(["é"]) == "~AQAAAAEDAAAAAsOp"
    assert text.of(["~x"]) == "~AQAAAAEDAAAAAn54"
    assert text.of(["x" * 600]).startswith("~.")
    assert len(text.of(["x" * 600])) == 66
    assert whole.of([-42]) == "-42"
    assert whole.of(["-42"]) == "~AQAAAAEDAAAAAy00Mg"
    assert both.of(["a", 1]) == "~AQAAAAIDAAAAAWEBAAAAATE"
    assert (numbered(7), number_of("row-000000000007"), number_of("row-7")) == ("row-000000000007", 7, None)
    for strange in ("~!", "~AQ", "~AQAAAAIDAAAAAWEBAAAAATE", "x", "01"):
        assert whole.key(strange) is None


@given(st.lists(FLOATS, min_size=1, max_size=20), st.sampled_from(["-0,", ",-0]", '"[-0,', "[1,-0]", "x"]))
def test_float32_comes_back_bit_by_bit_whatever_stands_beside(numbers: list[float], text: str) -> None:
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    body = wire.packed(wire.Record("id", packed, None, {"t": text}))
    assert b"\n" not in body
    for served in (body, re.sub(rb"-0\.0(?=[,\]])", b"-0", body)):  # a server may print a negative zero so
        record = wire.record(wire.parse(served), "")
        assert (record.values, record.metadata) == (packed, {"t": text})


def test_requests_are_cut_by_bytes_and_by_records() -> None:
    small = [wire.Record(f"r{i}", struct.pack("<f", 1.5), None, {}) for i in range(2500)]
    assert [r.records for r in requests(small, "ns")] == [1000, 1000, 500]
    large = [wire.Record(f"r{i}", struct.pack("<f", i), None, {"t": "x" * 40_000}) for i in range(120)]
    cut = list(requests(large, "ns" * 200))
    assert [r.records for r in cut] == [49, 49, 22]
    assert all(len(r.body) <= limits.REQUEST_BYTES for r in cut)
    assert [one["id"] for r in cut for one in orjson.loads(r.body)["vectors"]] == [r.id for r in large]
    assert list(requests([], "")) == []


def test_write_units_are_a_kb_each_and_five_at_least() -> None:
    assert [limits.write_units(n) for n in (0, 1, 5 * 1024, 5 * 1024 + 1, 10_000)] == [5, 5, 5, 6, 10]


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        ([Column("v", Kind.VECTOR, dim=3, metric=Metric.DOT)], Form(3, "dotproduct")),
        ([Column("v", Kind.VECTOR, dim=3)], Form(3, "cosine")),
        ([Column("v", Kind.VECTOR, dim=3, metric=Metric.MANHATTAN)], None),
        ([Column("v", Kind.VECTOR)], None),
        ([Column("v", Kind.VECTOR, dim=20_001)], None),
        ([Column("h", Kind.HALF, dim=20_000, metric=Metric.EUCLID)], Form(20_000, "euclidean")),
        ([Column("s", Kind.SPARSE, dim=5)], SPARSE),
        ([Column("s", Kind.SPARSE), Column("v", Kind.VECTOR, dim=2)], Form(2, "cosine")),
        ([Column("m", Kind.MULTI, dim=2)], None),
        ([Column("t", Kind.TEXT)], None),
    ],
)
def test_what_becomes_of_a_table_follows_from_its_vectors(columns: list[Column], form: Form | None) -> None:
    table = Table("t", (Column("id", Kind.INTEGER), *columns), ("id",))
    found = chosen(table)
    assert (found.form if found else None) == form
    assert is_records(table) is (form is not None)
    assert len(left_out(table)) == (form is None and columns[0].kind is not Kind.TEXT)
    assert all(c.kind not in (Kind.VECTOR, Kind.SPARSE, Kind.HALF, Kind.MULTI) for c in beside(table).columns)


def test_vectors_of_other_kinds_come_back_in_their_own() -> None:
    for kind, cell in ((Kind.HALF, struct.pack("<2e", 1.5, 6e-8)), (Kind.U8, bytes([0, 255]))):
        table = Table("t", (Column("id", Kind.INTEGER), Column("v", kind, dim=2)), ("id",))
        assert there_and_back(table, [(1, cell)]) == [(1, cell)]


@given(st.none() | st.text(st.characters(codec="ascii"), max_size=600), st.text(max_size=600))
def test_a_namespace_is_ascii_and_no_two_tables_share_one(prefix: str | None, table: str) -> None:
    name = namespace_name(prefix, table)
    assert re.fullmatch(r"[ -~]{1,512}", name)
    assert name not in ("__default__", "memlift_places")
    assert namespace_name(prefix, table + "x") != name
    assert Spot.parse(str(Spot("index", name))) == Spot("index", name)


def test_spots_and_names_of_second_indexes() -> None:
    assert [str(Spot("", "a/b")), str(Spot("i", "")), str(Spot("i", None))] == ["/a/b", "i/", "i"]
    for spot in (Spot("", "a/b"), Spot("i", ""), Spot("i", None), Spot("", None)):
        assert Spot.parse(str(spot)) == spot
    assert index_name("brain", Form(768, "cosine")) == "brain-768-cosine"
    assert index_name("brain", SPARSE) == "brain-sparse"
    long = index_name("b" * 45, Form(1536, "dotproduct"))
    assert len(long) <= 45
    assert long != index_name("b" * 44 + "c", Form(1536, "dotproduct"))


def test_metadata_of_a_foreign_record_is_judged_whole() -> None:
    for text in (
        "[]",
        "null",
        "1",
        '{"a": null}',
        '{"a": {"b": 1}}',
        '{"$a": 1}',
        '{"a": [1]}',
        "{",
        b"{}",
        f'{{"a": {2**53 + 1}}}',
    ):
        assert metadata.problem_whole(text), text
    for good in (None, "{}", '{"a": 1, "b": "x", "c": true, "d": ["x"], "e": 1.5}'):
        assert metadata.problem_whole(good) is None
    assert "40960" in (metadata.problem_whole(orjson.dumps({"a": "x" * 41_000}).decode()) or "")
    assert math.isclose(float(str(metadata.from_json('{"a": 1.5}')["a"])), 1.5)


def test_a_foreign_row_that_no_record_can_be_stays_in_the_sidecar() -> None:
    shape = Shape(describe("i", Form(2, "cosine")))
    good = struct.pack("<2f", 1, 2)
    keys: list[tuple[Any, Any, bool]] = [
        ("", "x", True),
        ("ns", "x" * 512, True),
        ("ns", "", False),
        ("ns", "x" * 513, False),
        ("ns", "é", False),
        ("é", "x", False),
        ("__default__", "x", False),
        ("memlift_places", "x", False),
        (None, "x", False),
        ("ns", 5, False),
    ]
    rows = [(namespace, one, good, None, None) for namespace, one, _ in keys]
    assert shape.is_record(list(zip(*rows, strict=True))) == [held for _, _, held in keys]
