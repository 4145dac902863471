"""Which backups go and which stay; and what a dead writer left behind.

Only what carries our manifest and this database's id is ever removed as a
backup; never the newest good one, and nothing that a kept one stands on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from migrate.backup.catalog import Entry, Listing
from migrate.backup.names import BackupId, owner_of
from migrate.backup.objectstore import NoSuchObjectError, ObjectInfo, ObjectStore, StaleUpload
from migrate.errors import ConfigError, VerifyError

# A backup that is still on its way has objects and no manifest yet; a day is longer than any upload.
ORPHAN_AGE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep. last: the newest so many, as far as they are younger than max_age; daily, weekly,
    monthly: the newest of each of the last so many days, ISO weeks and months (UTC) that have one."""

    last: int | None = None
    max_age: timedelta | None = None
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __post_init__(self) -> None:
        numbers = (self.last, self.daily, self.weekly, self.monthly)
        if any(number is not None and number < 0 for number in numbers):
            raise ConfigError("a number of backups to keep cannot be negative")
        if self.last == 0 or (self.max_age is not None and self.max_age <= timedelta(0)):
            raise ConfigError("nothing would be kept", hint="--keep is at least 1")
        if not any(numbers) and self.max_age is None:
            raise ConfigError(
                "nothing was said about what to keep", hint="--keep N, --keep-daily N, --max-age 30d"
            )


@dataclass(slots=True)
class Plan:
    """What a prune does. orphans: objects without a manifest; uploads: unfinished ones; left: why others stay."""

    keep: list[Entry] = field(default_factory=list)
    remove: list[Entry] = field(default_factory=list)
    orphans: list[ObjectInfo] = field(default_factory=list)
    uploads: list[StaleUpload] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def plan(listing: Listing, retention: Retention, now: datetime) -> Plan:
    """Decide, from one listing alone. now: the store's clock."""
    good = listing.good
    kept: set[BackupId] = {good[-1].id} if good else set()
    if retention.last is not None or retention.max_age is not None:
        recent = good[-retention.last :] if retention.last else good
        kept |= {
            entry.id
            for entry in recent
            if retention.max_age is None or _when(entry) >= now - retention.max_age
        }
    for count, calendar in (
        (retention.daily, "%Y-%m-%d"),
        (retention.weekly, "%G-%V"),
        (retention.monthly, "%Y-%m"),
    ):
        periods: dict[str, BackupId] = {}
        for entry in reversed(good):
            periods.setdefault(_when(entry).strftime(calendar), entry.id)
        kept |= set(list(periods.values())[:count])
    for number, links in listing.chains():
        if listing.entries[number].id in kept and not isinstance(links, VerifyError):
            kept |= {link.id for link in links}

    result = Plan()
    oldest_kept = min(kept, default=None)
    for entry in listing.entries:
        if entry.id in kept:
            result.keep.append(entry)
        elif entry.manifest is None:
            result.left.append(
                f"{entry.id}: {entry.problem}; not removed, since it cannot be told whose it is"
            )
        elif not entry.good and (oldest_kept is None or entry.id > oldest_kept):
            result.left.append(f"{entry.id}: {entry.problem}; younger than the oldest good one that is kept")
        else:
            result.remove.append(entry)
    return result


def find_orphans(listing: Listing, store: ObjectStore, result: Plan, *, age: timedelta) -> None:
    """Add objects and uploads of dead writers to the plan: ours by name and label, older than `age`."""
    before = store.now() - age
    for owner, infos in sorted(listing.pieces.items()):
        if owner in listing.manifests:
            continue
        for info in infos:
            if info.modified < before and _is_ours(store, info, listing.database, owner):
                result.orphans.append(info)
    gone = {entry.id for entry in result.remove}
    result.orphans += [
        info for owner, info in listing.proofs.items()
        if owner not in listing.manifests and owner not in gone and info.modified < before
    ]  # fmt: skip
    for upload in store.stale_uploads(f"{listing.database}/"):
        name = upload.key.partition("/")[2]
        if upload.modified < before and (
            owner_of(name) or name.startswith("proofs/") or name == "lease.json"
        ):
            result.uploads.append(upload)


def _is_ours(store: ObjectStore, info: ObjectInfo, database: str, owner: BackupId) -> bool:
    try:
        labels = store.labels(info.key)
    except NoSuchObjectError:
        return False
    return labels is None or (
        labels.get("memlift-database") == database and labels.get("memlift-backup") == str(owner)
    )


def carry_out(listing: Listing, store: ObjectStore, result: Plan) -> int:
    """Remove what the plan says; return the bytes that are free now. Safe to run again after a crash.

    A backup's manifest goes first, so that no listing shows half of one; a child goes before its parent.
    """
    freed = 0
    for entry in sorted(result.remove, key=lambda item: item.id, reverse=True):
        objects = [listing.manifests[entry.id], *listing.pieces.get(entry.id, ())]
        if entry.id in listing.proofs:
            objects.append(listing.proofs[entry.id])
        for info in objects:
            store.delete(info.key)
            freed += info.size
    for info in result.orphans:
        store.delete(info.key)
        freed += info.size
    for upload in result.uploads:
        store.abort_stale(upload)
    return freed


def _when(entry: Entry) -> datetime:
    if entry.manifest is None:
        raise ConfigError("a backup without a manifest has no time", backup=str(entry.id))
    return entry.manifest.time
