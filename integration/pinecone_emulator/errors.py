"""One exception for every refusal, and the bodies the two planes give it.

Bodies: rpcStatus of the data plane and ErrorResponse of the control plane in the 2026-07 OpenAPI files;
401 is plain text in both. Requests that do not parse into the service's messages are answered by the
JSON transcoder in front of it, also in plain text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Kind:
    """A gRPC code, the HTTP status it becomes, and the control plane's word for it."""

    grpc: int
    status: int
    name: str


class Code(Enum):
    """The codes in use; names as in grpc.StatusCode where one exists."""

    INVALID_ARGUMENT = Kind(3, 400, "INVALID_ARGUMENT")
    NOT_FOUND = Kind(5, 404, "NOT_FOUND")
    ALREADY_EXISTS = Kind(6, 409, "ALREADY_EXISTS")
    PERMISSION_DENIED = Kind(7, 403, "FORBIDDEN")
    RESOURCE_EXHAUSTED = Kind(8, 429, "RESOURCE_EXHAUSTED")
    FAILED_PRECONDITION = Kind(9, 412, "FAILED_PRECONDITION")
    UNIMPLEMENTED = Kind(12, 501, "UNIMPLEMENTED")
    INTERNAL = Kind(13, 500, "UNKNOWN")
    UNAVAILABLE = Kind(14, 503, "UNAVAILABLE")
    UNAUTHENTICATED = Kind(16, 401, "UNAUTHENTICATED")
    # Control plane only: JSON that does not fit the target type.
    UNPROCESSABLE = Kind(3, 422, "UNPROCESSABLE_ENTITY")
    PAYMENT_REQUIRED = Kind(9, 402, "PAYMENT_REQUIRED")


class Refusal(Exception):  # noqa: N818 - it is the service's answer, not a fault of this program
    """The service says no."""

    def __init__(self, code: Code, message: str, *, plain: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.plain = plain

    @property
    def status(self) -> int:
        return self.code.value.status


def invalid(message: str) -> Refusal:
    """A well-formed request that asks for something the service does not do."""
    return Refusal(Code.INVALID_ARGUMENT, message)


def malformed(message: str) -> Refusal:
    """A request that does not parse into the service's message: 400 in plain text."""
    return Refusal(Code.INVALID_ARGUMENT, message, plain=True)


def not_found(message: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, message)


def unauthorized() -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, "Invalid API Key", plain=True)


def body_of(refusal: Refusal, *, control_plane: bool) -> tuple[bytes, str]:
    """(body, content type) of a refusal."""
    if refusal.plain:
        return refusal.message.encode(), "text/plain"
    kind = refusal.code.value
    answer: dict[str, object]
    if control_plane:
        answer = {"error": {"code": kind.name, "message": refusal.message}, "status": kind.status}
    else:
        answer = {"code": kind.grpc, "message": refusal.message, "details": []}
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode(), "application/json"


_BY_STATUS = {code.value.status: code for code in Code}


def code_for_status(status: int) -> Code:
    """The code a fault switch answers with for an HTTP status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Code.UNAVAILABLE if status >= 500 else Code.INVALID_ARGUMENT
