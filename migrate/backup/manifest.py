"""The manifest: what a backup is and how to prove it. Written last, so a backup without one is none.

It is read as a stranger's: every field is checked, names are plain object
names of this very backup (or of the chain it stands on), sizes are bounded.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from migrate.backup.codecs import SUFFIX
from migrate.backup.names import BackupId, is_piece
from migrate.errors import VerifyError

FORMAT = "memlift-backup"
VERSION = 1
MAX_BYTES = 8 << 20
# SQLite's own limit for a database file is 281 TB.
_MAX_SIZE = 1 << 48
_HEX = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"(?:\.[A-Za-z0-9_-]{1,100}){1,8}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of a backup. name: inside the database's folder; sizes: bytes; raw: before compression."""

    name: str
    size: int
    sha256: str
    raw_size: int
    raw_sha256: str
    compression: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A file that goes along. It is named by the database's full name (or its stem) and a suffix."""

    base: str
    suffix: str
    piece: Piece


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a restore needs to know and to prove.

    sha256, size: of the whole database file; tables: rows by table; chain:
    how many incrementals stand between this backup and its full one.
    """

    id: BackupId
    database: str
    time: datetime
    kind: str
    parent: BackupId | None
    base: BackupId
    chain: int
    size: int
    sha256: str
    page_size: int
    page_count: int
    tables: dict[str, int]
    schema_sha256: str
    source_path: str
    journal_mode: str
    tool: str
    artefact: Piece
    index: Piece | None = None
    sidecars: tuple[Sidecar, ...] = ()
    encryption: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        return sum(self.tables.values())

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (self.artefact, *((self.index,) if self.index else ()), *(s.piece for s in self.sidecars))

    @property
    def stored_bytes(self) -> int:
        """Bytes this backup itself takes in the store (a sidecar shared with its parent is the parent's)."""
        return sum(piece.size for piece in self.pieces if is_piece(piece.name, self.id))


def dump(manifest: Manifest, mac: Callable[[bytes], str] | None = None) -> bytes:
    """Write a manifest, with the hash that guards it (and the code that proves it, where it is sealed)."""
    body = asdict(manifest)
    body |= {
        "format": FORMAT,
        "version": VERSION,
        "id": str(manifest.id),
        "parent": str(manifest.parent) if manifest.parent else None,
        "base": str(manifest.base),
        "time": manifest.time.isoformat(),
    }
    document = _canonical(body)
    guarded: dict[str, Any] = {"manifest": body, "sha256": hashlib.sha256(document).hexdigest()}
    if mac is not None:
        guarded["mac"] = mac(document)
    return json.dumps(guarded, ensure_ascii=True, indent=1, sort_keys=True).encode() + b"\n"


def load(raw: bytes, *, database: str, backup: BackupId) -> Manifest:
    """Read a manifest found under its id in its database's folder. Raises VerifyError saying what is wrong."""
    try:
        return _load(raw, database, backup)
    except VerifyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        raise VerifyError(f"damaged manifest: {type(exc).__name__}: {exc}", backup=str(backup)) from exc


def _load(raw: bytes, database: str, backup: BackupId) -> Manifest:
    guarded = json.loads(raw)
    body = guarded["manifest"]
    _need(body.get("format") == FORMAT, "not a memlift manifest")
    _need(body.get("version") == VERSION, f"version {body.get('version')!r}, this memlift reads {VERSION}")
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    _need(
        isinstance(guarded["sha256"], str) and hmac.compare_digest(digest, guarded["sha256"]),
        "its hash differs",
    )
    _need(body["id"] == str(backup), "it belongs to another backup")
    _need(body["database"] == database, "it belongs to another database")
    kind, parent, base = body["kind"], _maybe(body["parent"], _id), _id(body["base"])
    _need(kind in ("full", "incremental"), "unknown kind")
    _need((kind == "full") == (parent is None) == (base == backup), "a full backup has no parent")
    _need(parent is None or (parent < backup and not backup <= base), "a parent comes before its child")
    when = datetime.fromisoformat(_text(body["time"]))
    _need(when.tzinfo is not None, "a time without a zone")
    encryption = body["encryption"]
    _need(encryption is None or isinstance(encryption, dict), "encryption")
    sealed = encryption is not None
    sidecars = tuple(_sidecar(item, sealed) for item in body["sidecars"])
    _need(len({(s.base, s.suffix) for s in sidecars}) == len(sidecars) <= 100, "sidecars")
    for sidecar in sidecars:
        _need(kind == "incremental" or is_piece(sidecar.piece.name, backup), "a sidecar of another backup")
    artefact, index = (
        _piece(body["artefact"], sealed),
        _maybe(body["index"], lambda item: _piece(item, sealed)),
    )
    for piece in (artefact, index):
        _need(piece is None or is_piece(piece.name, backup), "an object of another backup")
    tables = {_text(name): _count(rows) for name, rows in body["tables"].items()}
    size = _count(body["size"])
    _need(kind == "incremental" or artefact.raw_size == size, "sizes that do not fit")
    return Manifest(
        id=backup, database=database, time=when, kind=kind, parent=parent, base=base,
        chain=_count(body["chain"]), size=size, sha256=_hash(body["sha256"]),
        page_size=_count(body["page_size"]), page_count=_count(body["page_count"]), tables=tables,
        schema_sha256=_hash(body["schema_sha256"]), source_path=_text(body["source_path"]),
        journal_mode=_text(body["journal_mode"]), tool=_text(body["tool"]), artefact=artefact, index=index,
        sidecars=sidecars, encryption=encryption, notes=tuple(_text(note) for note in body["notes"]),
    )  # fmt: skip


def authenticate(raw: bytes, mac: Callable[[bytes], str]) -> None:
    """Raise VerifyError unless the manifest was written by someone who has the key."""
    guarded = json.loads(raw)
    given = guarded.get("mac")
    if not isinstance(given, str) or not hmac.compare_digest(given, mac(_canonical(guarded["manifest"]))):
        raise VerifyError(
            "the manifest is not authentic",
            hint="another passphrase or key, or someone changed it in the store",
        )


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(
        body, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _piece(item: dict[str, Any], sealed: bool) -> Piece:
    piece = Piece(
        _text(item["name"]), _count(item["size"]), _hash(item["sha256"]), _count(item["raw_size"]),
        _hash(item["raw_sha256"]), _text(item["compression"]), item["sealed"],
    )  # fmt: skip
    owner = BackupId.parse(piece.name.split(".", 1)[0])
    _need(owner is not None and is_piece(piece.name, owner), f"{piece.name!r} is no object name")
    _need(piece.compression in SUFFIX, f"unknown compression {piece.compression!r}")
    # A sealed backup has only sealed objects: a plain one in its place would be a forgery.
    _need(piece.sealed is sealed, "sealed and plain objects in one backup")
    return piece


def _sidecar(item: dict[str, Any], sealed: bool) -> Sidecar:
    _need(item["base"] in ("name", "stem"), "sidecar base")
    _need(_SUFFIX.fullmatch(_text(item["suffix"])) is not None, f"{item['suffix']!r} is no sidecar suffix")
    return Sidecar(item["base"], item["suffix"], _piece(item["piece"], sealed))


def is_sidecar_suffix(text: str) -> bool:
    """Whether a file's name after the database's may stand in a manifest."""
    return _SUFFIX.fullmatch(text) is not None


def _id(text: Any) -> BackupId:
    found = BackupId.parse(_text(text))
    if found is None:
        raise ValueError(f"{text!r} is no backup id")
    return found


def _maybe(value: Any, read: Callable[[Any], T]) -> T | None:
    return None if value is None else read(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {value!r:.40}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_SIZE:
        raise ValueError(f"a count expected, not {value!r:.40}")
    return value


def _hash(value: Any) -> str:
    if not _HEX.fullmatch(_text(value)):
        raise ValueError("a SHA-256 expected")
    return str(value)


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise VerifyError(f"damaged manifest: {what}")
