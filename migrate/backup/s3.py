"""S3 and everything that speaks it, through boto3, as an ObjectStore."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import boto3
from botocore.config import Config

from migrate.backup.names import check_key
from migrate.backup.objectstore import NoSuchObjectError, ObjectInfo, PreconditionError, StaleUpload, StoreURL
from migrate.backup.patience import Patience
from migrate.backup.presets import Preset, preset_for
from migrate.backup.s3errors import translating
from migrate.backup.s3upload import S3Upload
from migrate.errors import BackendError, ConfigError, TransientError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

T = TypeVar("T")

# 64 KiB: what a read had gathered when the line broke is lost and fetched again.
_CHUNK = 64 << 10
_OPTIONS = {
    "endpoint", "region", "profile", "path_style", "sse", "kms_key", "storage_class", "lock_mode", "lock_days",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where and how. lock_days: objects cannot be removed for so long (bucket with object lock)."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    sse: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    lock_mode: str = "GOVERNANCE"
    lock_days: int | None = None

    @property
    def preset(self) -> Preset:
        return preset_for(urlsplit(self.endpoint).hostname if self.endpoint else None)

    @classmethod
    def from_url(cls, url: StoreURL) -> S3Settings:
        """Check an address's options. Raises ConfigError."""
        given = url.options
        if unknown := sorted(given.keys() - _OPTIONS):
            raise ConfigError(
                f"unknown option in the store's address: {', '.join(unknown)}",
                hint=f"known: {', '.join(sorted(_OPTIONS))}",
            )
        endpoint = given.get("endpoint")
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ConfigError("endpoint must be http(s)://host[:port], without credentials")
        if "path_style" in given and given["path_style"] not in ("true", "false"):
            raise ConfigError("path_style must be true or false")
        if given.get("sse", "AES256") not in ("AES256", "aws:kms", "aws:kms:dsse"):
            raise ConfigError("sse must be AES256, aws:kms or aws:kms:dsse")
        if given.get("lock_mode", "GOVERNANCE") not in ("GOVERNANCE", "COMPLIANCE"):
            raise ConfigError("lock_mode must be GOVERNANCE or COMPLIANCE")
        days = given.get("lock_days")
        if days is not None and not re.fullmatch(r"[1-9]\d{0,4}", days):
            raise ConfigError("lock_days must be a whole number of days")
        return cls(
            bucket=url.bucket,
            prefix=url.prefix,
            endpoint=endpoint,
            region=given.get("region"),
            profile=given.get("profile"),
            path_style=given["path_style"] == "true" if "path_style" in given else None,
            sse=given.get("sse"),
            kms_key=given.get("kms_key"),
            storage_class=given.get("storage_class"),
            lock_mode=given.get("lock_mode", "GOVERNANCE"),
            lock_days=int(days) if days else None,
        )


class S3Store:
    """An ObjectStore in one bucket, below one prefix. Thread-safe, like boto3's client."""

    def __init__(self, settings: S3Settings, *, patience: Patience | None = None) -> None:
        self._settings = settings
        self._preset = settings.preset
        self.patience = patience or Patience()
        self._prefix = check_key(settings.prefix) + "/" if settings.prefix else ""
        self._clock: datetime | None = None
        self._checks: bool | None = None
        self._conditional: bool | None = None
        with translating("connect", bucket=settings.bucket):
            self._client = self._connect()

    def _connect(self) -> S3Client:
        settings, preset = self._settings, self._preset
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        path_style = preset.path_style if settings.path_style is None else settings.path_style
        client: S3Client = session.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region or (preset.region if preset.region == "auto" else None)
            or session.region_name or preset.region or "us-east-1",
            config=Config(
                connect_timeout=10,
                read_timeout=60,
                tcp_keepalive=True,
                # 3: boto3 waits up to 20 s between tries; the longer outages are patience.py's.
                retries={"mode": "standard", "total_max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={
                    "addressing_style": "path" if path_style else "auto",
                    # The server can then prove each body; several services demand it.
                    "payload_signing_enabled": True,
                },
            ),
        )  # fmt: skip
        client.meta.events.register("after-call.s3", self._note_time)
        return client

    def _note_time(self, http_response: Any, **_: Any) -> None:
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
            self._clock = parsedate_to_datetime(http_response.headers["date"]).astimezone(UTC)

    @property
    def url(self) -> str:
        settings = self._settings
        tail = f"?endpoint={quote(settings.endpoint, safe=':/')}" if settings.endpoint else ""
        return f"s3://{settings.bucket}/{settings.prefix}{tail}"

    def _call(self, op: str, key: str, function: Callable[[], T], patience: Patience | None = None) -> T:
        def once() -> T:
            with translating(op, bucket=self._settings.bucket, key=key):
                return function()

        return (patience or self.patience).call(once)

    def body_options(self, body: bytes) -> dict[str, Any]:
        """Return what goes with every body that is sent: its MD5, where the service takes one."""
        if not self._preset.content_md5:
            return {}
        digest = hashlib.md5(body, usedforsecurity=False).digest()  # a checksum, no signature
        return {"ContentMD5": base64.b64encode(digest).decode()}

    def object_options(self) -> dict[str, Any]:
        """Return what every new object is created with: encryption, lock, storage class."""
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.sse:
            options["ServerSideEncryption"] = settings.sse
        if settings.kms_key:
            options["SSEKMSKeyId"] = settings.kms_key
        if settings.storage_class:
            options["StorageClass"] = settings.storage_class
        if settings.lock_days:
            options["ObjectLockMode"] = settings.lock_mode
            options["ObjectLockRetainUntilDate"] = self.now() + timedelta(days=settings.lock_days)
        return options

    def reach(self, *, write: bool, patience_s: float) -> None:
        del write  # what the credentials may do shows at the first write, before anything is half-made
        self._call(
            "list",
            "",
            lambda: self._client.list_objects_v2(
                Bucket=self._settings.bucket, Prefix=self._prefix, MaxKeys=1
            ),
            patience=Patience(total_s=patience_s, cancel=self.patience.cancel),
        )

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
        # A lease or a probe is rewritten all the time, so it is never locked or moved to cold storage.
        conditional = if_absent or if_match is not None
        options = self.body_options(body) | ({} if conditional else self.object_options())
        if if_absent:
            options["IfNoneMatch"] = "*"
        if if_match is not None:
            options["IfMatch"] = if_match
        patience = (
            self.patience if within_s is None else Patience(total_s=within_s, cancel=self.patience.cancel)
        )
        full = self._full(key)
        answer = self._call(
            "put",
            key,
            lambda: self._client.put_object(Bucket=self._settings.bucket, Key=full, Body=body, **options),
            patience=Patience(total_s=0.0) if last_words else patience,
        )
        return str(answer["ETag"])

    def upload(self, key: str, *, size_bound: int, labels: dict[str, str]) -> S3Upload:
        return S3Upload(
            self._client,
            self._settings.bucket,
            self._full(key),
            patience=self.patience,
            body_options=self.body_options,
            object_options=self.object_options() | {"Metadata": labels},
            size_bound=size_bound,
            parallel=self._preset.parallel,
        )

    def get(self, key: str, *, max_bytes: int) -> tuple[bytes, str]:
        full = self._full(key)

        def once() -> tuple[bytes, str]:
            answer = self._client.get_object(Bucket=self._settings.bucket, Key=full)
            with contextlib.closing(answer["Body"]) as body:
                if answer["ContentLength"] > max_bytes:
                    raise BackendError(f"get: larger than {max_bytes} bytes", key=key)
                data = body.read()
            if len(data) != answer["ContentLength"]:
                raise TransientError("get: the body ended early", key=key)
            return data, str(answer["ETag"])

        return self._call("get", key, once)

    def stream(self, key: str) -> Iterator[bytes]:
        full, offset, etag = self._full(key), 0, None
        total: int | None = None
        while total is None or offset < total:
            # A new allowance of patience for each piece of progress: a long download
            # over a bad line goes on for as long as bytes arrive.
            start = offset
            answer = self._call("get", key, lambda start=start, etag=etag: self._open(full, start, etag))  # type: ignore[misc]
            length = int(answer["ContentLength"])
            total = start + length if total is None else total
            etag = etag or str(answer["ETag"])
            try:
                with contextlib.closing(answer["Body"]) as body, translating("get", key=key):
                    while chunk := body.read(_CHUNK):
                        offset += len(chunk)
                        yield chunk
            except TransientError:
                if offset == start:
                    self.patience.cancel.wait(1.0)
                self.patience.check()

    def _open(self, full: str, offset: int, etag: str | None) -> Any:
        if not offset:
            return self._client.get_object(Bucket=self._settings.bucket, Key=full)
        # The etag guards against an object that was replaced between two ranges.
        options: dict[str, Any] = {"IfMatch": etag} if etag else {}
        answer = self._client.get_object(
            Bucket=self._settings.bucket, Key=full, Range=f"bytes={offset}-", **options
        )
        if not str(answer.get("ContentRange", "")).startswith(f"bytes {offset}-"):
            raise BackendError("get: the store ignores Range", key=full)
        return answer

    def objects(self, under: str = "") -> Iterator[ObjectInfo]:
        token: str | None = None
        while True:
            options: dict[str, Any] = {"ContinuationToken": token} if token else {}
            page = self._call(
                "list",
                under,
                lambda options=options: self._client.list_objects_v2(  # type: ignore[misc]
                    Bucket=self._settings.bucket, Prefix=self._prefix + under, **options
                ),
            )
            for item in page.get("Contents", ()):
                yield ObjectInfo(
                    item["Key"][len(self._prefix) :],
                    item["Size"],
                    item["LastModified"].astimezone(UTC),
                    item.get("ETag", ""),
                )
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                return
            if not token:
                raise BackendError(
                    "list: more pages, but no token for the next one", bucket=self._settings.bucket
                )

    def labels(self, key: str) -> dict[str, str] | None:
        full = self._full(key)
        answer = self._call(
            "head", key, lambda: self._client.head_object(Bucket=self._settings.bucket, Key=full)
        )
        return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}

    def delete(self, key: str) -> None:
        # One by one: DeleteObjects needs a checksum that some services refuse (aws-sdk-js-v3 #6819).
        full = self._full(key)
        with contextlib.suppress(NoSuchObjectError):
            self._call(
                "delete", key, lambda: self._client.delete_object(Bucket=self._settings.bucket, Key=full)
            )

    def stale_uploads(self, under: str) -> list[StaleUpload]:
        wanted = self._prefix + under
        pages = list(self._pages_of_uploads(wanted))
        if _is_minio(pages[0]) and not pages[0].get("Uploads"):
            pages = list(self._pages_of_uploads(""))  # it takes a prefix for a whole key
        return [
            StaleUpload(item["Key"][len(self._prefix) :], item["UploadId"], item["Initiated"].astimezone(UTC))
            for page in pages
            for item in page.get("Uploads", ())
            if item["Key"].startswith(wanted)
        ]

    def _pages_of_uploads(self, prefix: str) -> Iterator[Any]:
        markers: dict[str, Any] = {}
        while True:
            page = self._call(
                "list uploads",
                prefix,
                lambda markers=markers: self._client.list_multipart_uploads(  # type: ignore[misc]
                    Bucket=self._settings.bucket, Prefix=prefix, **markers
                ),
            )
            yield page
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            markers = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    def abort_stale(self, upload: StaleUpload) -> None:
        full = self._full(upload.key)
        with contextlib.suppress(NoSuchObjectError):
            self._call(
                "abort upload",
                upload.key,
                lambda: self._client.abort_multipart_upload(
                    Bucket=self._settings.bucket, Key=full, UploadId=upload.token
                ),
            )

    def now(self) -> datetime:
        return self._clock or datetime.now(UTC)

    def checks_uploads(self) -> bool:
        if self._checks is None:
            self._checks = self._preset.content_md5 and self._refuses_a_wrong_checksum()
        return self._checks

    def _refuses_a_wrong_checksum(self) -> bool:
        key = f".memlift-probe-{secrets.token_hex(6)}"
        wrong = self.body_options(b"another body")
        with contextlib.suppress(TransientError):  # BadDigest is one: a body may be damaged on its way
            self._call(
                "probe",
                key,
                lambda: self._client.put_object(
                    Bucket=self._settings.bucket, Key=self._full(key), Body=b"this body", **wrong
                ),
                patience=Patience(total_s=0.0, cancel=self.patience.cancel),
            )
            self.delete(key)
            return False
        return True

    def conditional_writes(self) -> bool:
        if self._conditional is None:
            self._conditional = self._keeps_conditions()
        return self._conditional

    def _keeps_conditions(self) -> bool:
        key = f".memlift-probe-{secrets.token_hex(6)}"
        kept = 0
        try:
            etag = self.put(key, b"1", if_absent=True)
            tests: tuple[dict[str, Any], ...] = ({"if_absent": True}, {"if_match": f'"{"0" * 32}"'})
            for options in tests:
                with contextlib.suppress(PreconditionError):
                    self.put(key, b"2", **options)
                    continue
                kept += 1
            self.put(key, b"3", if_match=etag)
        except (PreconditionError, NoSuchObjectError):
            return False
        except BackendError as exc:
            if isinstance(exc, TransientError):
                raise
            return False  # NotImplemented, or the header refused
        finally:
            with contextlib.suppress(BackendError):
                self.delete(key)
        return kept == 2

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)


def _is_minio(page: Any) -> bool:
    headers = page["ResponseMetadata"].get("HTTPHeaders", {})
    return str(headers.get("server", "")).lower().startswith("minio")
