"""Postgres' names and errors: the few rules the other files share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from migrate.config import mask
from migrate.errors import BackendError, ConfigError, MigrateError, TransientError

MADE = "made by memlift"  # the comment on a schema or type that undo may drop
MAX_NAME = 63  # bytes; a longer identifier is cut without a word (NAMEDATALEN - 1)
# Names that no column may have (https://www.postgresql.org/docs/current/ddl-system-columns.html).
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})

# Classes and codes that another try can mend: lost connections, a server that
# starts or stops, too many connections, deadlock, serialisation, lock timeout
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_TRANSIENT = ("08", "57P01", "57P02", "57P03", "57P05", "53300", "40001", "40P01", "55P03", "25P03", "55006")
_HINTS = {
    "53100": "the server's disk is full: make room and run the same command again, it goes on from its checkpoint",
    "53200": "the server is out of memory: lower maintenance_work_mem or --workers",
    "42501": "the role lacks a right: see the server's message, GRANT it, and run the same command again",
    "42P17": "run as a role that owns the tables",
    "54000": "a value is too long for an index: drop that index or shorten the value",
}


def ident(name: str) -> str:
    """Quote an identifier. Raises ValueError on NUL, which no identifier holds."""
    if "\0" in name:
        raise ValueError("an identifier cannot hold NUL")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text as an SQL literal, for DDL, which takes no parameters."""
    quoted = text.replace("'", "''")
    return f" E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in quoted else f"'{quoted}'"


def fitting(name: str) -> str:
    """Return a name that Postgres takes: too long, empty or reserved ones get a hash, so that no two meet."""
    odd = "\0" in name or any("\ud800" <= c <= "\udfff" for c in name)
    if name and not odd and len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    cut = name.replace("\0", "").encode("utf-8", "ignore")[: MAX_NAME - 11].decode("utf-8", "ignore")
    return f"{cut}_{digest}"


def fitting_column(name: str) -> str:
    """Return a column name that Postgres takes."""
    return fitting(name if name not in _SYSTEM_COLUMNS else f"{name}_" + "x" * MAX_NAME)


def placed(sql: str) -> str:
    """Turn `?` placeholders into psycopg's, leaving quoted identifiers as they are."""

    def one(found: re.Match[str]) -> str:
        return "%s" if found[0] == "?" else found[0].replace("%", "%%")

    return re.sub(r'"(?:[^"]|"")*"|[?%]', one, sql)


@contextmanager
def translating(op: str, *, connecting: bool = False, **where: Any) -> Iterator[None]:
    """Turn psycopg's errors into ours. `connecting`: nothing was begun, so a refusal is ConfigError."""
    try:
        yield
    except MigrateError:
        raise
    except psycopg.Error as exc:
        raise _translated(exc, op, connecting, where) from exc


def _translated(exc: psycopg.Error, op: str, connecting: bool, where: dict[str, Any]) -> MigrateError:
    state = exc.sqlstate or ""
    text = mask(" ".join(str(exc).split()))
    message = f"Postgres could not {op}: {text}"
    if connecting and not state.startswith(("57P03", "53300")):
        return ConfigError(message, hint=_connecting_hint(text), **where)
    if "row-level security" in text:
        hint = "read as the owner of the tables, or as a role with BYPASSRLS: this role sees only some rows"
        return BackendError(message, hint=hint, **where)
    lost = not state and isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError))
    if lost or state.startswith(_TRANSIENT):
        return TransientError(message, **where)
    return BackendError(message, hint=_HINTS.get(state), **where)


def _connecting_hint(text: str) -> str:
    if "password" in text or "authentication" in text:
        return "check user and password (PGPASSWORD, .pgpass or the URL)"
    if "does not exist" in text:
        return "check the name of the database or role, or create it"
    if "SSL" in text or "ssl" in text:
        return "check sslmode in the URL"
    return "check that the server runs and that host and port are right"
