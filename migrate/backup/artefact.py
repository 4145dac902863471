"""Objects on their way up and down: hash, compress, seal, send; fetch, prove, open, expand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from migrate.backup import codecs
from migrate.backup.manifest import Piece
from migrate.backup.objectstore import ObjectStore
from migrate.backup.patience import Patience
from migrate.errors import BackendError, VerifyError

CHUNK = codecs.CHUNK
# Damage on the way is random: the second and third try meet it again only where it is at rest.
_TRIES = 3


class Sealing(Protocol):
    def update(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Courier:
    """Carries a database's objects. master: the key of sealed backups; folder: the database's id."""

    store: ObjectStore
    folder: str
    patience: Patience
    master: bytes | None = None

    def key(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def send(
        self, name: str, chunks: Callable[[], Iterable[bytes]], *, compression: str, size: int, backup: str
    ) -> Piece:
        """Store one object and prove it. chunks: called anew for each try; size: raw bytes at most.

        Where the store does not check what it receives, the object is read
        back. Raises VerifyError where it comes back different three times.
        """
        name += codecs.SUFFIX[compression] + (".enc" if self.master else "")
        for attempt in range(_TRIES):
            piece = self._send(name, chunks(), compression, size, backup)
            if self.store.checks_uploads() or self._reads_back(piece):
                return piece
            self.store.delete(self.key(name))
            if attempt + 1 < _TRIES:
                self.patience.check()
        raise VerifyError(
            "what the store gives back is not what was sent", object=name, hint="check the line and the store"
        )

    def _send(self, name: str, chunks: Iterable[bytes], compression: str, size: int, backup: str) -> Piece:
        engine = codecs.compressor(compression)
        sealer: Sealing | None = None
        if self.master:
            from migrate.backup.sealing import Sealer

            sealer = Sealer(self.master, name)
        raw_hash, stored_hash, raw_size, stored_size = hashlib.sha256(), hashlib.sha256(), 0, 0
        # gzip and zstd expand what cannot be compressed by less than 1 %; sealing adds 16 bytes in 64 KiB.
        bound = size + size // 64 + (1 << 20)
        labels = {"memlift-database": self.folder, "memlift-backup": backup}
        upload = self.store.upload(self.key(name), size_bound=bound, labels=labels)
        try:
            for chunk in _and_last(chunks):
                self.patience.check()
                if chunk is not None:
                    raw_hash.update(chunk)
                    raw_size += len(chunk)
                data = engine.flush() if chunk is None else engine.compress(chunk)
                if sealer:
                    data = sealer.update(data)
                    if chunk is None:
                        data += sealer.finish()
                if data:
                    stored_hash.update(data)
                    stored_size += len(data)
                    upload.write(data)
            upload.commit()
        except BaseException:
            upload.abort()
            raise
        return Piece(
            name, stored_size, stored_hash.hexdigest(), raw_size, raw_hash.hexdigest(), compression,
            self.master is not None,
        )  # fmt: skip

    def _reads_back(self, piece: Piece) -> bool:
        try:
            for _ in self._stored(piece):
                self.patience.check()
        except VerifyError:
            return False
        return True

    def _stored(self, piece: Piece) -> Iterator[bytes]:
        """Yield an object's stored bytes; raises VerifyError at the end where they are not what was sent."""
        digest, size = hashlib.sha256(), 0
        for chunk in self.store.stream(self.key(piece.name)):
            self.patience.check()
            digest.update(chunk)
            size += len(chunk)
            if size > piece.size:
                break
            yield chunk
        if size != piece.size or digest.hexdigest() != piece.sha256:
            raise VerifyError(
                f"damaged object: {size} bytes of {piece.size}, or another hash", object=piece.name
            )

    def open(self, piece: Piece) -> Iterator[bytes]:
        """Yield an object's raw bytes. Raises VerifyError at the latest after the last one."""
        chunks = self._stored(piece)
        if piece.sealed:
            from migrate.backup.sealing import unseal

            if self.master is None:
                raise VerifyError("a sealed object without a key", object=piece.name)
            chunks = unseal(self.master, piece.name, chunks)
        digest, size = hashlib.sha256(), 0
        for raw in codecs.decompress(piece.compression, chunks):
            digest.update(raw)
            size += len(raw)
            if size > piece.raw_size:
                raise VerifyError("the object expands beyond its size", object=piece.name)
            yield raw
        for _ in chunks:  # what a decompressor left unread still counts for the stored hash
            raise VerifyError("bytes after the end", object=piece.name)
        if size != piece.raw_size or digest.hexdigest() != piece.raw_sha256:
            raise VerifyError("the expanded bytes are not what was backed up", object=piece.name)

    def fetch(self, piece: Piece, consume: Callable[[Iterator[bytes]], None]) -> None:
        """Give an object's raw bytes to `consume`, from the start again where they arrived damaged.

        `consume` must bear to be called three times. Raises VerifyError where
        the object is damaged at rest, BackendError where it is missing.
        """
        for attempt in range(_TRIES):
            try:
                consume(self.open(piece))
            except VerifyError:
                if attempt + 1 == _TRIES:
                    raise
                self.patience.check()
            else:
                return
        raise BackendError("unreachable", object=piece.name)


def _and_last(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None


def read_file(path: Path) -> Iterator[bytes]:
    """Yield a private file in pieces of 256 KiB."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
