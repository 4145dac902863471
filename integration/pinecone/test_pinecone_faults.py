"""Runs through storms: refused, delayed, lost and late answers, and an index that lags behind its writes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from integration.pinecone.backend_kit import (
    KEY,
    address,
    family,
    impatient,  # noqa: F401 - a fixture
    records,
)
from integration.pinecone_emulator import PineconeEmulator
from integration.support import comparing, stores
from integration.support.comparing import same
from migrate import api, engine, retry
from migrate.backends import pacing
from migrate.backends.pinecone import fresh, plane, wire
from migrate.config import PineconeSettings
from migrate.errors import BackendError, ConfigError
from migrate.reach import opened_source


def rows_of(path: Path, n: int, dim: int = 16) -> Path:
    rng = random.Random(n)
    rows = [
        (
            i,
            f"note {i}",
            i / 7,
            bytes([i % 256]) if i % 50 == 0 else None,
            stores.vector(*(rng.gauss(0, 1) for _ in range(dim))) if i % 9 else None,
        )
        for i in range(n)
    ]
    ddl = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, r REAL, d BLOB, embedding BLOB)"
    return stores.filled(path, ddl, rows)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits between tries be short; return those that were asked for, in seconds."""
    asked: list[float] = []
    pause = pacing._pause

    def short(error: Any, failures: int) -> float:
        asked.append(pause(error, failures))
        return min(asked[-1], 0.002)

    monkeypatch.setattr(pacing, "_pause", short)
    return asked


def test_nearly_a_third_of_all_requests_may_fail(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[float]
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    source, there = rows_of(tmp_path / "a.sqlite", 900), address(emulator, tmp_path)
    emulator.faults.seed(7)
    emulator.faults.add(status=429, rate=0.12)
    emulator.faults.add(status=503, rate=0.1)
    emulator.faults.add(reset=True, rate=0.04)
    emulator.faults.add(reset=True, after=True, rate=0.04, path="/vectors/*")
    report = api.migrate(source, there, batch_size=40, verify="full")
    home = api.migrate(there, tmp_path / "b.sqlite", batch_size=40, verify="full")
    assert report.verified
    assert home.verified
    assert 0.2 < report.usage["retries"] / report.usage["requests"] < 0.7
    assert quick
    emulator.faults.clear()
    same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))
    ((_, kept),) = records(emulator, there).items()
    assert len(kept) == 800


def test_the_service_s_own_waiting_time_is_kept_to(
    emulator: PineconeEmulator, tmp_path: Path, quick: list[float]
) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 60), address(emulator, tmp_path)
    api.migrate(source, there)
    emulator.faults.add(status=429, times=1, retry_after=3, path="/vectors/fetch")
    assert api.migrate(there, tmp_path / "b.sqlite").verified
    assert quick == [3.0]
    # Into an index: the note in it, then the records, each held up once.
    emulator.faults.add(status=429, times=1, retry_after=7, path="/vectors/upsert")
    second = address(emulator, tmp_path)
    assert api.migrate(source, second).verified
    assert quick == [3.0, 7.0]
    third = address(emulator, tmp_path)

    class Holding:
        """Refuses the first upsert of rows."""

        def say(self, text: str) -> None:
            pass

        def step(self, phase: str, table: str, done: int, total: int) -> None:
            if (phase, done) == ("copy", 0):
                emulator.faults.add(status=429, times=1, retry_after=11, path="/vectors/upsert")

    report = api.migrate(source, third, observer=Holding())
    assert (report.verified, report.usage["retries"]) == (True, 1)
    assert quick == [3.0, 7.0, 11.0]


def test_each_failure_is_met_by_one_loop_only(emulator: PineconeEmulator, tmp_path: Path, quick: Any) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 30), address(emulator, tmp_path)
    api.migrate(source, there)
    emulator.counters.reset()
    emulator.faults.fail_next(3, status=503, path="/describe_index_stats")
    with opened_source(there) as opened:
        assert opened.count(opened.tables()[0]) == 30
    assert emulator.counters.count("/describe_index_stats", status=503) == 3
    assert len(quick) == 3
    emulator.faults.fail_next(2, status=500, path="/indexes/*")
    with opened_source(there) as opened:
        opened.count(opened.tables()[0])
    assert emulator.counters.count("/indexes/*", status=500) == 2
    assert len(quick) == 5  # the SDK's own loop is off: it would have met them in silence


@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "records"])
def test_what_lags_is_waited_for_before_rows_are_compared(
    numbers: bool, emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not numbers:  # as where an answer tells no log sequence number
        monkeypatch.setattr(plane, "_lsn", lambda response, name: None)
    source, there = rows_of(tmp_path / "a.sqlite", 300), address(emulator, tmp_path)
    emulator.lag_s = 0.3
    for mode in ("sample", "full", "counts") if numbers else ("full",):
        report = api.migrate(source, there, verify=mode)
        assert (report.verified, report.warnings) == (True, ())
        stores.made(
            tmp_path / "a.sqlite",
            "UPDATE t SET v = v || '!' WHERE id % 7 = 0; DELETE FROM t WHERE id = (SELECT max(id) FROM t)",
        )
        api.migrate(source, there, verify=mode, mirror=True)
    report = api.migrate(source, there, restart=True, verify="full")
    assert (report.verified, report.warnings) == (True, ())
    api.undo(there)
    assert family(emulator, there) == []


def test_an_index_that_never_catches_up_is_waited_for_with_a_bound(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "BOUND_S", 0.3)
    source, there = rows_of(tmp_path / "a.sqlite", 30), address(emulator, tmp_path)
    emulator.lag_s = 30
    report = api.migrate(source, there, verify="none")
    assert any("did not show all that was written" in w for w in report.warnings)


def test_an_index_that_stays_away_is_given_up_with_a_checkpoint_and_the_run_goes_on_later(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Any
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 20_000)
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.3)
    defaults = {**(retry.call.__kwdefaults__ or {}), "patience_s": 0.5}
    monkeypatch.setattr(retry.call, "__kwdefaults__", defaults)
    source, there = rows_of(tmp_path / "a.sqlite", 600), address(emulator, tmp_path)

    class Closing:
        """Lets the index go away amid the copy."""

        def say(self, text: str) -> None:
            pass

        def step(self, phase: str, table: str, done: int, total: int) -> None:
            if phase == "copy" and done > 200:
                emulator.faults.add(status=503, path="/vectors/upsert")

    with pytest.raises(BackendError):
        api.migrate(source, there, batch_size=60, observer=Closing())
    emulator.faults.clear()
    report = api.migrate(source, there, batch_size=60, verify="full")
    assert (report.verified, report.resumed) == (True, True)
    assert 0 < report.tables[0].rows_written < 600


def test_an_answer_that_took_fewer_records_is_an_error(
    emulator: PineconeEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, there = rows_of(tmp_path / "a.sqlite", 30), address(emulator, tmp_path)
    parse = wire.parse
    monkeypatch.setattr(
        wire,
        "parse",
        lambda body: {"upsertedCount": 3} if b"upsertedCount" in body and b"26" in body else parse(body),
    )
    with pytest.raises(BackendError, match="took 3 of 26 records"):
        api.migrate(source, there)


def test_a_dead_address_and_a_refused_key_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.1)
    defaults = {**(retry.call.__kwdefaults__ or {}), "patience_s": 0.2}
    monkeypatch.setattr(retry.call, "__kwdefaults__", defaults)
    source = rows_of(tmp_path / "a.sqlite", 5)
    side = str(tmp_path / "side.sqlite")
    with pytest.raises(BackendError) as raised:
        api.migrate(source, PineconeSettings(host="http://127.0.0.1:9", api_key=KEY, sidecar=side))
    assert raised.value.exit_code == 2
    with PineconeEmulator(api_keys=["right-key"]) as strict:
        bad = PineconeSettings(index="x", api_key="wrong-key", controller=strict.url, sidecar=side)
        with pytest.raises(ConfigError, match="API key") as refused:
            api.migrate(source, bad)
        assert "wrong-key" not in str(refused.value)
        good = PineconeSettings(index="x", api_key="right-key", controller=strict.url, sidecar=side)
        report = api.migrate(source, good)
        assert report.verified
        assert "right-key" not in str(report.to_dict())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"index": "Bad_Name"}, "cannot be called 'Bad_Name'"),
        ({"index": "-x"}, "cannot be called '-x'"),
        ({"index": "x" * 46}, "cannot be called"),
        ({"index": "in-nowhere", "region": "nowhere"}, "region: nowhere not found"),
    ],
)
def test_an_index_that_cannot_be_made_is_told_with_what_to_do(
    more: dict[str, Any], said: str, emulator: PineconeEmulator, tmp_path: Path
) -> None:
    source, side = rows_of(tmp_path / "a.sqlite", 5), str(tmp_path / "side.sqlite")
    there = PineconeSettings(**more, api_key=KEY, controller=emulator.url, sidecar=side)
    with pytest.raises(ConfigError, match=said) as raised:
        api.migrate(source, there)
    assert raised.value.hint
