"""Vectors of every kind that pgvector has, and those it refuses: into the real server, quarantined, and back."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from integration.support.servers import Database
from migrate import api
from migrate.backends.memory import Memory
from migrate.schema import Column, Kind, Table
from migrate.vectors import pack_multi, pack_sparse

NAN = float("nan")
HALF = np.array([0.5, -2], "<f2").tobytes()
TABLE = Table(
    "t",
    (
        Column("id", Kind.INTEGER, nullable=False),
        Column("half", Kind.HALF, dim=2),
        Column("sparse", Kind.SPARSE, dim=9),
        Column("loose", Kind.SPARSE),
        Column("many", Kind.MULTI, dim=2),
        Column("bytes", Kind.U8, dim=3),
        Column("any", Kind.VECTOR),
    ),
    ("id",),
)
MANY, LOOSE = pack_multi([[1, 2], [3, 4]]), pack_sparse([4_000_000_000, 3], [0.5, 0])
GOOD = (HALF, pack_sparse([7, 2], [0.5, -1], 9), LOOSE, MANY, b"\0\x7f\xff", struct.pack("<3f", 1, 2, 3))
BAD = [
    (np.array([NAN, 1], "<f2").tobytes(), *GOOD[1:]),
    (HALF[:2], *GOOD[1:]),
    (HALF, pack_sparse([1], [NAN], 9), *GOOD[2:]),
    (HALF, pack_sparse([1, 2], [0, 1], 9), *GOOD[2:]),
    (HALF, pack_sparse([1], [1], 10), *GOOD[2:]),
    (HALF, pack_sparse([1], [1]), *GOOD[2:]),
    (*GOOD[:5], struct.pack("<f", NAN)),
    (*GOOD[:5], b""),
]


def test_every_kind_of_vector_comes_back_and_what_the_server_refuses_is_found_before(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "shelves", {})
    rows = [(0, *GOOD), (1, *[None] * 6), *((n, *cells) for n, cells in enumerate(BAD, 2))]
    store = Memory("kinds")
    store.shelf.tables["t"], store.shelf.rows["t"] = TABLE, list(rows)
    told = api.audit("memory:kinds", database.at("store"))
    assert told.misfits == len(BAD)
    assert {tuple(m["key"]) for m in told.tables[0].misfits["shown"]} == {(n,) for n in range(2, len(rows))}
    assert api.migrate("memory:kinds", database.at("store"), on_misfit="quarantine").verified
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    assert api.migrate(tmp_path / "b.sqlite", "memory:again").verified
    assert sorted(Memory("again").shelf.rows["t"]) == rows
