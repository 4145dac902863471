"""Search on every tier: one protocol, one filter language, each store's own means."""

from __future__ import annotations

REGISTRY: dict[str, str] = {}
"""type of store: module with `searchable(settings, means) -> Searchable`, imported when asked for."""
