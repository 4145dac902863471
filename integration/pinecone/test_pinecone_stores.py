"""The Pinecone backend on the emulator: stores that go there and come back, limits, places, what is ours."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.pinecone.backend_kit import (
    KEY,
    address,
    an_index,
    client,
    family,
    impatient,  # noqa: F401 - a fixture
    records,
)
from integration.pinecone_emulator import PineconeEmulator
from integration.support import comparing, growing, stores
from integration.support.comparing import same
from integration.support.servers import Database
from migrate import api, engine
from migrate.backends.pinecone import limits
from migrate.config import PineconeSettings
from migrate.errors import ConfigError, MisfitError, SchemaError, VerifyError
from migrate.reach import Reach


def test_a_brain_is_the_same_after_the_way_back(emulator: PineconeEmulator, tmp_path: Path) -> None:
    source, back, there = (
        stores.brain(tmp_path / "a.sqlite"),
        tmp_path / "b.sqlite",
        address(emulator, tmp_path),
    )
    report = api.migrate(source, there)
    assert (report.verified, report.verify_mode) == (True, "sample")
    assert all(t.rows_checked == t.rows_source for t in report.tables)  # small tables are compared whole
    assert api.migrate(there, back).verified
    same(comparing.sqlite_rows(back, json_values=True), comparing.sqlite_rows(source, json_values=True))
    same(comparing.sqlite_shape(back), comparing.sqlite_shape(source))
    kept = records(emulator, there)[(str(there.index), "memory_traces")]
    with closing(sqlite3.connect(source)) as db:
        one, embedding, tags = db.execute(
            "SELECT id, embedding, tags FROM memory_traces WHERE tags LIKE '[\"%' AND embedding IS NOT NULL"
        ).fetchone()
        (vectors,) = db.execute("SELECT count(embedding) FROM memory_traces").fetchone()
    mine = next(v for v in kept.values() if v[2]["id"] == one)
    assert mine[0] == embedding
    assert mine[2]["tags"] == json.loads(tags)
    assert {v[2]["brain_id"] for v in kept.values()} == {"fixture-agent"}
    assert len(kept) == vectors < report.tables[1].rows_source


MANY = """
    CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, body TEXT, embedding BLOB);
    CREATE TABLE pair (a INTEGER NOT NULL, b BLOB NOT NULL, embedding BLOB, PRIMARY KEY (a, b));
    CREATE TABLE loose (what TEXT, embedding BLOB);
    CREATE TABLE image (id INTEGER PRIMARY KEY, embedding BLOB, thumbnail BLOB);
    CREATE TABLE tag (note TEXT REFERENCES note (id), tag TEXT);
"""


def many(path: Path) -> Path:
    """Make a store with vectors of two dimensions, and keys of all kinds."""

    def fill(db: sqlite3.Connection) -> None:
        for i in range(40):
            v = stores.vector(i + 1, i / 7, -1)
            db.execute("INSERT INTO note VALUES (?, ?, ?)", (f"n/{i} é" if i % 3 else f"~n{i}", f"é{i}", v))
            db.execute(
                "INSERT INTO pair VALUES (?, ?, ?)", (i - 20, bytes([i, 0]), v if i % 5 else bytes(12))
            )
            db.execute("INSERT INTO loose VALUES (?, ?)", (f"again {i % 4}", stores.vector(1, i % 4, 2)))
            thumbnail = stores.vector(*range(40)) if i % 2 else None
            db.execute(
                "INSERT INTO image VALUES (?, ?, ?)", (i * 10**15, stores.vector(i, 1, 2, 3, 4), thumbnail)
            )
            db.execute("INSERT INTO tag VALUES (?, ?)", (f"~n{i}" if i % 3 == 0 else None, "t"))

    return stores.made(path, MANY, fill)


def test_a_postgres_store_comes_home_also_with_a_sidecar_in_postgres(
    emulator: PineconeEmulator, tmp_path: Path, database: Database
) -> None:
    source = many(tmp_path / "a.sqlite")
    first, last = database.at("first"), database.at("last")
    api.migrate(source, first)
    there = PineconeSettings(
        index="in-postgres", api_key=KEY, controller=emulator.url, sidecar=database.at("side")
    )
    assert api.migrate(first, there, verify="full").verified
    assert api.migrate(there, last, verify="full").verified
    assert api.verify(first, last).verified
    again = api.migrate(first, there)
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)
    assert api.undo(there) == ["image", "loose", "note", "pair", "tag"]
    assert family(emulator, there) == []


def test_a_run_without_news_writes_nothing_to_the_index(emulator: PineconeEmulator, tmp_path: Path) -> None:
    source, there = many(tmp_path / "a.sqlite"), address(emulator, tmp_path)
    assert api.migrate(source, there).verified
    emulator.counters.reset()
    again = api.migrate(source, there)
    assert (again.verified, again.usage["upserts"], again.usage["write_units"]) == (True, 0, 0)
    assert emulator.counters.count("/vectors/upsert") + emulator.counters.count("/vectors/delete") == 0


def test_vectors_of_other_dimensions_get_an_index_of_their_own(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    source, there = many(tmp_path / "a.sqlite"), address(emulator, tmp_path)
    report = api.migrate(source, there, verify="full")
    assert report.verified
    base = str(there.index)
    assert family(emulator, there) == [base, f"{base}-5-cosine"]
    assert {place: len(kept) for place, kept in records(emulator, there).items()} == {
        (base, "note"): 40,
        (base, "pair"): 32,
        (base, "loose"): 40,
        (f"{base}-5-cosine", "image"): 40,
    }
    ids = records(emulator, there)[(f"{base}-5-cosine", "image")]
    assert "10000000000000000" in ids  # an integer beyond 2^53 is an id, and needs no metadata
    back = tmp_path / "b.sqlite"
    assert api.migrate(there, back, verify="full").verified
    same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))
    same(comparing.sqlite_shape(back), comparing.sqlite_shape(source))
    assert api.undo(there) == ["image", "loose", "note", "pair", "tag"]
    assert family(emulator, there) == []


def test_a_host_has_one_index_and_refuses_vectors_of_another_form(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    an_index(emulator, "one-form", metric="cosine", dimension=3)
    there = PineconeSettings(
        host=emulator.index_host("one-form"), api_key=KEY, sidecar=str(tmp_path / "s.sqlite")
    )
    source = many(tmp_path / "a.sqlite")
    with pytest.raises(SchemaError, match="table 'image' has vectors of 5 dimensions"):
        api.migrate(source, there)
    assert not (tmp_path / "s.sqlite").exists()
    assert api.migrate(source, there, exclude=["image"]).verified
    assert set(api.undo(there)) == {"loose", "note", "pair", "tag"}
    with client(emulator) as pc:
        assert pc.indexes.exists("one-form")
        with pc.index(name="one-form") as index:
            assert index.describe_index_stats().total_vector_count == 0


def test_tenants_have_namespaces_of_their_own_and_are_never_mixed(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    one, two = many(tmp_path / "one.sqlite"), many(tmp_path / "two.sqlite")
    with closing(sqlite3.connect(two)) as db:
        db.execute("UPDATE note SET body = 'of the other'")
        db.commit()
    first = address(emulator, tmp_path, namespace="agent-1")
    second = PineconeSettings(
        index=first.index,
        api_key=KEY,
        controller=emulator.url,
        namespace="agent-2",
        sidecar=str(tmp_path / "two.side.sqlite"),
    )
    assert api.migrate(one, first).verified
    assert api.migrate(two, second).verified
    spaces = {namespace for _, namespace in records(emulator, first)}
    assert {"agent-1:note", "agent-2:note"} <= spaces
    for settings, source in ((first, one), (second, two)):
        back = tmp_path / f"back-{settings.namespace}.sqlite"
        assert api.migrate(settings, back).verified
        same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))
    api.undo(second)
    assert not any(n.startswith("agent-2") for _, n in records(emulator, first))
    assert api.verify(one, first, mode="full").verified
    api.undo(first)  # the index was made by the first, and nobody is in it any more
    assert family(emulator, first) == []


def test_sparse_and_hybrid_vectors_come_back(
    emulator: PineconeEmulator, tmp_path: Path, database: Database
) -> None:
    schema = database.at("vectors")
    api.migrate(
        stores.filled(tmp_path / "x.sqlite", "CREATE TABLE x (i INTEGER PRIMARY KEY)", [], "x"), schema
    )
    database.run(
        'CREATE TABLE "vectors".hybrid (id bigint PRIMARY KEY, v vector(3), s sparsevec(900))',
        'CREATE TABLE "vectors".sparse (id bigint PRIMARY KEY, s sparsevec(900), t text)',
        'CREATE TABLE "vectors".half (id bigint PRIMARY KEY, h halfvec(2))',
        """INSERT INTO "vectors".hybrid VALUES (1, '[1,2,3]', '{1:0.5,900:-1}/900'), (2, '[0,0,0]', '{5:1}/900'),
           (3, '[0,-0,1e-30]', NULL), (4, NULL, NULL), (5, '[1,0,0]', '{}/900'), (6, '[1e-38,1,0]', '{2:1}/900')""",
        """INSERT INTO "vectors".sparse VALUES (1, '{1:0.5,900:-1}/900', 'a'), (2, NULL, 'b'), (3, '{}/900', 'c')""",
        """INSERT INTO "vectors".half VALUES (1, '[1.5,-2]'), (2, '[0,0]'), (3, '[65504,6e-8]')""",
    )
    there = address(emulator, tmp_path)
    assert api.migrate(schema, there, verify="full", exclude=["x"]).verified
    base = str(there.index)
    kept = records(emulator, there)
    hybrid = next(ids for (_, n), ids in kept.items() if n == "hybrid")
    assert set(hybrid) == {"1", "5", "6"}
    assert hybrid["1"][1] == ([0, 899], [0.5, -1.0])
    assert set(next(ids for (_, n), ids in kept.items() if n == "sparse")) == {"1"}
    assert set(next(ids for (_, n), ids in kept.items() if n == "half")) == {"1", "3"}
    assert any(index == f"{base}-sparse" for index, _ in kept)
    last = database.at("last")
    assert api.migrate(there, last, verify="full").verified
    assert api.verify(there, last, mode="full").verified


def test_what_is_no_metadata_is_kept_in_the_sidecar_and_what_is_can_be_filtered(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    long, text = "x" * 30_000, "y" * 20_000
    rows = [
        (1, "plain", 1.5, 7, '["a", "b"]', None),
        (2, long + text, 2**53 + 1.0, 2**53, '{"a": [1]}', b"bytes"),
        (3, long, -0.0, 2**53 + 1, text, None),
        (4, "a\0b", float("inf"), -(2**63), "[]", None),
        (5, None, 3, 1.0, "12", "text"),
        (6, "😀" * 9000, None, "seven", text, 1.0),
    ]
    v = stores.vector(1, 2, 3)
    source = stores.filled(
        tmp_path / "a.sqlite",
        'CREATE TABLE t (id INTEGER PRIMARY KEY, v, r REAL, i INTEGER, "$j" JSON, b BLOB, embedding BLOB)',
        [(*row, v) for row in rows],
    )
    there = address(emulator, tmp_path)
    report = api.migrate(source, there, verify="full")
    assert (report.verified, report.misfits) == (True, 0)
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    ((_, kept),) = records(emulator, there).items()
    assert kept["1"][2] == {"v": "plain", "r": 1.5, "i": 7.0}
    assert set(kept["2"][2]) == {"r", "i"}
    assert set(kept["3"][2]) == {"v", "r"}
    assert kept["5"][2] == {"r": 3.0, "i": 1.0, "b": "text"}
    with client(emulator) as pc, pc.index(name=str(there.index)) as index:
        found = index.query(namespace="t", vector=[1, 2, 3], top_k=3, filter={"i": {"$eq": 7}})
        assert [m.id for m in found.matches] == ["1"]


def test_misfits_are_found_before_a_byte_moves(emulator: PineconeEmulator, tmp_path: Path) -> None:
    nan, short = stores.vector(float("nan"), 1, 2), stores.vector(1, 2)
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [(i, stores.vector(i + 1, 1, 2)) for i in range(40)] + [(40, nan), (41, short), (42, bytes(12))],
    )
    there = address(emulator, tmp_path)
    emulator.counters.reset()
    request = api.Request(vectors=["t.embedding"])
    report = api.audit(source, there, request=request)
    reasons = sorted(m["reason"] for m in report.tables[0].misfits["shown"])
    assert reasons == ["NaN or infinity in a vector", "a vector of 2 dimensions in a column of 3"]
    assert emulator.counters.count(method="POST") == 0
    assert family(emulator, there) == []
    with pytest.raises(MisfitError):
        api.migrate(source, there, vectors=["t.embedding"])
    assert api.migrate(source, there, vectors=["t.embedding"], on_misfit="quarantine", verify="full").verified
    assert api.migrate(there, tmp_path / "b.sqlite", on_misfit="quarantine").verified
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_requests_keep_within_the_limits_and_are_foretold(emulator: PineconeEmulator, tmp_path: Path) -> None:
    import random

    rng = random.Random(3)
    rows = [
        (i, "x" * rng.randint(0, 9000), stores.vector(*(rng.gauss(0, 1) for _ in range(700))))
        for i in range(900)
    ]
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(emulator, tmp_path)
    foretold = api.audit(source, there).estimate
    emulator.counters.reset()
    report = api.migrate(source, there)
    assert report.verified
    sent = emulator.counters.requests("/vectors/upsert")
    assert max(one.bytes for one in sent) <= limits.REQUEST_BYTES
    assert report.usage["bytes_sent"] >= sum(one.bytes for one in sent)
    assert report.usage["upserts"] == len(sent)
    note = 1  # our own record of the namespace
    assert foretold["upserts"] == pytest.approx(report.usage["upserts"] - note, abs=1)
    for name in ("bytes_sent", "write_units", "read_units"):
        assert foretold[name] == pytest.approx(report.usage[name], rel=0.1), name


def test_a_sample_asks_for_no_more_than_the_sample(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(i, f"v{i}", stores.vector(i + 1, 1, 2)) for i in range(6000)]
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(emulator, tmp_path)
    report = api.migrate(source, there)
    (table,) = report.tables
    assert 700 < table.rows_checked < 1300
    assert report.usage["read_units"] < 200
    with client(emulator) as pc, pc.index(name=str(there.index)) as index:
        index.update(id="17", namespace="t", set_metadata={"v": "changed"})
        for first in range(0, 3000, 1000):
            index.delete(ids=[str(i) for i in range(first + 20, first + 1000)], namespace="t")
    with pytest.raises(VerifyError) as raised:
        api.verify(source, there)
    assert raised.value.report is not None
    (table,) = raised.value.report.tables
    assert table.differences["missing"] == 2940  # counted whole, also where not sampled
    with pytest.raises(VerifyError) as raised:
        api.verify(source, there, mode="full")
    assert raised.value.report is not None
    assert raised.value.report.tables[0].differences["different"] == 1


def test_a_namespace_that_memlift_did_not_make_is_refused(emulator: PineconeEmulator, tmp_path: Path) -> None:
    there = address(emulator, tmp_path)
    an_index(emulator, str(there.index), dimension=3)
    with client(emulator) as pc, pc.index(name=str(there.index)) as index:
        index.upsert(vectors=[("1", [1, 2, 3], {"v": "theirs"})], namespace="t")
    rows = [(i, f"v{i}", stores.vector(i + 1, 1, 2)) for i in range(5)]
    source = stores.filled(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, embedding BLOB)", rows
    )
    with pytest.raises(SchemaError, match="memlift did not make: t"):
        api.migrate(source, there)
    with pytest.raises(VerifyError):
        api.migrate(source, there, into_existing=True)
    assert api.migrate(source, there, into_existing=True, update=True).verified
    assert api.undo(there) == []
    assert api.undo(there) == []
    kept = records(emulator, there)[(str(there.index), "t")]
    assert set(kept) == {"0", "1", "2", "3", "4"}  # a namespace of theirs is not ours to drop


def test_another_machine_without_the_sidecar_is_refused(emulator: PineconeEmulator, tmp_path: Path) -> None:
    source, there = many(tmp_path / "a.sqlite"), address(emulator, tmp_path)
    api.migrate(source, there)
    other = str(tmp_path / "other.sqlite")
    elsewhere = PineconeSettings(index=there.index, api_key=KEY, controller=emulator.url, sidecar=other)
    with pytest.raises(SchemaError, match="another sidecar"):
        api.migrate(source, elsewhere)
    bare = PineconeSettings(index=there.index, api_key=KEY, controller=emulator.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))
        with pytest.raises(ConfigError, match="its sidecar is not here") as raised:
            api.migrate(bare, tmp_path / "b.sqlite")
    assert str(there.sidecar) in (raised.value.hint or "")


def test_what_an_agent_wrote_after_the_move_comes_back_as_well(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    rows = [(f"n{i}", "x" * 50_000 if i == 2 else f"v{i}", stores.vector(i + 1, 1, 2)) for i in range(5)]
    ddl = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, v TEXT, embedding BLOB)"
    source, there = stores.filled(tmp_path / "a.sqlite", ddl, rows), address(emulator, tmp_path)
    api.migrate(source, there)
    with client(emulator) as pc, pc.index(name=str(there.index)) as index:
        index.update(id="n1", namespace="t", set_metadata={"v": "learnt since"})
        index.update(id="n2", namespace="t", set_metadata={"v": "short by now"})
        index.upsert(vectors=[("new", [9, 9, 9], {"v": "new"})], namespace="t")
        index.delete(ids=["n0"], namespace="t")
    api.migrate(there, tmp_path / "b.sqlite")
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as db:
        assert db.execute("SELECT id, v, embedding FROM t ORDER BY id").fetchall() == [
            ("n1", "learnt since", stores.vector(2, 1, 2)),
            ("n2", "short by now", stores.vector(3, 1, 2)),
            ("n3", "v3", stores.vector(4, 1, 2)),
            ("n4", "v4", stores.vector(5, 1, 2)),
            ("new", "new", stores.vector(9, 9, 9)),
        ]


@pytest.mark.parametrize("after", [False, True])
def test_a_run_broken_off_at_any_commit_goes_on_without_gap_or_overlap(
    after: bool, emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contract_kit import BoomError, Failing

    monkeypatch.setattr(engine, "COMMIT_BYTES", 1)
    source = many(tmp_path / "a.sqlite")
    for crash in (2, 9, 12):
        there = address(emulator, tmp_path)
        with monkeypatch.context() as patch:
            reach = Reach.target

            def failing(self: Any, *args: Any, crash: int = crash, reach: Any = reach) -> Any:
                return Failing(reach(self, *args), crash, after=after)

            patch.setattr(Reach, "target", failing)
            with pytest.raises(BoomError):
                api.migrate(source, there, batch_size=15)
        report = api.migrate(source, there, batch_size=15, verify="full")
        assert (report.verified, report.resumed) == (True, True)
        assert sum(len(kept) for kept in records(emulator, there).values()) == 152


def test_an_index_that_was_deleted_is_told_and_written_again(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    source, there = many(tmp_path / "a.sqlite"), address(emulator, tmp_path)
    api.migrate(source, there)
    with client(emulator) as pc:
        pc.indexes.delete(str(there.index))
    with pytest.raises(ConfigError, match="is gone"):
        api.migrate(there, tmp_path / "b.sqlite")
    report = api.migrate(source, there, verify="full")
    assert report.verified
    assert any("are gone: " in note for note in report.notes)


def test_a_run_given_up_leaves_no_index_behind_an_undo(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contract_kit import BoomError, Failing

    source, there = many(tmp_path / "a.sqlite"), address(emulator, tmp_path)
    reach = Reach.target
    with monkeypatch.context() as patch:
        patch.setattr(Reach, "target", lambda self, *args: Failing(reach(self, *args), 3, after=True))
        with pytest.raises(BoomError):
            api.migrate(source, there)
    assert len(family(emulator, there)) == 2
    other = stores.filled(
        tmp_path / "o.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [(i, stores.vector(i, 1)) for i in range(3)],
    )
    assert api.migrate(other, there, restart=True, verify="full").verified
    assert {place for _, place in records(emulator, there)} == {"t"}
    api.undo(there)
    assert family(emulator, there) == []


def test_an_index_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    source = many(tmp_path / "a.sqlite")
    with PineconeEmulator(ready_after_s=0.4) as slow:
        there = address(slow, tmp_path, region="eu-west-1")
        said: list[str] = []

        class Listening:
            """Keeps what it is told."""

            def say(self, text: str) -> None:
                said.append(text)

            def step(self, phase: str, table: str, done: int, total: int) -> None:
                pass

        assert api.migrate(source, there, observer=Listening()).verified
        assert any("making the Pinecone index" in text and "aws eu-west-1" in text for text in said)
        with client(slow) as pc:
            deployment = pc.indexes.describe(str(there.index)).to_dict()["deployment"]
    assert (deployment["cloud"], deployment["region"]) == ("aws", "eu-west-1")


def test_files_for_a_bulk_import_become_the_store_once_they_are_imported(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    source = many(tmp_path / "a.sqlite")
    there = address(emulator, tmp_path)
    files = PineconeSettings(index=there.index, sidecar=there.sidecar, bulk=str(tmp_path / "files"))
    assert api.migrate(source, files).verified
    assert family(emulator, there) == []
    for folder in (tmp_path / "files").iterdir():  # what the service does, after an upload
        an_index(emulator, folder.name, dimension=5 if folder.name.endswith("5-cosine") else 3)
        with client(emulator) as pc, pc.index(name=folder.name) as index:
            for path in folder.glob("*/*.parquet"):
                made = [
                    (row["id"], row["values"], json.loads(row["metadata"] or "{}"))
                    for row in pq.read_table(path).to_pylist()
                ]
                index.upsert(vectors=made, namespace=path.parent.name)
    assert api.verify(source, there, mode="full").verified
    back = tmp_path / "b.sqlite"
    assert api.migrate(there, back, verify="full").verified
    same(comparing.sqlite_rows(back), comparing.sqlite_rows(source))
    again = api.migrate(source, there)
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)


def test_a_vector_that_an_agent_writes_over_one_of_json_text_is_newer(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    rows = [(i, "[0.5, 1, 2]" if i else "[0, 0, 0]") for i in range(3)]
    rows += [(i, stores.vector(i, 1, 2)) for i in range(3, 9)]
    source = stores.filled(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)", rows
    )
    there = address(emulator, tmp_path)
    chosen: Any = {"vectors": ["t.embedding"], "on_misfit": "quarantine", "verify": "full"}
    assert api.migrate(source, there, **chosen).verified
    api.migrate(there, tmp_path / "b.sqlite")
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    with client(emulator) as pc, pc.index(name=str(there.index)) as index:
        index.update(id="2", namespace="t", values=[3.0, 4.0, 5.0])
    api.migrate(there, tmp_path / "c.sqlite")
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as db:
        assert db.execute("SELECT embedding FROM t WHERE id < 3 ORDER BY id").fetchall() == [
            ("[0, 0, 0]",),
            ("[0.5, 1, 2]",),
            (stores.vector(3, 4, 5),),
        ]


def test_a_table_that_grows_after_its_migration_goes_on_being_written_as_it_was_made(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    growing.check_it_is_written_as_it_was_made(address(emulator, tmp_path), tmp_path, verify="full")
