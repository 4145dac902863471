"""Namespace operations: create, describe, list, delete.

"Manage namespaces" and the 2026-07 OpenAPI and proto files. The default namespace always exists, so it can
be described and not created; it is listed once something was written to it (the SDK's integration tests
expect a fresh index to list none).
"""

from __future__ import annotations

from typing import Any

from integration.pinecone_emulator.errors import Code, Refusal, invalid, not_found
from integration.pinecone_emulator.index import Index, token, token_value
from integration.pinecone_emulator.namespace import DEFAULT, Namespace, View
from integration.pinecone_emulator.wire import Decoded


def create(index: Index, request: Decoded) -> Decoded:
    name = _checked(index, request.get("name", ""))
    if name == DEFAULT:
        raise invalid(f"Namespace name '{DEFAULT}' is reserved")
    schema = _schema(index, request.get("schema"))
    with index.lock:
        space = index.open(name)
        if space.committed.exists:
            raise Refusal(Code.ALREADY_EXISTS, f"Namespace '{name}' already exists")
        space.schema = schema
        index.state.create_namespace(index.definition.uid, name, schema)
        space.write(View.create, index.lag())
        return _described(space, space.committed)


def describe(index: Index, request: Decoded) -> Decoded:
    name = _checked(index, request.get("namespace", ""))
    with index.lock:
        space = index.open(name) if name == DEFAULT else index.namespaces.get(name)
        if space is None or not (space.seen().exists or name == DEFAULT):
            raise not_found("Namespace not found")
        return _described(space, space.visible)


def list_all(index: Index, request: Decoded) -> Decoded:
    limit, prefix = request.get("limit", index.limits.namespace_page), request.get("prefix", "")
    if not 1 <= limit <= index.limits.namespace_page:
        raise invalid(f"Limit must be between 1 and {index.limits.namespace_page}, got {limit}")
    last = token_value(request.get("pagination_token", ""))
    with index.lock:
        spaces = [space for _, space in sorted(index.namespaces.items()) if space.seen().exists]
        matching = [space for space in spaces if space.name.startswith(prefix)]
        rest = [space for space in matching if space.name > last]
        answer: Decoded = {
            "namespaces": [_described(space, space.visible) for space in rest[:limit]],
            "total_count": len(matching),
        }
    if len(rest) > limit:
        answer["pagination"] = {"next": token(rest[limit - 1].name, prefix)}
    return answer


def delete(index: Index, request: Decoded) -> Decoded:
    """Delete a namespace with all its records."""
    name = _checked(index, request.get("namespace", ""))
    with index.lock:
        space = index.namespaces.get(name)
        if space is None or not space.committed.exists:
            raise not_found("Namespace not found")
        index.state.drop_namespace(index.definition.uid, name)
        space.schema = None
        space.write(View.remove, index.lag())
    return {}


def _checked(index: Index, name: str) -> str:
    if index.definition.deployment["deployment_type"] == "pod":
        raise invalid("Namespace operations are not supported for pod-based indexes")
    if not name:
        raise invalid("Namespace name must not be empty")
    return index.name_of({"namespace": name})


def _schema(index: Index, schema: Decoded | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    fields: dict[str, Decoded] = schema.get("fields", {})
    if len(fields) > index.limits.namespace_schema_fields:
        raise invalid(f"At most {index.limits.namespace_schema_fields} fields may be declared")
    for name, declared in fields.items():
        if name.startswith("$"):
            raise invalid(f"Field '{name}' must not start with '$'")
        if declared.get("filterable") is not True:
            raise invalid(
                f"Field '{name}' is set to filterable: false. Only filterable: true is supported. "
                "To avoid indexing the field, omit it from the list of fields."
            )
    return {"fields": fields}


def _described(space: Namespace, view: View) -> Decoded:
    records = view.records.values()
    out: Decoded = {"name": space.name, "record_count": len(records)}
    if space.schema is not None:
        out["schema"] = space.schema
        out["indexed_fields"] = {"fields": sorted(space.schema["fields"])}
    out["size_bytes"] = sum(record.nbytes() for record in records)
    return out
