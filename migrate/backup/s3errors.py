"""The one table of boto3's errors: which become ours, and which of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from urllib3.exceptions import HTTPError

from migrate.backup.objectstore import NoSuchObjectError, PreconditionError
from migrate.errors import BackendError, ConfigError, TransientError

_GONE = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
# A body that did not fit its checksum was damaged on the way; another try sends it anew.
_AGAIN = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeoutException", "Throttling",
    "ThrottlingException", "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody",
    "OperationAborted", "BadGateway", "GatewayTimeout",
}  # fmt: skip
# MinIO's (cmd/api-errors.go): below its threshold of free space (507), and over the quota of a bucket (400).
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_SETTINGS = {
    "NoSuchBucket": "create the bucket, or correct its name",
    "InvalidBucketName": "correct the bucket's name",
    "AccessDenied": "the credentials may not do this; check the bucket's policy",
    "403": "the credentials may not do this; check the bucket's policy",
    "401": "the credentials are refused",
    "Unauthorized": "the credentials are refused",
    "AllAccessDisabled": "the account is closed",
    "InvalidAccessKeyId": "the access key is unknown to this endpoint",
    "SignatureDoesNotMatch": "the secret key is wrong, or a proxy changes the request",
    "ExpiredToken": "the session token has run out; fetch new credentials",
    "InvalidToken": "the session token is not valid here",
    "PermanentRedirect": "give the bucket's own region: ?region=...",
    "AuthorizationHeaderMalformed": "give the bucket's own region: ?region=...",
    "IllegalLocationConstraintException": "give the bucket's own region: ?region=...",
    "RequestTimeTooSkewed": "set this machine's clock",
    "InvalidRequest": "the store refuses an option of the address (sse, lock_days, storage_class)",
    "KMS.NotFoundException": "the KMS key does not exist: ?kms_key=...",
    "InvalidStorageClass": "?storage_class=... is unknown here",
}


@contextlib.contextmanager
def translating(op: str, **where: Any) -> Iterator[None]:
    """Turn what boto3 raises inside into the errors of `migrate.errors`."""
    try:
        yield
    except ClientError as exc:
        raise from_response(op, exc, where) from exc
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as exc:
        raise ConfigError(
            f"s3 {op}: {exc}",
            hint="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
            **where,
        ) from exc
    except (ParamValidationError, ValueError) as exc:
        raise ConfigError(f"s3 {op}: {exc}", **where) from exc
    except (
        HTTPClientError,
        BotoConnectionError,
        ResponseStreamingError,
        IncompleteReadError,
        HTTPError,
        OSError,
    ) as exc:
        raise TransientError(f"s3 {op}: {exc}", hint="is the endpoint right and reachable?", **where) from exc
    except BotoCoreError as exc:
        raise BackendError(f"s3 {op}: {exc}", **where) from exc


def from_response(op: str, exc: ClientError, where: dict[str, Any]) -> Exception:
    """Choose the class for an error that the server answered."""
    error = exc.response.get("Error", {})
    meta = exc.response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    text = f"s3 {op}: {code} {error.get('Message', '')}".rstrip()
    if code in _SETTINGS:
        return ConfigError(text, hint=_SETTINGS[code], **where)
    if code in _GONE:
        return NoSuchObjectError(text, **where)
    if code in _REFUSED or status == 412:
        return PreconditionError(text, **where)
    if status == 507 or code in _FULL:
        return BackendError(
            text, hint="the store is full: make room there, or prune, and run it again", **where
        )
    if code in _AGAIN or status in (408, 429) or (status >= 500 and status != 501):
        return TransientError(
            text, retry_after=_seconds(meta.get("HTTPHeaders", {}).get("retry-after")), **where
        )
    return BackendError(text, **where)


def _seconds(header: str | None) -> float | None:
    try:
        # 300: a store that asks for more is treated as away.
        return min(float(header), 300.0) if header else None
    except ValueError:
        return None
