"""Targets in one call: Postgres + pgvector and Qdrant, with Docker or without.

`auto_setup` finds or makes a store; `up`, `status`, `logs`, `stop`, `down` are its
life; `temporary` is one for a test's time; `EmbeddedPostgres` is the server of a folder.
No driver is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioners.base import Endpoint, Status
    from provisioners.embedded import EmbeddedPostgres
    from provisioners.errors import NotReadyError, ProvisionError
    from provisioners.lifecycle import down, logs, status, stop, temporary, up
    from provisioners.setup import auto_setup

_HOMES = {
    "Endpoint": "base",
    "Status": "base",
    "EmbeddedPostgres": "embedded",
    "NotReadyError": "errors",
    "ProvisionError": "errors",
    "auto_setup": "setup",
    "down": "lifecycle",
    "logs": "lifecycle",
    "status": "lifecycle",
    "stop": "lifecycle",
    "temporary": "lifecycle",
    "up": "lifecycle",
}

__all__ = [
    "EmbeddedPostgres",
    "Endpoint",
    "NotReadyError",
    "ProvisionError",
    "Status",
    "auto_setup",
    "down",
    "logs",
    "status",
    "stop",
    "temporary",
    "up",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"provisioners.{_HOMES[name]}"), name)
