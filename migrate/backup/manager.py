"""BackupManager: one database, one store; makes, lists, proves, restores and prunes its backups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from migrate.backup import codecs, names, retention
from migrate.backup.catalog import Catalog
from migrate.backup.creation import Creation
from migrate.backup.drill import Vault
from migrate.backup.objectstore import ObjectStore, open_store
from migrate.backup.patience import Patience
from migrate.backup.results import Backup, Created, Drill, Pruned, RestoreResult
from migrate.backup.retention import Plan, Retention
from migrate.backup.snapshot import Limits
from migrate.errors import ConfigError

if TYPE_CHECKING:
    from migrate.backup.sealing import Secret
    from migrate.backup.service import Service

Mode = Literal["full", "incremental"]


def tool_version() -> str:
    """Return `memlift 1.2.3`, for manifests."""
    try:
        return f"memlift {version('memlift')}"
    except PackageNotFoundError:
        return "memlift (source tree)"


def store_url(
    bucket: str, prefix: str = "", endpoint_url: str | None = None, region: str | None = None
) -> str:
    """Build a store's address from its parts."""
    options = {"endpoint": endpoint_url, "region": region}
    query = urlencode({name: value for name, value in options.items() if value}, safe=":/")
    return f"s3://{quote(bucket)}/{quote(prefix.strip('/'))}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class Settings:
    """How backups are made.

    secret: seals them on this side; max_chain: incrementals before the next
    full backup; full_above: share of changed blocks from which a full one is
    made; workdir: where the one temporary copy goes; limits: how gently the
    live database is read; patience_s: seconds of trying when the store is away.
    """

    secret: Secret | None = None
    max_chain: int = 24
    full_above: float = 0.5
    workdir: Path | None = None
    limits: Limits = field(default_factory=Limits)
    patience_s: float = 300.0
    sidecars: bool = True
    orphan_age: timedelta = retention.ORPHAN_AGE


class BackupManager:
    """Backups of one SQLite file in one store.

    interval: seconds between two backups of `start()`; max_backups: what
    `prune()`, and `start()` after each backup, keeps, unless `keep` says more.
    on_success gets a Created, on_error the exception; both are called by
    `start()`'s thread after each run, and what they raise does not stop it.
    store: an address or an ObjectStore in place of bucket, prefix and endpoint_url.
    cancel: set it from another thread to end what is under way (InterruptedRunError).
    """

    def __init__(
        self,
        path: str | Path,
        bucket: str | None = None,
        prefix: str = "",
        endpoint_url: str | None = None,
        interval: float = 3600,
        max_backups: int = 168,
        compression: str = "gzip",
        *,
        region: str | None = None,
        store: str | ObjectStore | None = None,
        mode: Mode = "full",
        database_id: str | None = None,
        keep: Retention | None = None,
        settings: Settings | None = None,
        on_success: Callable[[Created], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        if (bucket is None) == (store is None):
            raise ConfigError("give a bucket or a store", hint="BackupManager(path, bucket='b', prefix='p')")
        if mode not in ("full", "incremental"):
            raise ConfigError(f"unknown mode {mode!r}", hint="full or incremental")
        if interval <= 0:
            raise ConfigError("the interval must be positive")
        self.path = Path(path)
        self.interval = float(interval)
        self.compression = codecs.check(compression)
        self.mode: Mode = mode
        self.database = names.check_database_id(database_id or names.database_id(self.path))
        self.keep = keep or Retention(last=max_backups)
        self.settings = settings or Settings()
        self.on_success, self.on_error, self.on_progress = on_success, on_error, on_progress
        self.cancel = cancel or threading.Event()
        self.patience = Patience(total_s=self.settings.patience_s, cancel=self.cancel)
        if store is None:
            store = store_url(bucket or "", prefix, endpoint_url, region)
        self.store = open_store(store, patience=self.patience) if isinstance(store, str) else store
        self.catalog = Catalog(self.store)
        self.vault = Vault(
            self.store,
            self.catalog,
            self.patience,
            secret=self.settings.secret,
            workdir=self.settings.workdir,
        )
        self._service: Service | None = None

    def create(self, *, mode: Mode | None = None) -> Created:
        """Make a backup now; it counts from the moment its manifest is written.

        In incremental mode a database that has not changed uploads nothing
        (`unchanged`). Raises ConfigError, BackendError (disk full, store away
        for longer than `patience_s`), VerifyError where the database is damaged.
        """
        return Creation(self, mode or self.mode).run()

    def list(self) -> list[Backup]:
        """This database's backups, oldest first; damaged ones carry a `problem`."""
        return [Backup.of(entry) for entry in self.catalog.database(self.database).entries]

    def restore(
        self,
        at: str | datetime | float = "latest",
        to: str | Path | None = None,
        *,
        replace: bool = True,
        keep_replaced: bool = True,
    ) -> RestoreResult:
        """Restore the newest backup at a moment (or the one with this id) to `to`, by default the path itself.

        The file is proven before it takes its place. An existing file is kept
        beside it (`keep_replaced`); replace=False refuses it. Raises
        ConfigError (InUseError while a process has it open), VerifyError.
        """
        listing = self.catalog.database(self.database)
        return self.vault.restore(
            listing, at, Path(to) if to else self.path, replace=replace, keep_replaced=keep_replaced,
            progress=self.progress_for("restoring"),
        )  # fmt: skip

    def verify(self, at: str | datetime | float = "latest") -> Drill:
        """Drill: restore to a scratch place, check everything, and note in the store that it passed."""
        return self.vault.verify(
            self.catalog.database(self.database), at, progress=self.progress_for("verifying")
        )

    def prune(self, keep: Retention | None = None, *, dry_run: bool = False) -> Pruned:
        """Remove what need not be kept, and what dead writers left more than `orphan_age` ago."""
        listing = self.catalog.database(self.database)
        return prune(
            listing, self.store, keep or self.keep, dry_run=dry_run, orphan_age=self.settings.orphan_age
        )

    def start(self, *, verify_every: float | None = None, heartbeat: str | None = None) -> Service:
        """Back up every `interval` seconds in a thread of its own, until `stop()`; return the service.

        verify_every: seconds between two restore drills; heartbeat: a URL called after each success.
        """
        from migrate.backup.service import Service, ServiceSettings

        if self._service is not None:
            raise ConfigError("the service runs already")
        self.cancel.clear()
        options = ServiceSettings(interval_s=self.interval, verify_every_s=verify_every, heartbeat=heartbeat)
        self._service = Service(self, options)
        self._service.start()
        return self._service

    def stop(self, timeout: float = 10.0) -> bool:
        """End the service; a backup under way is given up. Return whether it ended within `timeout` seconds."""
        service, self._service = self._service, None
        return service.stop(timeout) if service else True

    def progress_for(self, what: str) -> Callable[[int, int], None] | None:
        """Return a reporter of (done, total) for one phase, or None where nobody listens."""
        report = self.on_progress
        return (lambda done, total: report(what, done, total)) if report else None


def prune(
    listing: Any,
    store: ObjectStore,
    keep: Retention,
    *,
    dry_run: bool,
    orphan_age: timedelta = retention.ORPHAN_AGE,
) -> Pruned:
    """Prune one database's folder."""
    decided: Plan = retention.plan(listing, keep, store.now())
    retention.find_orphans(listing, store, decided, age=orphan_age)
    freed = 0 if dry_run else retention.carry_out(listing, store, decided)
    return Pruned(
        listing.database, dry_run,
        [str(entry.id) for entry in decided.remove], [str(entry.id) for entry in decided.keep],
        [info.key for info in decided.orphans], [upload.key for upload in decided.uploads], decided.left, freed,
    )  # fmt: skip


def backup_before(
    path: str | Path, store: str, *, compression: str = "gzip", secret: Secret | None = None
) -> Created:
    """Back a SQLite file up once, before something changes it (`memlift migrate --backup STORE`).

    Returns when the backup is whole in the store. Raises what `BackupManager.create` raises.
    """
    manager = BackupManager(path, store=store, compression=compression, settings=Settings(secret=secret))
    return manager.create()


def utc_now() -> datetime:
    """The wall clock, for names and reports only; nothing is ordered or timed by it."""
    return datetime.fromtimestamp(time.time(), UTC)
