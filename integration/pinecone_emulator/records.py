"""The records API on indexes of the vectors API: search by vector or id; everything with text is refused.

"Search with text" and SearchRecordsRequest in the 2026-07 OpenAPI file. Text is embedded by hosted models,
which an emulator has not.
"""

from __future__ import annotations

from typing import Any

from integration.pinecone_emulator import search, wire_json
from integration.pinecone_emulator.errors import Code, Refusal, invalid
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.wire import Decoded


def run(index: Index, what: str, namespace: str, raw: bytes) -> dict[str, Any] | None:
    """The answer to /records/namespaces/{namespace}/{what}; None for an empty one."""
    if what == "upsert":
        raise _no_text(index)
    body = wire_json.parse(raw)
    given = body.get("query") if isinstance(body, dict) else None
    if not isinstance(given, dict):
        raise invalid("query is required")
    if "inputs" in given or "match_terms" in given or "rerank" in body:
        raise _no_text(index)
    answer = search.query(index, _request(given, namespace))
    fields = body.get("fields")
    hits = [
        {"_id": one["id"], "_score": wire_json.shortest([one["score"]])[0], "fields": _fields(one, fields)}
        for one in answer["matches"]
    ]
    return {"result": {"hits": hits}, "usage": answer["usage"], "namespace": namespace}


def _request(given: dict[str, Any], namespace: str) -> Decoded:
    query: dict[str, Any] = {"namespace": namespace, "topK": given.get("top_k", 0), "includeMetadata": True}
    query |= {key: given[key] for key in ("id", "filter") if key in given}
    vector = given.get("vector") or {}
    if "values" in vector:
        query["vector"] = vector["values"]
    if "sparse_indices" in vector:
        query["sparseVector"] = {
            "indices": vector["sparse_indices"],
            "values": vector.get("sparse_values", []),
        }
    return wire_json.decode("QueryRequest", query)


def _fields(match: Decoded, wanted: list[str] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = match.get("metadata", {})
    return {key: value for key, value in metadata.items() if wanted is None or key in wanted}


def _no_text(index: Index) -> Refusal:
    if index.definition.kind == "integrated":
        return Refusal(Code.UNIMPLEMENTED, "The emulator embeds no text")
    return invalid("Integrated inference is not configured for this index")
