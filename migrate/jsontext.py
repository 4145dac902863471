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
    try:
        sign, digits, exponent = _decimal(token)
    except ArithmeticError:  # an exponent beyond what Decimal holds: no store computes with it
        return token.lower()
    text = "".join(map(str, digits))
    lead = "-" if sign else ""
    if exponent == 0:
        return lead + text
    if -_DIGITS_AFTER <= exponent < 0:
        text = text.rjust(1 - exponent, "0")
        return f"{lead}{text[:exponent]}.{text[exponent:]}"
    return f"{lead}{text}e{exponent}"


def _string(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:  # a lone surrogate: legal in JSON text, not in UTF-8
        return json.dumps(text).encode()


def _write(value: Any) -> bytes:
    """Print a parsed value in canonical form; a stack of its own serves any depth."""
    out: list[bytes] = []
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, bytes):
            out.append(item)
        elif isinstance(item, _Number):
            out.append(_number(item).encode())
        elif isinstance(item, str):
            out.append(_string(item))
        elif isinstance(item, _Object):
            members = sorted(item, key=lambda m: m[0].encode("utf-8", "surrogatepass"))
            stack.append(b"}")
            for i in range(len(members) - 1, -1, -1):
                key, member = members[i]
                stack += (member, (b"," if i else b"") + _string(key) + b":")
            stack.append(b"{")
        elif isinstance(item, list):
            stack.append(b"]")
            for i in range(len(item) - 1, -1, -1):
                stack.append(item[i])
                if i:
                    stack.append(b",")
            stack.append(b"[")
        else:
            out.append({None: b"null", True: b"true", False: b"false"}[item])
    return b"".join(out)


def _fast(text: str) -> bytes | None:
    """Return the canonical form where orjson provably loses nothing, else None."""
    if "-0" in text or "\\u" in text:
        return None
    try:
        value = orjson.loads(text)
        same = orjson.dumps(value).decode() == text or _SPACED(value) == text
        if not same or _EXPONENT.search(text):
            return None
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError, RecursionError):  # orjson prints 254 levels and says TypeError
        return None


def _canonical(text: str) -> bytes | None:
    fast = _fast(text)
    if fast is not None:
        return fast
    try:
        return _write(_parse(text))
    except ValueError:
        return None


def canonical(text: str) -> bytes | None:
    """Return the canonical bytes of a JSON text, or None where it is no JSON.

    Equal bytes mean equal values, and only they do.
    """
    return _short_form(text) if len(text) < 64 else _canonical(text)


def _problem(value: Any) -> str | None:
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        problem = None
        if isinstance(item, _Number):
            problem = _number_problem(item)
        elif isinstance(item, str):
            problem = _string_problem(item)
        elif isinstance(item, _Object):
            keys = [k for k, _ in item]
            if len(set(keys)) != len(keys):
                problem = "jsonb keeps only the last of repeated keys"
            stack += keys
            stack += (v for _, v in item)
        elif isinstance(item, list):
            stack += item
        if problem:
            return problem
    return None


def _number_problem(token: str) -> str | None:
    try:
        sign, digits, exponent = _decimal(token)
    except ArithmeticError:
        return "jsonb refuses a number of this size"
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
    except ValueError:
        return "not valid JSON"


# Tags, flags and empty objects: the same few short texts in row after row.
_short_form = lru_cache(maxsize=4096)(_canonical)
_short_problem = lru_cache(maxsize=4096)(_jsonb_problem)
