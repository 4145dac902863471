"""Errors of Pinecone's HTTP API and of its SDK, as ours: in this one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pinecone
from pinecone.errors import ApiError, PineconeError

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

_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_NO_LISTING = "listing vector ids is supported only"


class NotThereError(BackendError):
    """An index or a namespace that does not exist."""


def of_status(op: str, status: int, text: str, asked: float | None, **where: Any) -> MigrateError:
    """Return the error of an answer."""
    line = mask(text.strip().splitlines()[0] if text.strip() else f"status {status}")
    message = f"Pinecone could not {op}: {line}"
    if status in (401, 403):
        return ConfigError(
            f"Pinecone refused the API key for this: {line}",
            hint="set PINECONE_API_KEY to a key of this project that may do it",
            **where,
        )
    if status == 402:
        return BackendError(message, hint="the project has reached a limit of its plan", **where)
    if status == 404:
        return NotThereError(message, hint="check the index's name or host, and the key's project", **where)
    if status == 400 and _NO_LISTING in line.lower():
        return ConfigError(message, hint=POD_HINT, **where)
    if op == "create the index" and status == 409:
        return SchemaError(message, hint="choose another index", **where)
    if status in _RETRIED:
        return TransientError(message, retry_after=asked, hint="Pinecone is busy or away", **where)
    return BackendError(message, **where)


POD_HINT = (
    "a pod index cannot list its records: make a serverless index from a collection of it"
    " (console, or `pinecone` SDK before 10), and migrate that"
)


def of_response(op: str, response: httpx.Response, **where: Any) -> MigrateError:
    """Return the error of an HTTP answer. Its body is JSON with a message, or a line of text."""
    text = response.text[:500]
    try:
        told = orjson.loads(response.content)
        told = told.get("error", told) if isinstance(told, dict) else told
        text = str(told["message"] if isinstance(told, dict) else told)
    except (ValueError, KeyError, TypeError):
        pass
    return of_status(
        op, response.status_code, text, retry_after(response.headers.get("Retry-After")), **where
    )


def of_transport(op: str, error: httpx.HTTPError, **where: Any) -> TransientError:
    """Return the error of a connection that broke or was never made."""
    kind = (
        UnreachableError if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else TransientError
    )
    return kind(
        f"Pinecone could not {op}: {mask(str(error)) or type(error).__name__}",
        hint="is the network up, and is the index's host right?",
        **where,
    )


@contextmanager
def translating(op: str, **where: Any) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except MigrateError:
        raise
    except ApiError as exc:
        headers = getattr(exc, "headers", None) or {}
        asked = retry_after(headers.get("retry-after"))
        raise of_status(op, int(exc.status_code), str(exc), asked, **where) from exc
    except (pinecone.PineconeConnectionError, pinecone.PineconeTimeoutError) as exc:
        kind = UnreachableError if isinstance(exc, pinecone.PineconeConnectionError) else TransientError
        raise kind(f"Pinecone could not {op}: {mask(str(exc))}", hint="is the network up?", **where) from exc
    except PineconeError as exc:
        raise ConfigError(f"Pinecone could not {op}: {mask(str(exc))}", **where) from exc
