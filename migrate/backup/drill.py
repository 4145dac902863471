"""Vault: opens backups of any database in a store, for restores and for restore drills."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.backup.artefact import Courier
from migrate.backup.catalog import Catalog, Listing
from migrate.backup.manifest import MAX_BYTES, Manifest, authenticate
from migrate.backup.names import MANIFEST, PROOFS
from migrate.backup.objectstore import ObjectStore
from migrate.backup.patience import Patience
from migrate.backup.restore import fetch_file, rebuild, restore
from migrate.backup.results import Drill, RestoreResult
from migrate.backup.workspace import workspace
from migrate.errors import ConfigError, VerifyError

if TYPE_CHECKING:
    from migrate.backup.sealing import Keyring, Secret

Progress = Callable[[int, int], None]
_CHECKS = ("stored SHA-256", "raw SHA-256", "integrity_check", "row counts", "schema")


class Vault:
    """What needs no source database. secret: opens sealed backups."""

    def __init__(
        self,
        store: ObjectStore,
        catalog: Catalog,
        patience: Patience,
        *,
        secret: Secret | None = None,
        workdir: Path | None = None,
    ) -> None:
        self.store, self.catalog, self.patience, self.workdir = store, catalog, patience, workdir
        self.keyring: Keyring | None = None
        if secret is not None:
            from migrate.backup.sealing import Keyring

            self.keyring = Keyring(secret)

    def courier(self, manifest: Manifest) -> Courier:
        """Return the courier that can open a backup. Raises ConfigError without the key it needs.

        A plain backup is refused where a key was given: someone who can write
        to the store could put one in a sealed one's place.
        """
        if manifest.encryption is None:
            if self.keyring is not None:
                raise ConfigError(
                    "this backup is not sealed",
                    backup=str(manifest.id),
                    hint="leave the passphrase away to use it",
                )
            return Courier(self.store, manifest.database, self.patience)
        if self.keyring is None:
            raise ConfigError(
                "this backup is sealed", backup=str(manifest.id), hint="--passphrase-file or --key-file"
            )
        keyring, params = self.keyring, manifest.encryption
        raw, _ = self.store.get(f"{manifest.database}/{manifest.id}{MANIFEST}", max_bytes=MAX_BYTES)
        authenticate(raw, lambda document: keyring.mac(params, document))
        return Courier(self.store, manifest.database, self.patience, keyring.master(params))

    def open_chain(self, listing: Listing, at: str | datetime | float) -> tuple[list[Manifest], Courier]:
        """Return the backup's chain, every link authenticated, and its courier."""
        chain = listing.chain(listing.find(at))
        if any(link.encryption != chain[0].encryption for link in chain):
            raise VerifyError("a chain under several keys", backup=str(chain[-1].id))
        couriers = [self.courier(link) for link in chain]
        return chain, couriers[-1]

    def restore(
        self,
        listing: Listing,
        at: str | datetime | float,
        to: Path,
        *,
        replace: bool,
        keep_replaced: bool,
        progress: Progress | None = None,
    ) -> RestoreResult:
        """Restore one backup to a path; see `restore.restore`."""
        started = time.monotonic()
        chain, courier = self.open_chain(listing, at)
        done = restore(chain, courier, to, replace=replace, keep_replaced=keep_replaced, progress=progress)
        return RestoreResult(done.path, done.manifest, done.replaced, time.monotonic() - started)

    def verify(
        self, listing: Listing, at: str | datetime | float = "latest", *, progress: Progress | None = None
    ) -> Drill:
        """Restore one backup to a scratch place, check everything, and write the proof beside it.

        Raises VerifyError where anything differs, ConfigError where there is nothing to verify.
        """
        started = time.monotonic()
        chain, courier = self.open_chain(listing, at)
        manifest = chain[-1]
        need = max(link.size for link in chain) + max(
            (s.piece.raw_size for s in manifest.sidecars), default=0
        )
        with workspace(self.workdir, need=need) as place:
            rebuild(chain, courier, place / "drill.db", progress)
            for sidecar in manifest.sidecars:
                fetch_file(courier, sidecar.piece, place / "sidecar")
            if manifest.index is not None:
                fetch_file(courier, manifest.index, place / "index")
        seconds = time.monotonic() - started
        drill = Drill(manifest, datetime.fromtimestamp(time.time(), UTC), seconds, _CHECKS)
        body = json.dumps(
            {"format": "memlift-proof", "version": 1} | drill.to_dict(), sort_keys=True
        ).encode()
        self.store.put(f"{manifest.database}/{PROOFS}{manifest.id}.json", body)
        return drill
