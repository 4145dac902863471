"""REST: which request is which operation, its parameters, and its answer.

Paths, methods and JSON names: "Pinecone Data Plane API" 2026-07.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from integration.pinecone_emulator import namespace_ops, records, search, wire_json
from integration.pinecone_emulator.errors import Code, Refusal, invalid, malformed, not_found
from integration.pinecone_emulator.imports import Imports
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.namespace import DEFAULT
from integration.pinecone_emulator.wire import MESSAGES, Decoded

# "API versioning": a request without the header is served by the oldest supported version.
VERSIONS = (
    "2024-07", "2024-10", "2025-01", "2025-04", "2025-10", "2026-01.alpha", "2026-04", "2026-07", "unstable",
)  # fmt: skip
VERSION_HEADER = "X-Pinecone-Api-Version"
_DEFAULT_NAMESPACE_SINCE = "2025-04"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, body read."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def parameters(self) -> list[tuple[str, str]]:
        try:
            pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True, errors="strict")
        except ValueError as exc:
            raise malformed(f"Invalid query string: {exc}") from exc
        return pairs

    def version(self) -> str:
        given = self.headers.get(VERSION_HEADER)
        if given is None:
            return VERSIONS[0]
        if given not in VERSIONS:
            raise invalid(f"Invalid API version '{given}'. Valid versions: {', '.join(VERSIONS)}")
        return given


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A unary operation of the vectors API: REST twin and gRPC method at once."""

    grpc: str
    method: str
    path: str
    request: str
    response: str
    run: Callable[[Index, Decoded], Decoded]


OPERATIONS = (
    Operation("Upsert", "POST", "/vectors/upsert", "UpsertRequest", "UpsertResponse", Index.upsert),
    Operation("Fetch", "GET", "/vectors/fetch", "FetchRequest", "FetchResponse", Index.fetch),
    Operation(
        "FetchByMetadata", "POST", "/vectors/fetch_by_metadata",
        "FetchByMetadataRequest", "FetchByMetadataResponse", Index.fetch_by_metadata,
    ),
    Operation("List", "GET", "/vectors/list", "ListRequest", "ListResponse", Index.list_ids),
    Operation("Update", "POST", "/vectors/update", "UpdateRequest", "UpdateResponse", Index.update),
    Operation("Delete", "POST", "/vectors/delete", "DeleteRequest", "DeleteResponse", Index.delete),
    Operation("Query", "POST", "/query", "QueryRequest", "QueryResponse", search.query),
    Operation(
        "DescribeIndexStats", "POST", "/describe_index_stats",
        "DescribeIndexStatsRequest", "DescribeIndexStatsResponse", Index.describe_index_stats,
    ),
    Operation(
        "CreateNamespace", "POST", "/namespaces",
        "CreateNamespaceRequest", "NamespaceDescription", namespace_ops.create,
    ),
    Operation(
        "ListNamespaces", "GET", "/namespaces",
        "ListNamespacesRequest", "ListNamespacesResponse", namespace_ops.list_all,
    ),
    Operation(
        "DescribeNamespace", "GET", "/namespaces/{namespace}",
        "DescribeNamespaceRequest", "NamespaceDescription", namespace_ops.describe,
    ),
    Operation(
        "DeleteNamespace", "DELETE", "/namespaces/{namespace}",
        "DeleteNamespaceRequest", "Empty", namespace_ops.delete,
    ),
)  # fmt: skip
_ROUTES = [
    (operation, re.compile(re.escape(operation.path).replace(r"\{namespace\}", "(?P<namespace>[^/]+)")))
    for operation in OPERATIONS
]
_IMPORT = re.compile("/bulk/imports(?:/(?P<id>[^/]+))?")
_RECORDS = re.compile("/records/namespaces/(?P<namespace>[^/]+)/(?P<what>upsert|search)")
_DOCUMENTS = re.compile("/namespaces/[^/]+/documents/.*")


def data_plane(index: Index, imports: Imports, request: Request) -> Response:
    """Answer one request to an index's host. Raises Refusal."""
    version = request.version()
    wrong_method = False
    for operation, pattern in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match is not None and request.method == operation.method:
            return _vectors(index, operation, request, match.groupdict(), version)
        wrong_method = wrong_method or match is not None
    if match := _IMPORT.fullmatch(request.path):
        return _imports(imports, request, match["id"])
    if match := _RECORDS.fullmatch(request.path):
        body = records.run(index, match["what"], unquote(match["namespace"]), request.body)
        return Response(201, b"") if body is None else Response(200, _dump(body))
    if _DOCUMENTS.fullmatch(request.path):
        raise Refusal(Code.UNIMPLEMENTED, "The emulator does not serve the documents API")
    if wrong_method:
        raise Refusal(Code.UNIMPLEMENTED, f"Method {request.method} is not allowed for {request.path}")
    raise not_found(f"Not found: {request.path}")


def _vectors(
    index: Index, operation: Operation, request: Request, places: dict[str, str], version: str
) -> Response:
    if operation.method == "POST":
        check_size(index, operation, len(request.body))
        message = wire_json.decode(operation.request, wire_json.parse(request.body))
    else:
        message = _from_query(operation.request, request.parameters())
    message |= {name: unquote(value) for name, value in places.items()}
    check_namespace_version(message, version)
    answer = operation.run(index, message)
    body = wire_json.encode(operation.response, answer)
    return Response(200, body, headers=lsn_headers(index, operation, message))


def check_size(index: Index, operation: Operation, size: int) -> None:
    """The 2 MB of an upsert request, in the message's words as public bug reports quote them."""
    limit = index.limits.upsert_bytes
    if operation.grpc == "Upsert" and size > limit:
        shown = max(-(-size // 2**20), limit // 2**20 + 1)
        raise invalid(f"Request size {shown}MB exceeds the maximum supported size of {limit // 2**20}MB")


def check_namespace_version(message: Decoded, version: str) -> None:
    if message.get("namespace") == DEFAULT and version < _DEFAULT_NAMESPACE_SINCE:
        raise invalid(f"Use of namespace='{DEFAULT}' is not allowed in API versions prior to 2025-04")


def lsn_headers(index: Index, operation: Operation, message: Decoded) -> tuple[tuple[str, str], ...]:
    """ "Data freshness": writes answer with their LSN, reads with the highest one they saw.

    Reads of a sparse index tell none: the SDK's integration tests have found it so.
    """
    committed, visible = index.lsns(message)
    if operation.grpc in ("Upsert", "Update", "Delete"):
        return (("x-pinecone-request-lsn", str(committed)),)
    reads = operation.grpc in ("Fetch", "FetchByMetadata", "List", "Query")
    if reads and index.definition.vector_type != "sparse":
        return (("x-pinecone-max-indexed-lsn", str(visible)),)
    return ()


def _from_query(message: str, pairs: list[tuple[str, str]]) -> Decoded:
    """A message from query parameters, typed by its fields."""
    known = MESSAGES[message].by_json
    raw: dict[str, Any] = {}
    for name, text in pairs:
        field = known.get(name)
        if field is None:
            raise malformed(f'Could not find field "{name}" in the type "{message}".')
        value: Any = text
        if field.kind not in ("string", "message"):
            if not re.fullmatch(r"-?\d+", text):
                raise malformed(f"{name}: invalid value {json.dumps(text)} for type {field.kind.upper()}")
            value = int(text)
        if field.repeated:
            raw.setdefault(field.json_name, []).append(value)
        else:
            raw[field.json_name] = value
    return wire_json.decode(message, raw)


def _imports(imports: Imports, request: Request, one: str | None) -> Response:
    if one is None and request.method == "POST":
        return Response(200, _dump(imports.start(wire_json.parse(request.body))))
    if one is None and request.method == "GET":
        given = dict(request.parameters())
        limit = given.pop("limit", "100")
        after = given.pop("paginationToken", "")
        if given or not limit.lstrip("-").isdigit():
            raise malformed(f"Invalid query parameters: {request.target}")
        return Response(200, _dump(imports.list_page(int(limit), after)))
    if one is not None and request.method == "GET":
        return Response(200, _dump(imports.describe(unquote(one))))
    if one is not None and request.method == "DELETE":
        return Response(200, _dump(imports.cancel(unquote(one))))
    raise Refusal(Code.UNIMPLEMENTED, f"Method {request.method} is not allowed for {request.path}")


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
