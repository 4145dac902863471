"""Indexes that memlift did not write: carried to other stores and back, by namespace, whole."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from pinecone import Pinecone, SparseValues, Vector

from integration.pinecone.backend_kit import (
    KEY,
    address,
    an_index,
    client,
    impatient,  # noqa: F401 - a fixture
    records,
)
from integration.pinecone_emulator import PineconeEmulator
from migrate import api
from migrate.backends.pinecone import reading
from migrate.backends.pinecone.plane import Plane
from migrate.config import PineconeSettings, QdrantSettings
from migrate.errors import ConfigError, MigrateError
from migrate.reach import opened_source
from migrate.schema import Kind

METADATA: list[dict[str, Any]] = [
    {"city": "Berlin", "n": 3, "x": 0.1, "tags": ["a", "é😀"], "ok": True, "big": 2.0**60},
    {},
    {"memlift": "a field of theirs", "text": '{"a": 1}', 'od"d': "-0,-0]", "empty": [], "zero": -0.0},
]
_NUMBERS = itertools.count(1)


def at(emulator: PineconeEmulator, name: str, **more: Any) -> PineconeSettings:
    return PineconeSettings(index=name, api_key=KEY, controller=emulator.url, **more)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMLIFT_HOME", str(tmp_path / "home"))


@pytest.fixture
def sdk(emulator: PineconeEmulator) -> Iterator[Pinecone]:
    with client(emulator) as pc:
        yield pc


def filled(emulator: PineconeEmulator, sdk: Pinecone, kind: str) -> PineconeSettings:
    """Make an index with records in three namespaces and return its address."""
    name = f"f{next(_NUMBERS)}"
    sparse = SparseValues(indices=[4_000_000_000, 2, 9], values=[0.5, 1.5, -2.5])
    if kind == "sparse":
        an_index(emulator, name, dimension=None, metric="dotproduct", vector_type="sparse")
        made = [
            Vector(id=f"id{i}", values=[], sparse_values=sparse, metadata=m) for i, m in enumerate(METADATA)
        ]
    else:
        an_index(emulator, name, metric="dotproduct" if kind == "hybrid" else "euclidean")
        made = [
            Vector(
                id=one,
                values=[0.1 * (i + 1), -0.0, 1e-30],
                sparse_values=sparse if kind == "hybrid" and i else None,
                metadata=m,
            )
            for i, (one, m) in enumerate(zip(["id 1", "~odd/?&%", "x" * 512], METADATA, strict=True))
        ]
    with sdk.index(name=name) as index:
        for namespace in ("", "tenant/1", "memory_traces"):
            index.upsert(vectors=made, namespace=namespace)
        index.upsert(vectors=made[:1], namespace="one")
    return at(emulator, name)


def everything(emulator: PineconeEmulator, settings: PineconeSettings) -> Any:
    found = {namespace: kept for (_, namespace), kept in records(emulator, settings).items()}
    return {
        namespace: {
            one: (values, sorted(zip(*sparse, strict=True)) if sparse else None, metadata)
            for one, (values, sparse, metadata) in kept.items()
        }
        for namespace, kept in found.items()
    }


@pytest.mark.parametrize("kind", ["dense", "hybrid", "sparse"])
@pytest.mark.parametrize("way", ["pinecone", "sqlite", "qdrant"])
def test_a_foreign_index_comes_back_whole(
    kind: str, way: str, emulator: PineconeEmulator, sdk: Pinecone, tmp_path: Path
) -> None:
    origin = filled(emulator, sdk, kind)
    wanted = everything(emulator, origin)
    assert len(wanted) == 4
    assert sum(map(len, wanted.values())) == 10
    end = address(emulator, tmp_path)
    if way == "pinecone":
        report = api.migrate(origin, end)
    else:
        middle: Any = tmp_path / "m.sqlite" if way == "sqlite" else QdrantSettings(path=tmp_path / "edge")
        assert api.migrate(origin, middle).verified
        report = api.migrate(middle, end)
    assert report.verified
    assert everything(emulator, end) == wanted
    assert everything(emulator, origin) == wanted
    assert api.verify(origin, end, mode="full").verified
    again = api.migrate(middle if way != "pinecone" else origin, end)
    assert (again.verified, sum(t.rows_written for t in again.tables)) == (True, 0)
    assert api.undo(end) == [str(origin.index)]
    assert everything(emulator, end) == {}
    with client(emulator) as pc:
        assert not pc.indexes.exists(str(end.index))


def test_a_foreign_index_is_told_as_a_table_with_its_namespaces(
    emulator: PineconeEmulator, sdk: Pinecone
) -> None:
    origin = filled(emulator, sdk, "hybrid")
    with opened_source(origin) as source:
        (table,) = source.tables()
        assert [(c.name, c.kind, c.dim) for c in table.columns] == [
            ("namespace", Kind.TEXT, None),
            ("id", Kind.TEXT, None),
            ("values", Kind.VECTOR, 3),
            ("sparse_values", Kind.SPARSE, None),
            ("metadata", Kind.JSON, None),
        ]
        assert (table.name, table.key) == (origin.index, ("namespace", "id"))
        rows = [row for batch in source.batches(table, size=2) for row in batch.rows]
        assert source.count(table) == len(rows) == 10
        assert {row[0] for row in rows} == {"", "tenant/1", "memory_traces", "one"}
        assert [row[4] for row in rows if row[0] == "one"] == [
            '{"city":"Berlin","n":3.0,"x":0.1,"tags":["a","é😀"],"ok":true,"big":1.152921504606847e+18}'
        ]
    with opened_source(at(emulator, str(origin.index), namespace="one")) as source:
        (table,) = source.tables()
        assert [row[:2] for batch in source.batches(table, size=2) for row in batch.rows] == [("one", "id 1")]
    with (
        pytest.raises(ConfigError, match="no namespace 'two'"),
        opened_source(at(emulator, str(origin.index), namespace="two")) as source,
    ):
        source.tables()


def test_an_index_by_host_is_a_source_and_a_target(
    emulator: PineconeEmulator, sdk: Pinecone, tmp_path: Path
) -> None:
    origin = filled(emulator, sdk, "dense")
    wanted = everything(emulator, origin)
    hosted = PineconeSettings(host=emulator.index_host(str(origin.index)), api_key=KEY)
    assert api.migrate(hosted, tmp_path / "m.sqlite").verified
    an_index(emulator, "by-host", metric="euclidean")
    there = PineconeSettings(host=emulator.index_host("by-host"), api_key=KEY)
    assert api.migrate(tmp_path / "m.sqlite", there).verified
    assert everything(emulator, at(emulator, "by-host")) == wanted
    api.undo(there)
    assert everything(emulator, at(emulator, "by-host")) == {}
    with client(emulator) as pc:
        assert pc.indexes.exists("by-host")


def numbered(emulator: PineconeEmulator, sdk: Pinecone, name: str, n: int) -> list[str]:
    """Make an index of n records with ids of several kinds; return the ids."""
    an_index(emulator, name, dimension=2)
    ids = [f"{i * 7919 % n:05}" if i % 5 else f"a/{i}" for i in range(n)]
    with sdk.index(name=name) as index:
        for first in range(0, n, 1000):
            part = range(first, min(first + 1000, n))
            index.upsert(
                vectors=[Vector(id=ids[i], values=[1.0, i / 7], metadata={"i": i}) for i in part],
                namespace="all",
            )
    return sorted(ids)


@pytest.mark.parametrize("way", ["page after page", "by prefix"])
def test_a_namespace_of_25_000_records_is_read_whole(
    way: str, emulator: PineconeEmulator, sdk: Pinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = numbered(emulator, sdk, f"large-{way.replace(' ', '-')}", 25_000)
    if way == "page after page":
        monkeypatch.setattr(reading, "LARGE", 30_000)
    with opened_source(at(emulator, f"large-{way.replace(' ', '-')}")) as source:
        (table,) = source.tables()
        emulator.counters.reset()
        seen = [row[1] for batch in source.batches(table, size=1000) for row in batch.rows]
    assert seen == ids
    lists, fetches = (emulator.counters.count(f"/vectors/{what}") for what in ("list", "fetch"))
    assert (lists == 250) is (way == "page after page")
    assert lists <= 250 + 127 + 11
    assert 250 <= fetches <= 250 + 11


def test_a_cursor_goes_on_also_without_its_token_and_when_the_listing_has_changed_its_way(
    emulator: PineconeEmulator, sdk: Pinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = numbered(emulator, sdk, "cursors", 1500)
    small, large = 1000, 10_000
    with opened_source(at(emulator, "cursors")) as source:
        (table,) = source.tables()
        for way, other in ((small, large), (large, small)):
            monkeypatch.setattr(reading, "LARGE", way)
            batches = source.batches(table, size=250)
            cursors = [next(batches).cursor for _ in range(6)]
            batches.close()  # type: ignore[attr-defined]
            for cursor in (cursors[1], cursors[5]):
                for token, then in ((cursor["token"], way), ("bm9uc2Vuc2U=", way), (cursor["token"], other)):
                    monkeypatch.setattr(reading, "LARGE", then)
                    rest = source.batches(table, size=250, after={**cursor, "token": token})
                    assert [row[1] for batch in rest for row in batch.rows] == ids[
                        ids.index(cursor["after"]) + 1 :
                    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {"embed": {"model": "multilingual-e5-large", "field_map": {"text": "t"}}},
            "embeds its text itself",
        ),
        (
            {"schema": {"fields": {"mine": {"type": "dense_vector", "dimension": 3, "metric": "cosine"}}}},
            "document",
        ),
        (
            {
                "dimension": 3,
                "metric": "cosine",
                "spec": {"pod": {"environment": "us-east-1-aws", "pod_type": "p1.x1"}},
            },
            "pod index, which cannot list",
        ),
    ],
    ids=["embedded", "documents", "pod"],
)
def test_an_index_of_another_kind_is_refused_with_the_reason(
    body: dict[str, Any], reason: str, emulator: PineconeEmulator, tmp_path: Path, http: Any
) -> None:
    name = f"odd{next(_NUMBERS)}"
    if "embed" in body:
        with client(emulator) as pc:
            pc.create_index_for_model(name=name, cloud="aws", region="us-east-1", **body)
    else:
        headers = {"X-Pinecone-Api-Version": "2025-04" if "spec" in body else "2026-07"}
        answer = http.post(f"{emulator.url}/indexes", json={"name": name, **body}, headers=headers)
        assert answer.status_code == 201, answer.text
    with pytest.raises(ConfigError, match=reason) as raised:
        api.migrate(at(emulator, name), tmp_path / "m.sqlite")
    assert raised.value.hint
    source = tmp_path / "a.sqlite"
    from integration.support import stores

    stores.filled(
        source, "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)", [(1, stores.vector(1, 2, 3))]
    )
    with pytest.raises(ConfigError, match=reason):
        api.migrate(source, at(emulator, name))


def test_an_index_that_is_not_there_and_a_wrong_key_are_told_in_a_line(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no Pinecone index 'nowhere'"):
        api.migrate(at(emulator, "nowhere"), tmp_path / "m.sqlite")
    with PineconeEmulator(api_keys=["right-key"]) as strict:
        for settings in (
            PineconeSettings(index="x", api_key="wrong-key", controller=strict.url),
            PineconeSettings(host=strict.url, api_key="wrong-key"),
        ):
            with pytest.raises(ConfigError, match="API key") as raised:
                api.migrate(settings, tmp_path / "m.sqlite")
            assert "wrong-key" not in str(raised.value)


def test_many_small_namespaces_are_read_side_by_side_and_given_in_order(
    emulator: PineconeEmulator, sdk: Pinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_index(emulator, "tenants", dimension=2)
    wanted = []
    with sdk.index(name="tenants") as index:
        for n in range(24):
            many = 30 if n == 9 else 3  # one that is read by itself
            ids = [f"r{i:02}" for i in range(many)]
            index.upsert(vectors=[Vector(id=i, values=[1.0, n]) for i in ids], namespace=f"t{n:02}")
            wanted += [(f"t{n:02}", i) for i in ids]
    monkeypatch.setattr(reading, "SMALL", 3)
    monkeypatch.setattr(sys.modules["migrate.backends.pinecone.source"], "SMALL", 3)
    under_way, most, lock, listed = 0, 0, Lock(), Plane.listed

    def counted(plane: Plane, *args: Any) -> Any:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        try:
            return listed(plane, *args)
        finally:
            with lock:
                under_way -= 1

    monkeypatch.setattr(Plane, "listed", counted)
    emulator.faults.add(path="/vectors/list", delay_s=0.02)
    with opened_source(at(emulator, "tenants")) as source:
        (table,) = source.tables()
        batches = list(source.batches(table, size=2))
        assert 1 < most <= reading.LANES
        emulator.faults.clear()
        assert [row[:2] for batch in batches for row in batch.rows] == wanted
        for n in (0, 20, len(batches) - 2):
            seen = sum(len(b.rows) for b in batches[: n + 1])
            rest = source.batches(table, size=2, after=batches[n].cursor)
            assert [row[:2] for batch in rest for row in batch.rows] == wanted[seen:]
        left = source.batches(table, size=2)
        next(left)
        emulator.faults.add(path="/vectors/list", status=403)
        with pytest.raises(MigrateError):
            list(left)
