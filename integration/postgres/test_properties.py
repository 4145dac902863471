"""Any SQLite table with any values comes back equal; any planted difference is found."""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from integration.support import comparing, stores
from integration.support.comparing import quoted, same
from integration.support.servers import Database, Postgres
from migrate import api
from migrate.errors import VerifyError

QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
LONG = settings(QUICK, max_examples=400, derandomize=False)

_floats = st.one_of(
    st.floats(allow_nan=False, width=64),
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 2.0**53, 2.0**63, -(2.0**63), 1e300, 5e-324, float("inf"), float("-inf")]
    ),
)
_ints = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**31]),
)
_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "\0",
            "a\0b",
            "1",
            "1.0",
            " 1",
            "0x10",
            "1e5",
            "NULL",
            "\\N",
            "\\.",
            "{}",
            '{"a": 1, "a": 2}',
            "é" * 9,
        ]
    ),
)
_blobs = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"\0", b"1"]),
    st.lists(st.floats(width=32), min_size=3, max_size=3).map(lambda v: struct.pack("<3f", *v)),
)


@dataclass(frozen=True)
class Raw:
    """A text that may be no UTF-8."""

    data: bytes


_cells = st.one_of(st.none(), _ints, _floats, _texts, _blobs, st.binary(max_size=6).map(Raw))
_declared = st.sampled_from(
    ["", "INTEGER", "INT", "BIGINT", "TEXT", "VARCHAR(5)", "REAL", "DOUBLE", "BLOB", "NUMERIC", "DECIMAL(10,2)", "BOOLEAN",
     "DATE", "JSON", "DATETIME", "FLOATING POINT", "CHARINT", "ANY"]
)  # fmt: skip
_names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda n: not n.lower().startswith(("sqlite_", "memlift_")))


@dataclass
class Made:
    """A table to be made: DDL and rows. Rows that SQLite refuses (a key twice) are left out."""

    name: str
    columns: list[tuple[str, str]]
    key: list[int]
    without_rowid: bool
    not_null: list[bool]
    rows: list[list[Any]]
    collation: str = ""
    seen: list[str] = field(default_factory=list)

    def make(self, db: sqlite3.Connection) -> None:
        parts = []
        for i, (name, declared) in enumerate(self.columns):
            text = f"{quoted(name)} {declared}{self.collation if i in self.key else ''}"
            parts.append(text + (" NOT NULL" if self.not_null[i] else ""))
        if self.key:
            parts.append(f"PRIMARY KEY ({', '.join(quoted(self.columns[i][0]) for i in self.key)})")
        tail = " WITHOUT ROWID" if self.without_rowid and self.key else ""
        db.execute(f"CREATE TABLE {quoted(self.name)} ({', '.join(parts)}){tail}")
        for row in self.rows:
            marks = ", ".join("CAST(? AS TEXT)" if isinstance(c, Raw) else "?" for c in row)
            cells = [c.data if isinstance(c, Raw) else c for c in row]
            with suppress(sqlite3.IntegrityError):  # OR IGNORE does not ignore a rowid that is no integer
                db.execute(f"INSERT OR IGNORE INTO {quoted(self.name)} VALUES ({marks})", cells)


@st.composite
def tables(draw: st.DrawFn) -> Made:
    names = draw(st.lists(_names, min_size=1, max_size=5, unique_by=str.lower))
    columns = [(name, draw(_declared)) for name in names]
    key = draw(st.lists(st.sampled_from(range(len(columns))), max_size=2, unique=True))
    rows = draw(st.lists(st.lists(_cells, min_size=len(columns), max_size=len(columns)), max_size=12))
    if draw(st.booleans()):  # mostly of the kind that is declared: columns that are typed, with exceptions
        kinds = [draw(st.sampled_from([_ints, _floats, _texts, _blobs])) for _ in columns]
        rows += draw(st.lists(st.tuples(*kinds).map(list), max_size=12))
    return Made(
        draw(_names),
        columns,
        key,
        draw(st.booleans()),
        [draw(st.booleans()) for _ in columns],
        rows,
        draw(st.sampled_from(["", "", " COLLATE NOCASE", " COLLATE RTRIM"])),
    )


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[Database]:
    with postgres.database() as database:
        yield database


def goes_there_and_back(table: Made, shared: Database) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, back = Path(folder) / "a.sqlite", Path(folder) / "b.sqlite"
        stores.made(source, table.make)
        there = shared.at("any")
        try:
            report = api.migrate(source, there, on_misfit="quarantine", index="none")
            assert report.verified
            assert api.migrate(there, back, on_misfit="quarantine").verified
        finally:
            shared.run("DROP SCHEMA IF EXISTS any_ CASCADE", 'DROP SCHEMA IF EXISTS "any" CASCADE')
        same(comparing.sqlite_rows(back, json_values=True), comparing.sqlite_rows(source, json_values=True))


@QUICK
@given(table=tables())
@example(
    table=Made(
        "t",
        [("k", ""), ("v", "")],
        [0],
        False,
        [False, False],
        [[1, 1], ["1", 2], [b"1", 3], [None, 4], [None, 4]],
    )
)
@example(
    table=Made("t", [("a", "INTEGER")], [], False, [True], [[2**63 - 1], [0.5], ["x"], [b""], [Raw(b"\xff")]])
)
@example(
    table=Made(
        "t", [("a", "TEXT")], [0], True, [False], [["a"], ["A"], ["\0"], [Raw(b"\xc3")]], " COLLATE NOCASE"
    )
)
def test_any_table_comes_back_equal(table: Made, shared: Database) -> None:
    goes_there_and_back(table, shared)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@LONG
@given(table=tables())
def test_any_of_many_tables_comes_back_equal(table: Made, shared: Database) -> None:
    goes_there_and_back(table, shared)


# --- planted differences ------------------------------------------------------


def _flipped(db: sqlite3.Connection, table: str, row: int, bit: int) -> bool:
    found = db.execute(f"SELECT embedding FROM {table} WHERE rowid = ?", (row,)).fetchone()
    if found is None or found[0] is None:
        return False
    data = bytearray(found[0])
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    db.execute(f"UPDATE {table} SET embedding = ? WHERE rowid = ?", (bytes(data), row))
    return True


PLANTS: dict[str, Any] = {
    "a dropped row": lambda db, row, bit: db.execute("DELETE FROM keyed WHERE id = ?", (row,)).rowcount,
    "a dropped row without a key": lambda db, row, bit: (
        db.execute("DELETE FROM loose WHERE rowid = ?", (row,)).rowcount
    ),
    "a doubled row without a key": lambda db, row, bit: (
        db.execute("INSERT INTO loose SELECT x, y, embedding FROM loose WHERE rowid = ?", (row,)).rowcount
    ),
    "a bit of a vector": lambda db, row, bit: _flipped(db, "keyed", row, bit),
    "a bit of a vector without a key": lambda db, row, bit: _flipped(db, "loose", row, bit),
    "an integer that became a real": lambda db, row, bit: (
        db.execute("UPDATE keyed SET n = n + 0.5 WHERE id = ? AND n IS NOT NULL", (row,)).rowcount
    ),
    "a typeless integer that became a real": lambda db, row, bit: (
        db.execute(
            "UPDATE keyed SET free = CAST(free AS REAL) WHERE id = ? AND typeof(free) = 'integer'", (row,)
        ).rowcount
    ),
    "a NULL that became empty": lambda db, row, bit: (
        db.execute("UPDATE keyed SET v = '' WHERE id = ? AND v IS NULL", (row,)).rowcount
    ),
    "the last bit of a real": lambda db, row, bit: (
        db.execute("UPDATE keyed SET w = 1.0000000000000002 WHERE id = ? AND w = 1", (row,)).rowcount
    ),
    "a text that became a blob": lambda db, row, bit: (
        db.execute("UPDATE keyed SET v = CAST(v AS BLOB) WHERE id = ? AND v IS NOT NULL", (row,)).rowcount
    ),
    "a space at the end": lambda db, row, bit: (
        db.execute("UPDATE keyed SET v = v || ' ' WHERE id = ?", (row,)).rowcount
        and db.execute("SELECT v FROM keyed WHERE id = ? AND v IS NOT NULL", (row,)).fetchone()
    ),
    "an added row": lambda db, row, bit: (
        db.execute("INSERT INTO keyed (id) VALUES (?)", (row + 1000,)).rowcount
    ),
    "another key": lambda db, row, bit: (
        db.execute("UPDATE keyed SET id = id + 1000 WHERE id = ?", (row,)).rowcount
    ),
    "another JSON number": lambda db, row, bit: (
        db.execute("UPDATE keyed SET j = '{\"a\": 1.0}' WHERE id = ?", (row,)).rowcount
    ),
}


def _planted_store(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE keyed (id INTEGER PRIMARY KEY, v TEXT, n INTEGER, w REAL, free, j JSON, embedding BLOB)"
    )
    db.execute("CREATE TABLE loose (x TEXT, y INTEGER, embedding BLOB)")
    for i in range(1, 41):
        vector = stores.vector(i / 3, -0.0, 1e-45, float(i)) if i % 4 else None
        v, w = (f"v{i}" if i % 5 else None), float(i % 3)
        db.execute(
            "INSERT INTO keyed VALUES (?, ?, ?, ?, ?, ?, ?)", (i, v, i * 7, w, i % 2, '{"a": 1}', vector)
        )
        db.execute("INSERT INTO loose VALUES (?, ?, ?)", (f"x{i % 3}", i % 2, vector))


@pytest.fixture(scope="module")
def planted(shared: Database, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    source = stores.made(tmp_path_factory.mktemp("planted") / "a.sqlite", _planted_store)
    there = shared.at("planted")
    api.migrate(source, there)
    assert api.verify(source, there).verified
    return source, there


@settings(QUICK, max_examples=60)
@given(plant=st.sampled_from(sorted(PLANTS)), row=st.integers(1, 40), bit=st.integers(0, 127))
def test_planted_differences_are_found_and_counted(
    plant: str, row: int, bit: int, planted: tuple[Path, str]
) -> None:
    source, there = planted
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "changed.sqlite"
        changed.write_bytes(source.read_bytes())
        with closing(sqlite3.connect(changed)) as db:
            if not PLANTS[plant](db, row, bit):
                return  # this row has no such value
            db.commit()
        for left, right in ((changed, there), (source, changed), (changed, source)):
            with pytest.raises(VerifyError) as raised:
                api.verify(left, right)
            report = raised.value.report
            assert report is not None
            assert not report.verified
            assert report.differs == (
                2 if "another key" in plant or "bit of a vector without" in plant else 1
            )
            shown = next(t for t in report.tables if t.differs).differences["shown"]
            assert shown


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_each_planted_difference_is_found_in_the_first_row_that_can_have_it(
    plant: str, planted: tuple[Path, str], tmp_path: Path
) -> None:
    source, there = planted
    changed = tmp_path / "changed.sqlite"
    changed.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(changed)) as db:
        assert any(PLANTS[plant](db, row, 77) for row in range(1, 41))
        db.commit()
    with pytest.raises(VerifyError):
        api.verify(changed, there)
