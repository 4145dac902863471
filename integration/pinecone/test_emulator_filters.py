"""Metadata filters: each operator, their combinations, and what is no filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pinecone import Index, Pinecone, ServerlessSpec

from integration.pinecone_emulator import PineconeEmulator

AWS = ServerlessSpec(cloud="aws", region="us-east-1")

FILMS: dict[str, dict[str, Any]] = {
    "action": {"genre": "action", "year": 2019, "seen": True, "tags": ["loud", "long"]},
    "comedy": {"genre": "comedy", "year": 2020, "seen": False, "tags": ["short"]},
    "drama": {"genre": "drama", "year": 2020.5, "tags": []},
    "odd": {"genre": 7, "year": "2020", "seen": 1},
    "bare": {},
}


@pytest.fixture(scope="module")
def films(emulator: PineconeEmulator) -> Iterator[Index]:
    with Pinecone(api_key="key", host=emulator.url) as pc:
        pc.create_index(name="films", dimension=2, spec=AWS)
        with pc.index(name="films") as index:
            index.upsert(vectors=[(name, [1.0, 0.5], data) for name, data in FILMS.items()])
            yield index


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ({"genre": "comedy"}, "comedy"),
        ({"genre": {"$eq": "comedy"}}, "comedy"),
        ({"genre": {"$eq": 7}}, "odd"),
        ({"year": {"$eq": 2020}}, "comedy"),
        ({"year": {"$eq": "2020"}}, "odd"),
        ({"seen": {"$eq": True}}, "action"),
        ({"seen": {"$eq": 1}}, "odd"),
        ({"tags": {"$eq": "loud"}}, "action"),
        ({"genre": {"$ne": "comedy"}}, "action bare drama odd"),
        ({"tags": {"$ne": "loud"}}, "bare comedy drama odd"),
        ({"year": {"$gt": 2020}}, "drama"),
        ({"year": {"$gte": 2020}}, "comedy drama"),
        ({"year": {"$lt": 2020}}, "action"),
        ({"year": {"$lte": 2020}}, "action comedy"),
        ({"year": {"$gt": 2019, "$lt": 2020.5}}, "comedy"),
        ({"genre": {"$in": ["drama", "comedy"]}}, "comedy drama"),
        ({"year": {"$in": [2019, 2020.5]}}, "action drama"),
        ({"tags": {"$in": ["short", "long"]}}, "action comedy"),
        ({"genre": {"$nin": ["drama", "comedy"]}}, "action bare odd"),
        ({"tags": {"$nin": ["short", "long"]}}, "bare drama odd"),
        ({"seen": {"$exists": True}}, "action comedy odd"),
        ({"seen": {"$exists": False}}, "bare drama"),
        ({"genre": {"$not": {"$eq": "comedy"}}}, "action bare drama odd"),
        ({"year": {"$not": {"$gt": 2019, "$lt": 2020.5}}}, "action bare drama odd"),
        ({"genre": "comedy", "seen": False}, "comedy"),
        ({"genre": "comedy", "seen": True}, ""),
        ({"$and": [{"year": {"$gte": 2019}}, {"seen": True}]}, "action"),
        ({"$or": [{"genre": "drama"}, {"seen": {"$exists": True}}]}, "action comedy drama odd"),
        ({"$or": [{"$and": [{"genre": "action"}, {"seen": True}]}, {"genre": 7}]}, "action odd"),
        ({"$or": [{"genre": "drama"}, {"genre": "comedy"}], "year": 2020}, "comedy"),
        ({}, "action bare comedy drama odd"),
    ],
)
def test_a_filter_selects(films: Index, expression: dict[str, Any], names: str) -> None:
    found = films.query(vector=[1, 1], top_k=10, filter=expression)
    assert sorted(match.id for match in found.matches) == names.split()
    if expression:
        assert sorted(films.fetch_by_metadata(filter=expression).vectors) == names.split()


@pytest.mark.parametrize(
    "expression",
    [
        {"$gt": 3},
        {"$not": {"a": 1}},
        {"a": {"$like": "x"}},
        {"a": {"$not": "x"}},
        {"a": {"$not": {}}},
        {"a": {}},
        {"a": None},
        {"a": ["x"]},
        {"a": {"$eq": None}},
        {"a": {"$eq": ["x"]}},
        {"a": {"$gt": "x"}},
        {"a": {"$lte": True}},
        {"a": {"$in": "x"}},
        {"a": {"$in": []}},
        {"a": {"$in": [True]}},
        {"a": {"$nin": [None]}},
        {"a": {"$exists": "yes"}},
        {"$and": []},
        {"$and": {"a": 1}},
        {"$or": [{}]},
        {"$or": [1]},
        {"a": {"$in": ["x"] * 10_001}},
    ],
)
def test_what_is_no_filter_is_refused(films: Index, http: httpx.Client, expression: dict[str, Any]) -> None:
    body = {"vector": [1, 1], "topK": 1, "filter": expression}
    answer = http.post(f"{films.host}/query", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert "Invalid filter" in answer.json()["message"]
