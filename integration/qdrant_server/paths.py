"""Payload keys in the one spelling that the server tells: quoted only where they have to be (`json_path/parse.rs`)."""

from __future__ import annotations

import re
import unicodedata

_QUOTED = re.compile(r'"([^"\\]+)"')


def canonical(path: str) -> str:
    """A path as `JsonPath` is printed: letters and digits of any script, `_` and `-` stand unquoted."""
    return _QUOTED.sub(lambda found: found[1] if _plain(found[1]) else found[0], path)


def _plain(key: str) -> bool:
    return all(_is_letter(c) or c in "_-" for c in key)


def _is_letter(char: str) -> bool:
    """Rust's `char::is_alphanumeric`, near enough: vowel signs and circled letters have Unicode's `Alphabetic` too."""
    return char.isalnum() or unicodedata.category(char) == "Mc" or "\u24b6" <= char <= "\u24e9"
