"""One owner for a database's folder: a lease object, kept by conditional writes.

No clock is compared with another: an owner is taken for dead when its lease has
not changed for `ttl_s` of the watcher's own monotonic clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime

from migrate.backup.names import LEASE
from migrate.backup.objectstore import NoSuchObjectError, ObjectStore, PreconditionError
from migrate.errors import BackendError, InterruptedRunError, LeaseLostError, MigrateError

_MAX_BYTES = 4096
# 60 s: three missed renewals. A dead owner's prefix is taken over after that.
TTL_S = 60.0
_FAREWELL_S = 3.0


class Lease:
    """Acquire, keep and release. `held` turns false by itself when renewing has failed for ttl_s."""

    def __init__(self, store: ObjectStore, database: str, *, ttl_s: float = TTL_S) -> None:
        self._store, self._key, self._ttl = store, f"{database}/{LEASE}", ttl_s
        self._token = secrets.token_hex(16)
        self._count = 0
        self._etag = ""
        self._seen = ""
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        return self._renewed_at is not None and time.monotonic() - self._renewed_at < self._ttl

    def try_acquire(self) -> str | None:
        """Take the lease if it is free; return None, or who has it. Raises BackendError.

        Call it again every few seconds: a dead owner is noticed by its silence.
        """
        started = time.monotonic()
        try:
            self._etag = self._store.put(self._key, self._body(), if_absent=True)
        except PreconditionError:
            try:
                raw, etag = self._store.get(self._key, max_bytes=_MAX_BYTES)
            except NoSuchObjectError:
                return "another process, just now"
            owner = _parse(raw)
            if owner.get("token") != self._token:  # else: our own write, whose answer was lost
                if etag != self._seen:
                    self._seen, self._seen_at = etag, time.monotonic()
                if not owner.get("released") and time.monotonic() - self._seen_at < self._ttl:
                    return f"{owner.get('owner', 'another process')} since {owner.get('since', 'some time')}"
                try:
                    self._etag = self._store.put(self._key, self._body(), if_match=etag)
                except (PreconditionError, NoSuchObjectError):
                    return "another process, just now"
            else:
                self._etag = etag
        self._renewed_at = started
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep, name="memlift-lease", daemon=True)
        self._thread.start()
        return None

    def check(self) -> None:
        """Raise LeaseLostError unless the lease is held."""
        if not self.held:
            raise LeaseLostError("another process backs this database up now", lease=self._key)

    def release(self) -> None:
        """Let another take it at once. Errors are not raised: it runs out by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._ttl)
        if self.held:
            # A store that is away must not keep one from stopping.
            farewell = threading.Thread(target=self._say_farewell, name="memlift-farewell", daemon=True)
            farewell.start()
            farewell.join(_FAREWELL_S)
        self._renewed_at = None

    def _say_farewell(self) -> None:
        with contextlib.suppress(MigrateError):
            self._store.put(self._key, self._body(released=True), if_match=self._etag, last_words=True)

    def renew(self) -> None:
        """Write the lease anew. Raises LeaseLostError where it is another's, BackendError."""
        started = time.monotonic()
        try:
            # MinIO asks for 60 s with every 503 (cmd/api-response.go), the whole life of a lease: the next beat
            # comes sooner.
            self._etag = self._store.put(self._key, self._body(), if_match=self._etag, within_s=self._ttl / 3)
        except (PreconditionError, NoSuchObjectError):
            with contextlib.suppress(NoSuchObjectError):
                raw, etag = self._store.get(self._key, max_bytes=_MAX_BYTES)
                if _parse(raw).get("token") == self._token:
                    self._etag, self._renewed_at = etag, started
                    return
            self._renewed_at = None
            raise LeaseLostError("another process took the lease over", lease=self._key) from None
        self._renewed_at = started

    def _keep(self) -> None:
        while not self._stop.wait(self._ttl / 3):
            try:
                self.renew()
            except (LeaseLostError, InterruptedRunError):
                return
            except BackendError:
                continue  # away for now: `held` turns false when it lasts

    def _body(self, *, released: bool = False) -> bytes:
        self._count += 1  # so that every renewal has another etag
        return json.dumps(
            {
                "owner": f"{socket.gethostname()} process {os.getpid()}",
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "token": self._token,
                "count": self._count,
                "released": released,
            }
        ).encode()


def _parse(raw: bytes) -> dict[str, object]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
