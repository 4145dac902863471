"""memlift: move an agent's memory between stores; nothing lost, and proof of it.

Importing this package loads no driver: a store's own library is imported when
a store of that kind is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrate.advising import advise
    from migrate.api import MigrationEngine, migrate
    from migrate.report import Report
    from migrate.search.service import open_search, search

__all__ = ["MigrationEngine", "Report", "advise", "migrate", "open_search", "search"]


def __getattr__(name: str) -> Any:
    if name in ("MigrationEngine", "migrate"):
        from migrate import api

        return getattr(api, name)
    if name == "advise":
        from migrate.advising import advise

        return advise
    if name == "Report":
        from migrate.report import Report

        return Report
    if name == "search":  # the package, which can be called
        return import_module("migrate.search")
    if name == "open_search":
        from migrate.search.service import open_search

        return open_search
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
