"""Compression, streaming both ways: standard gzip by isal, zstd, or none."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from migrate.errors import ConfigError, MissingExtraError, VerifyError

SUFFIX = {"gzip": ".gz", "zstd": ".zst", "none": ""}
# 256 KiB: larger ones save no CPU and a dozen of them are in flight.
CHUNK = 256 << 10

# Level 1: a tenth of zlib-6's CPU, 2 % (embeddings) to 12 % (text) larger. Level 3 costs half again as much.
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 3
_WBITS_GZIP = 31
# Level 3 uses windows of 2 MiB; a hostile frame may ask for gigabytes.
_ZSTD_MAX_WINDOW = 8 << 20


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def check(name: str) -> str:
    """Return the name; raises ConfigError for a compression that we do not know."""
    if name not in SUFFIX:
        raise ConfigError(f"unknown compression {name!r}", hint="gzip, zstd or none")
    return name


def library(name: str) -> Any:
    """Import what a codec needs, when it is needed. Raises MissingExtraError."""
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        raise MissingExtraError(f"backups need {exc.name}", hint="pip install 'memlift[backup]'") from exc


def compressor(name: str) -> Compressor:
    """Return a new compressor."""
    if check(name) == "gzip":
        isal_zlib = library("isal.isal_zlib")
        return cast(Compressor, isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _WBITS_GZIP))
    if name == "zstd":
        return cast(Compressor, library("zstandard").ZstdCompressor(level=_ZSTD_LEVEL).compressobj())
    return _Plain()


def decompress(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes in pieces of at most 256 KiB, however far a hostile input expands.

    Raises VerifyError for damaged, cut or trailing input.
    """
    if check(name) == "none":
        yield from chunks
        return
    damage = library("isal.isal_zlib").error if name == "gzip" else library("zstandard").ZstdError
    try:
        yield from _gunzip(chunks) if name == "gzip" else _unzstd(chunks)
    except damage as exc:
        raise VerifyError(f"{name}: the stream is damaged: {exc}") from exc


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    engine = library("isal.isal_zlib").decompressobj(_WBITS_GZIP)
    for chunk in chunks:
        if engine.eof:
            raise VerifyError("gzip: bytes after the end")
        data = chunk
        while data and not engine.eof:
            if plain := engine.decompress(data, CHUNK):
                yield plain
            data = engine.unconsumed_tail
        while not engine.eof and (plain := engine.decompress(b"", CHUNK)):
            yield plain
        if engine.unused_data:
            raise VerifyError("gzip: bytes after the end")
    if not engine.eof:
        raise VerifyError("gzip: the stream ends early")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    source = _Reader(chunks)
    engine = library("zstandard").ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    with engine.stream_reader(source, read_across_frames=False) as reader:
        while plain := reader.read(CHUNK):
            yield plain
    # The stored SHA-256 covers what zstd does not say: a cut stream simply ends here.


class _Reader:
    """An iterator of chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
