"""The words that all provisioners share: what was set up, and how it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from migrate.config import mask
from migrate.errors import ConfigError

Kind = Literal["postgres", "qdrant"]
How = Literal["given", "environment", "docker", "embedded"]
Say = Callable[[str], None]
Confirm = Callable[[str], bool]

KINDS: tuple[Kind, ...] = ("postgres", "qdrant")


def check_name(name: str) -> str:
    """Return a store's name as it may stand in names of containers and files. Raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name):
        raise ConfigError("a name has letters, digits, '.', '_' and '-' only, up to 61", name=name[:80])
    return name


def silent(_: str) -> None:
    """Say nothing: for callers who do not want to hear the steps."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a store that has just answered a real query.

    url: `postgresql://user:password@host:port/database` (libpq's), `http(s)://host:port`
        (Qdrant), or a folder with `qdrant:` before it.
    api_key: Qdrant's, apart from the URL. grpc_port: Qdrant's second port, on the same host.
    version: the server's own; extension: pgvector's.
    details: what else is known (container, volume, image, digest, folder, port).
    `repr` and `str` show no secrets.
    """

    kind: Kind
    how: How
    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    grpc_port: int | None = None
    version: str | None = None
    extension: str | None = None
    name: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def masked(self) -> str:
        """The URL as it may be shown."""
        return mask(self.url)

    def __str__(self) -> str:
        return self.masked

    def settings(self) -> dict[str, Any]:
        """Return the same address as the dict that `migrate()` takes, secrets included."""
        if self.kind == "postgres":
            return {"type": "postgres", "connection_string": self.url}
        if self.url.startswith("qdrant:"):
            return {"type": "qdrant", "path": self.url.removeprefix("qdrant:")}
        found = {"type": "qdrant", "url": self.url, "api_key": self.api_key, "grpc_port": self.grpc_port}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Status:
    """How one store stands now; no field holds a secret.

    state: `running`, `stopped`, `paused`, `missing`, ... ; health: `healthy`, `unhealthy` or `-`.
    rows: of all tables or collections; rows_exact: False where the server's estimate had to do.
    disk: bytes; since: UTC, ISO 8601, when it was last started.
    """

    kind: str
    name: str
    where: str
    state: str
    health: str = "-"
    address: str = "-"
    version: str | None = None
    extension: str | None = None
    rows: int | None = None
    rows_exact: bool = True
    disk: int | None = None
    since: str | None = None
    image: str | None = None
    digest: str | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        return asdict(self)
