"""The Collections service and the health check: messages in, messages out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import grpc

from integration.qdrant_server import proto_json
from integration.qdrant_server.app import COMMIT, TITLE, App

Json = dict[str, Any]
Handler = Callable[[App, Any], Any]


def _ok(result: bool) -> Any:
    return grpc.CollectionOperationResponse(result=result)


def _body(message: Any) -> Json:
    """Without the fields that REST carries in the URL."""
    made: Json = proto_json.to_json(message)
    made.pop("collection_name", None)
    made.pop("timeout", None)
    return made


def create(app: App, message: Any) -> Any:
    return _ok(app.store.create(message.collection_name, _body(message)))


def get(app: App, message: Any) -> Any:
    made = grpc.CollectionInfo()
    proto_json.fill(made, grpc_info(app.store.get(message.collection_name).info()))
    return grpc.GetCollectionInfoResponse(result=made)


def grpc_info(info: Json) -> Json:
    """`CollectionInfo` where the two protocols differ: the optimizer's status is a message."""
    status = info["optimizer_status"]
    shown = {"ok": True} if status == "ok" else {"ok": False, "error": status["error"]}
    return {**info, "optimizer_status": shown}


def list_all(app: App, _message: Any) -> Any:
    return grpc.ListCollectionsResponse(
        collections=[grpc.CollectionDescription(name=name) for name in app.store.names()]
    )


def update(app: App, message: Any) -> Any:
    return _ok(app.store.patch(message.collection_name, _body(message)))


def delete(app: App, message: Any) -> Any:
    return _ok(app.store.delete(message.collection_name))


def exists(app: App, message: Any) -> Any:
    found = app.store.exists(message.collection_name)
    return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=found))


def update_aliases(app: App, message: Any) -> Any:
    return _ok(app.store.change_aliases([proto_json.to_json(one) for one in message.actions]))


def _aliases(app: App, name: str | None) -> Any:
    return grpc.ListAliasesResponse(
        aliases=[grpc.AliasDescription(**one) for one in app.store.aliases_of(name)]
    )


def create_shard_key(app: App, message: Any) -> Any:
    app.check_distributed()
    app.store.get(message.collection_name).create_shard_key(proto_json.shard_key(message.request.shard_key))
    return grpc.CreateShardKeyResponse(result=True)


def delete_shard_key(app: App, message: Any) -> Any:
    app.check_distributed()
    app.store.get(message.collection_name).delete_shard_key(proto_json.shard_key(message.request.shard_key))
    return grpc.DeleteShardKeyResponse(result=True)


def list_shard_keys(app: App, message: Any) -> Any:
    shards = app.store.get(message.collection_name).shards
    keys = [proto_json.to_shard_key(shard["key"]) for shard in shards if shard["key"] is not None]
    return grpc.ListShardKeysResponse(shard_keys=[grpc.ShardKeyDescription(key=key) for key in keys])


def cluster_info(app: App, message: Any) -> Any:
    info = app.cluster_info(message.collection_name)
    active: Any = 0  # ReplicaState.Active
    local = []
    for shard in info["local_shards"]:
        one = grpc.LocalShardInfo(
            shard_id=shard["shard_id"], points_count=shard["points_count"], state=active
        )
        if "shard_key" in shard:
            one.shard_key.CopyFrom(proto_json.to_shard_key(shard["shard_key"]))
        local.append(one)
    return grpc.CollectionClusterInfoResponse(
        peer_id=info["peer_id"], shard_count=info["shard_count"], local_shards=local
    )


def health(app: App, _message: Any) -> Any:
    return grpc.HealthCheckReply(title=TITLE, version=app.version, commit=COMMIT)


METHODS: dict[str, tuple[Any, Handler]] = {
    "Create": (grpc.CreateCollection, create),
    "Get": (grpc.GetCollectionInfoRequest, get),
    "List": (grpc.ListCollectionsRequest, list_all),
    "Update": (grpc.UpdateCollection, update),
    "Delete": (grpc.DeleteCollection, delete),
    "CollectionExists": (grpc.CollectionExistsRequest, exists),
    "UpdateAliases": (grpc.ChangeAliases, update_aliases),
    "ListAliases": (grpc.ListAliasesRequest, lambda app, _: _aliases(app, None)),
    "ListCollectionAliases": (
        grpc.ListCollectionAliasesRequest,
        lambda app, message: _aliases(app, message.collection_name),
    ),
    "CreateShardKey": (grpc.CreateShardKeyRequest, create_shard_key),
    "DeleteShardKey": (grpc.DeleteShardKeyRequest, delete_shard_key),
    "ListShardKeys": (grpc.ListShardKeysRequest, list_shard_keys),
    "CollectionClusterInfo": (grpc.CollectionClusterInfoRequest, cluster_info),
}
