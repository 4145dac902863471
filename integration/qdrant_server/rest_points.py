"""Points over REST: bodies in, results out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.qdrant_server import ids, vectors
from integration.qdrant_server.app import RRF_SINCE, UPDATE_MODE_SINCE
from integration.qdrant_server.errors import QdrantError

if TYPE_CHECKING:
    from integration.qdrant_server.rest_routes import Request

Json = dict[str, Any]

_NO_VARIANT = "data did not match any variant of untagged enum PointInsertOperations"


def record(point: Json) -> Json:
    """A `Record` or `ScoredPoint`; what was not asked for is absent."""
    made: Json = {"id": point["id"]}
    for key in ("version", "score", "payload", "shard_key", "order_value"):
        if point.get(key) is not None:
            made[key] = point[key]
    if point["vectors"] is not None:
        made["vector"] = vectors.to_json(point["vectors"])
    return made


def _need(body: Any, key: str) -> Any:
    if not isinstance(body, dict) or key not in body:
        raise QdrantError("format", f"missing field `{key}`")
    return body[key]


def _payload(given: Any) -> Json | None:
    if given is not None and not isinstance(given, dict):
        raise QdrantError("format", _NO_VARIANT)
    return given


def _points(body: Any) -> list[Any]:
    """`{"points": [...]}` or `{"batch": {"ids", "vectors", "payloads"}}`, checked by hand for speed."""
    if not isinstance(body, dict):
        raise QdrantError("format", _NO_VARIANT)
    if "batch" in body:
        return _batch(body["batch"])
    given = _need(body, "points")
    if not isinstance(given, list):
        raise QdrantError("format", _NO_VARIANT)
    return [
        (
            ids.from_json(_need(one, "id")),
            vectors.from_json(_need(one, "vector")),
            _payload(one.get("payload")),
        )
        for one in given
    ]


def _batch(batch: Any) -> list[Any]:
    keys = [ids.from_json(one) for one in _need(batch, "ids")]
    given, payloads = _need(batch, "vectors"), batch.get("payloads")
    if isinstance(given, dict):
        columns = {name: [vectors.one_from_json(one) for one in column] for name, column in given.items()}
        lengths = {len(column) for column in columns.values()}
        if lengths - {len(keys)}:
            raise QdrantError(
                "validation", f"[batch.batch: number of ids and {min(columns)} vectors must be equal]"
            )
        rows: list[Any] = [{name: column[i] for name, column in columns.items()} for i in range(len(keys))]
    else:
        rows = [{"": vectors.one_from_json(one)} for one in given]
    if len(rows) != len(keys):
        raise QdrantError(
            "validation",
            f"[batch.batch: number of ids and vectors must be equal ({len(keys)} != {len(rows)})]",
        )
    if payloads is not None and len(payloads) != len(keys):
        raise QdrantError(
            "validation",
            f"[batch.batch: number of ids and payloads must be equal ({len(keys)} != {len(payloads)})]",
        )
    shown = payloads or [None] * len(keys)
    return [(key, row, _payload(one)) for key, row, one in zip(keys, rows, shown, strict=True)]


def upsert(request: Request) -> Any:
    body = request.body()
    points = _points(body)
    if not request.app.since(UPDATE_MODE_SINCE):
        body.pop("update_mode", None)
    return request.app.writes.upsert(request.name, points, body, wait=request.wait)


def _vector_points(body: Any) -> list[Any]:
    return [
        (ids.from_json(_need(one, "id")), vectors.from_json(_need(one, "vector")), None)
        for one in _need(body, "points")
    ]


def update_vectors(request: Request) -> Any:
    body = request.body()
    return request.app.writes.update_vectors(request.name, _vector_points(body), body, wait=request.wait)


def _selected(request: Request, kind: str, body: Json, extra: Json) -> Any:
    """An update of the points that `points` or `filter` select."""
    if body.get("points") is not None:
        body = {**body, "points": [ids.from_json(one) for one in body["points"]]}
    return request.app.writes.by_selector(request.name, kind, body, extra, wait=request.wait)


def delete(request: Request) -> Any:
    return _selected(request, "delete", request.body("PointsSelector"), {})


def clear_payload(request: Request) -> Any:
    return _selected(request, "clear_payload", request.body("PointsSelector"), {})


def set_payload(request: Request) -> Any:
    body = request.body("SetPayload")
    return _selected(request, "set_payload", body, {"payload": body["payload"], "key": body.get("key")})


def overwrite_payload(request: Request) -> Any:
    body = request.body("SetPayload")
    return _selected(request, "overwrite_payload", body, {"payload": body["payload"], "key": body.get("key")})


def delete_payload(request: Request) -> Any:
    body = request.body("DeletePayload")
    return _selected(request, "delete_payload", body, {"keys": body["keys"]})


def delete_vectors(request: Request) -> Any:
    body = request.body("DeleteVectors")
    if not body["vector"]:
        raise QdrantError("validation", "[vector: length must be 1 or larger]")
    return _selected(request, "delete_vectors", body, {"names": body["vector"]})


def batch(request: Request) -> Any:
    """`POST points/batch`: the operations one after another, each with its own result."""
    app, name, wait = request.app, request.name, request.wait
    results = []
    for one in _need(request.body(), "operations"):
        kind, body = next(iter(one.items()))
        if kind == "upsert":
            results.append(app.writes.upsert(name, _points(body), body, wait=wait))
        elif kind == "update_vectors":
            results.append(app.writes.update_vectors(name, _vector_points(body), body, wait=wait))
        elif kind in ("set_payload", "overwrite_payload"):
            results.append(
                _selected(request, kind, body, {"payload": _need(body, "payload"), "key": body.get("key")})
            )
        elif kind == "delete_payload":
            results.append(_selected(request, kind, body, {"keys": _need(body, "keys")}))
        elif kind == "delete_vectors":
            results.append(_selected(request, kind, body, {"names": _need(body, "vector")}))
        elif kind in ("delete", "clear_payload"):
            results.append(_selected(request, kind, body, {}))
        else:
            raise QdrantError("format", f"unknown variant `{kind}`")
    return results


def create_index(request: Request) -> Any:
    body = request.body("CreateFieldIndex")
    schema = body.get("field_schema")
    return request.app.writes.create_index(request.name, body["field_name"], schema, wait=request.wait)


def delete_index(request: Request) -> Any:
    return request.app.writes.delete_index(request.name, request.parts[1], wait=request.wait)


def retrieve(request: Request) -> Any:
    body = request.body("PointRequest")
    wanted = [ids.from_json(one) for one in body["ids"]]
    return [record(point) for point in request.app.reads.retrieve(request.name, wanted, body)]


def get_one(request: Request) -> Any:
    wanted = ids.from_path(request.parts[1])
    found = request.app.reads.retrieve(request.name, [wanted], {"with_payload": True, "with_vector": True})
    if not found:
        raise QdrantError("not_found", f"Point with id {wanted} does not exists!")
    return record(found[0])


def scroll(request: Request) -> Any:
    body = request.body("ScrollRequest")
    if body.get("offset") is not None:
        body["offset"] = ids.from_json(body["offset"])
    points, following = request.app.reads.scroll(request.name, body)
    return {"points": [record(point) for point in points], "next_page_offset": following}


def count(request: Request) -> Any:
    return {"count": request.app.reads.count(request.name, request.body("CountRequest"))}


def query(request: Request) -> Any:
    ask = request.body("QueryRequest")
    _check_known(request, ask)
    points = request.app.reads.query(request.name, [ask])[0]
    return {"points": [record(point) for point in points]}


def query_batch(request: Request) -> Any:
    asks = request.body("QueryRequestBatch")["searches"]
    for ask in asks:
        _check_known(request, ask)
    answers = request.app.reads.query(request.name, asks)
    return [{"points": [record(point) for point in points]} for points in answers]


def _check_known(request: Request, ask: Json) -> None:
    """Queries that an older server cannot read."""
    query = ask.get("query")
    if isinstance(query, dict) and "rrf" in query and not request.app.since(RRF_SINCE):
        raise QdrantError("format", "data did not match any variant of untagged enum QueryInterface")


def facet(request: Request) -> Any:
    hits = request.app.reads.facet(request.name, request.body("FacetRequest"))
    return {"hits": [{"value": value, "count": number} for value, number in hits]}
