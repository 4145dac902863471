"""The file of a sidecar: an index's arrays, what of the store they are of, and a hash over all of it.

    0      magic, version, place and length of the manifest, SHA-256 of the manifest
    4096   the sections, one after the other
    ...    the manifest: JSON with the SHA-256 of each half of each section

What was hashed is what is used: a section is read into memory of our own, and
hashed there.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MAGIC = b"memlift HNSW\r\n\x1a\0"
VERSION = 1
_HEAD = struct.Struct("<16sII QQ 32s")
_BODY_AT = 4096
_CHUNK_BYTES = 16 * 2**20
_PIECE_BYTES = 2**20
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


Visit = Callable[[int, Bytes], None]
"""Told the number of the first of some units, and their bytes, which it may not keep; by several threads."""


def read(descriptor: int, found: Manifest, *names: str, trusted: bool) -> dict[str, Bytes]:
    """Read sections into memory, all where none is named; each byte is hashed as it comes unless `trusted`.

    Raises BrokenError for a file that is cut off, or not what its manifest says; OSError.
    """
    sections = {name: np.empty(found.sections[name][1], np.uint8) for name in names or found.sections}
    with _working() as submit:
        for name, data in sections.items():
            offset, length, hashes = found.sections[name]
            for i, (part, wanted) in enumerate(zip(_parts(data), hashes, strict=True)):
                at = offset + i * _part_bytes(length)
                submit(_read_part, descriptor, part, at, _Check(None if trusted else wanted))
    return sections


def stream(descriptor: int, found: Manifest, name: str, unit: int, visit: Visit, *, trusted: bool) -> None:
    """Show all units of a section, each of so many bytes, without keeping them; hashed as `read` does.

    What was seen is of no use where this raises, which it does as `read` does.
    """
    offset, length, hashes = found.sections[name]
    size = _part_bytes(length)
    ends: list[Future[tuple[bytes, bytes]]] = []
    with _working() as submit:
        for start, wanted in zip(range(0, length, size), hashes, strict=True):
            span, check = (start, min(start + size, length)), _Check(None if trusted else wanted)
            ends.append(submit(_show_part, descriptor, offset, span, unit, visit, check))
    for i, (before, after) in enumerate(pairwise(ends), 1):
        if between := before.result()[1] + after.result()[0]:
            visit(i * size // unit, np.frombuffer(between, np.uint8))


@contextmanager
def _working() -> Iterator[Callable[..., Future[Any]]]:
    """Give what starts work in threads; ends when all of it is done, or raises what one of them did."""
    running: list[Future[Any]] = []
    with ThreadPoolExecutor(_workers()) as pool:

        def submit(work: Callable[..., Any], *given: Any) -> Future[Any]:
            running.append(pool.submit(work, *given))
            return running[-1]

        try:
            yield submit
            for one in running:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Check:
    """The hash of what was read so far; of nothing where none is wanted."""

    def __init__(self, wanted: str | None) -> None:
        self._wanted, self._digest = wanted, hashlib.sha256()

    def add(self, data: memoryview) -> None:
        if self._wanted is not None:
            self._digest.update(data)

    def end(self) -> None:
        if self._wanted is not None and self._digest.hexdigest() != self._wanted:
            raise BrokenError("its hash is not that of its manifest")


def _parts(data: Bytes) -> list[memoryview]:
    """Cut a section into what is hashed in one piece."""
    return _cut(data, _part_bytes(len(data)))


def _part_bytes(length: int) -> int:
    """Return half of a section, 16 MB at least: two are read and hashed at a time."""
    return max(_CHUNK_BYTES, -(-length // 2))


def _cut(data: Bytes, size: int) -> list[memoryview]:
    return [data[i : i + size].data for i in range(0, len(data), size)]


def _sha256(part: memoryview) -> str:
    return hashlib.sha256(part).hexdigest()


def _workers() -> int:
    return min(8, os.cpu_count() or 1)


def _read_part(descriptor: int, part: memoryview, at: int, check: _Check) -> None:
    for i in range(0, len(part), _PIECE_BYTES):
        piece = part[i : i + _PIECE_BYTES]
        _fill(descriptor, piece, at + i)
        check.add(piece)  # while it is in the processor's cache
    check.end()


def _show_part(
    descriptor: int, offset: int, span: tuple[int, int], unit: int, visit: Visit, check: _Check
) -> tuple[bytes, bytes]:
    """Show the whole units of a part, and return what it has of units that others have the rest of: first and last."""
    start, end = span
    buffer = np.empty(max(1, _PIECE_BYTES // unit) * unit, np.uint8)

    def piece(at: int, size: int) -> Bytes:
        data = buffer[:size]
        _fill(descriptor, data.data, offset + at)
        check.add(data.data)
        return data

    head = piece(start, min(-start % unit, end - start)).tobytes()
    at = start + len(head)
    while (whole := (end - at) // unit * unit) > 0:
        data = piece(at, min(whole, len(buffer)))
        visit(at // unit, data)
        at += len(data)
    tail = piece(at, end - at).tobytes()
    check.end()
    return head, tail


def _fill(descriptor: int, part: memoryview, at: int) -> None:
    done = 0
    while done < len(part):
        n = os.preadv(descriptor, [part[done:]], at + done)
        if n == 0:
            raise BrokenError("it is cut off")
        done += n


def _write_all(descriptor: int, part: memoryview, at: int) -> None:
    done = 0
    while done < len(part):
        done += os.pwrite(descriptor, part[done:], at + done)
