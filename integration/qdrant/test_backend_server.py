"""The Qdrant backend on a server, over gRPC and over REST: stores that go there and come back, and faults."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from integration.qdrant.backend_kit import (
    ServerPlace,
    address,
    impatient,  # noqa: F401 - a fixture
)
from integration.qdrant_server import Fault, QdrantTestServer
from integration.support import comparing, growing, stores
from integration.support.comparing import same
from migrate import api, engine, retry
from migrate.backends import pacing
from migrate.backends.qdrant import connection, pages
from migrate.backends.qdrant import server as server_module
from migrate.config import QdrantSettings
from migrate.errors import BackendError, ConfigError, SchemaError, VerifyError
from migrate.reach import opened_source

WRITES = r"/points\?|/points$|/Upsert$"


def rows_of(path: Path, n: int, dim: int = 16) -> Path:
    import random

    rng = random.Random(n)
    rows = [
        (i, f"note {i}", i / 7, stores.vector(*(rng.gauss(0, 1) for _ in range(dim))) if i % 9 else None)
        for i in range(n)
    ]
    return stores.filled(
        path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, r REAL, embedding BLOB)", rows
    )


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_a_brain_is_the_same_after_the_way_back(rest: bool, server: QdrantTestServer, tmp_path: Path) -> None:
    source, back, there = (
        stores.brain(tmp_path / "a.sqlite"),
        tmp_path / "b.sqlite",
        address(server, tmp_path, rest=rest),
    )
    assert api.migrate(source, there).verified
    paths = server.counters()["paths"]
    assert any("Upsert" in p for p in paths) is not rest
    assert api.migrate(there, back).verified
    same(comparing.sqlite_rows(back, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(back), comparing.sqlite_shape(source))


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_all_kinds_of_cells_come_back(rest: bool, server: QdrantTestServer, tmp_path: Path) -> None:
    from tests.contract_carrying import every_kind_of_cell_comes_back_as_it_was as kinds
    from tests.contract_carrying import exact_cells_come_back_as_they_were as cells

    with pytest.MonkeyPatch.context() as patch:
        for check in (kinds, cells):
            check(ServerPlace(server, tmp_path, rest=rest), patch)


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_a_vector_may_be_called_size(rest: bool, server: QdrantTestServer, tmp_path: Path) -> None:
    ddl, rows = (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, size BLOB)",
        [(i, stores.vector(1, i)) for i in range(9)],
    )
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(server, tmp_path, rest=rest)
    assert api.migrate(source, there, vectors=["t.size"]).verified
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    foreign = QdrantSettings(url=there.url, grpc_port=there.grpc_port, prefix=f"{there.prefix}theirs_")
    client = QdrantClient(url=there.url, check_compatibility=False)
    named = {"size": models.VectorParams(size=2, distance=models.Distance.DOT)}
    client.create_collection(f"{foreign.prefix}c", vectors_config=named)
    client.upsert(f"{foreign.prefix}c", [models.PointStruct(id=1, vector={"size": [1, 2]}, payload={})])
    assert api.migrate(foreign, address(server, tmp_path, rest=rest)).total_rows == 1
    client.close()


def test_deep_json_goes_to_the_sidecar_before_protobuf_stops(
    server: QdrantTestServer, tmp_path: Path
) -> None:
    texts = ['{"a":' * n + "1" + "}" * n for n in (20, 27, 30, 33, 60, 120)] + [
        "[" * n + "]" * n for n in (40, 47, 90)
    ]
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON, embedding BLOB)",
        [(i, v, stores.vector(1, 2, 3)) for i, v in enumerate(texts)],
    )
    there = address(server, tmp_path)
    assert api.migrate(source, there).verified
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_storms_and_lost_answers_are_outlasted(
    rest: bool, server: QdrantTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    source, there = rows_of(tmp_path / "a.sqlite", 500), address(server, tmp_path, rest=rest)
    server.add_fault(Fault("error", path=WRITES, status=429, times=4, retry_after="0.05"))
    server.add_fault(Fault("error", path=WRITES, status=503, times=2))
    server.add_fault(Fault("reset", path=WRITES, times=2, after=True, skip=2))
    moving = "Pre-condition failure: No target shard 1 found for update"
    server.add_fault(Fault("error", path=WRITES, status=500, message=moving, grpc_code="FAILED_PRECONDITION"))
    server.add_fault(Fault("error", path=r"/scroll|/Scroll", status=429, times=2, retry_after="0.05"))
    report = api.migrate(source, there, batch_size=60)
    assert report.verified
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_removal_whose_answer_was_lost_takes_no_other_copy_of_a_row(
    server: QdrantTestServer, tmp_path: Path
) -> None:
    row = ("same", stores.vector(1, 2))
    ddl = "CREATE TABLE t (body TEXT, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, [row] * 3), address(server, tmp_path)
    assert api.migrate(source, there).verified
    with closing(sqlite3.connect(source)) as db:
        db.execute("DELETE FROM t WHERE rowid = 1")
        db.commit()
    server.add_fault(Fault("reset", path="/points/delete", after=True))
    server.add_fault(Fault("error", path="/points/delete", status=503))
    assert api.migrate(source, there, mirror=True).verified
    assert api.migrate(there, tmp_path / "b.sqlite").tables[0].rows_source == 2


def test_a_row_that_is_too_large_for_rest_says_so(server: QdrantTestServer, tmp_path: Path) -> None:
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, embedding BLOB)"
    source = stores.filled(tmp_path / "a.sqlite", ddl, [(1, "x" * 100_000, stores.vector(1, 2))])
    server.set_max_request_bytes(50_000)
    with pytest.raises(BackendError, match="larger than allowed") as failed:
        api.migrate(source, address(server, tmp_path, rest=True))
    assert "grpc_port=" in str(failed.value.hint)
    assert api.migrate(source, address(server, tmp_path)).verified


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_answers_that_come_too_late_are_asked_for_again(
    rest: bool, server: QdrantTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "TIMEOUT_S", 1)
    monkeypatch.setattr(connection, "TIMEOUT_S", 1)
    source, there = rows_of(tmp_path / "a.sqlite", 300), address(server, tmp_path, rest=rest)
    server.add_fault(Fault("delay", path=WRITES, delay_s=1.5, times=2, skip=3, after=True))
    server.add_fault(Fault("delay", path=r"/scroll|/Scroll", delay_s=1.5, times=1, skip=4))
    report = api.migrate(source, there, batch_size=60)
    assert (report.verified, report.tables[0].rows_written) == (True, 300)
    server.clear_faults()
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_large_collection_is_read_in_several_streams(
    server: QdrantTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SPLIT_POINTS", 100)
    source, there = rows_of(tmp_path / "a.sqlite", 500), address(server, tmp_path)
    api.migrate(source, there)
    server.add_fault(Fault("delay", path=r"/Scroll", delay_s=0.4, times=None))
    started = time.monotonic()
    with opened_source(there) as opened:
        (table,) = opened.tables()
        ids = sorted(row[0] for batch in opened.batches(table, size=25) for row in batch.rows)
    assert ids == list(range(500))
    assert time.monotonic() - started < 20 * 0.4  # of 20 pages and more one after another


def test_a_server_killed_amid_the_upload_and_started_again_has_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    monkeypatch.setattr(pacing, "PATIENCE_S", 1.0)
    source = rows_of(tmp_path / "a.sqlite", 700)
    with QdrantTestServer(tmp_path / "data") as own:
        there = address(own, tmp_path)
        own.add_fault(Fault("crash", path=WRITES, skip=4, after=True))

        def again() -> None:
            own.wait()
            time.sleep(0.3)
            own.restart()

        helper = threading.Thread(target=again)
        helper.start()
        report = api.migrate(source, there, batch_size=60)
        helper.join()
        assert report.verified
        assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_a_server_that_stays_away_is_given_up_with_a_checkpoint_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.5)
    defaults = {**(retry.call.__kwdefaults__ or {}), "patience_s": 1.0}
    monkeypatch.setattr(retry.call, "__kwdefaults__", defaults)
    source = rows_of(tmp_path / "a.sqlite", 600)
    with QdrantTestServer(tmp_path / "data") as own:
        there = address(own, tmp_path)
        own.add_fault(Fault("error", path=WRITES, status=503, times=None, skip=5))
        with pytest.raises(BackendError):
            api.migrate(source, there, batch_size=60)
        own.clear_faults()
        report = api.migrate(source, there, batch_size=60)
        assert (report.verified, report.resumed) == (True, True)
        assert 0 < report.tables[0].rows_written < 600


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    server: QdrantTestServer, tmp_path: Path
) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 200), address(server, tmp_path)
    message = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
    server.add_fault(Fault("error", path=WRITES, status=500, times=None, message=message))
    with pytest.raises(BackendError, match="No space left") as raised:
        api.migrate(source, there)
    assert "disk is full" in (raised.value.hint or "")
    server.clear_faults()
    assert api.migrate(source, there).verified


def test_indexing_is_off_while_rows_pour_in_and_waited_for_with_progress(
    server: QdrantTestServer, tmp_path: Path
) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 400), address(server, tmp_path)
    server.set_optimizer_delay(1.0)
    seen: list[tuple[str, str, int, int]] = []

    class Watching:
        def say(self, text: str) -> None:
            pass

        def step(self, phase: str, table: str, done: int, total: int) -> None:
            seen.append((phase, table, done, total))

    assert api.migrate(source, there, observer=Watching()).verified
    assert [s for s in seen if s[0] == "index" and "vector index" in s[1] and s[3] == 400]
    from qdrant_client import QdrantClient

    client = QdrantClient(url=server.url, check_compatibility=False)
    info = client.get_collection(there.prefix + "t")
    client.close()
    assert info.status.value == "green"
    assert info.config.hnsw_config.m == 16
    assert info.config.optimizer_config.indexing_threshold == 10_000
    assert set(info.payload_schema) == {"id"}


def test_a_wrong_key_and_a_dead_address_are_told_in_a_line(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "a.sqlite", 5)
    with QdrantTestServer(tmp_path / "data", api_key="right-key") as own:
        side = str(tmp_path / "side.sqlite")
        for key in (None, "wrong-key"):
            with pytest.raises(ConfigError, match="API key") as raised:
                api.migrate(
                    source, QdrantSettings(own.url, api_key=key, grpc_port=own.grpc_port, sidecar=side)
                )
            assert "wrong-key" not in str(raised.value)
        good = QdrantSettings(own.url, api_key="right-key", grpc_port=own.grpc_port, sidecar=side)
        report = api.migrate(source, good)
        assert report.verified
        assert "right-key" not in str(report.to_dict())


def test_a_collection_that_memlift_did_not_make_is_refused(server: QdrantTestServer, tmp_path: Path) -> None:
    there = address(server, tmp_path)
    ServerPlace(server, tmp_path).stranger(there, "t")
    source = rows_of(tmp_path / "a.sqlite", 5)
    with pytest.raises(SchemaError, match="memlift did not make: t"):
        api.migrate(source, there)
    with pytest.raises(SchemaError, match="no vector 'embedding'"):
        api.migrate(source, there, into_existing=True)


def test_another_machine_without_the_sidecar_is_refused(server: QdrantTestServer, tmp_path: Path) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 5), address(server, tmp_path)
    api.migrate(source, there)
    elsewhere: Any = QdrantSettings(
        there.url, prefix=there.prefix, grpc_port=there.grpc_port, sidecar=str(tmp_path / "other.sqlite")
    )
    with pytest.raises(SchemaError, match="another sidecar"):
        api.migrate(source, elsewhere)


def test_what_an_agent_writes_over_a_cell_that_is_kept_exactly_is_newer(
    server: QdrantTestServer, client: QdrantClient, tmp_path: Path
) -> None:
    deep = "[" * 120 + "]" * 120
    row = (deep, "[0.3, 0.1, 0.2]", 0.1 + 0.7, b"\xff\x00", '{"a": 1.10 }')
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSON, embedding BLOB, r REAL, b BLOB, text JSON)",
        [(i, *row) if i < 3 else (i, None, stores.vector(1, 2, 3), None, None, None) for i in range(9)],
    )
    there = address(server, tmp_path)
    chosen: Any = {"vectors": ["t.embedding"], "json": "text", "on_misfit": "quarantine"}
    assert api.migrate(source, there, **chosen).verified
    collection, back = f"{there.prefix}t", tmp_path / "b.sqlite"
    new = {"j": {"a": 1}, "r": 2.5, "b": "new", "text": {"b": 2}}
    client.set_payload(collection, new, points=[1])
    client.update_vectors(collection, [models.PointVectors(id=1, vector={"embedding": [0, 1, 0]})])
    client.set_payload(collection, dict.fromkeys(new), points=[2])
    api.migrate(there, back)
    with closing(sqlite3.connect(back)) as db:
        found = db.execute("SELECT j, embedding, r, b, text FROM t WHERE id < 3 ORDER BY id").fetchall()
    assert found[0] == row
    assert found[1] == ('{"a":1}', stores.vector(0, 1, 0), 2.5, "new", '{"b":2}')
    assert found[2][2:] == (None, None, None)
    with pytest.raises(VerifyError) as raised:
        api.migrate(source, there, **chosen)
    [table] = raised.value.report.tables
    assert [d["key"] for d in table.differences["shown"]] == [[1], [2]]


def test_a_table_that_grows_after_its_migration_goes_on_being_written_as_it_was_made(
    server: QdrantTestServer, tmp_path: Path
) -> None:
    growing.check_it_is_written_as_it_was_made(address(server, tmp_path), tmp_path)
