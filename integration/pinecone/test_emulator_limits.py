"""Every documented limit, over plain HTTP: the SDK hides some of these refusals behind its own checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pinecone import Index

Upsert = Callable[..., httpx.Response]


@pytest.fixture
def upsert(index: Index, http: httpx.Client) -> Upsert:
    def send(*vectors: dict[str, Any], **more: Any) -> httpx.Response:
        return http.post(f"{index.host}/vectors/upsert", json={"vectors": vectors, **more})

    return send


def _vector(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "values": [0.1, 0.2, 0.3], **changes}


def _refused(answer: httpx.Response, part: str) -> None:
    """400 with the service's JSON body."""
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["code"] == 3
    assert body["details"] == []
    assert part in body["message"]


def _malformed(answer: httpx.Response, part: str) -> None:
    """400 in plain text: the request did not parse."""
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain"
    assert part in answer.text


def test_a_request_holds_at_most_1000_records(upsert: Upsert, index: Index) -> None:
    vectors = [_vector(id=str(n)) for n in range(1001)]
    assert upsert(*vectors[:1000]).json() == {"upsertedCount": 1000}
    _refused(upsert(*vectors), "between 1 and 1000")
    _refused(upsert(), "At least one vector")


def test_a_request_holds_at_most_2_mb(index: Index, http: httpx.Client) -> None:
    fill = ["x" * 40_000] * 52
    body = {
        "vectors": [_vector(id=str(n), metadata={"m": one}) for n, one in enumerate(fill)],
        "namespace": "",
    }
    missing = 2 * 1024 * 1024 - len(json.dumps(body))
    body["namespace"] = "n" * missing
    raw = json.dumps(body).encode()
    assert len(raw) == 2 * 1024 * 1024
    url = f"{index.host}/vectors/upsert"
    _refused(http.post(url, content=raw), "Namespace names")  # the size is fine, the long name is not
    _refused(http.post(url, content=raw + b" "), "Request size 3MB exceeds the maximum supported size of 2MB")


def test_metadata_holds_at_most_40_kb(upsert: Upsert) -> None:
    frame = len(json.dumps({"m": ""}, separators=(",", ":")))
    assert upsert(_vector(metadata={"m": "x" * (40_960 - frame)})).status_code == 200
    _refused(
        upsert(_vector(metadata={"m": "x" * (40_961 - frame)})),
        "40961 bytes, which exceeds the limit of 40960",
    )
    _refused(upsert(_vector(metadata={"m": "ä" * 20_480})), "exceeds the limit")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ({"deep": 1}, '{"deep": 1}'),
        ([1, 2], "[1, 2]"),
        (["a", None], '["a", null]'),
        (["a", ["b"]], '["a", ["b"]]'),
        ([True], "[true]"),
        (10**400, "1000000000000000..."),
    ],
)
def test_metadata_values_are_strings_numbers_booleans_or_lists_of_strings(
    upsert: Upsert, value: Any, shown: str
) -> None:
    _refused(
        upsert(_vector(metadata={"k": value})),
        f"Metadata value must be a string, number, boolean or list of strings, got '{shown}' for field 'k'",
    )


def test_metadata_names_do_not_start_with_a_dollar(upsert: Upsert, index: Index, http: httpx.Client) -> None:
    _refused(upsert(_vector(metadata={"$k": 1})), "$")
    assert upsert(_vector(metadata={"": 1, "_k": 2, "ключ": 3})).status_code == 200
    url = f"{index.host}/vectors/update"
    _refused(http.post(url, json={"id": "a", "setMetadata": {"$k": 1}}), "$")
    _refused(http.post(url, json={"id": "a", "setMetadata": {"k": None}}), "got 'null'")
    _refused(http.post(url, json={"id": "a", "setMetadata": {"k": "x" * 41_000}}), "exceeds the limit")


def test_a_dense_vector_is_not_all_zero(upsert: Upsert) -> None:
    _refused(upsert(_vector(values=[0, 0.0, -0.0])), "Vector ID a contains only zeros")
    _refused(upsert(_vector(values=[9e-9, 0, -9e-9])), "contains only zeros")
    assert upsert(_vector(values=[0, 1.1e-8, 0])).status_code == 200


def test_a_dense_vector_has_the_dimension_of_the_index(
    upsert: Upsert, index: Index, http: httpx.Client
) -> None:
    message = "Vector dimension 2 does not match the dimension of the index 3"
    _refused(upsert(_vector(values=[1, 2])), message)
    _refused(upsert(_vector(values=[])), "Vector dimension 0")
    assert upsert(_vector()).status_code == 200
    _refused(http.post(f"{index.host}/vectors/update", json={"id": "a", "values": [1, 2]}), message)
    _refused(http.post(f"{index.host}/query", json={"vector": [1, 2], "topK": 1}), message)


@pytest.mark.parametrize("value", [None, "1", True, [1], 1e39, 10**400])
def test_values_are_numbers_that_a_float_holds(upsert: Upsert, value: Any) -> None:
    _malformed(upsert(_vector(values=[1, value, 3])), "values")  # None: how the SDK sends NaN


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_no_json(index: Index, http: httpx.Client, literal: str) -> None:
    raw = f'{{"vectors": [{{"id": "a", "values": [{literal}, 1, 2]}}]}}'
    _malformed(http.post(f"{index.host}/vectors/upsert", content=raw), literal)


def test_an_id_is_1_to_512_ascii_characters(upsert: Upsert, index: Index, http: httpx.Client) -> None:
    assert upsert(_vector(id="x" * 512)).status_code == 200
    _refused(upsert(_vector(id="x" * 513)), "the limit is 512")
    _refused(upsert(_vector(id="")), "must not be empty")
    _refused(upsert({"values": [1, 2, 3]}), "must not be empty")
    _refused(upsert(_vector(id="é")), "must be ASCII")
    _refused(upsert(_vector(id="a\0")), "must not contain null character")
    _malformed(upsert(_vector(id=7)), "id: invalid value 7 for type STRING")
    _refused(http.get(f"{index.host}/vectors/fetch", params={"ids": "é"}), "must be ASCII")
    _refused(http.post(f"{index.host}/vectors/delete", json={"ids": ["x" * 513]}), "the limit is 512")


def test_namespaces_are_at_most_512_ascii_characters(upsert: Upsert) -> None:
    assert upsert(_vector(), namespace="n" * 512).status_code == 200
    for name in ("n" * 513, "é", "a\0"):
        _refused(upsert(_vector(), namespace=name), "Namespace names")


def test_a_refused_record_keeps_the_whole_request_out(upsert: Upsert, index: Index) -> None:
    _refused(upsert(_vector(), _vector(id="b", values=[0, 0, 0])), "zeros")
    assert index.fetch(ids=["a", "b"]).vectors == {}


@pytest.mark.parametrize(
    ("indices", "values", "part"),
    [
        ([1, 2], [0.5], "same length"),
        ([], [], "at least one value"),
        ([1, 1], [0.5, 0.5], "unique"),
        (list(range(2049)), [0.5] * 2049, "at most 2048"),
    ],
)
def test_sparse_vectors_have_rules(
    new_index: Callable[..., Index], http: httpx.Client, indices: list[int], values: list[float], part: str
) -> None:
    index = new_index(vector_type="sparse")
    record = {"id": "a", "sparseValues": {"indices": indices, "values": values}}
    _refused(http.post(f"{index.host}/vectors/upsert", json={"vectors": [record]}), part)


@pytest.mark.parametrize("number", [-1, 2**32, 1.5, None, "1"])
def test_sparse_indices_are_unsigned_32_bit_integers(
    new_index: Callable[..., Index], http: httpx.Client, number: Any
) -> None:
    index = new_index(vector_type="sparse")
    record = {"id": "a", "sparseValues": {"indices": [number], "values": [0.5]}}
    _malformed(http.post(f"{index.host}/vectors/upsert", json={"vectors": [record]}), "indices[0]")


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/vectors/upsert", {"vectors": [], "name": "x"}, "name: Cannot find field."),
        ("/vectors/upsert", {"vectors": [{"id": "a", "value": [1]}]}, "vectors[0].value: Cannot find field."),
        ("/vectors/upsert", {"vectors": {"id": "a"}}, "vectors: expected an array"),
        ("/vectors/upsert", {"vectors": [], "namespace": ["a"]}, "Proto field is not repeating"),
        ("/query", {"topK": "3", "vector": [1, 2, 3]}, "topK: invalid value"),
        ("/vectors/delete", {"deleteAll": "yes"}, "deleteAll: invalid value"),
        ("/describe_index_stats", [], "expected an object"),
    ],
)
def test_requests_of_the_wrong_shape_do_not_parse(
    index: Index, http: httpx.Client, path: str, body: Any, part: str
) -> None:
    _malformed(http.post(f"{index.host}{path}", json=body), part)


@pytest.mark.parametrize(
    "raw", [b"{", b'{"vectors": [{"id": "\\ud800", "values": [1, 2, 3]}]}', b'{"a": "\xff"}']
)
def test_a_body_is_json_in_utf8(index: Index, http: httpx.Client, raw: bytes) -> None:
    _malformed(http.post(f"{index.host}/vectors/upsert", content=raw), "JSON body")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"vector": [1, 2, 3], "topK": 0}, "between 1 and 10000"),
        ({"vector": [1, 2, 3], "topK": 10_001}, "between 1 and 10000"),
        ({"topK": 1}, "Must provide"),
        ({"topK": 1, "id": "a", "vector": [1, 2, 3]}, "Cannot provide both 'ID' and 'vector'"),
        ({"topK": 1, "id": "a", "sparseVector": {"indices": [1], "values": [1]}}, "'sparse_vector'"),
        ({"topK": 1, "vector": [1, 2, 3], "scanFactor": 2}, "dedicated read node"),
        ({"topK": 1, "vector": [1, 2, 3], "sparseVector": {"indices": [1], "values": [1]}}, "sparse values"),
    ],
)
def test_queries_have_rules(index: Index, http: httpx.Client, body: dict[str, Any], part: str) -> None:
    _refused(http.post(f"{index.host}/query", json=body), part)


def test_a_query_answer_holds_at_most_4_mb(index: Index, http: httpx.Client) -> None:
    for start in range(0, 120, 40):
        records = [_vector(id=str(n), metadata={"m": "x" * 40_000}) for n in range(start, start + 40)]
        index.upsert(vectors=records)
    ask = {"vector": [1, 2, 3], "topK": 120, "includeMetadata": True}
    _refused(http.post(f"{index.host}/query", json=ask), "4 MB")
    assert len(http.post(f"{index.host}/query", json={**ask, "topK": 100}).json()["matches"]) == 100
    assert (
        len(http.post(f"{index.host}/query", json={**ask, "includeMetadata": False}).json()["matches"]) == 120
    )


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "Please provide"),
        ({"deleteAll": False}, "Please provide"),
        ({"ids": ["a"], "deleteAll": True}, "No explicit IDs allowed when delete_all=true"),
        ({"filter": {"a": 1}, "deleteAll": True}, "No filter allowed when delete_all=true"),
        ({"filter": {}}, "Delete with empty metadata filter is not allowed"),
        ({"ids": ["x"] * 1001}, "at most 1000"),
    ],
)
def test_deletes_have_rules(index: Index, http: httpx.Client, body: dict[str, Any], part: str) -> None:
    _refused(http.post(f"{index.host}/vectors/delete", json=body), part)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"setMetadata": {"a": 1}}, "Exactly one of"),
        ({"id": "a", "filter": {"a": 1}}, "Exactly one of"),
        ({"filter": {}, "setMetadata": {"a": 1}}, "Update with empty metadata filter is not allowed"),
        ({"filter": {"a": 1}, "values": [1, 2, 3]}, "does not support updating vector values"),
    ],
)
def test_updates_have_rules(index: Index, http: httpx.Client, body: dict[str, Any], part: str) -> None:
    _refused(http.post(f"{index.host}/vectors/update", json=body), part)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/vectors/fetch", "between 1 and 1000"),
        ("/vectors/fetch?" + "&".join(f"ids={n}" for n in range(1001)), "between 1 and 1000"),
        ("/vectors/list?limit=101", "between 1 and 100"),
        ("/vectors/list?limit=0", "between 1 and 100"),
        ("/vectors/list?prefix=" + "x" * 513, "Prefix"),
        ("/vectors/list?paginationToken=rubbish", "Invalid pagination token"),
        ("/namespaces?limit=101", "between 1 and 100"),
        ("/bulk/imports?limit=101", "between 1 and 100"),
    ],
)
def test_reads_have_rules(index: Index, http: httpx.Client, path: str, part: str) -> None:
    _refused(http.get(f"{index.host}{path}"), part)


@pytest.mark.parametrize("path", ["/vectors/list?limit=x", "/vectors/list?page=2", "/vectors/fetch?id=a"])
def test_query_parameters_of_the_wrong_shape_do_not_parse(
    index: Index, http: httpx.Client, path: str
) -> None:
    assert http.get(f"{index.host}{path}").status_code == 400


def test_fetching_by_metadata_has_rules(index: Index, http: httpx.Client) -> None:
    url = f"{index.host}/vectors/fetch_by_metadata"
    _refused(http.post(url, json={}), "Empty filter provided")
    _refused(http.post(url, json={"filter": {}}), "Empty filter provided")
    _refused(http.post(url, json={"filter": {"a": 1}, "limit": 10_001}), "between 1 and 10000")


def test_serverless_indexes_refuse_filtered_stats(index: Index, http: httpx.Client) -> None:
    url = f"{index.host}/describe_index_stats"
    _refused(http.post(url, json={"filter": {"a": 1}}), "do not support describing index stats")
    assert http.post(url, json={"filter": {}}).status_code == 200


def test_the_default_namespace_by_name_needs_a_newer_version(index: Index, http: httpx.Client) -> None:
    url, names = f"{index.host}/vectors/list", {"namespace": "__default__"}
    old = http.get(url, params=names, headers={"X-Pinecone-Api-Version": "2025-01"})
    _refused(old, "Use of namespace='__default__' is not allowed in API versions prior to 2025-04")
    assert http.get(url, params=names).status_code == 200


def test_unknown_paths_and_methods_are_answered(index: Index, http: httpx.Client) -> None:
    assert http.get(f"{index.host}/nowhere").status_code == 404
    assert http.get(f"{index.host}/vectors/upsert").status_code == 501
    assert http.post(f"{index.host}/namespaces/a/documents/upsert", json={}).status_code == 501
