"""Cells that travel as Postgres' own text: which of them their type takes, and gives back as they are.

What is sure from the text alone is judged here; the rest by the server, where there is one to ask. A cell that
the server would write otherwise (`1 day 24:00`, an upper-case UUID) would not come back as it went.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from threading import Lock
from typing import Any, Literal, Protocol

import psycopg

from migrate.backends.postgres.connect import Connection, local_settings
from migrate.backends.postgres.names import translating
from migrate.backends.postgres.wire import iso_utc
from migrate.fit import Found, Texts

# A name, with a schema or without, or one of the few types that are called by several words. Nothing else:
# `bool OR pg_terminate_backend(1)` would be a call, where a text of a type is asked for.
_NAME = r'(?:\w+|"(?:[^"]|"")+")'
_FIELD = "(?:year|month|day|hour|minute|second)"
_TYPE = re.compile(
    rf"(?:double precision|(?:character|bit) varying|interval(?: {_FIELD}(?: to {_FIELD})?)?|{_NAME}(?:\.{_NAME})?)"
    r"(?:\( *-?\w+(?: *, *-?\w+)* *\))?(?: with(?:out)? time zone)?(?:\[\])*"
)
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_WHEN = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?")
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.I)
_OWN_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,300})(?:\.\d{1,300})?")
_A_DATE = r"\d|infinity|epoch|now|today|tomorrow|yesterday|allballs"
# What every text must have in it that a type takes.
_LOOKS = {
    "timestamp": re.compile(_A_DATE, re.I),
    "date": re.compile(_A_DATE, re.I),
    "time": re.compile(_A_DATE, re.I),
    "interval": re.compile(r"\d|infinity", re.I),
    "numeric": re.compile(r"\d|nan|inf", re.I),
    "money": re.compile(r"\d"),
    "uuid": re.compile(r"\A\W*(?:[0-9a-f]\W*){32}\Z", re.I),
    "inet": re.compile(r"[0-9a-f]|::", re.I),
    "cidr": re.compile(r"[0-9a-f]|::", re.I),
    "macaddr": re.compile(r"\A\W*(?:[0-9a-f]\W*){12}\Z", re.I),
    "macaddr8": re.compile(r"\A\W*(?:[0-9a-f]\W*){12,16}\Z", re.I),
    "bit": re.compile(r"\A[bB]?[01]*\Z|\A[xX][0-9a-fA-F]*\Z"),
    "point": re.compile(r"\d.*,"),
}
_RANGES = re.compile(r"(?:int4|int8|num|ts|tstz|date)(?P<multi>multi)?range")
_ZERO = {
    "timestamp with time zone": "1970-01-01T00:00:00.000000+00:00",
    "timestamp without time zone": "1970-01-01 00:00:00",
    "date": "1970-01-01",
    "time without time zone": "00:00:00",
    "time with time zone": "00:00:00+00",
    "interval": "00:00:00",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "inet": "0.0.0.0",  # noqa: S104  # a value, no address to listen on
    "cidr": "0.0.0.0/0",
    "macaddr": "00:00:00:00:00:00",
    "macaddr8": "00:00:00:00:00:00:00:00",
    "money": "$0.00",
    "point": "(0,0)",
    "json": "null",
}


class Ask(Protocol):
    """Asks a server for the text that it writes for texts of a type; None for those it refuses."""

    def __call__(self, kind: str, labels: Sequence[str], texts: Sequence[str]) -> list[str | None]: ...


def is_type(declared: str) -> bool:
    """Whether a text can stand as a type in a statement; a crafted file may say anything."""
    return _TYPE.fullmatch(declared) is not None and "--" not in declared


def parted(declared: str) -> tuple[str, list[int]]:
    """Return a type's name without its modifiers, and those that are numbers."""
    found = re.search(r"\(([^)]*)\)", declared)
    numbers = [int(n) for n in re.findall(r"-?\d+", found[1])] if found else []
    return re.sub(r"\s*\([^)]*\)", "", declared), numbers


@dataclass(frozen=True, slots=True)
class Native:
    """Texts that a type takes and gives back as they are.

    labels: of an enum. key: a row is told by the column, so that another spelling of a value is another key.
    ask:    the server's judgement, for what cannot be told from here; None where there is no server.
    """

    kind: str
    labels: tuple[str, ...] = ()
    key: bool = False
    ask: Ask | None = None

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        strange = {f.row: f for f in Texts().check(cells)}
        yield from strange.values()
        unsure = []
        judge = _judge(self.kind, self.labels)
        for i, cell in enumerate(cells):
            if type(cell) is not str or i in strange:
                continue
            spelled = judge(cell)
            if spelled is None:
                unsure.append(i)
            elif spelled is False:
                yield Found(i, None, f"a text that is no {self.kind}")
            elif spelled != cell:
                reason = f"a text that {self.kind} gives back in another spelling"
                yield Found(i, None, reason, spelled, harmless=not self.key)
        if unsure and self.ask is not None:
            written = self.ask(self.kind, self.labels, [cells[i] for i in unsure])
            for i, text in zip(unsure, written, strict=True):
                if text is None:
                    yield Found(i, None, f"a text that is no {self.kind}")
                elif text != cells[i]:
                    yield Found(i, None, f"a text that {self.kind} would give back otherwise")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        name, numbers = parted(self.kind)
        if name.endswith("[]"):
            return "{}"
        if self.labels:
            return self.labels[0]
        if name == "bit":
            return "0" * (numbers[0] if numbers else 1)
        if name == "numeric":
            return str(Decimal(0).scaleb(-max(numbers[1], 0))) if len(numbers) > 1 else "0"
        if found := _RANGES.fullmatch(name):
            return "{}" if found["multi"] else "empty"
        return _ZERO.get(name, "")


def _judge(kind: str, labels: Sequence[str]) -> Callable[[str], str | Literal[False] | None]:
    """Return what tells, from a text alone, how Postgres writes it; False where it is none, None where unsure."""
    name, numbers = parted(kind)
    if name.endswith("[]"):
        return lambda cell: None if cell.lstrip()[:1] in ("{", "[") else False
    if labels:
        known = frozenset(labels)
        return lambda cell: cell if cell in known else False
    if _RANGES.fullmatch(name):
        return lambda cell: None if cell.lstrip()[:1] in ("[", "(", "{", "e", "E") else False
    if name == "json":
        return _json
    looks = _LOOKS.get(name.split(" ")[0])
    sure = None if numbers and name != "numeric" else _SURE.get(name)

    def judged(cell: str) -> str | Literal[False] | None:
        spelled = sure(cell, numbers) if sure is not None else None
        if spelled is None and looks is not None and not looks.search(cell):
            return False
        return spelled

    return judged


def _json(cell: str) -> Literal[False] | None:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(cell, parse_constant=refuse, parse_int=str, parse_float=str)
    except RecursionError:
        return None
    except ValueError:
        return False
    return None


def _timestamptz(cell: str, numbers: Sequence[int]) -> str | None:
    try:
        if _UTC.fullmatch(cell):
            datetime.fromisoformat(cell)
            return cell
        if not _WHEN.fullmatch(cell):
            return None
        when = datetime.fromisoformat(cell)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return when.isoformat(timespec="microseconds")


def _timestamp(cell: str, numbers: Sequence[int]) -> str | None:
    found = _WHEN.fullmatch(cell)
    if found is None or found["zone"]:  # which Postgres would pass over
        return None
    try:
        text = datetime.fromisoformat(cell).isoformat(" ")
    except ValueError:
        return None
    return text.rstrip("0") if "." in text else text


def _uuid(cell: str, numbers: Sequence[int]) -> str | None:
    if _OWN_UUID.fullmatch(cell):
        return cell
    if not _UUID.fullmatch(cell):
        return None
    digits = cell.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _numeric(cell: str, numbers: Sequence[int]) -> str | None:
    if not _DECIMAL.fullmatch(cell) or (cell.startswith("-") and not cell.strip("-0.")):
        return None
    if not numbers:
        return cell
    most, scale = numbers[0], numbers[1] if len(numbers) > 1 else 0
    before, _, after = cell.partition(".")
    if scale < 0 or len(before.lstrip("-")) > most - scale or after[scale:].strip("0"):
        return None
    return before + (f".{after[:scale].ljust(scale, '0')}" if scale else "")


_SURE: dict[str, Callable[[str, Sequence[int]], str | None]] = {
    "timestamp with time zone": _timestamptz,
    "timestamptz": _timestamptz,
    "timestamp without time zone": _timestamp,
    "uuid": _uuid,
    "numeric": _numeric,
}


@dataclass(frozen=True, slots=True)
class Length:
    """Texts of at most (`exact`: of just) so many characters."""

    most: int
    exact: bool = False

    def check(self, cells: Sequence[Any]) -> Iterator[Found]:
        """See `Rule.check`."""
        strange = {f.row: f for f in Texts().check(cells)}
        yield from strange.values()
        for i, cell in enumerate(cells):
            if type(cell) is str and i not in strange and len(cell) != self.most:
                if len(cell) > self.most:
                    yield Found(i, None, f"a text of {len(cell)} characters in a column of {self.most}")
                elif self.exact:
                    yield Found(i, None, f"a text that Postgres would pad to {self.most} characters")

    def nearest(self, cell: Any) -> Any:
        """See `Rule.nearest`."""
        text = Texts().nearest(cell)[: self.most]
        return text.ljust(self.most) if self.exact else text


class Asked:
    """A connection of its own on which a server is asked, for rows are being written on the other."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._lock = Lock()

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __call__(self, kind: str, labels: Sequence[str], texts: Sequence[str]) -> list[str | None]:
        """See `Ask`."""
        with self._lock, translating("judge cells"):
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            written = self._written(self._connection, "text[]" if labels else kind, labels, texts)
        stamp = kind.startswith("timestamp") and kind.endswith(("with time zone", "timestamptz"))
        return [iso_utc(t) if stamp and t is not None else t for t in written]

    def _written(
        self, db: Connection, kind: str, labels: Sequence[str], texts: Sequence[str]
    ) -> list[str | None]:
        text = f"(u.v::{kind})::text"
        if labels:
            strange = "SELECT 1 FROM unnest(u.v::text[]) e WHERE e IS NOT NULL AND e <> ALL (%s::text[])"
            text = f"CASE WHEN NOT EXISTS ({strange}) THEN {text} END"
        sql = f"SELECT {text} FROM unnest(%s::text[]) WITH ORDINALITY u (v, i) ORDER BY u.i"
        try:
            with db.transaction():
                local_settings(db)
                given = (list(labels), list(texts)) if labels else (list(texts),)
                return [row[0] for row in db.execute(sql, given)]
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            if state == "42704":  # there is no such type yet
                return list(texts)
            if not state.startswith(("22", "23", "0A", "54", "42")):
                raise
        if len(texts) == 1:
            return [None]
        half = len(texts) // 2  # found by halves, for only PostgreSQL 16 can be asked without an error
        return self._written(db, kind, labels, texts[:half]) + self._written(db, kind, labels, texts[half:])
