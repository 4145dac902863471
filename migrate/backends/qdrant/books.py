"""What a server itself is told of runs, so that another machine can go on with one.

The sidecar has the books of a target; but by default it is a file on one
machine. So a server also gets a collection of ours, `<prefix>memlift_books`,
one point a record, and records of its own for each sidecar:

    run     the last run: its plan, and whether it is done or another machine has it
    lease   who writes now, and a number that grows every few seconds
    table   a table's definition, its collection, and how far it has got

A machine with another sidecar that finds an unfinished run in its way goes on
with it: the collections are kept, compared and completed; the sidecar's own
tables are copied anew. There is no clock that both machines share, so a lease
is taken for dead when its number has not grown for `DEAD_AFTER_S`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from migrate.backends.base import Position
from migrate.backends.qdrant.engine import Engine, Json, Point
from migrate.errors import CheckpointError, LeaseLostError, MigrateError, SchemaError
from migrate.lease import BEAT_S, DEAD_AFTER_S
from migrate.schema import Table

BOOKS = "memlift_books"
_SPACE = uuid.UUID("6ab1e4a2-6b0e-4e4b-9c62-0c4d4f9b7d1e")  # of the ids of records
_PAGE = 500
_LOOK_S = 0.5  # how often another's lease is looked at
# A collection has at least one vector; no point of this one has it.
_SETTINGS: Json = {"vectors": {"none": {"size": 1, "distance": "Dot"}}}


@dataclass(frozen=True, slots=True)
class Kept:
    """A table as the books have it. run: who made its collection, empty where we adopted it."""

    table: Table
    collection: str
    run: str
    position: Position | None


@dataclass(slots=True)
class Told:
    """What the books say of one sidecar's runs. taken: the sidecar of the machine that went on with the run."""

    sidecar_id: str
    run: str = ""
    plan: Json | None = None
    done: bool = True
    sidecar: str = ""
    taken: str | None = None
    tables: dict[str, Kept] = field(default_factory=dict)


class ServerBooks:
    """The books of one prefix. All that is written is durable on return."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self._engine, self.name = engine, prefix + BOOKS
        self._owner, self._beats = uuid.uuid4().hex, 0
        self._sidecar_id = ""
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def read(self) -> dict[str, Told]:
        """Return what the books say, by sidecar; nothing where there are none."""
        found: dict[str, Told] = {}
        if self.name not in self._engine.names():
            return found
        offset: Any = None
        while True:
            points, offset = self._engine.scroll(self.name, _PAGE, offset, vectors=False)
            for record in (point.payload for point in points):
                told = found.setdefault(record["sidecar_id"], Told(record["sidecar_id"]))
                if record["kind"] == "run":
                    told.run, told.plan, told.done = record["run"], json.loads(record["plan"]), record["done"]
                    told.sidecar, told.taken = record["sidecar"], record["taken"]
                elif record["kind"] == "table":
                    kept = _kept(record)
                    told.tables[kept.table.name] = kept
            if offset is None:
                return found

    # --- the lease ------------------------------------------------------------

    def open(self, sidecar_id: str) -> None:
        """Make what is missing, and become the owner of a sidecar's records; its own lease is held already."""
        with contextlib.suppress(SchemaError):  # by another machine, a moment ago
            if self.name not in self._engine.names():
                self._engine.create(self.name, _SETTINGS, {})
        self._sidecar_id = sidecar_id
        self._put_lease(sidecar_id)
        self._over.clear()
        self._heart = threading.Thread(target=self._beat, name="memlift heartbeat", daemon=True)
        self._heart.start()

    def take_over(self, other: Told, sidecar: str, say: Callable[[str], None]) -> None:
        """Take another sidecar's run away from its machine. Raises CheckpointError while that is at work."""
        first, until = self._lease(other.sidecar_id), time.monotonic() + DEAD_AFTER_S
        if first is not None and first[0]:
            say("another machine began this run; waiting to see whether it is still at work")
            while time.monotonic() < until:
                time.sleep(_LOOK_S)
                now = self._lease(other.sidecar_id)
                if now is None or not now[0]:
                    break
                if now != first:
                    raise CheckpointError(
                        "another machine is writing to this target",
                        hint="let it finish, or end it; a dead one is noticed within 30 seconds",
                    )
        self._put_lease(other.sidecar_id)
        time.sleep(_LOOK_S)  # of two that have waited, the last to write has it
        if (self._lease(other.sidecar_id) or ("", 0))[0] != self._owner:
            raise CheckpointError("another machine goes on with this run", hint="let it finish")
        self._put_run(other, taken=sidecar)

    def check(self) -> None:
        """Raise LeaseLostError where another machine has taken the run over."""
        found = self._lease(self._sidecar_id)
        if found is None or found[0] != self._owner:
            raise LeaseLostError(
                "another machine has taken this run over", hint="let it finish, or end it and run again"
            )

    def _lease(self, sidecar_id: str) -> tuple[str, int] | None:
        wanted = _id(sidecar_id, "lease")
        points, _ = self._engine.scroll(self.name, 1, wanted, vectors=False)
        if not points or points[0].id != wanted:
            return None
        return points[0].payload["owner"], points[0].payload["beat"]

    def _put_lease(self, sidecar_id: str, owner: str | None = None) -> None:
        self._put(sidecar_id, "lease", {"owner": self._owner if owner is None else owner, "beat": 0})

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            # A beat that fails is followed by the next; a run that cannot write ends by itself.
            with contextlib.suppress(MigrateError):
                self.check()
                self._beats += 1
                self._put(self._sidecar_id, "lease", {"owner": self._owner, "beat": self._beats})

    def release(self) -> None:
        """Give the lease back, if it is ours. Idempotent."""
        self.stop()
        if not self._sidecar_id or self.name not in self._engine.names():
            return
        found = self._lease(self._sidecar_id)
        if found is not None and found[0] == self._owner:
            self._put_lease(self._sidecar_id, owner="")
        self._sidecar_id = ""

    def stop(self) -> None:
        """End the heartbeat. Idempotent."""
        self._over.set()
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.join(timeout=BEAT_S)

    # --- records --------------------------------------------------------------

    def begin(self, run: str, plan: Json, sidecar: str) -> None:
        """Keep a run as the sidecar's last one, not done."""
        self._put_run(Told(self._sidecar_id, run, plan, False, sidecar))

    def end(self, run: str, plan: Json, sidecar: str) -> None:
        """Keep that a run is done."""
        self._put_run(Told(self._sidecar_id, run, plan, True, sidecar))

    def _put_run(self, told: Told, taken: str | None = None) -> None:
        record: Json = {
            "run": told.run,
            "plan": json.dumps(told.plan, sort_keys=True),
            "done": told.done,
            "sidecar": told.sidecar,
            "taken": taken,
        }
        self._put(told.sidecar_id, "run", record)

    def keep(self, table: Table, collection: str, run: str, position: Position | None) -> None:
        """Keep a table, and how far it has got."""
        record: Json = {"table": json.dumps(table.to_dict()), "collection": collection, "run": run}
        if position is not None:
            at = {"cursor": position.cursor, "rows": position.rows, "done": position.done}
            record["position"] = json.dumps(at)
        self._put(self._sidecar_id, "table", record, table.name)

    def forget(self, sidecar_id: str) -> None:
        """Forget all of a sidecar; without any left the collection goes too. Idempotent."""
        self.stop()
        found = self.read()
        told = found.pop(sidecar_id, None)
        if not found:
            self._engine.drop(self.name)
        elif told is not None:
            names = [_id(sidecar_id, "table", name) for name in told.tables]
            self._engine.delete(self.name, [_id(sidecar_id, "run"), _id(sidecar_id, "lease"), *names])

    def _put(self, sidecar_id: str, kind: str, record: Json, name: str = "") -> None:
        body = {"kind": kind, "sidecar_id": sidecar_id, **record}
        self._engine.post(self.name, Point(_id(sidecar_id, kind, name), {}, body))


def _id(sidecar_id: str, kind: str, name: str = "") -> str:
    return str(uuid.uuid5(_SPACE, f"{sidecar_id}\n{kind}\n{name}"))


def _kept(record: Json) -> Kept:
    table = Table.from_dict(json.loads(record["table"]))
    at = json.loads(record["position"]) if "position" in record else None
    position = None if at is None else Position(table.name, at["cursor"], at["rows"], at["done"])
    return Kept(table, record["collection"], record["run"], position)
