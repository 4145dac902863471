"""What both protocols share: the store, the operations, the key check, faults and counters."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from integration.qdrant_server.engine import Engine
from integration.qdrant_server.errors import QdrantError
from integration.qdrant_server.faults import Counters, Faults
from integration.qdrant_server.reads import Reads
from integration.qdrant_server.store import Store
from integration.qdrant_server.writes import Writes

Json = dict[str, Any]

TITLE = "qdrant - vector search engine"
VERSION = "1.20.0"  # the client compares its own minor version with this
METADATA_SINCE, RRF_SINCE, UPDATE_MODE_SINCE = (1, 16), (1, 16), (1, 17)
COMMIT = "0" * 40
PEER_ID = 1

# REST bodies above this are refused (`max_request_size_mb` of the shipped configuration).
MAX_REQUEST_BYTES = 32 * 1024 * 1024

NO_KEY = "Must provide an API key or an Authorization bearer token"
BAD_KEY = "Invalid API key or JWT"
READ_ONLY = "Forbidden: Global manage access is required"


class DeniedError(Exception):
    """The key is missing or wrong (401) or allows reading only (403)."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.message, self.forbidden = message, forbidden


class App:
    """One server's state."""

    def __init__(self, path: Path, *, api_key: str | None = None, read_only_key: str | None = None) -> None:
        self.engine = Engine()
        self.store = Store(path, self.engine)
        self.reads = Reads(self.store)
        self.writes = Writes(self.store)
        self.faults = Faults()
        self.counters = Counters()
        self.max_request_bytes = MAX_REQUEST_BYTES
        self.version = VERSION
        self.distributed = True
        self._api_key = api_key or None
        self._read_only_key = read_only_key or None

    def check_key(self, headers: Mapping[str, str], *, reads: bool) -> None:
        """`api-key` or `authorization: Bearer`, as the server's `AuthKeys` takes them."""
        if self._api_key is None and self._read_only_key is None:
            return
        given = headers.get("api-key")
        if given is None:
            bearer = headers.get("authorization") or ""
            given = bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else None
        if given is None:
            raise DeniedError(NO_KEY)
        if _same(given, self._api_key):
            return
        if not _same(given, self._read_only_key):
            raise DeniedError(BAD_KEY)
        if not reads:
            raise DeniedError(READ_ONLY, forbidden=True)

    def since(self, minor: tuple[int, int]) -> bool:
        """Whether the version told is this one or a later one; an older one ignores what it does not know."""
        major, second, _ = self.version.split(".")
        return (int(major), int(second)) >= minor

    def cluster_status(self) -> Json:
        """`ClusterStatus`: of a cluster of one, or of a server that runs alone."""
        if not self.distributed:
            return {"status": "disabled"}
        return {"status": "enabled", "peer_id": PEER_ID, "peers": {str(PEER_ID): {"uri": "http://127.0.0.1"}}}

    def check_distributed(self) -> None:
        """Shard keys are the business of a cluster's consensus."""
        if not self.distributed:
            raise QdrantError("bad_request", "Distributed mode disabled")

    def cluster_info(self, name: str) -> Json:
        """`CollectionClusterInfo` of a cluster of one."""
        found = self.store.get(name)
        local = []
        for path, key in found.for_read(None):
            points = found.call(path, "info")["points_count"]
            shown = {} if key is None else {"shard_key": key}
            local.append(
                {"shard_id": int(Path(path).name), **shown, "points_count": points, "state": "Active"}
            )
        return {
            "peer_id": PEER_ID,
            "shard_count": len(local),
            "local_shards": local,
            "remote_shards": [],
            "shard_transfers": [],
        }

    def close(self) -> None:
        self.engine.close()


def _same(given: str, key: str | None) -> bool:
    return key is not None and hmac.compare_digest(given.encode(), key.encode())
