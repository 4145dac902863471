"""The file of a sidecar: an index's arrays, what of the store they are of, and a hash over all of it.

    0      magic, version, place and length of the manifest, SHA-256 of the manifest
    4096   the sections, one after the other
    ...    the manifest: JSON with the SHA-256 of each half of each section

What was hashed is what is used: a section is read into memory of our own, and
hashed there while it becomes an index, which nobody may ask before.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MAGIC = b"memlift HNSW\r\n\x1a\0"
VERSION = 1
_HEAD = struct.Struct("<16sII QQ 32s")
_BODY_AT = 4096
_CHUNK_BYTES = 16 * 2**20
_MOST_MANIFEST = 64 * 2**20


class NotOursError(Exception):
    """A file that memlift did not write."""


class BrokenError(Exception):
    """A file of ours that is damaged, or of another version."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file says of itself. `root` is the SHA-256 of these words, which hold those of the sections."""

    told: Mapping[str, Any]
    sections: Mapping[str, tuple[int, int, tuple[str, ...]]]
    root: str


def write(descriptor: int, told: Mapping[str, Any], sections: Mapping[str, Bytes]) -> str:
    """Write a file from its beginning, durable on return; return its root. Raises OSError."""
    os.ftruncate(descriptor, 0)
    at = _BODY_AT
    listed: dict[str, Any] = {}
    with ThreadPoolExecutor(_workers()) as pool:
        hashes: dict[str, list[Future[str]]] = {}
        for name, data in sections.items():
            flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
            hashes[name] = [pool.submit(_sha256, part) for part in _parts(flat)]
            listed[name] = {"offset": at, "length": len(flat)}
            for chunk in _cut(flat, _CHUNK_BYTES):
                _write_all(descriptor, chunk, at)
                at += len(chunk)
        for name, found in hashes.items():
            listed[name]["parts"] = [f.result() for f in found]
    text = json.dumps({**told, "sections": listed}, sort_keys=True).encode()
    _write_all(descriptor, memoryview(text), at)
    root = hashlib.sha256(text).digest()
    _write_all(descriptor, memoryview(_HEAD.pack(MAGIC, VERSION, 0, at, len(text), root)), 0)
    os.fsync(descriptor)
    return root.hex()


def manifest(descriptor: int) -> Manifest:
    """Read what a file says of itself. Raises NotOursError, BrokenError, OSError."""
    head = os.pread(descriptor, _HEAD.size, 0)
    if head[: len(MAGIC)] != MAGIC:
        raise NotOursError
    if len(head) < _HEAD.size:
        raise BrokenError("it is cut off")
    _, version, _, at, length, root = _HEAD.unpack(head)
    if version != VERSION:
        raise BrokenError(f"it is of version {version}, this memlift reads {VERSION}")
    if length > _MOST_MANIFEST or at + length != os.fstat(descriptor).st_size:
        raise BrokenError("its length is not what it says")
    text = os.pread(descriptor, length, at)
    if hashlib.sha256(text).digest() != root:
        raise BrokenError("its manifest is damaged")
    try:
        told = json.loads(text)
        listed = told.pop("sections")
        sections = {
            str(name): (int(s["offset"]), int(s["length"]), tuple(map(str, s["parts"])))
            for name, s in listed.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BrokenError("its manifest makes no sense") from None
    for offset, size, parts in sections.values():
        if offset < _BODY_AT or size < 0 or offset + size > at or len(parts) != -(-size // _part_bytes(size)):
            raise BrokenError("its manifest makes no sense")
    return Manifest(told, sections, root.hex())


class Read:
    """A file's sections in memory, while they are still being hashed."""

    def __init__(self, sections: dict[str, Bytes], checks: list[tuple[Future[str], str]]) -> None:
        self.sections, self._checks = sections, checks

    def verify(self) -> None:
        """Raise BrokenError where a hash is not that of the manifest; nothing may be asked of the bytes before."""
        if any(check.result() != wanted for check, wanted in self._checks):
            raise BrokenError("its hash is not that of its manifest")


@contextmanager
def reading(descriptor: int, found: Manifest, *, trusted: bool) -> Iterator[Read]:
    """Read the sections into memory; the hashes are computed meanwhile and after, none where `trusted`.

    Raises BrokenError for a file that ends too early, OSError.
    """
    sections = {name: np.empty(length, np.uint8) for name, (_, length, _) in found.sections.items()}
    checks: list[tuple[Future[str], str]] = []
    with ThreadPoolExecutor(_workers()) as pool:
        try:
            reads = [
                pool.submit(_read_all, descriptor, chunk, offset + i * _CHUNK_BYTES)
                for name, (offset, _, _) in found.sections.items()
                for i, chunk in enumerate(_cut(sections[name], _CHUNK_BYTES))
            ]
            if not all(read.result() for read in reads):
                raise BrokenError("it is cut off")
            if not trusted:
                for name, (_, _, hashes) in found.sections.items():
                    parts = zip(_parts(sections[name]), hashes, strict=True)
                    checks += [(pool.submit(_sha256, part), wanted) for part, wanted in parts]
            yield Read(sections, checks)
        finally:
            pool.shutdown(cancel_futures=True)


def _parts(data: Bytes) -> list[memoryview]:
    """Cut a section into what is hashed in one piece."""
    return _cut(data, _part_bytes(len(data)))


def _part_bytes(length: int) -> int:
    """Return half of a section, 16 MB at least.

    In two parts, for a hash of a part is one call that needs nothing of Python: it goes on while
    hnswlib, which lets nothing of Python run meanwhile, takes the bytes over.
    """
    return max(_CHUNK_BYTES, -(-length // 2))


def _cut(data: Bytes, size: int) -> list[memoryview]:
    return [data[i : i + size].data for i in range(0, len(data), size)]


def _sha256(part: memoryview) -> str:
    return hashlib.sha256(part).hexdigest()


def _workers() -> int:
    return min(8, os.cpu_count() or 1)


def _read_all(descriptor: int, part: memoryview, at: int) -> bool:
    done = 0
    while done < len(part):
        n = os.preadv(descriptor, [part[done:]], at + done)
        if n == 0:
            return False
        done += n
    return True


def _write_all(descriptor: int, part: memoryview, at: int) -> None:
    done = 0
    while done < len(part):
        done += os.pwrite(descriptor, part[done:], at + done)
