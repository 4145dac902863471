"""Point ids: an unsigned 64-bit integer or a UUID, and nothing else.

Texts: the server's `ExtendedPointId` deserialization over REST ("value X is not a
valid point ID, ..."), its conversion from gRPC ("Unable to parse UUID: X").
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from integration.qdrant_server.errors import QdrantError

MAX_ID = 2**64 - 1

# The four spellings that the Rust `uuid` crate parses: hyphenated, simple, braced, URN.
_HYPHENATED = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_UUID = re.compile(rf"(?:{_HYPHENATED}|[0-9a-fA-F]{{32}}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED})")


def parse_uuid(text: str) -> str | None:
    """The canonical spelling, or None."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


def from_json(given: Any) -> int | str:
    if type(given) is int and 0 <= given <= MAX_ID:
        return given
    if isinstance(given, str):
        found = parse_uuid(given)
        if found is not None:
            return found
    shown = given if isinstance(given, str) else json.dumps(given)
    raise QdrantError(
        "format",
        f"value {shown} is not a valid point ID, valid values are either an unsigned integer or a UUID",
    )


def from_path(text: str) -> int | str:
    """The id in `GET /collections/c/points/ID`."""
    if re.fullmatch(r"\+?\d+", text) and int(text) <= MAX_ID:
        return int(text)
    found = parse_uuid(text)
    if found is None:
        raise QdrantError("bad_input", f'Can not recognize "{text}" as point id')
    return found


def from_grpc(given: Any) -> int | str:
    """A `PointId` message."""
    which = given.WhichOneof("point_id_options")
    if which == "num":
        return int(given.num)
    if which == "uuid":
        found = parse_uuid(given.uuid)
        if found is None:
            raise QdrantError("raw_argument", f"Unable to parse UUID: {given.uuid}")
        return found
    raise QdrantError("raw_argument", "Empty ID is not allowed")


def order(point_id: int | str) -> tuple[int, int]:
    """Scroll order: all integers ascending, then the UUIDs by value."""
    if isinstance(point_id, int):
        return (0, point_id)
    return (1, uuid.UUID(point_id).int)
