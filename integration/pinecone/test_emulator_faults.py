"""Faults, counters and lag: what tests of a client turn on while the emulator runs."""

from __future__ import annotations

import time

import httpx
import pytest
from pinecone import Index, Pinecone
from pinecone.errors import (
    PineconeConnectionError,
    PineconeTimeoutError,
    RateLimitError,
    ServiceError,
)

from integration.pinecone_emulator import PineconeEmulator

ONE = [("a", [1.0, 2.0, 3.0])]
BODY = {"vectors": [{"id": "a", "values": [1.0, 2.0, 3.0]}]}


def _wait_for(count: int, index: Index, deadline_s: float = 5.0) -> float:
    """Seconds until stats count so many records."""
    start = time.monotonic()
    while index.describe_index_stats().total_vector_count != count:
        assert time.monotonic() - start < deadline_s
        time.sleep(0.01)
    return time.monotonic() - start


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's retries without the pauses between them."""
    monkeypatch.setattr("pinecone._internal.http_client._retry_sleep", lambda _: None)


@pytest.mark.usefixtures("no_wait")
def test_a_throttled_request_says_when_to_come_back(index: Index, emulator: PineconeEmulator) -> None:
    emulator.faults.add(status=429, retry_after=1.5, path="/vectors/upsert")
    with pytest.raises(RateLimitError) as caught:
        index.upsert(vectors=ONE)
    assert caught.value.retry_after == 1.5
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == 8
    assert index.describe_index_stats().total_vector_count == 0  # other paths answer, and nothing was written
    assert emulator.counters.count("/vectors/upsert", status=429) == 4  # the SDK retried three times


@pytest.mark.parametrize("status", [403, 429, 500, 502, 503, 504])
def test_the_next_n_requests_fail_and_the_one_after_works(
    index: Index, http: httpx.Client, emulator: PineconeEmulator, status: int
) -> None:
    emulator.faults.fail_next(2, status=status)
    answers = [http.post(f"{index.host}/vectors/upsert", json=BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert set(answers[0].json()) == {"code", "message", "details"}
    assert emulator.counters.count("/vectors/upsert", status=status) == 2
    assert emulator.counters.count("/vectors/upsert", status=200) == 1


@pytest.mark.usefixtures("no_wait")
def test_the_sdk_retries_through_a_fault(index: Index, emulator: PineconeEmulator) -> None:
    emulator.faults.add(status=503, times=2, path="/vectors/*")
    assert index.upsert(vectors=ONE).upserted_count == 1
    assert emulator.counters.count("/vectors/upsert", status=503) == 2
    assert emulator.counters.count("/vectors/upsert") == 3


def test_a_share_of_requests_fails_the_same_way_for_the_same_seed(
    index: Index, http: httpx.Client, emulator: PineconeEmulator
) -> None:
    emulator.faults.add(status=429, rate=0.3, path="/vectors/list")
    runs = []
    for _ in range(2):
        emulator.faults.seed(5)
        runs.append([http.get(f"{index.host}/vectors/list").status_code for _ in range(100)])
    assert runs[0] == runs[1]
    assert 15 <= runs[0].count(429) <= 45
    assert set(runs[0]) == {200, 429}


def test_a_reset_loses_the_request(index: Index, http: httpx.Client, emulator: PineconeEmulator) -> None:
    emulator.faults.add(reset=True, times=1)
    with pytest.raises(httpx.TransportError):
        http.post(f"{index.host}/vectors/upsert", json=BODY)
    assert index.describe_index_stats().total_vector_count == 0
    assert emulator.counters.count("/vectors/upsert", status=0) == 1


def test_a_reset_after_the_work_loses_only_the_answer(
    index: Index, http: httpx.Client, emulator: PineconeEmulator
) -> None:
    emulator.faults.add(reset=True, after=True, times=1)
    with pytest.raises(httpx.TransportError):
        http.post(f"{index.host}/vectors/upsert", json=BODY)
    assert index.describe_index_stats().total_vector_count == 1


@pytest.mark.usefixtures("no_wait")
def test_resets_and_slow_answers_are_the_sdks_own_errors(index: Index, emulator: PineconeEmulator) -> None:
    emulator.faults.add(reset=True, times=4)
    with pytest.raises(PineconeConnectionError):
        index.upsert(vectors=ONE)
    emulator.faults.add(delay_s=0.5, times=4)
    with pytest.raises(PineconeTimeoutError):
        index.describe_index_stats(timeout=0.1)
    assert index.describe_index_stats(timeout=5).total_vector_count == 0


@pytest.mark.usefixtures("no_wait")
def test_a_fault_may_strike_one_index_only(
    new_index: object, index: Index, emulator: PineconeEmulator
) -> None:
    other = new_index(dimension=3)  # type: ignore[operator]
    other.describe_index_stats()
    name = emulator.counters.requests("/describe_index_stats")[-1].index
    emulator.faults.add(status=503, index=name)
    index.describe_index_stats()
    with pytest.raises(ServiceError):
        other.describe_index_stats()


@pytest.mark.usefixtures("no_wait")
def test_the_control_plane_fails_in_its_own_words(client: Pinecone, emulator: PineconeEmulator) -> None:
    emulator.faults.add(status=500, path="/indexes")
    with pytest.raises(ServiceError, match="Internal server error") as caught:
        client.list_indexes().names()
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["status"] == 500


def test_counters_know_paths_statuses_and_bytes(index: Index, emulator: PineconeEmulator) -> None:
    emulator.counters.reset()
    index.upsert(vectors=ONE)
    index.fetch(ids=["a"])
    index.fetch(ids=["b"])
    assert emulator.counters.by_path() == {
        ("POST", "/vectors/upsert", 200): 1,
        ("GET", "/vectors/fetch", 200): 2,
    }
    assert emulator.counters.count() == 3
    assert emulator.counters.count(method="GET") == 2
    assert emulator.counters.bytes("/vectors/upsert") == len(
        b'{"vectors":[{"id":"a","values":[1.0,2.0,3.0]}]}'
    )


def test_readers_see_a_write_after_the_lag(index: Index, emulator: PineconeEmulator) -> None:
    emulator.lag_s = 0.3
    written = index.upsert(vectors=ONE).response_info
    read = index.fetch(ids=["a"])
    assert read.vectors == {}
    assert written is not None
    assert written.lsn_committed is not None
    assert read.response_info is not None
    assert not read.response_info.is_reconciled(written.lsn_committed)
    assert index.query(vector=[1, 2, 3], top_k=1).matches == []
    assert index.list_paginated().vectors == []
    assert index.list_namespaces_paginated().total_count == 0
    assert index.describe_index_stats().total_vector_count == 0
    assert 0.1 < _wait_for(1, index) < 2
    after = index.fetch(ids=["a"]).response_info
    assert after is not None
    assert after.is_reconciled(written.lsn_committed)


def test_later_writes_build_on_earlier_ones_that_nobody_sees_yet(
    index: Index, emulator: PineconeEmulator
) -> None:
    emulator.lag_s = 0.3
    index.upsert(vectors=[("a", [1, 2, 3], {"k": 1}), ("b", [1, 2, 3], {"k": 2})])
    index.update(id="a", set_metadata={"new": 1})
    index.delete(filter={"k": 2})
    _wait_for(1, index)
    assert index.fetch(ids=["a", "b"]).vectors["a"].metadata == {"k": 1, "new": 1}
    index.delete(ids=["a"])
    assert list(index.fetch(ids=["a"]).vectors) == ["a"]  # gone, and still to be seen
    _wait_for(0, index)


def test_the_switches_work_over_http_too(
    index: Index, http: httpx.Client, emulator: PineconeEmulator
) -> None:
    base = f"{emulator.url}/_emulator"
    http.post(f"{base}/faults", json={"status": 503, "times": 1, "path": "/vectors/*", "seed": 3})
    http.post(f"{base}/lag", json={"lag_s": 30})
    statuses = [http.post(f"{index.host}/vectors/upsert", json=BODY).status_code for _ in range(2)]
    assert statuses == [503, 200]
    assert index.fetch(ids=["a"]).vectors == {}
    counted = http.get(f"{base}/counters").json()
    assert ["POST", "/vectors/upsert", 503, 1] in counted
    http.delete(f"{base}/faults")
    assert http.get(f"{base}/nothing").status_code == 404


def test_a_fault_says_what_it_does(emulator: PineconeEmulator) -> None:
    with pytest.raises(ValueError, match="needs status="):
        emulator.faults.add(rate=0.5)
