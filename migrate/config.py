"""Settings of stores, and what the environment says; nothing else reads `os.environ`.

Secrets stay inside settings objects, whose `repr` and `str` show `***`; `mask()`
is what every message, report and plan goes through.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

_SENSITIVE = "password|passwd|pwd|api[-_]?key|apikey|token|secret|secret_key|sslpassword|passphrase"
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*:/{0,2})(?P<user>[^/?#:@\s]*):(?P<hidden>\S*)@", re.I)
_QUERY = re.compile(rf"(?P<key>[?&](?:{_SENSITIVE}))=(?P<hidden>[^&\s]+)", re.I)
# In a conninfo string a value ends at white space only, unless it is quoted or escaped.
_CONNINFO = re.compile(
    rf"(?P<key>(?<![?&\w])(?:{_SENSITIVE}))\s*=\s*(?P<hidden>'(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])+)",
    re.I | re.S,
)


def mask(text: str) -> str:
    """Replace every secret in a URL, a conninfo string or a message by `***`."""
    # Also with one slash (a Path makes that of two) or none (a slip of the one who typed it).
    text = _USERINFO.sub(lambda m: f"{m['scheme']}{m['user']}:***@", text)
    text = _QUERY.sub(lambda m: f"{m['key']}=***", text)
    return _CONNINFO.sub(lambda m: f"{m['key']}=***", text)


def env(name: str) -> str | None:
    """Return a variable of the environment, or None where it is unset or empty."""
    return os.environ.get(name) or None


def home() -> Path:
    """Return the folder of our own files (`MEMLIFT_HOME`, else `~/.memlift`); it may not exist yet."""
    return Path(env("MEMLIFT_HOME") or Path.home() / ".memlift").expanduser()


def debug() -> bool:
    """Whether tracebacks were asked for (`MEMLIFT_DEBUG=1`)."""
    return env("MEMLIFT_DEBUG") not in (None, "0")


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """One SQLite file."""

    path: Path
    type: str = "sqlite"

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """A Postgres database, or a folder in which an embedded server keeps one.

    conninfo: a libpq URL or conninfo string; empty for an embedded server.
    schema:   where our tables are; None is the connection's own (`public`).
    """

    conninfo: str = field(repr=False)
    schema: str | None = None
    embedded: Path | None = None
    type: str = "postgres"

    def __str__(self) -> str:
        tail = f"?schema={self.schema}" if self.schema else ""
        if self.embedded is not None:
            return f"postgresql+embedded:{self.embedded}{tail}"
        shown = mask(self.conninfo)
        return shown + (f"{'&' if '?' in shown else '?'}schema={self.schema}" if self.schema else "")


@dataclass(frozen=True, slots=True)
class QdrantSettings:
    """A Qdrant server, or a folder for Qdrant's engine in process.

    quantization: "scalar" or "binary" for new collections; on_disk: their vectors stay on disk;
    shards, replication: of new collections on a server; bm25: the text column (or columns,
    separated by commas) that get a sparse BM25 vector beside, for hybrid search.
    """

    url: str | None = field(default=None, repr=False)
    path: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    prefix: str = ""
    sidecar: str | None = field(default=None, repr=False)
    grpc_port: int | None = None
    quantization: str | None = None
    on_disk: bool = False
    shards: int | None = None
    replication: int | None = None
    bm25: str | None = None
    type: str = "qdrant"

    def __str__(self) -> str:
        tail = f"?prefix={quote(self.prefix, safe='')}" if self.prefix else ""
        return (mask(f"qdrant+{self.url}") if self.url else f"qdrant:{self.path}") + tail


@dataclass(frozen=True, slots=True)
class PineconeSettings:
    """A Pinecone index, by name or by host.

    cloud, region: where an index that is missing is made.
    controller: the address of the control plane, where it is not Pinecone's own (an emulator).
    bulk: a folder for Parquet files to be imported, in place of the index itself.
    """

    index: str | None = None
    host: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    namespace: str | None = None
    sidecar: str | None = field(default=None, repr=False)
    cloud: str = "aws"
    region: str = "us-east-1"
    controller: str | None = field(default=None, repr=False)
    bulk: str | None = None
    type: str = "pinecone"

    def __str__(self) -> str:
        told = [("namespace", self.namespace), ("bulk", self.bulk)]
        tail = "&".join(f"{k}={quote(v, safe='/')}" for k, v in told if v)
        tail = f"?{tail}" if tail else ""
        if self.host is None:
            return f"pinecone:{self.index}{tail}"
        return mask(f"pinecone+{self.host if '://' in self.host else f'https://{self.host}'}") + tail


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """A store in this process, for tests; stores of one name are one store."""

    name: str = ""
    type: str = "memory"

    def __str__(self) -> str:
        return f"memory:{self.name}"


Settings = SqliteSettings | PostgresSettings | QdrantSettings | PineconeSettings | MemorySettings
Endpoint = str | Path | Mapping[str, Any] | Settings
