"""A server's errors, over REST and gRPC, as ours: in this one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import orjson
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from migrate.backends.pacing import retry_after
from migrate.config import mask
from migrate.errors import (
    BackendError,
    ConfigError,
    MigrateError,
    SchemaError,
    TransientError,
    UnreachableError,
)

_RETRIED = {408, 429, 500, 502, 503, 504}
_FULL = ("no space left", "disk is full", "out of disk", "not enough disk", "insufficient storage")
# The server's own table: `impl From<StorageError> for Status` beside `HttpError::status_code`.
_CODES = {
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 429,
    "ABORTED": 503,
    "CANCELLED": 503,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 500,  # a replica that is not there yet; over REST it is a 500
}


def of_status(op: str, status: int, text: str, asked: float | None, **where: Any) -> MigrateError:
    """Return the error of an answer."""
    text = mask(text.strip().splitlines()[0] if text.strip() else f"status {status}")
    message = f"Qdrant could not {op}: {text}"
    low = text.lower()
    if low.startswith("storage locked"):  # 403, over gRPC FAILED_PRECONDITION
        return BackendError(
            message,
            hint="the server takes no writes now: lift its lock and run the same command again",
            **where,
        )
    if status in (401, 403) and "help:" not in low:  # strict mode forbids too, and says what to do
        return ConfigError(
            f"Qdrant refused the API key: {text}", hint="set QDRANT_API_KEY, to a key that may write", **where
        )
    if status == 507 or any(word in low for word in _FULL):
        return BackendError(
            message,
            hint="the server's disk is full: make room and run the same command again, it goes on from its checkpoint",
            **where,
        )
    if status in _RETRIED:
        return TransientError(message, retry_after=asked, hint="the server is busy or away", **where)
    if "larger than allowed" in low:
        return BackendError(
            message,
            hint="this row is too large for REST: open the server's gRPC port (grpc_port=), which takes it",
            **where,
        )
    if status == 409 or "already exists" in low:
        return SchemaError(message, hint="choose another prefix (?prefix=...)", **where)
    return BackendError(message, **where)


def of_response(op: str, response: httpx.Response, **where: Any) -> MigrateError:
    """Return the error of a REST answer."""
    try:
        status = orjson.loads(response.content)["status"]
        text = str(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        text = response.text[:300]
    asked = retry_after(response.headers.get("Retry-After"))
    return of_status(op, response.status_code, text, asked, **where)


@contextmanager
def translating(op: str, **where: Any) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except MigrateError:
        raise
    except grpc.RpcError as exc:
        code = exc.code().name if callable(getattr(exc, "code", None)) and exc.code() else "UNKNOWN"
        details = str(exc.details() or code) if callable(getattr(exc, "details", None)) else code
        asked = None
        if callable(getattr(exc, "trailing_metadata", None)):
            asked = retry_after(dict(exc.trailing_metadata() or ()).get("retry-after"))
        raise of_status(op, _CODES.get(code, 400), details, asked, **where) from exc
    except ResourceExhaustedResponse as exc:
        raise TransientError(
            f"Qdrant could not {op}: {exc.message}", retry_after=float(exc.retry_after_s), **where
        ) from exc
    except UnexpectedResponse as exc:
        text = exc.content.decode("utf-8", "replace") if exc.content else exc.reason_phrase
        raise of_status(op, exc.status_code or 500, text, None, **where) from exc
    except (ResponseHandlingException, httpx.HTTPError, OSError) as exc:
        source = getattr(exc, "source", exc)
        never = isinstance(source, httpx.ConnectError | httpx.ConnectTimeout)
        raise (UnreachableError if never else TransientError)(
            f"Qdrant could not {op}: {mask(str(source)) or type(source).__name__}",
            hint="is the server running, and is the address right?",
            **where,
        ) from exc
    except QdrantException as exc:  # a Retry-After that the client cannot read
        raise TransientError(f"Qdrant could not {op}: {mask(str(exc))}", **where) from exc
