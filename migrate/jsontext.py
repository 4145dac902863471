"""JSON compared as JSON values, without ever passing through a binary float.

Two texts are the same value when they differ only in white space, in the order
of an object's keys, or in how a string is escaped. Numbers are integers or
decimals: `1`, `1.0` and `1.00` are three values, and so are `1e2` and `100`,
because a store that turns one into the other has changed what was written.

The canonical form is compact UTF-8 with keys sorted by their bytes. Most texts
are brought there by orjson in about a microsecond; a text goes that way only
when it is seen that nothing was rounded or dropped (printing the parsed value
gives the same text back). The rest takes the exact path below.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

# Postgres numeric: up to 131072 digits before and 16383 after the decimal point
# (https://www.postgresql.org/docs/current/datatype-numeric.html).
_DIGITS_BEFORE, _DIGITS_AFTER = 131072, 16383
# jsonb keeps a string's length in 28 bits (src/include/utils/jsonb.h, JENTRY_OFFLENMASK).
_MAX_STRING = 0x0FFFFFFF

# Numbers that a printer of ours or orjson's would not give back as they were: with
# an exponent, or a minus zero. A match inside a string only costs time, for the
# text then takes the exact path.
_EXPONENT = re.compile(r"(?:^|[:\[, ])-?[0-9.]+[eE]")
_SPACED = json.JSONEncoder(ensure_ascii=False).encode


class _Number(str):
    """A number exactly as it was written."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object's members in the order written, repeated keys included."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_exact_decoder = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant, object_pairs_hook=_Object
)


def _parse(text: str) -> Any:
    """Parse exactly; ValueError where the text is no JSON or is nested too deep to be read."""
    try:
        return _exact_decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _decimal(token: str) -> tuple[int, tuple[int, ...], int]:
    sign, digits, exponent = Decimal(token).as_tuple()
    return sign, digits, int(exponent)  # a JSON token is never NaN or infinite


def _number(token: str) -> str:
    """Return the canonical writing of a number's token: plain digits wherever that changes no digit."""
    if "e" not in token and "E" not in token:
        return token
    sign, digits, exponent = _decimal(token)
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    lead = "-" if sign else ""
    if exponent == 0:
        return lead + text
    if -_DIGITS_AFTER <= exponent < 0:
        return lead + (
            text.rjust(1 - exponent, "0")[:exponent] + "." + text.rjust(1 - exponent, "0")[exponent:]
        )
    return f"{lead}{text}e{exponent}"


def _string(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:  # a lone surrogate: legal in JSON text, not in UTF-8
        return json.dumps(text).encode()


def _write(value: Any, out: list[bytes]) -> None:
    if isinstance(value, _Number):
        out.append(_number(value).encode())
    elif isinstance(value, str):
        out.append(_string(value))
    elif isinstance(value, _Object):
        members = sorted(((_string(k), v) for k, v in value), key=lambda m: m[0][1:-1])
        for i, (key, member) in enumerate(members):
            out += (b"," if i else b"{", key, b":")
            _write(member, out)
        out.append(b"}" if members else b"{}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            out.append(b"," if i else b"[")
            _write(item, out)
        out.append(b"]" if value else b"[]")
    else:
        out.append({None: b"null", True: b"true", False: b"false"}[value])


def _fast(text: str) -> bytes | None:
    """Return the canonical form where orjson provably loses nothing, else None."""
    if "-0" in text or "\\u" in text:
        return None
    try:
        value = orjson.loads(text)
        same = orjson.dumps(value).decode() == text or _SPACED(value) == text
    except (ValueError, RecursionError):
        return None
    if not same or _EXPONENT.search(text):
        return None
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _canonical(text: str) -> bytes | None:
    fast = _fast(text)
    if fast is not None:
        return fast
    out: list[bytes] = []
    try:
        _write(_parse(text), out)
    except (ValueError, RecursionError):
        return None
    return b"".join(out)


def canonical(text: str) -> bytes | None:
    """Return the canonical bytes of a JSON text, or None where it is no JSON.

    Equal bytes mean equal values, and only they do.
    """
    return _short_form(text) if len(text) < 64 else _canonical(text)


def _problem(value: Any) -> str | None:
    if isinstance(value, _Number):
        return _number_problem(value)
    if isinstance(value, str):
        return _string_problem(value)
    if isinstance(value, _Object):
        keys = [k for k, _ in value]
        if len(set(keys)) != len(keys):
            return "jsonb keeps only the last of repeated keys"
        return next((p for k, v in value for p in (_string_problem(k), _problem(v)) if p), None)
    if isinstance(value, list):
        return next((p for v in value if (p := _problem(v))), None)
    return None


def _number_problem(token: str) -> str | None:
    sign, digits, exponent = _decimal(token)
    assert isinstance(exponent, int)
    if sign and not any(digits):
        return "jsonb turns -0 into 0"
    if len(digits) + exponent > _DIGITS_BEFORE or -exponent > _DIGITS_AFTER:
        return "jsonb refuses a number of this size"
    if exponent > 0:
        return "jsonb writes this number without its exponent"
    return None


def _string_problem(text: str) -> str | None:
    if "\0" in text:
        return "jsonb refuses \\u0000"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "jsonb refuses a lone surrogate"
    if len(text) > _MAX_STRING // 4 and len(text.encode()) > _MAX_STRING:
        return "jsonb refuses a string over 256 MB"
    return None


def jsonb_problem(text: str) -> str | None:
    """Say why Postgres' `jsonb` would refuse or alter a JSON text; None where it keeps the value.

    Key order and white space do not count as a change.
    """
    return _short_problem(text) if len(text) < 64 else _jsonb_problem(text)


def _jsonb_problem(text: str) -> str | None:
    if len(text) <= _MAX_STRING // 4 and _fast(text) is not None:
        return None
    try:
        return _problem(_parse(text))
    except (ValueError, RecursionError):
        return "not valid JSON"


# Tags, flags and empty objects: the same few short texts in row after row.
_short_form = lru_cache(maxsize=4096)(_canonical)
_short_problem = lru_cache(maxsize=4096)(_jsonb_problem)
