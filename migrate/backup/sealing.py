"""Client-side encryption: authenticated, streaming, with a key that never goes to the store.

A passphrase becomes a master key by scrypt; a key file (32 bytes or more) is
used as it is. Each object has its own AES-256-GCM key (HKDF of the master key,
the object's name and a random salt) and is sealed in 64 KiB chunks. A chunk's
nonce is its number and a mark on the last one, so that chunks cannot be cut
off, moved, doubled or carried to another object (the STREAM construction,
Hoang et al. 2015). All primitives come from `cryptography`.

Layout: magic (8), salt (16), then per chunk ciphertext and 16 bytes of tag.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from migrate.errors import ConfigError, VerifyError

MAGIC = b"MLSEAL1\n"
SCHEME = "AES-256-GCM-64K"
_SALT = 16
_TAG = 16
_CHUNK = 64 << 10
# OWASP's equivalent of n=2^17, p=1 in a quarter of the memory: 32 MB, about 0.3 s.
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 3}


@dataclass(frozen=True, slots=True)
class Secret:
    """A passphrase or a key; its repr shows neither."""

    kind: str
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind}, ***)"

    @classmethod
    def passphrase(cls, text: str) -> Secret:
        """Use a passphrase; raises ConfigError below 8 characters."""
        if len(text) < 8:
            raise ConfigError("the passphrase has fewer than 8 characters", hint="use a long one")
        return cls("scrypt", text.encode())

    @classmethod
    def from_passphrase_file(cls, path: Path) -> Secret:
        """Use the first line of a file."""
        try:
            lines = _read(path).decode("utf-8").splitlines()
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{path} is not text", hint="a binary key goes with --key-file") from exc
        return cls.passphrase(lines[0] if lines else "")

    @classmethod
    def from_key_file(cls, path: Path) -> Secret:
        """Use a file's bytes, 32 to 4096 of them, random: `head -c 32 /dev/urandom > key`."""
        value = _read(path)
        if not 32 <= len(value) <= 4096:
            raise ConfigError(
                f"{path} holds {len(value)} bytes; a key has 32 to 4096", hint="32 random bytes"
            )
        return cls("key", value)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc


class Keyring:
    """Master keys, derived once for each salt."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._masters: dict[str, bytes] = {}

    def new_params(self) -> dict[str, Any]:
        """Return the public parameters of a new master key."""
        params: dict[str, Any] = {
            "scheme": SCHEME,
            "kdf": self._secret.kind,
            "salt": secrets.token_hex(_SALT),
        }
        if self._secret.kind == "scrypt":
            params |= _SCRYPT
        return params | {"check": _check(self._derive(params))}

    def master(self, params: dict[str, Any]) -> bytes:
        """Derive the master key. Raises ConfigError for parameters that do not fit this secret."""
        check_params(params)
        if params["kdf"] != self._secret.kind:
            wanted = "a passphrase" if params["kdf"] == "scrypt" else "a key file"
            raise ConfigError(f"this backup was sealed with {wanted}", hint="--passphrase-file or --key-file")
        master = self._derive(params)
        # A wrong passphrase is told from a forged object before anything else is looked at.
        if params.get("check") != _check(master):
            raise ConfigError("another passphrase or key", hint="this backup was sealed with a different one")
        return master

    def _derive(self, params: dict[str, Any]) -> bytes:
        salt: str = params["salt"]
        if salt not in self._masters:
            raw = bytes.fromhex(salt)
            if params["kdf"] == "scrypt":
                kdf = Scrypt(salt=raw, length=32, n=params["n"], r=params["r"], p=params["p"])
                self._masters[salt] = kdf.derive(self._secret.value)
            else:
                self._masters[salt] = _derive(self._secret.value, raw, b"memlift master")
        return self._masters[salt]

    def mac(self, params: dict[str, Any], document: bytes) -> str:
        """Return the authentication code of a manifest."""
        key = _derive(self.master(params), b"", b"memlift manifest")
        return hmac.new(key, document, hashlib.sha256).hexdigest()


def check_params(params: dict[str, Any]) -> None:
    """Raise VerifyError for parameters that we would never write (they come from the store)."""
    fits = params.get("scheme") == SCHEME and params.get("kdf") in ("scrypt", "key")
    salt = params.get("salt")
    fits = (
        fits
        and isinstance(salt, str)
        and len(salt) == 2 * _SALT
        and all(c in "0123456789abcdef" for c in salt)
    )
    if fits and params["kdf"] == "scrypt":
        fits = {name: params.get(name) for name in _SCRYPT} == _SCRYPT
    if not fits:
        raise VerifyError("unknown encryption parameters", hint="was it written by a newer memlift?")


class Sealer:
    """Encrypts one object, as a stream."""

    def __init__(self, master: bytes, name: str) -> None:
        salt = secrets.token_bytes(_SALT)
        self._aead = AESGCM(_derive(master, salt, b"memlift object " + name.encode()))
        self._buffer = bytearray()
        self._number = 0
        self._head = MAGIC + salt

    def update(self, data: bytes) -> bytes:
        """Take plain bytes, give sealed ones."""
        out, self._head = bytearray(self._head), b""
        self._buffer += data
        start = 0
        # The last chunk is marked, so one is always held back.
        while len(self._buffer) - start > _CHUNK:
            out += self._seal(bytes(self._buffer[start : start + _CHUNK]), last=False)
            start += _CHUNK
        del self._buffer[:start]
        return bytes(out)

    def finish(self) -> bytes:
        """Give the last chunk."""
        return self._head + self._seal(bytes(self._buffer), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> bytes:
        sealed = self._aead.encrypt(_nonce(self._number, last), chunk, None)
        self._number += 1
        return sealed


def unseal(master: bytes, name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes of one object; none of a chunk before its tag is proven.

    Raises VerifyError: the passphrase is wrong, or a bit is, or the end is missing.
    """
    buffer = bytearray()
    aead: AESGCM | None = None
    number = 0
    for piece in chunks:
        buffer += piece
        if aead is None:
            if len(buffer) < len(MAGIC) + _SALT:
                continue
            if bytes(buffer[: len(MAGIC)]) != MAGIC:
                raise VerifyError("not a sealed object", object=name)
            salt = bytes(buffer[len(MAGIC) : len(MAGIC) + _SALT])
            del buffer[: len(MAGIC) + _SALT]
            aead = AESGCM(_derive(master, salt, b"memlift object " + name.encode()))
        start = 0
        while len(buffer) - start > _CHUNK + _TAG:
            yield _open(aead, number, bytes(buffer[start : start + _CHUNK + _TAG]), False, name)
            start += _CHUNK + _TAG
            number += 1
        del buffer[:start]
    if aead is None:
        raise VerifyError("not a sealed object", object=name)
    yield _open(aead, number, bytes(buffer), True, name)


def _open(aead: AESGCM, number: int, chunk: bytes, last: bool, name: str) -> bytes:
    try:
        return aead.decrypt(_nonce(number, last), chunk, None)
    except InvalidTag as exc:
        raise VerifyError("decryption failed: damaged, or another key", object=name) from exc


def _check(master: bytes) -> str:
    return _derive(master, b"", b"memlift check").hex()


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">QI", number, 1 if last else 0)


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key)
