"""From objects to a database file that is proven to be what was backed up."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from migrate.backup import pages, sidecars
from migrate.backup.artefact import Courier
from migrate.backup.manifest import Manifest, Piece
from migrate.backup.snapshot import inspect
from migrate.backup.swap import put_in_place, refuse_if_used
from migrate.backup.workspace import check_room
from migrate.errors import BackendError, ConfigError, VerifyError

_TEMP = ".memlift-restore-"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restore. replaced: where the old file is kept, or None."""

    path: Path
    manifest: Manifest
    replaced: Path | None


def rebuild(chain: list[Manifest], courier: Courier, file: Path, progress: Progress | None = None) -> None:
    """Write the database of the chain's last backup to `file` and prove it.

    Raises VerifyError where anything differs from the manifest: a hash of a
    stored object, of the whole file, `integrity_check`, schema or row counts.
    """
    full, last = chain[0], chain[-1]
    done, total = 0, sum(link.artefact.raw_size for link in chain)

    def counted(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
        for chunk in chunks:
            start += len(chunk)
            if progress:
                progress(min(start, total), total)
            yield chunk

    with translating_disk(file):
        courier.fetch(full.artefact, lambda chunks: _write(counted(chunks, 0), file))
        done = full.artefact.raw_size
        for link in chain[1:]:
            size, before = link.size, done
            courier.fetch(
                link.artefact,
                lambda chunks, size=size, before=before: pages.apply(
                    counted(chunks, before), file, size=size
                ),  # type: ignore[misc]
            )
            done += link.artefact.raw_size
        prove(file, last, hashed=last is full and full.artefact.raw_sha256 == full.sha256)


def prove(file: Path, manifest: Manifest, *, hashed: bool = False) -> None:
    """Compare a private file with its manifest. hashed: its bytes have been compared already."""
    size = file.stat().st_size
    if size != manifest.size:
        raise VerifyError(f"{size} bytes of {manifest.size}", backup=str(manifest.id))
    if not hashed and _sha256(file) != manifest.sha256:
        raise VerifyError("the database is not what was backed up", backup=str(manifest.id))
    try:
        facts = inspect(file, check="integrity_check")
    except sqlite3.DatabaseError as exc:
        raise VerifyError(f"not a database: {exc}", backup=str(manifest.id)) from exc
    if facts.tables != manifest.tables:
        wrong = sorted(
            n for n in {*facts.tables, *manifest.tables} if facts.tables.get(n) != manifest.tables.get(n)
        )
        raise VerifyError(f"row counts differ: {', '.join(wrong)[:300]}", backup=str(manifest.id))
    if facts.schema_sha256 != manifest.schema_sha256:
        raise VerifyError("the schema differs", backup=str(manifest.id))


def fetch_file(courier: Courier, piece: Piece, file: Path) -> None:
    """Fetch one object whole into a file. Raises VerifyError, BackendError."""
    with translating_disk(file):
        courier.fetch(piece, lambda chunks: _write(chunks, file))


def restore(
    chain: list[Manifest],
    courier: Courier,
    to: Path,
    *,
    replace: bool,
    keep_replaced: bool,
    progress: Progress | None = None,
) -> Restored:
    """Restore the chain's last backup to `to`.

    replace: an existing file may go; keep_replaced: it stays beside, as
    `<name>.replaced-<time>`. Until the last rename nothing at `to` has
    changed. Raises ConfigError (InUseError where a process has it open),
    BackendError where the disk is full, VerifyError.
    """
    target = Path(os.path.realpath(to))
    if target.is_dir():
        raise ConfigError(f"{to} is a folder", hint="give the database's path")
    if target.exists() and not replace:
        raise ConfigError(
            f"{to} exists",
            hint="--force replaces it and keeps the old file beside it; or restore to another path",
        )
    refuse_if_used(target)
    manifest = chain[-1]
    need = max(link.size for link in chain) + sum(sidecar.piece.raw_size for sidecar in manifest.sidecars)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"cannot write to {target.parent}: {exc.strerror}") from exc
    with scratch_file(target) as temp:
        check_room(target.parent, need)
        rebuild(chain, courier, temp, progress)
        extra: dict[Path, Path] = {}
        try:
            for number, sidecar in enumerate(manifest.sidecars):
                part = temp.with_name(f"{temp.name}.{number}")
                extra[part] = sidecars.place(target, sidecar)
                fetch_file(courier, sidecar.piece, part)
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            old = [path for _, _, path in sidecars.find(target)]
            kept = put_in_place(temp, target, keep=keep_replaced, sidecars=extra, old_sidecars=old)
        finally:
            for part in extra:
                part.unlink(missing_ok=True)
    return Restored(target, manifest, kept)


@contextlib.contextmanager
def scratch_file(target: Path) -> Iterator[Path]:
    """Yield an empty 0600 file beside `target`, gone afterwards unless it was renamed.

    Files that killed restores left beside the same target are removed first.
    """
    start = f".{target.name[:100]}{_TEMP}"
    for old in target.parent.glob(f"{_glob(start)}*"):
        with contextlib.suppress(OSError):
            if not _locked(old):
                old.unlink()
    path = target.with_name(f"{start}{secrets.token_hex(6)}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise ConfigError(f"cannot write to {target.parent}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translating_disk(file: Path) -> Iterator[None]:
    """Turn the disk's errors into ours."""
    try:
        yield
    except OSError as exc:
        raise BackendError(
            f"cannot write {file.name}: {exc.strerror}", hint="make room, then run it again"
        ) from exc


def _locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _glob(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _write(chunks: Iterator[bytes], file: Path) -> None:
    with file.open("r+b" if file.exists() else "xb") as out:
        out.truncate(0)
        for chunk in chunks:
            out.write(chunk)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
