"""Keep to a schedule: one backup at a time, one owner, no pile-up, a clean stop."""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from migrate.backup.lease import TTL_S, Lease
from migrate.backup.metrics import Metrics
from migrate.errors import ConfigError, InterruptedRunError, LeaseLostError, MigrateError, VerifyError

if TYPE_CHECKING:
    from migrate.backup.manager import BackupManager

log = logging.getLogger("memlift.backup")

# After a failure: 5 s, 10 s, ... up to 5 minutes, each drawn at random from half of it upwards.
_BACKOFF_FIRST_S = 5.0
_BACKOFF_CAP_S = 300.0
_HEARTBEAT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """interval_s, verify_every_s: seconds, by the monotonic clock; lease_ttl_s: silence that means death;
    backoff_s: the first pause after a failure."""

    interval_s: float
    verify_every_s: float | None = None
    heartbeat: str | None = None
    lease_ttl_s: float = TTL_S
    backoff_s: float = _BACKOFF_FIRST_S


class Service:
    """Runs a manager's backups in one thread, so that two of them can never overlap."""

    def __init__(self, manager: BackupManager, settings: ServiceSettings) -> None:
        if settings.heartbeat:
            check_heartbeat(settings.heartbeat)
        self._manager, self._settings = manager, settings
        self.metrics = Metrics(manager.database)
        self.interrupted = False
        self._stop = manager.cancel
        self._lease: Lease | None = None
        self._drilled_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="memlift-backup", daemon=True)

    def start(self) -> None:
        """Begin; the first backup is made at once."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Ask it to end, wait for at most `timeout` seconds; return whether it has ended."""
        self._stop.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is asked to stop; return whether it was."""
        return self._stop.wait(timeout)

    def _run(self) -> None:
        failures = 0
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self._own()
                self._remember()
                self._once()
            except InterruptedRunError:
                self.interrupted = True
                break
            except LeaseLostError as exc:
                log.warning("%s; waiting until it is free again", exc)
                self._lease = None
                self.metrics.owner = False
                continue
            except Exception as exc:  # the service outlives every failed run, and says so
                failures += 1
                self.metrics.results["failure"] += 1
                self._tell_error(exc)
                bound = min(self._settings.backoff_s * 2 ** min(failures - 1, 16), _BACKOFF_CAP_S)
                bound = min(bound, self._settings.interval_s)
                self._stop.wait(random.uniform(bound / 2, bound))  # noqa: S311 - jitter
                continue
            failures = 0
            # What an outage or a long run has missed is left out, not caught up with.
            now, interval = time.monotonic(), self._settings.interval_s
            due = due + interval if due + interval > now else now + interval
            self._stop.wait(due - time.monotonic())
        if self._lease is not None:
            self._lease.release()

    def _own(self) -> None:
        """Hold the lease, or wait for it; a store without conditional writes gets a warning."""
        if self._lease is None:
            if not self._manager.store.conditional_writes():
                if not self.metrics.owner:
                    log.warning(
                        "the store has no conditional writes: make sure that only one process backs up here"
                    )
                self.metrics.owner = True
                return
            self._lease = Lease(self._manager.store, self._manager.database, ttl_s=self._settings.lease_ttl_s)
        told = False
        while not self._lease.held:
            owner = self._lease.try_acquire()
            if owner is None:
                break
            if not told:
                log.warning("%s backs this database up; waiting", owner)
                told = True
            if self._stop.wait(self._settings.lease_ttl_s / 10):
                raise InterruptedRunError("stopped", exit_code=143)
        self.metrics.owner = True

    def _remember(self) -> None:
        """Take the ages of earlier backups from the store, once."""
        if self.metrics.age("backup") is not None:
            return
        now = datetime.fromtimestamp(time.time(), UTC)
        for backup in self._manager.list():
            if backup.problem is None and backup.time is not None:
                age = max((now - backup.time).total_seconds(), 0.0)
                self.metrics.mark("backup", age_s=age)
                if backup.last_proven is not None:
                    self.metrics.mark("proven", age_s=age)
                    self.metrics.mark("drill", age_s=max((now - backup.last_proven).total_seconds(), 0.0))

    def _once(self) -> None:
        manager, metrics = self._manager, self.metrics
        created = manager.create()
        metrics.mark("backup")
        metrics.duration_s = created.seconds
        metrics.results["unchanged" if created.unchanged else "success"] += 1
        if not created.unchanged:
            metrics.size_bytes, metrics.raw_bytes = created.uploaded, created.manifest.size
        log.info("%s %s", created.id, "unchanged, nothing uploaded" if created.unchanged else "done")
        if manager.on_success:
            try:
                manager.on_success(created)
            except Exception:
                log.exception("on_success failed")
        if self._lease is not None:
            self._lease.check()
        manager.prune()
        self._drill()
        self._beat()

    def _drill(self) -> None:
        every = self._settings.verify_every_s
        if every is None:
            return
        if self._drilled_at is not None and time.monotonic() - self._drilled_at < every:
            return
        try:
            self._manager.verify()
        except VerifyError:
            self.metrics.drills["failure"] += 1
            raise
        self._drilled_at = time.monotonic()
        self.metrics.drills["success"] += 1
        self.metrics.mark("drill")
        self.metrics.mark("proven", age_s=self.metrics.age("backup") or 0.0)

    def _beat(self) -> None:
        if self._settings.heartbeat:
            try:
                beat(self._settings.heartbeat)
            except (OSError, http.client.HTTPException) as exc:
                log.warning("heartbeat: %s", exc)

    def _tell_error(self, exc: Exception) -> None:
        if isinstance(exc, MigrateError):
            log.error("%s%s", exc, f" (hint: {exc.hint})" if exc.hint else "")
        else:
            log.exception("the backup failed")
        if self._manager.on_error:
            try:
                self._manager.on_error(exc)
            except Exception:
                log.exception("on_error failed")


def check_heartbeat(url: str) -> None:
    """Raise ConfigError for an address that is not http(s)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the heartbeat must be an http(s) address")


def beat(url: str) -> None:
    """GET a heartbeat URL. Raises OSError, HTTPException where it does not answer with 2xx."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    line = kind(parts.hostname or "", parts.port, timeout=_HEARTBEAT_TIMEOUT_S)
    try:
        line.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = line.getresponse().status
        if not 200 <= status < 300:
            raise OSError(f"answered {status}")
    finally:
        line.close()
