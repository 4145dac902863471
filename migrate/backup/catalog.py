"""What is in a store: every database's backups, which of them are whole, which are proven."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from migrate.backup.manifest import MAX_BYTES, Manifest, load
from migrate.backup.names import MANIFEST, PROOFS, BackupId, owner_of
from migrate.backup.objectstore import NoSuchObjectError, ObjectInfo, ObjectStore
from migrate.backup.patience import parallel
from migrate.errors import BackendError, ConfigError, TransientError, VerifyError

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# 8 manifests at once: 1,000 of them from S3 take seconds, not minutes.
_READERS = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One backup as found. problem: why it cannot be restored, or None; proven: when a drill last passed."""

    id: BackupId
    database: str
    manifest: Manifest | None
    problem: str | None = None
    proven: datetime | None = None

    @property
    def good(self) -> bool:
        return self.manifest is not None and self.problem is None


@dataclass(slots=True)
class Listing:
    """One database's folder. pieces: data objects by backup; sequence: the highest number in use."""

    database: str
    entries: list[Entry] = field(default_factory=list)
    pieces: dict[BackupId, list[ObjectInfo]] = field(default_factory=dict)
    manifests: dict[BackupId, ObjectInfo] = field(default_factory=dict)
    proofs: dict[BackupId, ObjectInfo] = field(default_factory=dict)

    @property
    def good(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.good]

    @property
    def sequence(self) -> int:
        return max((i.sequence for i in (*self.pieces, *self.manifests)), default=0)

    def chain(self, manifest: Manifest) -> list[Manifest]:
        """Return the full backup and the incrementals up to `manifest`, oldest first.

        Raises VerifyError where a link is missing or does not fit.
        """
        return _links(manifest, self._read())

    def chains(self) -> Iterator[tuple[int, list[Manifest] | VerifyError]]:
        """Yield for each good entry its place and `chain`, or why there is none."""
        read = self._read()
        for number, entry in enumerate(self.entries):
            if entry.manifest is not None and entry.good:
                try:
                    yield number, _links(entry.manifest, read)
                except VerifyError as exc:
                    yield number, exc

    def _read(self) -> dict[BackupId, Manifest | None]:
        return {entry.id: entry.manifest for entry in self.entries}

    def find(self, at: str | datetime | float = "latest") -> Manifest:
        """Return the newest good backup at a moment, or the one with this id.

        at: "latest", an id (or its sequence number as text), a datetime, an ISO 8601 time or Unix seconds.
        Raises ConfigError where there is none, VerifyError where the one that was named is damaged.
        """
        if isinstance(at, str) and at != "latest":
            named = [
                e
                for e in self.entries
                if str(e.id) == at or (at.isdigit() and len(at) < 9 and e.id.sequence == int(at))
            ]
            if len(named) == 1:
                entry = named[0]
                if entry.manifest is None or entry.problem:
                    raise VerifyError(
                        f"this backup cannot be restored: {entry.problem}", backup=str(entry.id)
                    )
                return entry.manifest
            if len(named) > 1:
                raise ConfigError(f"{at} names {len(named)} backups", hint="give the whole id")
        moment = None if at == "latest" else parse_time(at)
        fitting = [
            e.manifest for e in self.good if e.manifest and (moment is None or e.manifest.time <= moment)
        ]
        if not fitting:
            raise ConfigError(
                "no backup that can be restored" + (f" at {at}" if moment else ""),
                hint="memlift backup list shows what there is",
                database=self.database,
            )
        return fitting[-1]


def parse_time(at: str | datetime | float) -> datetime:
    """Return a moment with a zone; text without one is UTC. Raises ConfigError."""
    try:
        if isinstance(at, datetime):
            moment = at
        elif isinstance(at, str) and not re.fullmatch(r"\d{9,}(\.\d+)?", at):
            moment = datetime.fromisoformat(at)
        else:
            moment = datetime.fromtimestamp(float(at), UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise ConfigError(
            f"{at!r} is neither a backup's id nor a time", hint="latest, an id, or 2026-11-21T03:00:00Z"
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Catalog:
    """Reads listings; a manifest that has not changed is fetched once in a process's life."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._cache: dict[tuple[str, str, int], Manifest | str] = {}

    def databases(self) -> list[Listing]:
        """Every database that has a folder with backups under the store's prefix."""
        return self._listings("")

    def database(self, name: str) -> Listing:
        """One database's folder; empty where there is none yet."""
        found = self._listings(f"{name}/")
        return found[0] if found else Listing(name)

    def _listings(self, under: str) -> list[Listing]:
        listings: dict[str, Listing] = {}
        for info in self._store.objects(under):
            folder, _, name = info.key.partition("/")
            proof = name.startswith(PROOFS) and name.endswith(".json")
            owner = BackupId.parse(name[len(PROOFS) : -5]) if proof else owner_of(name)
            if owner is None or not _FOLDER.fullmatch(folder):
                continue  # not ours: never read, never touched
            listing = listings.setdefault(folder, Listing(folder))
            if proof:
                listing.proofs[owner] = info
            elif name.endswith(MANIFEST):
                listing.manifests[owner] = info
            else:
                listing.pieces.setdefault(owner, []).append(info)
        found = [self._complete(listing) for listing in listings.values()]
        return [listing for listing in found if listing.entries or under]

    def _complete(self, listing: Listing) -> Listing:
        found = sorted(listing.manifests.items())
        read = parallel(lambda item: self._read(listing.database, *item), found, workers=_READERS)
        listing.entries = [entry for entry in read if entry is not None]
        for number, entry in enumerate(listing.entries):
            proof = listing.proofs.get(entry.id)
            problem = entry.problem or self._problem(listing, entry)
            listing.entries[number] = replace(
                entry, problem=problem, proven=proof.modified if proof else None
            )
        self._judge_chains(listing)
        return listing

    def _read(self, database: str, backup: BackupId, info: ObjectInfo) -> Entry | None:
        place = (info.key, info.etag, info.size)
        if place not in self._cache:
            try:
                raw, _ = self._store.get(info.key, max_bytes=MAX_BYTES)
                self._cache[place] = load(raw, database=database, backup=backup)
            except NoSuchObjectError:
                return None  # pruned meanwhile
            except TransientError:
                raise
            except (VerifyError, BackendError) as exc:
                self._cache[place] = str(exc)
        known = self._cache[place]
        if isinstance(known, str):
            return Entry(backup, database, None, known)
        return Entry(backup, database, known)

    def _problem(self, listing: Listing, entry: Entry) -> str | None:
        if entry.manifest is None:
            return "no manifest"
        return _missing(entry.manifest, listing)

    @staticmethod
    def _judge_chains(listing: Listing) -> None:
        bad = {entry.id for entry in listing.entries if not entry.good}
        for number, links in listing.chains():  # a parent always comes before its children
            entry = listing.entries[number]
            if isinstance(links, VerifyError):
                problem: str | None = str(links)
            else:
                broken = next((link.id for link in links if link.id in bad), None)
                problem = f"it stands on {broken}, which is damaged" if broken else None
            if problem is not None:
                listing.entries[number] = replace(entry, problem=problem)
                bad.add(entry.id)


def _links(manifest: Manifest, read: Mapping[BackupId, Manifest | None]) -> list[Manifest]:
    links = [manifest]
    while (parent := links[-1].parent) is not None:
        found = read.get(parent)
        if found is None:
            raise VerifyError(
                "the backup it stands on is missing", backup=str(manifest.id), missing=str(parent)
            )
        if found.base != links[-1].base or found.chain != links[-1].chain - 1:
            raise VerifyError("its chain does not fit together", backup=str(manifest.id))
        links.append(found)
    return links[::-1]


def _missing(manifest: Manifest, listing: Listing) -> str | None:
    for piece in manifest.pieces:
        owner, key = owner_of(piece.name), f"{listing.database}/{piece.name}"
        there = listing.pieces.get(owner, ()) if owner and manifest.base <= owner <= manifest.id else ()
        size = next((info.size for info in there if info.key == key), None)
        if size is None:
            return f"{piece.name} is missing"
        if size != piece.size:
            return f"{piece.name} has {size} bytes of {piece.size}"
    return None


def only(listings: Iterable[Listing], database: str | None) -> Listing:
    """Choose one database of a store. Raises ConfigError where the choice is open."""
    found = [listing for listing in listings if database in (None, listing.database)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("no backups here" + (f" of {database}" if database else ""))
    names = ", ".join(listing.database for listing in found)
    raise ConfigError(f"the store holds {len(found)} databases: {names}", hint="choose one with --db")
