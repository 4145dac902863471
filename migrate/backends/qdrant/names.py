"""Names here: a table's collection, a column's vector, and the few fixed keys of our own."""

from __future__ import annotations

import hashlib
import re

# What the server refuses in a collection's name (its `validate_collection_name`), and what
# a folder of the embedded engine cannot be called.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_MAX_BYTES = 200  # the server takes 255 characters; a file system 255 bytes, with some of its own added
_PATH_PART = re.compile(r'"([^"\\]*)"|([^".\[\]]+)')
_PLAIN_VECTOR = re.compile(r"[A-Za-z0-9_.-]{1,100}")

MARKS = "memlift"  # the payload key under which we keep what a plain payload would lose
METADATA = "memlift"  # our key in a collection's metadata


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def collection_name(prefix: str, table: str) -> str:
    """Return the name of a table's collection: the same where it can be, else made fit, with a hash."""
    name = prefix + table
    fit = _FORBIDDEN.sub("_", name).encode("utf-8", "replace").decode()
    if fit == name and len(name.encode()) <= _MAX_BYTES and name.strip(". ") == name and name:
        return name
    head = fit.encode()[: _MAX_BYTES - 20].decode("utf-8", "ignore").strip(". ")
    return f"{head}_{_short_hash(name)}"


def vector_name(column: str) -> str:
    """Return the name of a column's vector: it becomes part of a file name in the engine."""
    return column if _PLAIN_VECTOR.fullmatch(column) else f"vector_{_short_hash(column)}"


def field_path(column: str) -> str | None:
    """Return a payload key as filters and indexes name it: quoted where it has signs of its own.

    Letters and digits of any script stand unquoted.
    None for a key that no path can name: quotes and backslashes cannot be in one.
    """
    if not column or '"' in column or "\\" in column:
        return None
    return column if all(c.isalnum() or c in "_-" for c in column) else f'"{column}"'


def own_path(told: str) -> str:
    """Return a path as the server tells it in the spelling of `field_path`; both name the same key.

    What needs quotes is Rust's `char::is_alphanumeric` there (`json_path/parse.rs`), which has vowel signs of
    Indian scripts and circled letters for letters. Python has not.
    """
    return _PATH_PART.sub(lambda part: field_path(part[1] or part[2] or "") or part[0], told)
