"""What the service accepts as metadata, and the form it keeps.

Rules: Vector.metadata and MetadataValue in the 2026-07 OpenAPI file, "Filter by metadata" (numbers become
64-bit floats, null is not supported), the size message from public bug reports (40,960 bytes per vector).
"""

from __future__ import annotations

import json
import math
from typing import Any

from integration.pinecone_emulator.errors import invalid

Value = str | float | bool | list[str]
Metadata = dict[str, Value]


def normalised(metadata: dict[str, Any]) -> Metadata:
    """The metadata as kept: every number a double. Raises Refusal for what the service refuses."""
    return {_name(name): _value(name, value) for name, value in metadata.items()}


def _name(name: str) -> str:
    if name.startswith("$"):
        raise invalid(f"Metadata field names must not start with '$', got '{name}'")
    return name


def _value(name: str, value: Any) -> Value:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif isinstance(value, list) and all(isinstance(one, str) for one in value):
        return list(value)
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 20 else shown[:16] + "..."
    raise invalid(
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got '{shown}' for field '{name}'"
    )


def checked_size(metadata: Metadata, limit: int) -> Metadata:
    """The same metadata, if it fits. Size: compact JSON in UTF-8; how the service measures is not public."""
    if size(metadata) > limit:
        raise invalid(
            f"Metadata size is {size(metadata)} bytes, which exceeds the limit of {limit} bytes per vector"
        )
    return metadata


def size(metadata: Metadata) -> int:
    return len(json.dumps(metadata, separators=(",", ":"), ensure_ascii=False).encode())
