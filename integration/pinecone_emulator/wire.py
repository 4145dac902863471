"""The messages of the vectors API, once, for JSON and for protobuf.

Field numbers and types: "db_data_2026-07.proto"; JSON names: proto3's JSON mapping, except the namespace
messages, whose JSON keeps the proto names (2026-07 OpenAPI). Decoded messages are plain dicts keyed by
proto name, absent fields left out; repeated floats are float32 arrays; Structs are dicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["string", "bool", "float", "uint32", "int32", "uint64", "struct", "message", "map"]
Decoded = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field. of: the message's name where kind is message or map (whose keys are strings)."""

    number: int
    name: str
    kind: Kind
    repeated: bool = False
    of: str = ""
    json: str = ""

    @property
    def json_name(self) -> str:
        return self.json or camel(self.name)


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    fields: tuple[Field, ...]
    by_number: dict[int, Field] = field(default_factory=dict)
    by_json: dict[str, Field] = field(default_factory=dict)


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


MESSAGES: dict[str, Message] = {}


def _message(name: str, *fields: Field) -> None:
    by_json: dict[str, Field] = {}
    for one in fields:  # proto3 JSON: a parser takes the proto name as well as the JSON name
        by_json[one.json_name] = one
        by_json[one.name] = one
    MESSAGES[name] = Message(name, fields, {one.number: one for one in fields}, by_json)


def _keep(number: int, name: str, kind: Kind, **more: Any) -> Field:
    """A field whose JSON name is its proto name."""
    return Field(number, name, kind, json=name, **more)


_message("Empty")
_message("SparseValues", Field(1, "indices", "uint32", True), Field(2, "values", "float", True))
_message(
    "Vector",
    Field(1, "id", "string"),
    Field(2, "values", "float", True),
    Field(3, "metadata", "struct"),
    Field(4, "sparse_values", "message", of="SparseValues"),
)
_message(
    "ScoredVector",
    Field(1, "id", "string"),
    Field(2, "score", "float"),
    Field(3, "values", "float", True),
    Field(4, "metadata", "struct"),
    Field(5, "sparse_values", "message", of="SparseValues"),
)
_message("Usage", Field(1, "read_units", "uint32"))
_message("Pagination", Field(1, "next", "string"))
_message("UpsertRequest", Field(1, "vectors", "message", True, "Vector"), Field(2, "namespace", "string"))
_message("UpsertResponse", Field(1, "upserted_count", "uint32"))
_message(
    "DeleteRequest",
    Field(1, "ids", "string", True),
    Field(2, "delete_all", "bool"),
    Field(3, "namespace", "string"),
    Field(4, "filter", "struct"),
)
_message("DeleteResponse")
_message("FetchRequest", Field(1, "ids", "string", True), Field(2, "namespace", "string"))
_message(
    "FetchResponse",
    Field(1, "vectors", "map", of="Vector"),
    Field(2, "namespace", "string"),
    Field(3, "usage", "message", of="Usage"),
)
_message(
    "FetchByMetadataRequest",
    Field(1, "namespace", "string"),
    Field(2, "filter", "struct"),
    Field(3, "limit", "uint32"),
    Field(4, "pagination_token", "string"),
)
_message(
    "FetchByMetadataResponse",
    Field(1, "vectors", "map", of="Vector"),
    Field(2, "namespace", "string"),
    Field(3, "usage", "message", of="Usage"),
    Field(4, "pagination", "message", of="Pagination"),
)
_message(
    "ListRequest",
    Field(1, "prefix", "string"),
    Field(2, "limit", "uint32"),
    Field(3, "pagination_token", "string"),
    Field(4, "namespace", "string"),
)
_message("ListItem", Field(1, "id", "string"))
_message(
    "ListResponse",
    Field(1, "vectors", "message", True, "ListItem"),
    Field(2, "pagination", "message", of="Pagination"),
    Field(3, "namespace", "string"),
    Field(4, "usage", "message", of="Usage"),
)
_message(
    "QueryRequest",
    Field(1, "namespace", "string"),
    Field(2, "top_k", "uint32"),
    Field(3, "filter", "struct"),
    Field(4, "include_values", "bool"),
    Field(5, "include_metadata", "bool"),
    Field(7, "vector", "float", True),
    Field(8, "id", "string"),
    Field(9, "sparse_vector", "message", of="SparseValues"),
    Field(10, "scan_factor", "float"),
    Field(11, "max_candidates", "uint32"),
)
_message(
    "QueryResponse",
    Field(2, "matches", "message", True, "ScoredVector"),
    Field(3, "namespace", "string"),
    Field(4, "usage", "message", of="Usage"),
)
_message(
    "UpdateRequest",
    Field(1, "id", "string"),
    Field(2, "values", "float", True),
    Field(3, "set_metadata", "struct"),
    Field(4, "namespace", "string"),
    Field(5, "sparse_values", "message", of="SparseValues"),
    Field(6, "filter", "struct"),
    Field(7, "dry_run", "bool"),
)
_message("UpdateResponse", Field(1, "matched_records", "int32"))
_message("DescribeIndexStatsRequest", Field(1, "filter", "struct"))
_message("NamespaceSummary", Field(1, "vector_count", "uint32"))
_message(
    "DescribeIndexStatsResponse",
    Field(1, "namespaces", "map", of="NamespaceSummary"),
    Field(2, "dimension", "uint32"),
    Field(3, "index_fullness", "float"),
    Field(4, "total_vector_count", "uint32"),
    Field(5, "metric", "string"),
    Field(6, "vector_type", "string"),
)
_message("MetadataFieldProperties", Field(1, "filterable", "bool"))
_message("MetadataSchema", Field(1, "fields", "map", of="MetadataFieldProperties"))
_message("IndexedFields", Field(1, "fields", "string", True))
_message(
    "CreateNamespaceRequest", Field(1, "name", "string"), _keep(2, "schema", "message", of="MetadataSchema")
)
_message("DescribeNamespaceRequest", Field(1, "namespace", "string"))
_message("DeleteNamespaceRequest", Field(1, "namespace", "string"))
_message(
    "NamespaceDescription",
    _keep(1, "name", "string"),
    _keep(2, "record_count", "uint64"),
    _keep(3, "schema", "message", of="MetadataSchema"),
    _keep(4, "indexed_fields", "message", of="IndexedFields"),
    _keep(5, "size_bytes", "uint64"),
)
_message(
    "ListNamespacesRequest",
    Field(1, "pagination_token", "string"),
    Field(2, "limit", "uint32"),
    Field(3, "prefix", "string"),
)
_message(
    "ListNamespacesResponse",
    _keep(1, "namespaces", "message", repeated=True, of="NamespaceDescription"),
    _keep(2, "pagination", "message", of="Pagination"),
    _keep(3, "total_count", "int32"),
)
