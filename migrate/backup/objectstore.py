"""ObjectStore: what a backup needs of a place to keep objects. S3 and a folder both offer it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from migrate.config import mask
from migrate.errors import BackendError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from migrate.backup.patience import Patience


class NoSuchObjectError(BackendError):
    """The object is not there."""


class PreconditionError(BackendError):
    """A conditional write or read was refused: the object is there already, or changed."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object. key: below the store's prefix; size: bytes; modified: by the store's clock."""

    key: str
    size: int
    modified: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class StaleUpload:
    """An unfinished upload that a dead writer left. token: the store's own handle."""

    key: str
    token: str
    modified: datetime


class Upload(Protocol):
    """A write in progress. Nothing is visible under the key before `commit` returns."""

    def write(self, data: bytes) -> None:
        """Append bytes; may block while earlier ones are on their way. Raises BackendError."""

    def commit(self) -> None:
        """Make the object visible, whole and durable. Raises BackendError."""

    def abort(self) -> None:
        """Give up and remove what was sent; never raises for what is already gone."""


class ObjectStore(Protocol):
    """Keys are relative to the store's prefix and go through `names.check_key`.

    Every method raises TransientError after the store's own patience has run
    out, ConfigError where credentials, bucket or address are wrong, and
    BackendError for the rest.
    """

    @property
    def url(self) -> str:
        """The address, without secrets."""

    def reach(self, *, write: bool, patience_s: float) -> None:
        """Look whether the store is there. write: it may be made (a folder).

        Raises ConfigError for a wrong bucket, folder or credentials,
        TransientError where it does not answer for `patience_s` seconds.
        """

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        last_words: bool = False,
        within_s: float | None = None,
    ) -> str:
        """Write a small object whole; return its etag.

        if_absent: PreconditionError where the key exists. if_match:
        PreconditionError unless the object still has this etag. Both mean
        something only where `conditional_writes` is true.
        last_words: tried once, also where all else was told to stop.
        within_s: seconds of trying, in place of the store's own patience.
        """

    def upload(self, key: str, *, size_bound: int, labels: dict[str, str]) -> Upload:
        """Begin a large object. size_bound: bytes it will not exceed; labels: kept with it (ASCII)."""

    def get(self, key: str, *, max_bytes: int) -> tuple[bytes, str]:
        """Read a small object and its etag. Raises NoSuchObjectError; BackendError over max_bytes."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Read an object in small pieces; goes on by range after a lost connection."""

    def objects(self, under: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `under`, all pages, in key order."""

    def labels(self, key: str) -> dict[str, str] | None:
        """Return the labels given to `upload`; None where this kind of store keeps none."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is no error."""

    def stale_uploads(self, under: str) -> list[StaleUpload]:
        """Unfinished uploads below `under`."""

    def abort_stale(self, upload: StaleUpload) -> None:
        """Remove one of them."""

    def now(self) -> datetime:
        """Return the store's own clock, as far as it is known."""

    def checks_uploads(self) -> bool:
        """Whether the store refuses a body that does not fit its checksum (asked once, by a probe)."""

    def conditional_writes(self) -> bool:
        """Whether `if_absent` and `if_match` are kept (asked once, by a probe)."""


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A parsed store address; `options` are the query's, all strings."""

    scheme: str
    bucket: str
    prefix: str
    options: dict[str, str]


def parse_url(url: str) -> StoreURL:
    """Parse `s3://bucket/prefix?endpoint=...` or `file:///folder`. Raises ConfigError."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ConfigError(f"an option is given twice in {mask(url)}")
    if parts.scheme == "s3":
        if not parts.netloc or "@" in parts.netloc or parts.fragment:
            raise ConfigError(
                f"not a store address: {mask(url)}",
                hint="s3://bucket/prefix?endpoint=https://...; credentials come from boto3's own chain",
            )
        return StoreURL("s3", unquote(parts.netloc), unquote(parts.path).strip("/"), options)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/") or options:
            raise ConfigError(f"not a store address: {mask(url)}", hint="file:///absolute/folder")
        return StoreURL("file", "", unquote(parts.path), options)
    raise ConfigError(
        f"not a store address: {mask(url)}", hint="s3://bucket/prefix?endpoint=... or file:///folder"
    )


def open_store(url: str, *, patience: Patience | None = None) -> ObjectStore:
    """Open a store by its address; nothing is sent yet.

    Raises ConfigError for a wrong address, MissingExtraError without boto3.
    """
    parsed = parse_url(url)
    if parsed.scheme == "file":
        from pathlib import Path

        from migrate.backup.folder import FolderStore

        return FolderStore(Path(parsed.prefix))
    try:
        from migrate.backup.s3 import S3Settings, S3Store
    except ModuleNotFoundError as exc:
        raise MissingExtraError(
            f"backups to S3 need {exc.name}", hint="pip install 'memlift[backup]'"
        ) from exc
    return S3Store(S3Settings.from_url(parsed), patience=patience)
