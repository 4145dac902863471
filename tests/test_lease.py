"""Who owns a target: taken over from the dead at once, from the silent in time, from the living never."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from migrate import lease
from migrate.errors import CheckpointError
from migrate.lease import Holder

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="processes are seen by /proc")


@dataclass
class Row:
    """A lease row with a clock of its own; `living` holders beat while others wait."""

    owner: str = ""
    host: str = ""
    pid: int = 0
    beat: float = 100.0
    now: float = 100.0
    living: bool = False
    slept: list[float] = field(default_factory=list)

    def holder(self) -> Holder | None:
        if not self.owner:
            return None
        return Holder(self.owner, self.host, self.pid, self.beat, self.now - self.beat)

    def take(self, owner: str, host: str, pid: int, instead_of: Holder | None) -> bool:
        seen = (instead_of.owner, instead_of.beat) if instead_of else ("", self.beat)
        if seen != (self.owner, self.beat):
            return False
        self.owner, self.host, self.pid, self.beat = owner, host, pid, self.now
        return True

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.living and self.now - self.beat >= lease.BEAT_S:
            self.beat = self.now


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Row:
    made = Row()
    monkeypatch.setattr(lease, "time", made)
    return made


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_free_target_is_taken_at_once(row: Row) -> None:
    lease.acquire(row, "me")
    assert (row.owner, row.pid, row.slept) == ("me", os.getpid(), [])
    assert row.host.partition("#")[0] == lease.this_host()


def test_an_owner_takes_its_own_lease_again(row: Row) -> None:
    lease.acquire(row, "me")
    row.now += 5
    lease.acquire(row, "me")
    assert (row.owner, row.beat, row.slept) == ("me", 105.0, [])


def test_a_dead_process_of_this_machine_is_replaced_at_once(row: Row) -> None:
    row.owner, row.host, row.pid = "old", f"{lease.this_host()}#12345", dead_process()
    lease.acquire(row, "me")
    assert (row.owner, row.slept) == ("me", [])


def test_a_later_process_with_the_same_pid_is_not_the_owner(row: Row) -> None:
    row.owner, row.host, row.pid = "old", f"{lease.this_host()}#1", os.getppid()
    lease.acquire(row, "me")
    assert (row.owner, row.slept) == ("me", [])


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while lease.started(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.started(process.pid) == ""
    process.wait()


def test_a_living_process_of_this_machine_is_never_replaced(row: Row) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        row.owner, row.pid = "other", process.pid
        row.host = f"{lease.this_host()}#{lease.started(process.pid)}"
        row.now += 1000  # a stopped process beats no more, and lives
        with pytest.raises(CheckpointError, match=f"another run \\(process {process.pid} on "):
            lease.acquire(row, "me")
        process.communicate(b"\n")
    assert row.owner == "other"


def test_a_silent_owner_elsewhere_is_replaced_within_thirty_seconds(row: Row) -> None:
    row.owner, row.host, row.pid = "other", "elsewhere/boot/pid#7", 7
    said: list[str] = []
    lease.acquire(row, "me", say=said.append)
    assert row.owner == "me"
    assert lease.DEAD_AFTER_S <= row.now - 100 <= 30
    assert said == ["an earlier run's lease is 0 s old; waiting to see whether it lives"]


def test_a_beat_that_is_stale_already_costs_no_wait(row: Row) -> None:
    row.owner, row.host, row.pid, row.now = "other", "elsewhere/boot/pid#7", 7, 121.0
    lease.acquire(row, "me")
    assert (row.owner, row.slept) == ("me", [])


def test_a_beating_owner_elsewhere_is_refused_within_seconds(row: Row) -> None:
    row.owner, row.host, row.pid, row.living = "other", "elsewhere/boot/pid#7", 7, True
    with pytest.raises(CheckpointError, match=r"another run \(process 7 on elsewhere\)") as raised:
        lease.acquire(row, "me")
    assert raised.value.exit_code == 2
    assert row.owner == "other"
    assert row.now - 100 <= 2 * lease.BEAT_S


def test_another_run_of_this_very_process_is_told_by_its_beat(row: Row) -> None:
    host, pid = lease.identity()
    row.owner, row.host, row.pid, row.living = "other thread", host, pid, True
    with pytest.raises(CheckpointError):
        lease.acquire(row, "me")
    row.living = False
    lease.acquire(row, "me")
    assert row.owner == "me"


def test_two_that_wait_for_one_dead_owner_do_not_both_get_it(row: Row) -> None:
    row.owner, row.host, row.pid, row.now = "dead", "elsewhere#7", 7, 200.0
    seen = row.holder()
    assert row.take("first", "a", 1, seen)
    assert not row.take("second", "b", 2, seen)
    assert row.owner == "first"


def test_an_owner_that_lets_go_meanwhile_is_followed(row: Row) -> None:
    row.owner, row.host, row.pid = "other", "elsewhere#7", 7
    wait = row.sleep

    def sleep(seconds: float) -> None:
        wait(seconds)
        if row.now > 103:
            row.owner = ""

    row.sleep = sleep  # type: ignore[method-assign]
    lease.acquire(row, "me")
    assert (row.owner, row.now < 105) == ("me", True)


def test_dead_is_seen_sooner_than_thirty_seconds_and_later_than_some_missed_beats() -> None:
    assert 3 * lease.BEAT_S < lease.DEAD_AFTER_S < 30
