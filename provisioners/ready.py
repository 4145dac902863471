"""Is it ready? Asked as a client will ask: with the password, by a query, over the published port.

An open port proves nothing (a container's proxy accepts at once), nor does a log line
or the image's own check (it is green during the first set-up already).
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from migrate.config import mask
from migrate.errors import ConfigError
from provisioners import pgprobe
from provisioners.errors import NotReadyError, ProvisionError

POLL_S = 0.5
TIMEOUT_S = 15.0

# hnsw came with 0.5.0; below it there is no index worth having (pgvector's changelog).
MIN_PGVECTOR = (0, 5, 0)


class RefusedError(ProvisionError):
    """The store answers, and does not accept our password or key. Waiting does not mend it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store said of itself."""

    version: str
    extension: str | None = None


def libpq_url(url: str) -> str:
    """Return a Postgres URL as libpq takes it: no driver in the scheme, no `schema` of ours.

    Raises ConfigError for the URL of another database; text without `://` is a conninfo string.
    """
    scheme, sep, rest = url.partition("://")
    if not sep:
        return url
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigError(f"this is not the URL of a Postgres database ({scheme}://...)")
    base, mark, query = rest.partition("?")
    kept = "&".join(p for p in query.split("&") if p and not p.startswith("schema="))
    return f"postgresql://{base}{mark if kept else ''}{kept}"


def schema_of(url: str) -> str | None:
    """Return the `schema` that a Postgres URL names, or None."""
    from urllib.parse import parse_qs

    return parse_qs(url.partition("?")[2]).get("schema", [None])[0]


def ask_postgres(url: str, *, timeout: float = 3.0) -> Facts:
    """Log in and run one query. Raises RefusedError, else NotReadyError with the server's reason.

    timeout: seconds for the connection, and for the query.
    """
    psycopg = pgprobe.driver()
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=max(2, int(timeout)), autocommit=True) as conn:
            row = conn.execute("SELECT current_setting('server_version')").fetchone()
    except psycopg.Error as exc:
        told = postgres_error(exc)
        raise told from (None if isinstance(told, RefusedError) else exc)  # libpq may quote the password
    return Facts(version=str(row[0]).split(" ")[0])


def postgres_error(exc: Exception) -> ProvisionError:
    if isinstance(exc, pgprobe.driver().ProgrammingError) and getattr(exc, "sqlstate", None) is None:
        # libpq quotes the part that it stumbled over, which may be the password.
        return RefusedError(
            "this is not a URL that Postgres' library can read",
            hint="percent-encode special characters in user and password (@ is %40, % is %25)",
        )
    # A refused login carries no SQLSTATE in psycopg; the text is the server's, in its own language.
    text = mask(" ".join(str(exc).split()))[:400]
    refused = ("password authentication failed", "no password supplied", "no pg_hba.conf entry")
    gone = ("does not exist", "authentication method", 'role "')
    if any(part in text for part in refused):
        return RefusedError(f"Postgres refuses the login: {text}", hint="check user and password in the URL")
    if any(part in text for part in gone):
        return RefusedError(
            f"Postgres answers, but not for us: {text}", hint="check user and database in the URL"
        )
    return NotReadyError(f"Postgres does not answer: {text}", hint="check host, port and network")


def ensure_vector(url: str, *, own: bool) -> str:
    """Create the extension `vector` where it is missing, and return its version.

    own: the server is one of ours, so an older installed version is brought up to date.
    Raises ProvisionError where the server does not offer it, forbids it, or it is older than MIN_PGVECTOR.
    """
    psycopg = pgprobe.driver()
    look = "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=10, autocommit=True) as conn:
            row = conn.execute(look).fetchone()
            if row is None:
                raise ProvisionError(
                    "this Postgres has no pgvector",
                    hint="install pgvector on the server, or use an image that has it, as pgvector/pgvector",
                )
            if row[1] is None:
                # Two at once: the loser's unique violation means that it is there.
                try:
                    conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
                except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject):
                    row = conn.execute(look).fetchone()
            elif own and row[1] != row[0]:
                conn.execute("ALTER EXTENSION vector UPDATE")
            found = conn.execute(look).fetchone()
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ProvisionError(
            "this role may not create the extension vector",
            hint="let an administrator run: CREATE EXTENSION vector",
        ) from exc
    except psycopg.Error as exc:
        raise postgres_error(exc) from exc
    version = str(found[1])
    if _numbers(version) < MIN_PGVECTOR:
        raise ProvisionError(
            f"pgvector {version} is older than {'.'.join(map(str, MIN_PGVECTOR))}, which brought HNSW",
            hint="ALTER EXTENSION vector UPDATE, or upgrade pgvector on the server",
        )
    return version


def other_tables(url: str) -> list[str]:
    """Return up to 5 tables of other applications in this database; none where memlift has been there before."""
    psycopg = pgprobe.driver()
    query = """
        SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname !~ '^memlift_', 1 LIMIT 5"""
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=10, autocommit=True) as conn:
            names = [str(row[0]) for row in conn.execute(query).fetchall()]
    except psycopg.Error as exc:
        raise postgres_error(exc) from exc
    return [] if any(name.split(".")[-1].startswith("memlift_") for name in names) else names


def ask_qdrant(url: str, api_key: str | None, *, timeout: float = 3.0) -> Facts:
    """List the collections, as the client does, and read the version. Raises RefusedError, NotReadyError.

    timeout: seconds for each of the two requests.
    """
    listed = ask_json(url, "/collections", api_key, timeout=timeout)
    if not isinstance(listed.get("result"), dict) or "collections" not in listed["result"]:
        raise RefusedError("what answers there is not Qdrant", hint="check the URL", url=mask(url))
    return Facts(version=str(ask_json(url, "/", api_key, timeout=timeout).get("version", "unknown")))


def ask_json(
    url: str, path: str, api_key: str | None, *, timeout: float, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """GET one document of Qdrant's, or POST `body`. The key goes to this host alone: no redirects.

    Raises RefusedError for 401 and 403, and where the answer is not JSON; else NotReadyError.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or 6333
    where = {"url": mask(f"{parts.scheme}://{parts.netloc}")}
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        if secure
        else http.client.HTTPConnection(host, port, timeout=timeout)
    )
    try:
        headers = {"Accept": "application/json"} | ({"api-key": api_key} if api_key else {})
        method, payload = ("GET", None) if body is None else ("POST", json.dumps(body))
        headers |= {} if payload is None else {"Content-Type": "application/json"}
        connection.request(method, parts.path.rstrip("/") + path, body=payload, headers=headers)
        response = connection.getresponse()
        status, text = response.status, response.read(10_000_000)
    except ssl.SSLError as exc:
        raise RefusedError(
            f"TLS to Qdrant fails: {exc.reason or exc}", hint="check https and port", **where
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise NotReadyError(f"Qdrant does not answer: {exc}", hint="check host and port", **where) from exc
    finally:
        connection.close()
    if status in (401, 403):
        raise RefusedError(
            f"Qdrant refuses the API key (HTTP {status})", hint="check QDRANT_API_KEY or api_key", **where
        )
    if status >= 500 or status == 429:
        raise NotReadyError(
            f"Qdrant answers HTTP {status}", hint="look at its logs, try again later", **where
        )
    try:
        found = json.loads(text) if status == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RefusedError(f"what answers there is not Qdrant (HTTP {status})", hint="check the URL", **where)
    return found


def wait(
    ask: Callable[[], Facts],
    *,
    timeout: float,
    died: Callable[[], str | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Facts:
    """Ask every 500 ms until the store answers, up to `timeout` seconds.

    died: returns why the store will never answer, or None; asked after each failure, so that
        the wait ends at once. RefusedError ends it too. Raises NotReadyError with the last reason.
    """
    begun = clock()
    polls = 0
    while True:
        try:
            return ask()
        except NotReadyError as exc:
            reason = exc
        if (why := died()) is not None:
            raise ProvisionError(why, hint="see its last messages above") from reason
        polls += 1
        pause = begun + polls * POLL_S - clock()
        if clock() + max(pause, 0) - begun > timeout:
            raise NotReadyError(
                f"not ready after {timeout:g} s; {reason.message}",
                hint="give it more time with --wait SECONDS, and see: memlift logs",
                **reason.where,
            ) from reason
        sleep(max(pause, 0.0))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
