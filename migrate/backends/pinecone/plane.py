"""The data plane of one index: the documented HTTP API (2026-07), spoken over httpx.

Why not the SDK's own index client (10.2), when the SDK serves for the control plane: over REST
it retries three times, which no setting switches off; it sends a float32 as the digits of its
double, twice the bytes; it reads a `-0` as 0, so that a vector comes back changed; a deletion
tells no log sequence number; over gRPC a 429 tells no waiting time. httpx is what it sends with.

Both loops that repeat requests are those of `migrate.backends.pacing`: reads are repeated here,
upserts by its `Writer`, which needs each failure to find its pace.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson

from migrate.backends.pacing import patiently
from migrate.backends.pinecone import wire
from migrate.backends.pinecone.errors import NotThereError, of_response, of_transport
from migrate.backends.pinecone.limits import (
    FETCH_IDS,
    FETCH_URL_CHARS,
    WRITE_UNITS_A_REQUEST,
    write_units,
)
from migrate.backends.pinecone.names import SPARSE, Form, asked
from migrate.backends.pinecone.usage import Usage
from migrate.backends.pinecone.wire import Record
from migrate.errors import BackendError, TransientError

VERSION = "2026-07"
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Stats:
    """What an index says of itself. counts: records by namespace, by the name requests use."""

    form: Form | None
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Request:
    """One upsert, ready to be sent. billed: bytes that count for write units; probe: one of its records."""

    namespace: str
    body: bytes
    records: int
    billed: int
    probe: Record


class Plane:
    """Requests to one index. Any thread may call it."""

    def __init__(self, host: str, api_key: str, usage: Usage) -> None:
        self.host = host if "://" in host else f"https://{host}"
        self._key, self._usage = api_key, usage
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._reached = False

    def _open(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    base_url=self.host,
                    headers={
                        "Api-Key": self._key,
                        "X-Pinecone-Api-Version": VERSION,
                        "Content-Type": "application/json",
                        "User-Agent": "memlift",
                    },
                    timeout=_TIMEOUT,
                    verify=_tls() if self.host.startswith("https://") else False,  # plain HTTP has none
                    limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
                )
            return self._client

    def close(self) -> None:
        """Let go of the connections, and wait no more for what is busy. Idempotent."""
        self._over.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- one request ----------------------------------------------------------

    def _once(self, op: str, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        try:
            response = self._open().request(method, path, content=body)
        except httpx.HTTPError as exc:
            self._usage.add(retries=1)
            raise of_transport(op, exc) from exc
        except RuntimeError as exc:  # closed by another thread in between
            raise TransientError(f"Pinecone could not {op}: {exc}") from exc
        self._reached = True
        if not response.is_success:
            error = of_response(op, response)
            if isinstance(error, TransientError):
                self._usage.add(retries=1)
            raise error
        self._usage.add(requests=1, bytes_sent=len(body) if body else 0, bytes_received=len(response.content))
        return response

    def _read(self, op: str, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """Ask until there is an answer: nothing is changed by asking twice."""
        return patiently(lambda: self._once(op, method, path, body), self._over, reached=self._reached)

    def _counted(self, answer: Any) -> Any:
        units = (answer.get("usage") or {}).get("readUnits")
        if units:
            self._usage.add(read_units=int(units))
        return answer

    # --- reading --------------------------------------------------------------

    def stats(self) -> Stats:
        """Return the index's form and how many records each namespace has, as far as it knows yet."""
        told = wire.parse(self._read("describe the index", "POST", "/describe_index_stats", b"{}").content)
        counts = {
            asked(name): int(one.get("vectorCount") or 0)
            for name, one in (told.get("namespaces") or {}).items()
        }
        kind, dim = told.get("vectorType", "dense"), told.get("dimension")
        if kind == "sparse":
            return Stats(SPARSE, counts)
        return Stats(Form(int(dim), str(told.get("metric") or "")) if dim else None, counts)

    def listed(
        self, namespace: str, limit: int, token: str | None, prefix: str = ""
    ) -> tuple[list[str], str | None]:
        """Return ids in ascending order, and the token of the next page."""
        asking: dict[str, Any] = {"limit": limit}
        if namespace:
            asking["namespace"] = namespace
        if prefix:
            asking["prefix"] = prefix
        if token:
            asking["paginationToken"] = token
        path = f"/vectors/list?{urlencode(asking, quote_via=quote)}"
        try:
            told = self._counted(wire.parse(self._read("list records", "GET", path).content))
        except NotThereError:  # a namespace without a record
            return [], None
        after = (told.get("pagination") or {}).get("next")
        return [one["id"] for one in told.get("vectors") or ()], after or None

    def fetched(self, namespace: str, ids: Sequence[str]) -> list[Record]:
        """Return the records of ids that are there, in the order of the ids; one request."""
        return self._fetched(namespace, ids)[0]

    def _fetched(self, namespace: str, ids: Sequence[str]) -> tuple[list[Record], int | None]:
        try:
            response = self._read("fetch records", "GET", _fetch_path(namespace, ids))
        except NotThereError:
            return [], None
        told = self._counted(wire.parse(response.content))
        found = told.get("vectors") or {}
        records = [wire.record(found[i], namespace) for i in dict.fromkeys(ids) if i in found]
        return records, _lsn(response, "x-pinecone-max-indexed-lsn")

    def parts(self, ids: Sequence[str]) -> list[Sequence[str]]:
        """Cut ids into what one fetch can ask for."""
        found: list[Sequence[str]] = []
        start = size = 0
        for i, one in enumerate(ids):
            width = len(quote(one, safe="")) + 5
            if i > start and (i - start >= FETCH_IDS or size + width > FETCH_URL_CHARS):
                found.append(ids[start:i])
                start, size = i, 0
            size += width
        if start < len(ids):
            found.append(ids[start:])
        return found

    def seen(self, namespace: str, ids: Sequence[str]) -> tuple[dict[str, Record], int | None]:
        """Return what can be read of some ids, and up to which log sequence number the namespace can be."""
        there: dict[str, Record] = {}
        lsn: int | None = None
        for part in self.parts(ids):
            records, lsn = self._fetched(namespace, part)
            there.update((r.id, r) for r in records)
        return there, lsn

    def query(self, namespace: str, asked: dict[str, Any]) -> list[tuple[Record, float]]:
        """Return the nearest records with their scores, as the public `Query` operation says; best first."""
        body = orjson.dumps({**asked, **({"namespace": namespace} if namespace else {})})
        try:
            response = self._read("search", "POST", "/query", body)
        except NotThereError:  # a namespace without a record
            return []
        told = self._counted(wire.parse(response.content))
        return [(wire.record(m, namespace), float(m["score"])) for m in told.get("matches") or ()]

    # --- writing --------------------------------------------------------------

    def upsert_patiently(self, request: Request) -> int | None:
        """Send an upsert until it is taken; return its log sequence number."""
        return patiently(lambda: self.upsert(request), self._over)

    def upsert(self, request: Request) -> int | None:
        """Send an upsert once; return its log sequence number. Raises TransientError where it may be repeated."""
        response = self._once("upsert records", "POST", "/vectors/upsert", request.body)
        taken = int(wire.parse(response.content).get("upsertedCount") or 0)
        if taken != request.records:
            raise BackendError(f"Pinecone took {taken} of {request.records} records of one request")
        self._usage.add(upserts=1, write_units=write_units(request.billed))
        return _lsn(response, "x-pinecone-request-lsn")

    def delete(self, namespace: str, ids: Sequence[str]) -> int | None:
        """Remove records; return the log sequence number. A namespace that is not there is no error."""
        return self._delete(namespace, {"ids": list(ids)})

    def clear(self, namespace: str) -> int | None:
        """Remove all records of a namespace."""
        return self._delete(namespace, {"deleteAll": True})

    def _delete(self, namespace: str, what: dict[str, Any]) -> int | None:
        body = orjson.dumps({**what, **({"namespace": namespace} if namespace else {})})
        try:
            response = self._read("delete records", "POST", "/vectors/delete", body)
        except NotThereError:
            return None
        self._usage.add(write_units=WRITE_UNITS_A_REQUEST)
        return _lsn(response, "x-pinecone-request-lsn")

    def drop(self, namespace: str) -> None:
        """Remove a namespace with its records. Idempotent; the default one is emptied."""
        if not namespace:
            self.clear(namespace)
            return
        try:
            self._read("delete a namespace", "DELETE", f"/namespaces/{quote(namespace, safe='')}")
        except NotThereError:
            return


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return what proves a host to be Pinecone's; reading the certificates takes 35 ms, so it is done once."""
    return httpx.create_ssl_context()


def _fetch_path(namespace: str, ids: Sequence[str]) -> str:
    asking = [("ids", one) for one in ids]
    if namespace:
        asking.append(("namespace", namespace))
    return f"/vectors/fetch?{urlencode(asking, quote_via=quote)}"


def _lsn(response: httpx.Response, name: str) -> int | None:
    text = response.headers.get(name, "")
    return int(text) if text.isdecimal() else None
