"""REST paths and what they do. Bodies are checked against the client's own models,
which are generated from the server's OpenAPI description.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from integration.qdrant_server import ids, rest_points, rest_shapes
from integration.qdrant_server.app import COMMIT, METADATA_SINCE, TITLE, App
from integration.qdrant_server.errors import QdrantError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request: path parts, checked query parameters, the raw body."""

    app: App
    parts: tuple[str, ...]
    wait: bool
    raw: bytes

    @property
    def name(self) -> str:
        return self.parts[0]

    def body(self, model: str | None = None) -> Any:
        """The body as JSON, of the shape of `model`, with canonical ids in filters."""
        try:
            given = orjson.loads(self.raw)
        except orjson.JSONDecodeError as exc:
            # orjson refuses NaN, infinities and lone surrogates, as serde_json does.
            raise QdrantError("format", str(exc)) from exc
        if model is not None:
            rest_shapes.check(self.raw, model)
        return canonical(given)


def canonical(node: Any) -> Any:
    """The ids of `has_id` conditions in the one spelling that the engine knows."""
    if isinstance(node, dict):
        return {
            key: [ids.from_json(one) for one in value]
            if key == "has_id" and isinstance(value, list)
            else canonical(value)
            if key in _HOLDS_FILTERS
            else value
            for key, value in node.items()
        }
    return [canonical(one) for one in node] if isinstance(node, list) else node


_HOLDS_FILTERS = (
    "filter", "must", "should", "must_not", "min_should", "conditions", "nested",
    "prefetch", "searches", "update_filter", "operations",
)  # fmt: skip


def _version(request: Request) -> Any:
    return {"title": TITLE, "version": request.app.version, "commit": COMMIT}


def _list(request: Request) -> Any:
    return {"collections": [{"name": name} for name in request.app.store.names()]}


def _create(request: Request) -> Any:
    return request.app.store.create(request.name, _known(request, "CreateCollection"))


def _patch(request: Request) -> Any:
    return request.app.store.patch(request.name, _known(request, "UpdateCollection"))


def _known(request: Request, model: str) -> Any:
    body = request.body(model)
    if not request.app.since(METADATA_SINCE):
        body.pop("metadata", None)
    return body


def _aliases(request: Request) -> Any:
    body = request.body("ChangeAliasesOperation")
    return request.app.store.change_aliases(body["actions"])


def _create_shard_key(request: Request) -> Any:
    request.app.check_distributed()
    key = request.body("CreateShardingKey")["shard_key"]
    request.app.store.get(request.name).create_shard_key(key)
    return True


def _delete_shard_key(request: Request) -> Any:
    request.app.check_distributed()
    key = request.body("DropShardingKey")["shard_key"]
    request.app.store.get(request.name).delete_shard_key(key)
    return True


def _shard_keys(request: Request) -> Any:
    shards = request.app.store.get(request.name).shards
    return {"shard_keys": [{"key": shard["key"]} for shard in shards if shard["key"] is not None]}


Route = tuple[str, re.Pattern[str], Callable[[Request], Any], bool]


def _route(method: str, path: str, handle: Callable[[Request], Any], *, reads: bool = False) -> Route:
    pattern = re.sub(r"\{\w+\}", "([^/]+)", path)
    return method, re.compile(pattern + "/?"), handle, reads or method == "GET"


_C = "/collections/{name}"
_P = f"{_C}/points"
ROUTES: list[Route] = [
    _route("GET", "/", _version),
    _route("GET", "/collections", _list),
    _route("GET", "/cluster", lambda r: r.app.cluster_status()),
    _route("GET", "/aliases", lambda r: {"aliases": r.app.store.aliases_of(None)}),
    _route("POST", "/collections/aliases", _aliases),
    _route("GET", _C, lambda r: r.app.store.get(r.name).info()),
    _route("PUT", _C, _create),
    _route("PATCH", _C, _patch),
    _route("DELETE", _C, lambda r: r.app.store.delete(r.name)),
    _route("GET", f"{_C}/exists", lambda r: {"exists": r.app.store.exists(r.name)}),
    _route("GET", f"{_C}/aliases", lambda r: {"aliases": r.app.store.aliases_of(r.name)}),
    _route("GET", f"{_C}/cluster", lambda r: r.app.cluster_info(r.name)),
    _route("GET", f"{_C}/shards", _shard_keys),
    _route("PUT", f"{_C}/shards", _create_shard_key),
    _route("POST", f"{_C}/shards/delete", _delete_shard_key),
    _route("PUT", f"{_C}/index", rest_points.create_index),
    _route("DELETE", f"{_C}/index/{{field}}", rest_points.delete_index),
    _route("POST", f"{_C}/facet", rest_points.facet, reads=True),
    _route("PUT", _P, rest_points.upsert),
    _route("POST", _P, rest_points.retrieve, reads=True),
    _route("POST", f"{_P}/scroll", rest_points.scroll, reads=True),
    _route("POST", f"{_P}/count", rest_points.count, reads=True),
    _route("POST", f"{_P}/query", rest_points.query, reads=True),
    _route("POST", f"{_P}/query/batch", rest_points.query_batch, reads=True),
    _route("POST", f"{_P}/delete", rest_points.delete),
    _route("POST", f"{_P}/payload", rest_points.set_payload),
    _route("PUT", f"{_P}/payload", rest_points.overwrite_payload),
    _route("POST", f"{_P}/payload/delete", rest_points.delete_payload),
    _route("POST", f"{_P}/payload/clear", rest_points.clear_payload),
    _route("PUT", f"{_P}/vectors", rest_points.update_vectors),
    _route("POST", f"{_P}/vectors/delete", rest_points.delete_vectors),
    _route("POST", f"{_P}/batch", rest_points.batch),
    _route("GET", f"{_P}/{{id}}", rest_points.get_one),
]
# Answered as plain text and without a key.
HEALTH = {
    "/healthz": "healthz check passed",
    "/livez": "healthz check passed",
    "/readyz": "all shards are ready",
}


def find(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    for route in ROUTES:
        found = route[1].fullmatch(path) if route[0] == method else None
        if found:
            return route, found.groups()
    return None
