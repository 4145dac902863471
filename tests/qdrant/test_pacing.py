"""The writer that finds its own pace: retries, Retry-After, errors, order of giving up."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from migrate.backends import pacing
from migrate.backends.pacing import Writer, patiently
from migrate.errors import BackendError, TransientError, UnreachableError


def test_everything_is_sent_once_when_all_goes_well() -> None:
    sent: Counter[int] = Counter()
    lock = threading.Lock()

    def send(n: int) -> None:
        with lock:
            sent[n] += 1

    writer = Writer(send, streams=4)
    for n in range(200):
        writer.submit(n)
    writer.settle()
    writer.close()
    assert sent == Counter(range(200))
    assert (writer.counts.requests, writer.counts.retries) == (200, 0)


def test_a_storm_of_refusals_is_waited_out_and_nothing_is_lost() -> None:
    tried: Counter[int] = Counter()
    lock = threading.Lock()

    def send(n: int) -> None:
        with lock:
            tried[n] += 1
            if tried[n] <= n % 3:
                raise TransientError("busy", retry_after=0.01)

    writer = Writer(send, streams=4)
    for n in range(60):
        writer.submit(n)
    writer.settle()
    writer.close()
    assert all(tried[n] == n % 3 + 1 for n in range(60))
    assert writer.counts.retries == 60


def test_retry_after_holds_all_streams_back() -> None:
    times: list[float] = []
    lock = threading.Lock()

    def send(n: int) -> None:
        with lock:
            times.append(time.monotonic())
            if len(times) == 1:
                raise TransientError("busy", retry_after=0.5)

    writer = Writer(send, streams=4)
    for n in range(12):
        writer.submit(n)
    writer.settle()
    writer.close()
    late = [t - times[0] for t in times[1:]]
    assert len(times) == 13
    assert sum(t < 0.45 for t in late) <= 4  # a few may have been under way already
    assert max(late) >= 0.45


def test_fewer_are_under_way_after_a_refusal_and_more_again_later() -> None:
    refuse = threading.Event()

    def send(n: int) -> None:
        if refuse.is_set():
            refuse.clear()
            raise TransientError("busy", retry_after=0)

    writer = Writer(send, streams=8)
    for n in range(100):
        writer.submit(n)
    writer.settle()
    grown = writer.width
    refuse.set()
    writer.submit(1)
    writer.settle()
    assert (grown, writer.width < grown) == (8, True)
    for n in range(100):
        writer.submit(n)
    writer.settle()
    assert writer.width == 8
    writer.close()


def test_an_error_that_no_retry_mends_is_raised_once_and_the_rest_is_dropped() -> None:
    def send(n: int) -> None:
        if n == 3:
            raise BackendError("bad point")

    writer = Writer(send, streams=2)

    def all_of_them() -> None:
        for n in range(20):
            writer.submit(n)
        writer.settle()

    with pytest.raises(BackendError, match="bad point"):
        all_of_them()
    writer.abandon()
    writer.submit(7)
    writer.settle()
    writer.close()


def test_patience_ends() -> None:
    def send(n: int) -> None:
        raise TransientError("away", retry_after=0.05)

    writer = Writer(send, streams=2, patience_s=0.3)
    started = time.monotonic()
    writer.submit(1)
    with pytest.raises(TransientError, match="away"):
        writer.settle()
    assert 0.2 < time.monotonic() - started < 5
    writer.abandon()
    writer.close()


def test_a_read_is_tried_again_until_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.3)
    tries: list[float] = []

    def read(failures: int) -> str:
        tries.append(time.monotonic())
        if len(tries) <= failures:
            raise TransientError("busy", retry_after=0.02)
        return "page"

    assert patiently(lambda: read(3), threading.Event()) == "page"
    assert len(tries) == 4
    with pytest.raises(TransientError, match="busy"):
        patiently(lambda: read(10_000), threading.Event())
    over = threading.Event()
    over.set()
    tries.clear()
    with pytest.raises(TransientError, match="busy"):
        patiently(lambda: read(10_000), over)
    assert len(tries) == 1


def test_a_server_that_never_answered_is_not_asked_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "AWAY_S", 0.3)
    tries = 0

    def read() -> str:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise UnreachableError("refused")
        return "page"

    with pytest.raises(UnreachableError):
        patiently(read, threading.Event(), reached=False)
    assert tries < 6
    assert patiently(read, threading.Event()) == "page"
