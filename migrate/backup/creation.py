"""One backup from beginning to end: copy, check, compare, send, and the manifest last."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.backup import pages, sidecars, snapshot
from migrate.backup.artefact import Courier, read_file
from migrate.backup.catalog import Listing
from migrate.backup.manifest import MAX_BYTES, Manifest, Piece, Sidecar, dump
from migrate.backup.names import MANIFEST, BackupId
from migrate.backup.restore import fetch_file
from migrate.backup.results import Created
from migrate.backup.workspace import workspace
from migrate.errors import BackendError, ConfigError, TransientError, VerifyError

if TYPE_CHECKING:
    from migrate.backup.manager import BackupManager

_TRIES = 3
_Chunks = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class _Parent:
    """The backup that an incremental stands on. index: its page hashes, fetched."""

    manifest: Manifest
    courier: Courier
    index: Path


@dataclass(frozen=True, slots=True)
class _Beside:
    """A sidecar as copied. file: the private copy; sha256: of it."""

    base: str
    suffix: str
    file: Path
    sha256: str


class Creation:
    """Makes one backup for a manager."""

    def __init__(self, manager: BackupManager, mode: str) -> None:
        self._manager = manager
        self._incremental = mode == "incremental"
        self._notes: list[str] = []

    def run(self) -> Created:
        """Return the new backup, or the one that has everything already."""
        manager, started = self._manager, time.monotonic()
        size = snapshot.database_size(manager.path)
        listing = manager.catalog.database(manager.database)
        beside = sidecars.find(manager.path) if manager.settings.sidecars else []
        need = (
            size
            + sum(path.stat().st_size for _, _, path in beside)
            + (size // 100 if self._incremental else 0)
        )
        with workspace(manager.settings.workdir, need=need) as place:
            copy = snapshot.take(
                manager.path, place / "copy.db", limits=manager.settings.limits,
                progress=manager.progress_for("copying"), cancel=manager.cancel,
            )  # fmt: skip
            copies = [c for c in (self._copy(place, n, *found) for n, found in enumerate(beside)) if c]
            parent, difference = self._compare(copy, listing, place)
            if (
                parent
                and difference
                and not difference.changed
                and self._says_all(parent.manifest, copy, copies)
            ):
                return Created(parent.manifest, True, 0, time.monotonic() - started, copy.seconds, 0)
            if parent and parent.manifest.chain >= manager.settings.max_chain:
                parent = None  # long enough: the next full backup
            manifest = self._send(copy, copies, parent, difference, listing, place)
        changed = difference.changed if parent and difference else None
        return Created(
            manifest, False, manifest.stored_bytes, time.monotonic() - started, copy.seconds, changed
        )

    def _copy(self, place: Path, number: int, base: str, suffix: str, path: Path) -> _Beside | None:
        """Copy a sidecar; None where it changed meanwhile (it can be built anew)."""
        target, digest = place / f"side{number}", hashlib.sha256()
        try:
            before = path.stat()
            with target.open("xb") as out:
                for chunk in read_file(path):
                    digest.update(chunk)
                    out.write(chunk)
            after = path.stat()
        except OSError as exc:
            self._notes.append(f"{path.name} left out: {exc.strerror}; it has to be rebuilt after a restore")
            return None
        if (before.st_mtime_ns, before.st_size, before.st_ino) != (
            after.st_mtime_ns,
            after.st_size,
            after.st_ino,
        ):
            self._notes.append(
                f"{path.name} left out: it changed meanwhile; it has to be rebuilt after a restore"
            )
            return None
        return _Beside(base, suffix, target, digest.hexdigest())

    def _compare(
        self, copy: snapshot.Snapshot, listing: Listing, place: Path
    ) -> tuple[_Parent | None, pages.Difference | None]:
        """Find the parent and what changed since; no parent means that a full backup is due."""
        if not self._incremental:
            return None, None
        parent = self._parent(listing, place)
        new_index = place / "index"
        difference = pages.index_and_compare(copy.path, new_index, parent.index if parent else None)
        if parent is None:
            return None, difference
        # Shrinking changes no block that is left, and the end of the file still has to go.
        shrunk = copy.size != parent.manifest.size
        if difference.changed > self._manager.settings.full_above * max(difference.total, 1):
            self._notes.append(f"{difference.changed} of {difference.total} blocks changed: a full backup")
            return None, difference
        if shrunk and not difference.changed:
            last = max(difference.total - 1, 0)
            runs = array("Q", (last, 1) if difference.total else ())
            difference = pages.Difference(runs, len(runs) // 2, difference.total, difference.sha256)
        return parent, difference

    def _parent(self, listing: Listing, place: Path) -> _Parent | None:
        good = listing.good
        manifest = good[-1].manifest if good else None
        if manifest is None or manifest.index is None:
            return None
        if (manifest.encryption is None) != (self._manager.vault.keyring is None):
            self._notes.append("sealing was switched on or off: a full backup")
            return None
        index = place / "known"
        try:
            chain, courier = self._manager.vault.open_chain(listing, str(manifest.id))
            for number, link in enumerate(chain):
                if link.index is None:
                    return None
                if number == 0:
                    fetch_file(courier, link.index, index)
                else:
                    blocks = -(-link.size // pages.BLOCK)
                    part = place / "part"
                    fetch_file(courier, link.index, part)
                    pages.lay_over(read_file(part), index, blocks=blocks)
        except TransientError:
            raise
        except (ConfigError, VerifyError, BackendError) as exc:
            self._notes.append(f"{manifest.id} cannot be built on ({exc}): a full backup")
            return None
        return _Parent(manifest, courier, index)

    def _says_all(self, parent: Manifest, copy: snapshot.Snapshot, beside: list[_Beside]) -> bool:
        kept = {(s.base, s.suffix): s.piece.raw_sha256 for s in parent.sidecars}
        return copy.size == parent.size and kept == {(b.base, b.suffix): b.sha256 for b in beside}

    def _send(
        self,
        copy: snapshot.Snapshot,
        beside: list[_Beside],
        parent: _Parent | None,
        difference: pages.Difference | None,
        listing: Listing,
        place: Path,
    ) -> Manifest:
        from migrate.backup.manager import tool_version, utc_now

        manager, keyring, now = self._manager, self._manager.vault.keyring, utc_now()
        backup = BackupId.new(listing.sequence + 1, now)
        if parent is not None:
            encryption, courier = parent.manifest.encryption, parent.courier
        else:
            encryption = keyring.new_params() if keyring else None
            master = keyring.master(encryption) if keyring and encryption else None
            courier = Courier(manager.store, manager.database, manager.patience, master)

        def send(kind: str, chunks: _Chunks, compression: str, size: int) -> Piece:
            return courier.send(
                f"{backup}.{kind}", chunks, compression=compression, size=size, backup=str(backup)
            )

        if parent is not None and difference is not None:
            changes = difference
            size = changes.changed * (pages.BLOCK + 16) + 32
            artefact = send("pages", lambda: pages.delta(copy.path, changes), manager.compression, size)
            index: Piece | None = send(
                "index", lambda: pages.delta_index(place / "index", changes), "none", 8 + 24 * changes.changed
            )
            sha256 = changes.sha256
        else:
            artefact = send("sqlite", lambda: self._counted(copy), manager.compression, copy.size)
            sha256, index = artefact.raw_sha256, None
            if difference is not None:
                file = place / "index"
                index = send("index", lambda: read_file(file), "none", file.stat().st_size)
        extra = tuple(
            Sidecar(b.base, b.suffix, self._shared(parent, b) or send(
                f"side{n}", lambda b=b: read_file(b.file), manager.compression, b.file.stat().st_size  # type: ignore[misc]
            ))
            for n, b in enumerate(beside)
        )  # fmt: skip
        manifest = Manifest(
            id=backup, database=manager.database, time=now,
            kind="incremental" if parent else "full",
            parent=parent.manifest.id if parent else None,
            base=parent.manifest.base if parent else backup,
            chain=parent.manifest.chain + 1 if parent else 0,
            size=copy.size, sha256=sha256, page_size=copy.page_size, page_count=copy.size // copy.page_size,
            tables=copy.tables, schema_sha256=copy.schema_sha256, source_path=_printable(manager.path),
            journal_mode=copy.journal_mode, tool=tool_version(), artefact=artefact, index=index,
            sidecars=extra, encryption=encryption, notes=tuple(self._notes),
        )  # fmt: skip
        if parent is not None:
            # A prune elsewhere may have removed it while we were busy.
            manager.store.get(f"{manager.database}/{parent.manifest.id}{MANIFEST}", max_bytes=MAX_BYTES)
        self._publish(manifest)
        return manifest

    def _counted(self, copy: snapshot.Snapshot) -> Iterator[bytes]:
        report, done = self._manager.progress_for("sending"), 0
        for chunk in read_file(copy.path):
            yield chunk
            done += len(chunk)
            if report:
                report(done, copy.size)

    def _shared(self, parent: _Parent | None, beside: _Beside) -> Piece | None:
        """Return the parent's object of an unchanged sidecar: it stays as long as this backup does."""
        for sidecar in parent.manifest.sidecars if parent else ():
            same = (sidecar.base, sidecar.suffix) == (beside.base, beside.suffix)
            if same and sidecar.piece.raw_sha256 == beside.sha256:
                return sidecar.piece
        return None

    def _publish(self, manifest: Manifest) -> None:
        """Write the manifest and read it back: from here on the backup exists."""
        manager, keyring, params = self._manager, self._manager.vault.keyring, manifest.encryption
        mac = (lambda document: keyring.mac(params, document)) if keyring and params else None
        raw, key = dump(manifest, mac), f"{manager.database}/{manifest.id}{MANIFEST}"
        for _ in range(_TRIES):
            manager.store.put(key, raw)
            if manager.store.get(key, max_bytes=MAX_BYTES)[0] == raw:
                return
        manager.store.delete(key)
        raise VerifyError("the manifest comes back different", key=key, hint="check the line and the store")


def _printable(path: Path) -> str:
    """Return the resolved path as text that JSON can hold."""
    return str(path.resolve()).encode("utf-8", "backslashreplace").decode()
