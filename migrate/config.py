"""URLs, dicts and the environment become settings here; nothing else reads `os.environ`.

Secrets stay inside settings objects, whose `repr` and `str` show `***`; `mask()`
is what every message, report and plan goes through.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from migrate.errors import ConfigError

_SENSITIVE = "password|passwd|pwd|api[-_]?key|apikey|token|secret|secret_key|sslpassword|passphrase"
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/?#:@\s]*):(?P<hidden>\S*)@", re.I)
_QUERY = re.compile(rf"(?P<key>[?&](?:{_SENSITIVE}))=(?P<hidden>[^&\s]+)", re.I)
# In a conninfo string a value ends at white space only, unless it is quoted or escaped.
_CONNINFO = re.compile(
    rf"(?P<key>(?<![?&\w])(?:{_SENSITIVE}))\s*=\s*(?P<hidden>'(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])+)",
    re.I | re.S,
)


def mask(text: str) -> str:
    """Replace every secret in a URL, a conninfo string or a message by `***`."""
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

_ALIASES = {
    "connectionString": "connection_string",
    "apiKey": "api_key",
    "indexHost": "host",
    "index_host": "host",
    "autoSetup": "auto_setup",
    "sidecarPath": "sidecar",
    "sidecar_path": "sidecar",
    "collectionPrefix": "prefix",
    "collection_prefix": "prefix",
    "grpcPort": "grpc_port",
}
_QDRANT_OPTIONS = ("quantization", "on_disk", "shards", "replication", "bm25")
_KEYS = {
    "sqlite": {"path"},
    "postgres": {"connection_string", "url", "schema", "embedded"},
    "qdrant": {"url", "path", "api_key", "prefix", "sidecar", "grpc_port", *_QDRANT_OPTIONS},
    "pinecone": {"index", "host", "api_key", "namespace", "sidecar", "cloud", "region", "controller", "bulk"},
    "memory": {"name"},
}
_SCHEMES = (
    *("sqlite", "postgresql", "postgres", "postgresql+embedded", "memory"),
    *("qdrant", "qdrant+http", "qdrant+https", "pinecone", "pinecone+http", "pinecone+https"),
)
_TYPE_NAMES = {"postgresql": "postgres", "pg": "postgres", "sqlite3": "sqlite"}


def parse(endpoint: Endpoint) -> Settings:
    """Turn a URL, a path, a dict or a settings object into settings.

    Raises ConfigError on an unknown scheme or key, or where no address is
    given and the environment has none.
    """
    if isinstance(endpoint, Mapping):
        return _from_dict(endpoint)
    if isinstance(endpoint, Path):
        return SqliteSettings(endpoint)
    if isinstance(endpoint, str):
        return _from_url(endpoint)
    if not isinstance(endpoint, Settings):
        raise ConfigError(
            f"a store's address cannot be {type(endpoint).__name__}", hint="give a URL, a path or a dict"
        )
    return endpoint


def wants_auto_setup(endpoint: Endpoint) -> bool | str:
    """Return a dict endpoint's `auto_setup` (or `autoSetup`): False, True, "docker" or "embedded"."""
    if not isinstance(endpoint, Mapping):
        return False
    value = endpoint.get("auto_setup", endpoint.get("autoSetup", False))
    return value if isinstance(value, str) else bool(value)


def plain_keys(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict endpoint with the keys and the type name that we use ourselves."""
    data = {_ALIASES.get(k, k): v for k, v in endpoint.items() if v is not None}
    kind = str(data.get("type", ""))
    return {**data, "type": _TYPE_NAMES.get(kind, kind)}


def _from_dict(given: Mapping[str, Any]) -> Settings:
    data = plain_keys(given)
    kind = str(data.pop("type"))
    data.pop("auto_setup", None)
    if kind not in _KEYS:
        raise ConfigError(
            f"unknown store type {kind!r}" if kind else "a store's dict needs a type",
            hint=f"type is one of {', '.join(sorted(_KEYS))}",
        )
    unknown = sorted(set(data) - _KEYS[kind])
    if unknown:
        raise ConfigError(
            f"{kind} has no setting {unknown[0]!r}", hint=f"settings: {', '.join(sorted(_KEYS[kind]))}"
        )
    if kind == "sqlite":
        if not str(data.get("path", "")):
            raise ConfigError("sqlite needs a path", hint='{"type": "sqlite", "path": "brain.sqlite"}')
        return SqliteSettings(Path(data["path"]))
    if kind == "postgres":
        return _postgres(
            data.get("connection_string") or data.get("url"), data.get("schema"), data.get("embedded")
        )
    if kind == "qdrant":
        return _qdrant(data)
    if kind == "pinecone":
        return _pinecone(data)
    return MemorySettings(str(data.get("name", "")))


def _from_url(url: str) -> Settings:
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme in ("postgresql", "postgres"):
        return _postgres(url, None, None)
    if scheme == "postgresql+embedded":
        return _embedded(rest, None)
    if re.match(r"(host|hostaddr|port|dbname|user|password|passfile|service)\s*=", url):
        return _postgres(url, None, None)  # as psql takes it
    if scheme == "sqlite":
        return _sqlite_url(url, rest)
    if scheme in ("qdrant", "qdrant+http", "qdrant+https"):
        return _qdrant_url(scheme, rest)
    if scheme in ("pinecone", "pinecone+http", "pinecone+https"):
        return _pinecone_url(scheme, rest)
    if scheme == "memory":
        return MemorySettings(rest)
    if colon and re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme) and rest.startswith("//"):
        raise ConfigError(
            f"no store is addressed by {scheme}://",
            hint="use a file name, sqlite:, postgresql:, qdrant: or pinecone: (memlift migrate --help)",
        )
    _refuse_misspelt(url)
    if not url:
        raise ConfigError("the store's address is empty", hint="give a file name or a URL")
    return SqliteSettings(Path(url))


def _refuse_misspelt(name: str) -> None:
    """Raise ConfigError for a file name that was meant for a URL: nobody wants a new file of that name."""
    scheme, colon, _ = name.lower().partition(":")
    like = colon and re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme) and get_close_matches(scheme, _SCHEMES)
    if like or re.match(r"(?:[a-z][a-z0-9+.-]*:?//)?[^/@\s]+:[^@\s]+@[^/@\s]+/", name, re.I):
        raise ConfigError(
            f"{scheme}: is no store's address" if like else "this looks like a URL without its scheme",
            hint=f"did you mean {like[0]}:? A file of that name is ./{name}"
            if like
            else "write postgresql://user:***@host:5432/database; a file of that name begins with ./",
        )


def _embedded(rest: str, schema: str | None) -> PostgresSettings:
    path, query = _split_query(rest)
    unknown = sorted(set(query) - {"schema"})
    if unknown:
        raise ConfigError(f"the URL of an embedded Postgres has no option {unknown[0]!r}", hint="schema")
    return _postgres(None, schema or query.get("schema"), unquote(path))


def _sqlite_url(url: str, rest: str) -> SqliteSettings:
    # sqlite:///relative.db and sqlite:////absolute.db, as SQLAlchemy and others write them.
    path = rest[3:] if rest.startswith("///") else rest
    if rest.startswith("//") and not rest.startswith("///"):
        raise ConfigError(
            f"{url} names a host", hint="write sqlite:///relative.db or sqlite:////absolute/path.db"
        )
    if not path:
        raise ConfigError("sqlite needs a path", hint="write sqlite:///relative.db")
    if "?" in path:
        raise ConfigError("a SQLite URL has no options", hint="a ? in the file's name is written %3F")
    return SqliteSettings(Path(unquote(path)))


def _split_query(rest: str) -> tuple[str, dict[str, str]]:
    path, _, query = rest.partition("?")
    return path, dict(_pairs(query))


def _pairs(query: str) -> list[tuple[str, str]]:
    """Split a query string; `+` stays `+`, as libpq has it (and keys in base64 need it)."""
    parts = (part.partition("=") for part in query.split("&") if part)
    return [(unquote(key), unquote(value)) for key, _, value in parts]


def _postgres(conninfo: str | None, schema: str | None, embedded: str | Path | None) -> PostgresSettings:
    if embedded is not None:
        if not str(embedded):
            raise ConfigError("an embedded Postgres needs a folder", hint="postgresql+embedded:./pgdata")
        return PostgresSettings("", schema, Path(embedded))
    conninfo = conninfo or ""
    bare = re.fullmatch(r"postgres(?:ql)?:(?://)?/?(?:\?(?P<query>schema=[^&]*))?", conninfo)
    if bare is not None:
        schema = schema or dict(_pairs(bare["query"] or "")).get("schema")
    if not conninfo or bare is not None:
        conninfo = env("DATABASE_URL") or ""
        if not conninfo:
            raise ConfigError("no Postgres address given", hint="give postgresql://... or set DATABASE_URL")
    if conninfo.startswith("postgresql+embedded:"):
        return _embedded(conninfo.partition(":")[2], schema)
    if not re.match(r"[a-z][a-z0-9+.-]*://", conninfo, re.I):  # a password may have :// in it
        return PostgresSettings(conninfo, schema)
    scheme, _, rest = conninfo.partition("://")
    if scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"{mask(scheme)}:// is no Postgres address", hint="write postgresql://...")
    userinfo, place = _userinfo(rest)
    place, _, query_text = place.partition("?")
    pairs = _pairs(query_text)
    schema = schema or next((v for k, v in pairs if k == "schema"), None)
    kept = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in pairs if k != "schema")
    return PostgresSettings(f"postgresql://{userinfo}{place}" + (f"?{kept}" if kept else ""), schema)


def _userinfo(rest: str) -> tuple[str, str]:
    """Split `user:password@` off what stands behind `://`, percent-encoded so that every reader agrees.

    A password may hold any character as it is, also `#`, `?` and `@`: the
    first `@` behind which a host can stand is the one that ends it.
    """
    at = -1
    while (at := rest.find("@", at + 1)) >= 0:
        host = re.match(r"[^/?#]*", rest[at + 1 :])
        if host is None or "@" not in host[0]:
            user, colon, password = rest[:at].partition(":")
            quoted = quote(unquote(user), safe="") + (colon and ":" + quote(unquote(password), safe=""))
            return f"{quoted}@", rest[at + 1 :]
    return "", rest


def _qdrant(data: Mapping[str, Any]) -> QdrantSettings:
    path, url = data.get("path"), data.get("url")
    if path is None and not url:
        url = env("QDRANT_URL")
        if not url:
            raise ConfigError(
                "no Qdrant address given", hint="give qdrant+http://host:6333 or set QDRANT_URL"
            )
    url = _qdrant_server(_served(str(url), "qdrant", "host:6333")) if url else None
    key = data.get("api_key") or (env("QDRANT_API_KEY") if url else None)
    quantization = data.get("quantization")
    if quantization not in (None, "scalar", "binary"):
        raise ConfigError(f"quantization cannot be {quantization!r}", hint="scalar or binary")
    return QdrantSettings(
        url=url,
        path=Path(path) if path is not None else None,
        api_key=key,
        prefix=str(data.get("prefix", "")),
        sidecar=str(data["sidecar"]) if data.get("sidecar") else None,
        grpc_port=_count(data, "grpc_port"),
        quantization=quantization,
        on_disk=str(data.get("on_disk", "")).lower() in ("1", "true", "yes", "on"),
        shards=_count(data, "shards"),
        replication=_count(data, "replication"),
        bm25=str(data["bm25"]) if data.get("bm25") else None,
    )


def _served(address: str, scheme: str, example: str) -> str:
    """Return the http(s) address of a service, which may be written with our own scheme before it."""
    plain = re.sub(rf"^{scheme}\+(?=https?:)", "", address, flags=re.I)
    if not re.match(r"[^/?#]", re.sub(r"^https?:(?://)?", "", plain, flags=re.I)):
        raise ConfigError(f"{mask(address)} names no host", hint=f"write {scheme}+http://{example}")
    if "?" in plain:
        raise ConfigError(
            f"options cannot be given in {mask(address)}",
            hint="they are keys of a dict, or of a whole address",
        )
    return plain


def _qdrant_server(given: str) -> str:
    """Return the address of a server; `host:port` alone, as in many a QDRANT_URL, is plain HTTP."""
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"no address of a Qdrant server: {mask(given)}", hint="qdrant+http://host:6333")
    return url


def _count(data: Mapping[str, Any], name: str) -> int | None:
    if data.get(name) is None:
        return None
    text = str(data[name])
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} cannot be {text!r}", hint="a number from 1 on")
    return int(text)


def _qdrant_url(scheme: str, rest: str) -> QdrantSettings:
    path, query = _split_query(rest)
    unknown = sorted(set(query) - {"prefix", "sidecar", "grpc_port", "api_key", *_QDRANT_OPTIONS})
    if unknown:
        raise ConfigError(
            f"a Qdrant URL has no option {unknown[0]!r}",
            hint=f"prefix, sidecar, grpc_port, {', '.join(_QDRANT_OPTIONS)}",
        )
    if scheme == "qdrant":
        return _qdrant({**query, "path": unquote(path)} if path else query)
    return _qdrant({**query, "url": f"{scheme.removeprefix('qdrant+')}:{path}"})


def _pinecone(data: Mapping[str, Any]) -> PineconeSettings:
    index, host = data.get("index"), data.get("host")
    if not index and not host:
        host = env("PINECONE_INDEX_HOST")
        if not host:
            raise ConfigError(
                "no Pinecone index given", hint="give pinecone:index-name or set PINECONE_INDEX_HOST"
            )
    host = _served(str(host), "pinecone", "index-host") if host else None
    bulk = data.get("bulk")
    if bulk and not index:
        raise ConfigError(
            "files for a bulk import need an index's name", hint="pinecone:index-name?bulk=FOLDER"
        )
    key = data.get("api_key") or env("PINECONE_API_KEY")
    if not key and not bulk:
        raise ConfigError("no Pinecone API key given", hint="set PINECONE_API_KEY")
    return PineconeSettings(
        index,
        host,
        key,
        data.get("namespace") or None,
        str(data["sidecar"]) if data.get("sidecar") else None,
        cloud=str(data.get("cloud") or "aws"),
        region=str(data.get("region") or "us-east-1"),
        controller=data.get("controller") or env("PINECONE_CONTROLLER_HOST"),
        bulk=str(bulk) if bulk else None,
    )


def _pinecone_url(scheme: str, rest: str) -> PineconeSettings:
    path, query = _split_query(rest)
    unknown = sorted(set(query) - {"namespace", "sidecar", "cloud", "region", "bulk", "api_key"})
    if unknown:
        raise ConfigError(
            f"a Pinecone URL has no option {unknown[0]!r}", hint="namespace, sidecar, cloud, region, bulk"
        )
    if scheme == "pinecone":
        return _pinecone({**query, "index": unquote(path)} if path else query)
    return _pinecone({**query, "host": f"{scheme.removeprefix('pinecone+')}:{path}"})
