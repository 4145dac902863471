"""Listing ids and namespaces to the end, and namespaces that stay apart."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from pinecone import Index
from pinecone.errors import ApiError, ConflictError, NotFoundError

from integration.pinecone_emulator import PineconeEmulator


def _all_ids(index: Index, **more: object) -> list[str | None]:
    return [item.id for page in index.list(**more) for item in page.vectors]  # type: ignore[arg-type]


def test_25000_ids_are_listed_whole_in_order_and_once(index: Index, emulator: PineconeEmulator) -> None:
    ids = [f"{n * 7919 % 25_000:05}" for n in range(25_000)]
    for start in range(0, 25_000, 1000):
        index.upsert(vectors=[(one, [1.0, 2.0, 3.0]) for one in ids[start : start + 1000]], namespace="many")
    emulator.counters.reset()
    assert _all_ids(index, namespace="many") == sorted(ids)
    assert emulator.counters.count("/vectors/list", status=200) == 250
    assert _all_ids(index, namespace="many", prefix="012") == [f"{n:05}" for n in range(1200, 1300)]
    assert index.describe_index_stats().namespaces["many"].vector_count == 25_000


def test_ids_are_sorted_by_code_point_and_pages_have_no_gap(index: Index) -> None:
    ids = ["a", "B", "~", " ", "a/1", "a.1", "10", "9", "é".encode().hex()]
    index.upsert(vectors=[(one, [1, 2, 3]) for one in ids])
    for limit in (1, 2, 3, 9):
        assert _all_ids(index, limit=limit) == sorted(ids)
    assert _all_ids(index, prefix="a") == ["a", "a.1", "a/1"]
    assert _all_ids(index, prefix="zz") == []


def test_the_last_page_has_no_token_and_a_full_last_page_neither(index: Index) -> None:
    index.upsert(vectors=[(str(n), [1, 2, 3]) for n in range(4)])
    first = index.list_paginated(limit=2)
    assert first.pagination is not None
    assert first.pagination.next is not None
    assert json.loads(base64.b64decode(first.pagination.next)) == {"skip_past": "1", "prefix": ""}
    last = index.list_paginated(limit=2, pagination_token=first.pagination.next)
    assert [item.id for item in last.vectors] == ["2", "3"]
    assert last.pagination is None


def test_a_listing_goes_on_after_the_records_it_saw_were_deleted(index: Index) -> None:
    index.upsert(vectors=[(str(n), [1, 2, 3]) for n in range(6)])
    first = index.list_paginated(limit=2)
    index.delete(ids=["0", "1", "3"])
    assert first.pagination is not None
    rest = index.list_paginated(limit=9, pagination_token=first.pagination.next)
    assert [item.id for item in rest.vectors] == ["2", "4", "5"]


def test_namespaces_are_not_mixed(index: Index) -> None:
    for number, name in enumerate(["", "a", "b"], 1):
        index.upsert(vectors=[("same", [number, 0, 1], {"in": name or "default"})], namespace=name)
    index.upsert(vectors=[("only-b", [1, 2, 3])], namespace="b")
    for number, name in enumerate(["", "a", "b"], 1):
        got = index.fetch(ids=["same"], namespace=name)
        assert got.vectors["same"].values == [number, 0, 1]
        assert got.namespace == name
        assert len(index.query(vector=[1, 0, 0], top_k=9, namespace=name).matches) == (
            2 if name == "b" else 1
        )
    stats = index.describe_index_stats()
    assert {name: one.vector_count for name, one in stats.namespaces.items()} == {
        "__default__": 1,
        "a": 1,
        "b": 2,
    }
    assert stats.total_vector_count == 4
    index.delete(delete_all=True, namespace="b")
    assert _all_ids(index, namespace="b") == []
    assert _all_ids(index, namespace="a") == _all_ids(index) == ["same"]


def test_the_default_namespace_answers_to_both_its_names(index: Index) -> None:
    assert index.describe_namespace(name="__default__").record_count == 0
    index.upsert(vectors=[("a", [1, 2, 3])])
    index.upsert(vectors=[("b", [1, 2, 3])], namespace="__default__")
    assert _all_ids(index) == _all_ids(index, namespace="__default__") == ["a", "b"]
    assert index.describe_namespace(name="__default__").record_count == 2


def test_namespaces_are_created_described_listed_and_deleted(index: Index) -> None:
    assert index.list_namespaces_paginated().total_count == 0
    made = index.create_namespace(name="a", schema={"fields": {"genre": {"filterable": True}}})
    assert (made.name, made.record_count) == ("a", 0)
    assert made.schema is not None
    assert made.schema.fields["genre"].filterable
    assert made.indexed_fields is not None
    assert made.indexed_fields.fields == ["genre"]
    with pytest.raises(ConflictError, match="already exists"):
        index.create_namespace(name="a")
    index.upsert(vectors=[("1", [1, 2, 3]), ("2", [1, 2, 3])], namespace="a")
    described = index.describe_namespace(name="a")
    assert described.record_count == 2
    assert described.size_bytes > 0
    index.delete_namespace(name="a")
    with pytest.raises(NotFoundError, match="Namespace not found"):
        index.describe_namespace(name="a")
    with pytest.raises(NotFoundError):
        index.delete_namespace(name="a")
    assert index.fetch(ids=["1"], namespace="a").vectors == {}


def test_namespaces_are_listed_to_the_end(index: Index) -> None:
    names = [f"t{n:03}" for n in range(130)] + ["other"]
    for name in names:
        index.create_namespace(name=name)
    pages = list(index.list_namespaces())
    assert [len(page.namespaces) for page in pages] == [100, 31]
    assert [one.name for page in pages for one in page.namespaces] == sorted(names)
    some = index.list_namespaces_paginated(prefix="t00", limit=4)
    assert (some.total_count, len(some.namespaces)) == (10, 4)
    assert some.pagination is not None


def test_namespace_counts_are_decimal_strings_in_json(index: Index, http: httpx.Client) -> None:
    index.upsert(vectors=[("1", [1, 2, 3])], namespace="a b")
    assert http.get(f"{index.host}/namespaces/a%20b").json()["record_count"] == "1"
    assert "pagination" not in http.get(f"{index.host}/namespaces").json()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"name": ""}, "must not be empty"),
        ({"name": "__default__"}, "reserved"),
        ({"name": "é"}, "ASCII"),
        ({"name": "a", "schema": {"fields": {"f": {}}}}, "filterable: false"),
        ({"name": "a", "schema": {"fields": {"$f": {"filterable": True}}}}, "'$'"),
        (
            {"name": "a", "schema": {"fields": {str(n): {"filterable": True} for n in range(51)}}},
            "At most 50",
        ),
    ],
)
def test_creating_a_namespace_has_rules(index: Index, http: httpx.Client, body: object, part: str) -> None:
    answer = http.post(f"{index.host}/namespaces", json=body)
    assert answer.status_code == 400
    assert part in answer.json()["message"]


def test_imports_are_accepted_listed_described_and_cancelled(
    index: Index, emulator: PineconeEmulator
) -> None:
    first = index.start_import("s3://bucket/folder/", error_mode="abort").id
    second = index.start_import("gs://bucket/folder").id
    assert [one.id for one in index.list_imports(limit=1)] == [first, second]
    assert index.list_imports_paginated(limit=1).pagination is not None
    known = index.describe_import(first)
    assert (known.status, known.uri, known.percent_complete) == ("Pending", "s3://bucket/folder/", 0.0)
    index.cancel_import(first)
    assert index.describe_import(first).status == "Cancelled"
    name = next(one for one in emulator.counters.requests("/bulk/imports")).index
    emulator.imports(name).finish(second, "Completed", records=5)
    done = index.describe_import(second)
    assert (done.status, done.records_imported, done.percent_complete) == ("Completed", 5, 100.0)
    index.cancel_import(second)
    assert index.describe_import(second).status == "Completed"
    with pytest.raises(NotFoundError):
        index.describe_import("7")
    for uri in ("ftp://bucket", "s3://" + "x" * 1500):
        with pytest.raises(ApiError, match="Invalid import uri"):
            index.start_import(uri)
