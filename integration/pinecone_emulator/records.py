"""The records API: text in and out of indexes with integrated embedding, search by vector or id in all.

"Upsert text", "Search with text" and SearchRecordsRequest in the 2026-07 OpenAPI file. Texts are embedded by
`texts`; reranking and required terms need hosted models and are refused.
"""

from __future__ import annotations

from typing import Any

from integration.pinecone_emulator import search, texts, wire_json
from integration.pinecone_emulator.errors import Code, Refusal, invalid
from integration.pinecone_emulator.index import Index
from integration.pinecone_emulator.wire import Decoded


def run(index: Index, what: str, namespace: str, raw: bytes) -> dict[str, Any] | None:
    """The answer to /records/namespaces/{namespace}/{what}; None for an empty one."""
    if what == "upsert":
        _upsert(index, namespace, raw)
        return None
    body = wire_json.parse(raw)
    given = body.get("query") if isinstance(body, dict) else None
    if not isinstance(given, dict):
        raise invalid("query is required")
    if "match_terms" in given or "rerank" in body:
        raise Refusal(Code.UNIMPLEMENTED, "The emulator neither reranks nor requires terms")
    answer = search.query(index, _request(given, namespace) | _embedded(index, given.get("inputs")))
    fields = body.get("fields")
    hits = [
        {"_id": one["id"], "_score": wire_json.shortest([one["score"]])[0], "fields": _fields(one, fields)}
        for one in answer["matches"]
    ]
    return {"result": {"hits": hits}, "usage": answer["usage"], "namespace": namespace}


def _upsert(index: Index, namespace: str, raw: bytes) -> None:
    """Embed and keep records, given as one JSON object a line."""
    field = _text_field(index)
    lines = [line for line in raw.splitlines() if line.strip()]
    if not 1 <= len(lines) <= index.limits.upsert_texts:
        raise invalid(
            f"Number of records must be between 1 and {index.limits.upsert_texts}, got {len(lines)}"
        )
    found = []
    for line in lines:
        record = wire_json.parse(line)
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            raise invalid(f"Record must have a text in the field '{field}'")
        one = record.pop("_id", None) or record.pop("id", None)
        vector = wire_json.decode("Vector", {"id": one or "", "metadata": record})
        found.append(vector | _vector(index, record[field], "values", "sparse_values"))
    index.upsert({"vectors": found, "namespace": namespace})


def _text_field(index: Index) -> str:
    if index.definition.kind != "integrated":
        raise invalid("Integrated inference is not configured for this index")
    return next(iter(index.definition.fields))


def _embedded(index: Index, inputs: Any) -> Decoded:
    """The vector of a query's inputs; nothing where it has none."""
    if inputs is None:
        return {}
    _text_field(index)
    if not isinstance(inputs, dict) or not isinstance(inputs.get("text"), str):
        raise invalid("inputs must have a text")
    return _vector(index, inputs["text"], "vector", "sparse_vector")


def _vector(index: Index, text: str, dense: str, sparse: str) -> Decoded:
    dimension = index.definition.dimension
    return {sparse: texts.sparse(text)} if dimension is None else {dense: texts.dense(text, dimension)}


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
