"""The server's errors: one table from kind to HTTP status, gRPC code and text prefix.

Source: the public server sources, `src/actix/helpers.rs` (HTTP statuses),
`lib/storage/src/content_manager/errors.rs` (prefixes) and its gRPC conversions.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of error looks like on either protocol."""

    http: int
    grpc: str  # name of a grpc.StatusCode
    prefix: str


KINDS = {
    "bad_input": Kind(400, "INVALID_ARGUMENT", "Wrong input: "),
    "bad_request": Kind(400, "INVALID_ARGUMENT", "Bad request: "),
    "already_exists": Kind(409, "ALREADY_EXISTS", "Wrong input: "),
    "not_found": Kind(404, "NOT_FOUND", "Not found: "),
    "service": Kind(500, "INTERNAL", "Service internal error: "),
    "forbidden": Kind(403, "PERMISSION_DENIED", "Forbidden: "),
    "locked": Kind(403, "FAILED_PRECONDITION", "Storage locked: "),
    "precondition": Kind(500, "FAILED_PRECONDITION", "Pre-condition failure: "),
    "timeout": Kind(408, "DEADLINE_EXCEEDED", "Timeout: "),
    "rate_limit": Kind(429, "RESOURCE_EXHAUSTED", "Rate limiting exceeded: "),
    "inference": Kind(400, "INVALID_ARGUMENT", ""),
    # A body that is no JSON, or JSON of another shape (`validation_error_handler`).
    "format": Kind(400, "INVALID_ARGUMENT", "Format error in JSON body: "),
    "payload": Kind(400, "INVALID_ARGUMENT", "Payload error: "),
    "query_string": Kind(400, "INVALID_ARGUMENT", "Deserialize error in query parameters: "),
    "validation": Kind(422, "INVALID_ARGUMENT", "Validation error in JSON body: "),
    "query_validation": Kind(422, "INVALID_ARGUMENT", "Validation error in query parameters: "),
    "path": Kind(422, "INVALID_ARGUMENT", "Validation error in path parameters: "),
    "raw_argument": Kind(400, "INVALID_ARGUMENT", ""),
    "unimplemented": Kind(501, "UNIMPLEMENTED", "Not served by this test server: "),
}


class QdrantError(Exception):
    """An answer that is an error. `retry_after_s` only with `rate_limit`."""

    def __init__(self, kind: str, message: str, *, retry_after_s: int | None = None) -> None:
        self.kind = kind
        self.message = KINDS[kind].prefix + message
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def http(self) -> int:
        return KINDS[self.kind].http

    @property
    def grpc(self) -> str:
        return KINDS[self.kind].grpc


def missing_collection(name: str) -> QdrantError:
    return QdrantError("not_found", f"Collection `{name}` doesn't exist!")


# Beginnings of the engine's texts that are the caller's fault. The engine is the
# server's own, so its texts are the server's after the prefix.
_INPUT = (
    "Vector dimension error",
    "Not existing vector name error",
    "Wrong usage of",
    "Wrong key of payload",
    "invalid JSON path",
    "failed to parse date-time",
    "Conversion between",
)
_REQUEST = ("No range index", "No appropriate index", "Validation", "No text index")


def from_engine(kind: str, text: str) -> QdrantError:
    """Translate an exception of the engine (its class name and text)."""
    if text.startswith("No point with id"):
        return QdrantError("not_found", text)
    if text.startswith(_REQUEST):
        return QdrantError("bad_request", text)
    if text.startswith(_INPUT) or kind in ("ValueError", "TypeError", "OverflowError"):
        return QdrantError("bad_input", text)
    return QdrantError("service", text)
