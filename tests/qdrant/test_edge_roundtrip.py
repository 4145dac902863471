"""Stores that go into Qdrant's embedded engine and come back; cells are compared by plain sqlite3."""

from __future__ import annotations

import json
import math
import random
import shutil
import sqlite3
import struct
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import migrate
from integration.support import comparing, stores
from integration.support.comparing import same
from migrate import api
from migrate.backends.qdrant.edge import EdgeEngine
from migrate.config import QdrantSettings
from migrate.errors import ConfigError, MisfitError, SchemaError
from tests.qdrant.place import foreign_shard


def there(folder: Path, **more: Any) -> QdrantSettings:
    return QdrantSettings(path=folder / "store", **more)


def test_a_brain_is_the_same_after_the_way_back(tmp_path: Path) -> None:
    source, back = stores.brain(tmp_path / "brain.sqlite"), tmp_path / "back.sqlite"
    before = source.read_bytes()
    report = api.migrate(source, there(tmp_path))
    assert report.verified
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        "document_chunks",
        "document_images",
        "knowledge_nodes",
        "memory_traces",
        "prospective_items",
    ]
    assert api.migrate(there(tmp_path), back).verified
    same(comparing.sqlite_rows(back, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(back), comparing.sqlite_shape(source))
    assert api.verify(source, there(tmp_path)).verified
    again = api.migrate(source, there(tmp_path))
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)
    assert source.read_bytes() == before


def test_the_graph_can_be_walked_in_the_sidecar(tmp_path: Path) -> None:
    source = stores.brain(tmp_path / "brain.sqlite")
    api.migrate(source, there(tmp_path))
    walk = (
        "WITH RECURSIVE reached (id) AS (SELECT min(source_id) FROM knowledge_edges"
        " UNION SELECT target_id FROM knowledge_edges e JOIN reached r ON e.source_id = r.id)"
        " SELECT n.id, n.label, n.type FROM reached r JOIN knowledge_nodes n ON n.id = r.id ORDER BY n.id"
    )
    with closing(sqlite3.connect(source)) as db:
        wanted = db.execute(walk).fetchall()
    with closing(sqlite3.connect(tmp_path / "store.memlift.sqlite")) as db:
        assert db.execute(walk).fetchall() == wanted
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert len(wanted) > 1


def _vectors(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    return stores.filled(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v, embedding BLOB)", rows)


def test_vectors_of_a_cosine_collection_come_back_byte_for_byte(tmp_path: Path) -> None:
    rng = random.Random(4)
    cells = [
        stores.vector(*(rng.gauss(0, 1) * 10 ** rng.uniform(-9, 9) for _ in range(24))) for _ in range(300)
    ]
    cells += [
        bytes(96),
        stores.vector(*[3e38] * 24),
        stores.vector(*[1e-45] * 24),
        stores.vector(1, *[0.0] * 23),
        stores.vector(*[-0.0] * 24),
    ]
    source = _vectors(tmp_path / "a.sqlite", [(i, None, c) for i, c in enumerate(cells)])
    report = api.migrate(source, there(tmp_path), vectors=["t.embedding"])
    assert report.verified
    assert any("byte for byte" in n for n in report.tables[0].notes)
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_doubles_and_odd_cells_come_back_as_they_were(tmp_path: Path) -> None:
    rng = random.Random(5)
    doubles: list[Any] = []
    while len(doubles) < 3000:
        (number,) = struct.unpack("<d", rng.randbytes(8))
        if number == number:
            doubles.append(number)
    odd = [
        2**63 - 1,
        -(2**63),
        -0.0,
        5e-324,
        float("inf"),
        float("-inf"),
        "",
        "a\0b",
        b"\x00\xff",
        None,
        "é😀",
        5.0,
    ]
    values = doubles + [rng.random() * 1000 for _ in range(1000)] + odd
    vector = stores.vector(1, 2, 3)
    source = _vectors(tmp_path / "a.sqlite", [(i, v, vector) for i, v in enumerate(values)])
    with closing(sqlite3.connect(source)) as db:
        db.execute("UPDATE t SET v = CAST(x'ff41' AS TEXT) WHERE id = 7")
        db.commit()
    assert api.migrate(source, there(tmp_path)).verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_json_comes_back_as_the_same_value_and_deep_json_goes_to_the_sidecar(tmp_path: Path) -> None:
    deep = "[" * 200 + "]" * 200
    texts = [
        '{"a": 1.00, "b": [1, null]}',
        '{"a": 1, "a": 2}',
        '{"n": 123456789012345678901234567890}',
        '{"x": 0.1234567890123456789}',
        '"text"',
        "12",
        "null",
        '{"broken',
        '"\\ud800"',
        '{"s": "\\ud800"}',
        "-0",
        "[1e400]",
        '{"memlift": {"cells": {"v": ["b"]}}}',
        deep,
        '{"a":' * 120 + "1" + "}" * 120,
    ]
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON, embedding BLOB)",
        [(i, v, stores.vector(1, 2, 3)) for i, v in enumerate(texts)],
    )
    for json_mode in ("jsonb", "text"):
        to = QdrantSettings(path=tmp_path / json_mode)
        report = api.migrate(source, to, json=json_mode)
        assert (report.verified, report.misfits) == (True, 0)
        with closing(sqlite3.connect(tmp_path / f"{json_mode}.memlift.sqlite")) as db:
            kept = db.execute('SELECT "column", reason FROM memlift_exact').fetchall()
        assert len(kept) == 2
        assert all(column == "v" and "deep" in reason for column, reason in kept)
        back = tmp_path / f"{json_mode}.back"
        assert api.migrate(to, back).verified
        if json_mode == "text":
            same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))


@pytest.mark.parametrize("name", ["another dimension", "NaN in a vector", "infinity in a vector"])
def test_misfits_fail_the_run_or_are_quarantined_and_come_back(name: str, tmp_path: Path) -> None:
    source, forced = stores.misfit(name, tmp_path / "a.sqlite"), stores.FORCED.get(name, ())
    with pytest.raises(MisfitError):
        api.migrate(source, there(tmp_path), vectors=forced)
    assert [p.name for p in tmp_path.iterdir()] == ["a.sqlite"]
    report = api.migrate(source, there(tmp_path), vectors=forced, on_misfit="quarantine")
    assert report.verified
    assert report.quarantine is not None
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_vector_may_be_called_size(tmp_path: Path) -> None:
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, size BLOB)",
        [(i, stores.vector(1, i, 3)) for i in range(20)],
    )
    assert api.migrate(source, there(tmp_path, on_disk=True), vectors=["t.size"]).verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    assert migrate.search(there(tmp_path), vector=[1, 9, 3], k=1).hits[0].key == (9,)


def test_keys_of_every_kind_name_points(tmp_path: Path) -> None:
    keys = [
        0,
        5,
        -1,
        2**63 - 1,
        "5",
        "",
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400-E29B-41D4-A716-446655440000",
    ]
    keys += [b"5", 1.5, "é", "x" * 9000]
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (k PRIMARY KEY NOT NULL, embedding BLOB)",
        [(k, stores.vector(i, 1, 2)) for i, k in enumerate(keys)],
    )
    assert api.migrate(source, there(tmp_path)).verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_folder_of_something_else_is_refused_and_left(tmp_path: Path) -> None:
    source = _vectors(tmp_path / "a.sqlite", [(1, None, stores.vector(1, 2, 3))])
    local = tmp_path / "local"
    (local / "collection").mkdir(parents=True)
    (local / "meta.json").write_text("{}")
    with pytest.raises(ConfigError, match="local mode"):
        api.migrate(source, QdrantSettings(path=local))
    foreign_shard(tmp_path, "shard")
    with pytest.raises(ConfigError, match="itself one shard"):
        api.migrate(source, QdrantSettings(path=tmp_path / "shard"))
    foreign_shard(tmp_path / "store", "t")
    before = (tmp_path / "store" / "t" / "edge_config.json").read_bytes()
    with pytest.raises(SchemaError, match="memlift did not make: t"):
        api.migrate(source, there(tmp_path))
    assert (tmp_path / "store" / "t" / "edge_config.json").read_bytes() == before
    assert not (tmp_path / "store.memlift.sqlite").exists()
    assert api.migrate(source, there(tmp_path, prefix="mine_")).verified
    assert api.undo(there(tmp_path, prefix="mine_")) == ["t"]
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["t"]


def test_a_store_without_its_sidecar_is_refused(tmp_path: Path) -> None:
    source = _vectors(tmp_path / "a.sqlite", [(1, None, stores.vector(1, 2, 3))])
    api.migrate(source, there(tmp_path))
    shutil.move(tmp_path / "store.memlift.sqlite", tmp_path / "moved.sqlite")
    with pytest.raises(ConfigError, match="sidecar is not here"):
        api.migrate(there(tmp_path), tmp_path / "b.sqlite")
    with pytest.raises(SchemaError, match="another sidecar"):
        api.migrate(source, there(tmp_path))
    moved = there(tmp_path, sidecar=str(tmp_path / "moved.sqlite"))
    assert api.migrate(moved, tmp_path / "b.sqlite").verified
    assert api.migrate(source, moved).verified


def test_doubles_that_move_whenever_their_payload_is_written_anew_come_back(tmp_path: Path) -> None:
    import qdrant_edge as edge

    # The first moves by one unit in the last place each time; found by re-enacting the parser.
    moving = [8.806597943862769e-10, 2.6893728258815076e-09, 0.1 + 0.7]
    rows = [(i, r, json.dumps({"r": r}), stores.vector(1, 2, 3)) for i, r in enumerate(moving)]
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, r REAL, j JSON, embedding BLOB)",
        rows,
    )
    assert api.migrate(source, there(tmp_path)).verified
    shard = edge.EdgeShard.load(str(tmp_path / "store" / "t"))
    for n in range(12):  # an agent counts how often a memory was recalled
        shard.update(edge.UpdateOperation.set_payload([0, 1, 2], {"recalled": n}))
    [first, *_] = shard.scroll(edge.ScrollRequest(limit=1, with_payload=True))[0]
    assert first.payload is not None
    assert abs(first.payload["r"] - moving[0]) > 4 * math.ulp(moving[0])
    shard.flush()
    shard.close()
    assert api.verify(source, there(tmp_path)).verified
    with migrate.open_search(there(tmp_path)) as store:
        hits = store.search(vector=[1, 2, 3], where={"r": moving[0]}).hits
    assert [hit.key for hit in hits] == [(0,)]


def test_payload_has_plain_json_that_can_be_filtered(tmp_path: Path) -> None:
    import qdrant_edge as edge

    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, r REAL, tags JSON, b BLOB, embedding BLOB)",
        [("k", 2**60 + 1, 0.25, '{"lang": "de", "deep": {"x": [1, 2.5]}}', b"\x01", stores.vector(1, 0, 0))],
    )
    api.migrate(source, there(tmp_path))
    shard = edge.EdgeShard.load(str(tmp_path / "store" / "t"))
    found = shard.scroll(edge.ScrollRequest(limit=5, with_payload=True))[0][0].payload
    shard.close()
    wanted = {
        "id": "k",
        "n": 2**60 + 1,
        "r": 0.25,
        "tags": {"lang": "de", "deep": {"x": [1, 2.5]}},
        "b": "AQ==",
    }
    assert found is not None
    assert json.dumps({k: v for k, v in found.items() if k != "memlift"}, sort_keys=True) == json.dumps(
        wanted, sort_keys=True
    )


def test_columns_of_any_name_are_indexed_once(tmp_path: Path) -> None:
    names = ("a.b", "c[0]", "d\\e", 'q""t', "größe in m", "größe", "日本", "नाम", "Ⓐ b", "[]")
    columns = ", ".join(f'"{n}" TEXT' for n in names)
    source = stores.filled(
        tmp_path / "a.sqlite",
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns}, embedding BLOB)",
        [(1, *names, stores.vector(1, 0, 0))],
    )
    with closing(sqlite3.connect(source)) as db:
        for i, name in enumerate(names):
            db.execute(f'CREATE INDEX i{i} ON t ("{name}")')
    assert api.migrate(source, there(tmp_path)).verified
    second = api.migrate(source, there(tmp_path))
    assert (second.verified, second.total_rows, second.tables[0].index_s) == (True, 1, 0.0)
    assert api.migrate(there(tmp_path), tmp_path / "back.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "back.sqlite"), comparing.sqlite_rows(source))


@pytest.mark.parametrize("key", [" PRIMARY KEY", ""], ids=["keyed", "keyless"])
def test_large_rows_are_packed_a_few_at_a_time(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"r{i}", "x" * 1000, stores.vector(i, 1, 2)) for i in range(40)]
    source = stores.filled(
        tmp_path / "a.sqlite", f"CREATE TABLE t (id TEXT{key}, body TEXT, embedding BLOB)", rows
    )
    packed: list[int] = []
    pack = EdgeEngine.pack

    def counted(self: EdgeEngine, name: str, points: Any, **more: Any) -> bytes:
        packed.append(len(points))
        return pack(self, name, points, **more)

    monkeypatch.setattr(EdgeEngine, "pack", counted)
    # The package has a function of the same name.
    monkeypatch.setattr(import_module("migrate.backends.qdrant.target"), "PACKED_BYTES", 10_000)
    assert api.migrate(source, there(tmp_path)).verified
    assert (sum(packed), max(packed) < 10) == (40, True)
    assert api.migrate(there(tmp_path), tmp_path / "back.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "back.sqlite"), comparing.sqlite_rows(source))


def test_json_that_is_no_utf8_comes_back_also_where_it_is_there_twice(tmp_path: Path) -> None:
    texts = ("CAST(x'ff' AS TEXT)", "CAST(x'5bff' AS TEXT)", "'é'", "' [1]'")
    rows = [f"INSERT INTO t (j, embedding) VALUES ({text}, x'{'0000803f' * 3}');" for text in 2 * texts]
    source = stores.made(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON, embedding BLOB);", *rows
    )
    assert api.migrate(source, there(tmp_path), vectors=["t.embedding"], json="text").verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite", json="text").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_column_of_the_name_of_our_payload_key_is_kept_aside(tmp_path: Path) -> None:
    rows = [
        (1, "a", b"\1", stores.vector(1, 2, 3)),
        (2, None, b"\1", None),
        (3, "c", None, None),
        (4, None, None, None),
    ]
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, memlift TEXT, data BLOB, embedding BLOB)"
    source = stores.filled(tmp_path / "a.sqlite", ddl, rows)
    options: dict[str, Any] = {"vectors": ["t.embedding"], "on_misfit": "quarantine"}
    assert api.migrate(source, there(tmp_path), **options).verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_two_spellings_of_one_json_are_two_points(tmp_path: Path) -> None:
    rows = [("[1,2]", stores.vector(1, 2, 3)), ("[1, 2]", stores.vector(1, 2, 4)), (" [1,2]", None)]
    ddl = "CREATE TABLE t (j JSON PRIMARY KEY, embedding BLOB)"
    source = stores.filled(tmp_path / "a.sqlite", ddl, rows)
    assert api.migrate(source, there(tmp_path), vectors=["t.embedding"]).verified
    assert api.migrate(there(tmp_path), tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
