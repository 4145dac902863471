"""URLs, paths and dicts become settings here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from migrate.config import (
    Endpoint,
    MemorySettings,
    PineconeSettings,
    PostgresSettings,
    QdrantSettings,
    Settings,
    SqliteSettings,
    env,
    mask,
)
from migrate.errors import ConfigError

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
_PATHS = {"path", "embedded"}
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
    for key in sorted(_PATHS & set(data)):
        if not isinstance(data[key], str | Path):
            raise ConfigError(
                f"{kind}: {key} cannot be {type(data[key]).__name__}", hint="give it as a text or a Path"
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
    if like or re.match(r"(?:(?:[a-z][a-z0-9+.-]*:?)?//)?[^/@\s]+:[^@\s]+@[^/@\s]+(?:/|:\d+$|$)", name, re.I):
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
    if scheme.lower() not in ("postgresql", "postgres"):
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
