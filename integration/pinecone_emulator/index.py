"""One index's data: the vectors API on decoded messages, the same for REST and gRPC.

Behaviour: "Pinecone Data Plane API" 2026-07 (OpenAPI and proto file), "Upsert data", "Fetch data", "Update
data", "Delete data", "List record IDs". Requests and answers are the messages of `wire`.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from integration.pinecone_emulator import filters, metadata, vectors
from integration.pinecone_emulator.errors import invalid, not_found
from integration.pinecone_emulator.limits import Limits
from integration.pinecone_emulator.namespace import DEFAULT, Namespace, Record, View
from integration.pinecone_emulator.schema import Definition
from integration.pinecone_emulator.state import State
from integration.pinecone_emulator.wire import Decoded

DOCUMENTS_ONLY = (
    "This index has a document schema and does not support writing vectors: use the documents API instead"
)


class Index:
    """The data of one index. Thread-safe: one lock, held for the time of one operation."""

    def __init__(
        self,
        definition: Definition,
        state: State,
        limits: Limits,
        lag: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.definition = definition
        self.limits = limits
        self.lock = threading.RLock()
        self.state = state
        self.lag = lag
        self._clock = clock
        self.namespaces: dict[str, Namespace] = {}
        for name, schema, records in state.namespaces(definition.uid):
            space = self.open(name)
            space.schema = schema
            for view in (space.committed, space.visible):
                view.put(records)

    def open(self, name: str) -> Namespace:
        """The namespace of that name, known from now on; it exists once something is written."""
        if name not in self.namespaces:
            self.namespaces[name] = Namespace(name, self._clock)
        return self.namespaces[name]

    def name_of(self, request: Decoded, key: str = "namespace") -> str:
        """The namespace a request addresses, by the name the service shows."""
        name: str = request.get(key) or DEFAULT
        if len(name) > self.limits.namespace_chars or not name.isascii() or "\0" in name:
            raise invalid("Namespace names must be ASCII without NUL, at most 512 characters")
        return name

    def view(self, request: Decoded) -> View:
        """What a read of the request's namespace sees; a namespace that does not exist is empty."""
        space = self.namespaces.get(self.name_of(request))
        return space.seen() if space is not None else View()

    def lsns(self, request: Decoded) -> tuple[int, int]:
        """(committed, visible) log sequence numbers of the request's namespace."""
        space = self.namespaces.get(request.get("namespace") or DEFAULT)
        return (space.lsn, space.visible_lsn) if space is not None else (0, 0)

    # -- writes --------------------------------------------------------------------------------------

    def upsert(self, request: Decoded) -> Decoded:
        self._check_writable()
        raw = request.get("vectors", [])
        if not raw:
            raise invalid("At least one vector must be provided")
        if len(raw) > self.limits.upsert_records:
            raise invalid(
                f"Number of vectors must be between 1 and {self.limits.upsert_records}, got {len(raw)}"
            )
        name = self.name_of(request)
        records = {record.id: record for record in map(self._record, raw)}  # the last of two equal ids wins
        with self.lock:
            self.state.put(self.definition.uid, name, records.values())
            self.open(name).write(lambda view: view.put(records.values()), self.lag())
        return {"upserted_count": len(raw)}

    def _record(self, message: Decoded) -> Record:
        one = self.check_id(message.get("id", ""))
        values, sparse = message.get("values"), message.get("sparse_values")
        if values is not None and len(values) == 0:
            values = None
        if values is None and sparse is None:
            if self.definition.dimension is None:
                raise invalid(f"Sparse values are required by a sparse index. Vector ID {one}.")
            raise invalid(
                f"Vector dimension 0 does not match the dimension of the index {self.definition.dimension}"
            )
        kept = metadata.normalised(message["metadata"]) if message.get("metadata") else None
        if kept:
            metadata.checked_size(kept, self.limits.metadata_bytes)
        return Record(one, self._dense(values, one), self._sparse(sparse, one), kept)

    def _dense(self, values: vectors.Floats | None, one: str) -> vectors.Floats | None:
        if values is not None:
            return vectors.dense(values, self.definition.dimension, self.limits, of=one)
        if self.definition.dimension is not None:
            raise invalid(
                f"Vector dimension 0 does not match the dimension of the index {self.definition.dimension}"
            )
        return None

    def _sparse(self, message: Decoded | None, one: str) -> vectors.Sparse | None:
        if message is None:
            if self.definition.vector_type == "sparse":
                raise invalid(f"Sparse values are required by a sparse index. Vector ID {one}.")
            return None
        return vectors.sparse(message, self.limits, of=one)

    def update(self, request: Decoded) -> Decoded:
        """Update one record by id, or the metadata of all that match a filter."""
        self._check_writable()
        one, condition = request.get("id", ""), request.get("filter")
        if bool(one) == (condition is not None):
            raise invalid("Exactly one of 'id' or 'filter' must be provided")
        name = self.name_of(request)
        patch = metadata.normalised(request.get("set_metadata") or {})
        with self.lock:
            space = self._existing(name)
            if condition is None:
                old = space.committed.records.get(self.check_id(one))
                changed = [self._patched(old, request, patch)] if old is not None else []
                answer: Decoded = {}
            else:
                changed = [self._patched(old, {}, patch) for old in self._matching(space, request, "Update")]
                answer = {"matched_records": len(changed)}
            if changed and not request.get("dry_run"):
                self.state.put(self.definition.uid, name, changed)
                space.write(lambda view: view.put(changed), self.lag())
        return answer

    def _patched(self, old: Record, request: Decoded, patch: metadata.Metadata) -> Record:
        values, sparse = request.get("values"), request.get("sparse_values")
        dense = self._dense(values, old.id) if values is not None and len(values) else old.values
        weights = self._sparse(sparse, old.id) if sparse is not None else old.sparse
        merged = {**(old.metadata or {}), **patch}
        return Record(
            old.id, dense, weights, metadata.checked_size(merged, self.limits.metadata_bytes) or None
        )

    def delete(self, request: Decoded) -> Decoded:
        """Delete by ids, by filter, or everything in the namespace (the namespace itself stays)."""
        self._check_writable()
        ids, condition, everything = (
            request.get("ids", []),
            request.get("filter"),
            request.get("delete_all", False),
        )
        if everything and ids:
            raise invalid("No explicit IDs allowed when delete_all=true")
        if everything and condition is not None:
            raise invalid("No filter allowed when delete_all=true")
        if not (ids or everything or condition is not None):
            raise invalid("Invalid request. Please provide at least one id, a filter, or delete_all=true")
        if len(ids) > self.limits.delete_ids:
            raise invalid(f"Too many IDs: at most {self.limits.delete_ids} can be deleted in one request")
        name = self.name_of(request)
        with self.lock:
            space = self._existing(name)
            if everything:
                self.state.clear(self.definition.uid, name)
                space.write(View.clear, self.lag())
                return {}
            if condition is not None:  # the service ignores ids beside a filter (2026-07 client's note)
                gone = [record.id for record in self._matching(space, request, "Delete")]
            else:
                gone = [self.check_id(one) for one in ids]
            self.state.drop(self.definition.uid, name, gone)
            space.write(lambda view: view.drop(gone), self.lag())
        return {}

    def _matching(self, space: Namespace, request: Decoded, what: str) -> list[Record]:
        """Committed records that match the request's filter."""
        if not request["filter"]:
            raise invalid(f"{what} with empty metadata filter is not allowed")
        if request.get("values") is not None or request.get("sparse_values") is not None:
            raise invalid("Update by metadata request does not support updating vector values.")
        holds = filters.compiled(request["filter"], self.limits)
        return [record for record in space.committed.records.values() if holds(record.metadata or {})]

    def _existing(self, name: str) -> Namespace:
        """The namespace, for a write that needs one; the default namespace always exists."""
        space = self.namespaces.get(name)
        if name == DEFAULT:
            return self.open(name)
        if space is None or not space.committed.exists:
            raise not_found("Namespace not found")
        return space

    # -- reads ---------------------------------------------------------------------------------------

    def fetch(self, request: Decoded) -> Decoded:
        ids = request.get("ids", [])
        if not 1 <= len(ids) <= self.limits.fetch_ids:
            raise invalid(f"Number of ids must be between 1 and {self.limits.fetch_ids}, got {len(ids)}")
        for one in ids:
            self.check_id(one)
        with self.lock:
            records = self.view(request).records
            found = [records[one] for one in dict.fromkeys(ids) if one in records]
        return self._page(request, found)

    def fetch_by_metadata(self, request: Decoded) -> Decoded:
        if not request.get("filter"):
            raise invalid("Empty filter provided for fetch by metadata request")
        limit = request.get("limit", self.limits.fetch_by_metadata_default_page)
        if not 1 <= limit <= self.limits.fetch_by_metadata_page:
            raise invalid(f"Limit must be between 1 and {self.limits.fetch_by_metadata_page}, got {limit}")
        holds = filters.compiled(request["filter"], self.limits)
        with self.lock:
            view = self.view(request)
            ids = _after(view.ids(), token_value(request.get("pagination_token", "")), "")
            matching = [view.records[one] for one in ids if holds(view.records[one].metadata or {})]
        answer = self._page(request, matching[:limit])
        if len(matching) > limit:
            answer["pagination"] = {"next": token(matching[limit - 1].id)}
        return answer

    def _page(self, request: Decoded, records: list[Record]) -> Decoded:
        return {
            "vectors": {record.id: record.message() for record in records},
            "namespace": request.get("namespace", ""),
            "usage": {"read_units": max(1, -(-len(records) // 10))},  # "Understanding cost": 1 per 10 records
        }

    def list_ids(self, request: Decoded) -> Decoded:
        if self.definition.deployment["deployment_type"] == "pod":
            raise invalid("Listing vector IDs is supported only for serverless indexes")
        limit, prefix = request.get("limit", self.limits.list_page), request.get("prefix", "")
        if not 1 <= limit <= self.limits.list_page:
            raise invalid(f"Limit must be between 1 and {self.limits.list_page}, got {limit}")
        if len(prefix) > self.limits.id_chars or not prefix.isascii() or "\0" in prefix:
            raise invalid("Prefix must be ASCII without NUL, at most 512 characters")
        last = token_value(request.get("pagination_token", ""))
        with self.lock:
            ids = _after(self.view(request).ids(), last, prefix, limit + 1)
        answer: Decoded = {
            "vectors": [{"id": one} for one in ids[:limit]],
            "namespace": request.get("namespace", ""),
            "usage": {"read_units": 1},
        }
        if len(ids) > limit:
            answer["pagination"] = {"next": token(ids[limit - 1], prefix)}
        return answer

    def describe_index_stats(self, request: Decoded) -> Decoded:
        if request.get("filter") and self.definition.deployment["deployment_type"] != "pod":
            raise invalid(
                "Serverless and Starter indexes do not support describing index stats with metadata filtering"
            )
        holds = filters.compiled(request.get("filter") or {}, self.limits)
        with self.lock:
            views = [(name, space.seen()) for name, space in sorted(self.namespaces.items())]
            counts = {
                name: sum(holds(record.metadata or {}) for record in view.records.values())
                for name, view in views
                if view.exists
            }
            total = sum(len(view.records) for _, view in views)
        answer: Decoded = {"namespaces": {name: {"vector_count": count} for name, count in counts.items()}}
        if self.definition.dimension is not None:
            answer["dimension"] = self.definition.dimension
        return {
            **answer,
            "index_fullness": 0.0,
            "total_vector_count": total,
            "metric": self.definition.metric,
            "vector_type": self.definition.vector_type,
        }

    # -- checks --------------------------------------------------------------------------------------

    def check_id(self, one: Any) -> str:
        if not one:
            raise invalid("Vector ID must not be empty")
        if len(one) > self.limits.id_chars:
            raise invalid(
                f"Vector ID is too long: {len(one)} characters, the limit is {self.limits.id_chars}"
            )
        if not one.isascii():
            raise invalid(f"Vector ID must be ASCII, but is '{one}'")
        if "\0" in one:
            raise invalid("Vector ID must not contain null character")
        return str(one)

    def check_sparse_query(self) -> None:
        """ "Known limitations": sparse-dense records can be written to any dense index, and be queried in
        those that use the dot product."""
        if self.definition.vector_type != "sparse" and self.definition.metric != "dotproduct":
            raise invalid(
                "Index configuration does not support sparse values - "
                "only indexes that are sparse or using dotproduct are supported"
            )

    def _check_writable(self) -> None:
        if self.definition.kind == "documents":
            raise invalid(DOCUMENTS_ONLY)


def token(last: str, prefix: str = "") -> str:
    """An opaque pagination token; the service's own are base64 of such a JSON object, too."""
    return base64.b64encode(json.dumps({"skip_past": last, "prefix": prefix}).encode()).decode()


def token_value(text: str) -> str:
    """The id a token continues after; '' for no token."""
    if not text:
        return ""
    try:
        return str(json.loads(base64.b64decode(text, validate=True))["skip_past"])
    except (binascii.Error, ValueError, KeyError, TypeError) as exc:
        raise invalid("Invalid pagination token") from exc


def _after(ids: list[str], last: str, prefix: str, count: int | None = None) -> list[str]:
    """Up to count sorted ids that start with prefix, after last."""
    start = max(bisect.bisect_left(ids, prefix), bisect.bisect_right(ids, last) if last else 0)
    stop = bisect.bisect_left(ids, prefix + "\x80") if prefix else len(ids)
    return ids[start : stop if count is None else min(stop, start + count)]
