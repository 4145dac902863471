"""The control plane, through the official SDK with its own retries off: which indexes there are, making one."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pinecone import Pinecone, RetryConfig, ServerlessSpec

from migrate.backends.pacing import patiently
from migrate.backends.pinecone.errors import POD_HINT, NotThereError, translating
from migrate.backends.pinecone.names import SPARSE, Form
from migrate.config import PineconeSettings
from migrate.errors import BackendError, ConfigError, SchemaError

_FIELDS = {"_values", "_sparse_values"}  # of indexes whose records are vectors
READY_WITHIN_S = 300.0
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Index:
    """An index as the control plane describes it. trouble: why it can be neither read nor written as vectors."""

    name: str
    host: str | None
    form: Form | None
    ready: bool
    tags: dict[str, str]
    trouble: str | None = None
    hint: str | None = None

    def usable(self) -> Index:
        """Return it, or raise ConfigError with the reason where it is of another kind."""
        if self.trouble is not None:
            raise ConfigError(f"the Pinecone index {self.name!r} {self.trouble}", hint=self.hint)
        return self


class Control:
    """Indexes of one project."""

    def __init__(self, settings: PineconeSettings) -> None:
        self._settings = settings
        self._made: Any = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._reached = False

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                with translating("read its settings"), warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # plain HTTP is told by us
                    self._made = Pinecone(
                        api_key=self._settings.api_key,
                        host=self._settings.controller,
                        ssl_verify=not str(self._settings.controller).startswith("http://"),  # none there
                        retry_config=RetryConfig(max_retries=0),
                    )
            return self._made

    def close(self) -> None:
        """Let go of the connections, and wait no more for what is busy. Idempotent."""
        self._over.set()
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _asked(self, op: str, work: Callable[[], Any], **where: Any) -> Any:
        def once() -> Any:
            with translating(op, **where):
                answer = work()
            self._reached = True
            return answer

        return patiently(once, self._over, reached=self._reached)

    def index(self, name: str) -> Index | None:
        """Return an index, or None where there is none of this name."""
        client = self._client()
        try:
            return _index(
                self._asked("describe the index", lambda: client.indexes.describe(name), index=name)
            )
        except NotThereError:
            return None

    def tagged(self, tag: str, value: str) -> list[str]:
        """Return the names of the indexes that have a tag of this value."""
        client = self._client()
        found = self._asked("list the indexes", lambda: client.indexes.list().to_list())
        return [one.name for one in map(_index, found) if one.tags.get(tag) == value]

    def by_host(self, host: str) -> Index | None:
        """Return the index that is served at a host; None where this project's control plane knows none.

        Asked once: a host alone serves for the vectors, and the control plane may be out of reach. Plain
        HTTP is an emulator's, which need not have one.
        """
        wanted = urlsplit(_with_scheme(host))
        if wanted.scheme == "http" and self._settings.controller is None:
            return None
        client = self._client()
        try:
            with translating("list the indexes"):
                found = client.indexes.list().to_list()
        except (BackendError, ConfigError):
            return None
        for one in map(_index, found):
            if one.host is not None and urlsplit(_with_scheme(one.host)).netloc == wanted.netloc:
                return one
        return None

    def create(self, name: str, form: Form, tags: dict[str, str], say: Callable[[str], None]) -> Index:
        """Make a serverless index and return it when it is ready. One that is there by now is taken as it is."""
        client, settings = self._client(), self._settings
        spec = ServerlessSpec(cloud=settings.cloud, region=settings.region)
        shape: dict[str, Any] = (
            {"vector_type": "sparse", "metric": "dotproduct"}
            if form.sparse
            else {"dimension": form.dim, "metric": form.metric, "vector_type": "dense"}
        )
        say(f"making the Pinecone index {name} for {form} in {settings.cloud} {settings.region}")
        try:
            self._asked(
                "create the index",
                lambda: client.create_index(name=name, spec=spec, tags=tags, timeout=-1, **shape),
                index=name,
            )
        except NotThereError as exc:
            raise ConfigError(
                exc.message, hint="?cloud=...&region=..., as Pinecone names its regions"
            ) from exc
        except SchemaError:  # the answer to an earlier try was lost, or another run was quicker
            say(f"the Pinecone index {name} is there by now")
        return self.ready(name, say)

    def ready(self, name: str, say: Callable[[str], None]) -> Index:
        """Return an index once it can be used."""
        began = told = time.monotonic()
        while True:
            found = self.index(name)
            if found is not None and found.usable().ready and found.host:
                return found
            now = time.monotonic()
            if now - began > READY_WITHIN_S:
                raise BackendError(
                    f"the Pinecone index {name!r} was not ready within {READY_WITHIN_S:.0f} s",
                    hint="run the same command again once the console shows it as ready",
                )
            if now - told > 10:
                told = now
                say(f"waiting until the Pinecone index {name} is ready ({now - began:.0f} s)")
            time.sleep(POLL_S)

    def delete(self, name: str) -> None:
        """Remove an index. Idempotent."""
        client = self._client()
        try:
            self._asked("delete the index", lambda: client.indexes.delete(name, timeout=-1), index=name)
        except NotThereError:
            return


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _index(model: Any) -> Index:
    told = model.to_dict()
    fields: dict[str, Any] = (told.get("schema") or {}).get("fields") or {}
    status = told.get("status") or {}
    form = None
    if "_values" in fields:
        form = Form(int(fields["_values"]["dimension"]), str(fields["_values"]["metric"]))
    elif "_sparse_values" in fields:
        form = SPARSE
    trouble, hint = _trouble(told, fields)
    return Index(
        told["name"], told.get("host"), form, bool(status.get("ready")), told.get("tags") or {}, trouble, hint
    )


def _trouble(told: dict[str, Any], fields: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return why an index cannot be read and written as vectors, and what to do."""
    embedded = [name for name, one in fields.items() if one.get("type") == "semantic_text"]
    if embedded:
        return (
            f"embeds its text itself (field {embedded[0]!r}): its records cannot be written as vectors",
            "migrate into an index of plain vectors, with the embeddings the source has",
        )
    if set(fields) - _FIELDS or not fields:
        return "is a document index, which has no records of vectors", "name an index of vectors"
    if (told.get("deployment") or {}).get("deployment_type") == "pod":
        return "is a pod index, which cannot list its records", POD_HINT
    return None, None
