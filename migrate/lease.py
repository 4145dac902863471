"""Who owns a target: one row with a heartbeat, so that two runs never write at once.

A row and not a session lock: after `kill -9` in the middle of CREATE INDEX the
orphaned Postgres backend held a session lock for over a minute, and through a
transaction-mode pooler two clients both got it. Every commit of a run checks
the row in its own transaction (fencing), so an owner that was taken for dead
and wakes up again writes nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from migrate.errors import CheckpointError

BEAT_S = 3.0  # an owner renews this often
DEAD_AFTER_S = 20.0  # without a beat for so long it is taken for dead: within 30 s of its death


@dataclass(frozen=True, slots=True)
class Holder:
    """The lease as a target's row has it. `age_s` is told by the target's clock."""

    owner: str
    host: str
    pid: int
    beat: float
    age_s: float


class LeaseRow(Protocol):
    """How a store keeps the row; each call is a transaction of its own."""

    def holder(self) -> Holder | None:
        """Return the present holder, or None where nobody owns the target."""
        ...

    def take(self, owner: str, host: str, pid: int, instead_of: Holder | None) -> bool:
        """Become the holder if the present one still is `instead_of` with the same beat."""
        ...


def this_host() -> str:
    """Return a name for "processes I can see": machine, boot and pid namespace."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if "ns" in path else Path(path).read_text().strip())
        except OSError:
            parts.append("?")  # not Linux: the name alone
    return "/".join(parts)


def started(pid: int) -> str:
    """Return a text that tells this process from a later one of the same pid; empty where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def identity() -> tuple[str, int]:
    """Return (host, pid) of this process, as `alive` understands them."""
    return f"{this_host()}#{started(os.getpid())}", os.getpid()


def alive(holder: Holder) -> bool | None:
    """Whether the holder's process lives; None where it cannot be seen from here."""
    host, _, start = holder.host.partition("#")
    if host != this_host() or not Path("/proc/self/stat").exists():
        return None
    return bool(start) and started(holder.pid) == start


def acquire(row: LeaseRow, owner: str, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Become the owner of a target, taking over from a dead one.

    A holder whose process is seen to be dead is replaced at once, one that is
    seen to live never; else its heartbeat is watched for up to `DEAD_AFTER_S`.
    Raises CheckpointError while a live run owns the target.
    """
    host, pid = identity()
    first = row.holder()
    told = False
    while True:
        holder = row.holder()
        if holder is None or holder.owner == owner:
            if row.take(owner, host, pid, holder):
                return
            continue
        living = None if holder.pid == pid and holder.host == host else alive(holder)
        if living is False or (living is None and holder.age_s > DEAD_AFTER_S):
            if row.take(owner, host, pid, holder):
                return
            continue
        if living or (first is not None and holder.beat != first.beat):
            place = holder.host.split("/")[0]
            raise CheckpointError(
                f"another run (process {holder.pid} on {place}) is writing to this target",
                hint="wait until it has ended, or end it; a dead run's lease is taken over within 30 s",
            )
        first = first or holder
        if not told:
            say(f"an earlier run's lease is {holder.age_s:.0f} s old; waiting to see whether it lives")
            told = True
        time.sleep(0.5)
