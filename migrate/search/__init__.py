"""Search on every tier: one protocol, one filter language, each store's own means."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from migrate import backends
from migrate.config import Settings
from migrate.errors import ConfigError, MissingExtraError
from migrate.search.base import Means, Searchable

REGISTRY: dict[str, str] = {
    "sqlite": "migrate.search.sqlite",
    "postgres": "migrate.search.postgres",
    "qdrant": "migrate.search.qdrant",
    "pinecone": "migrate.search.pinecone",
}
"""type of store: module with `searchable(settings, means) -> Searchable`, imported when asked for."""


def open_searchable(settings: Settings, means: Means | None = None) -> Searchable:
    """Open a store for searching. An embedded server must be running, its address in the settings.

    Raises ConfigError for a store that cannot be searched, MissingExtraError where its driver is missing.
    """
    opened: Searchable = load(settings).searchable(settings, means or Means())
    return opened


def load(settings: Settings) -> ModuleType:
    """Import what searches a kind of store; it needs no connection. Raises as `open_searchable`."""
    if settings.type not in REGISTRY:
        raise ConfigError(
            f"{settings} cannot be searched", hint=f"stores that can be: {', '.join(sorted(REGISTRY))}"
        )
    try:
        return import_module(REGISTRY[settings.type])
    except ModuleNotFoundError as exc:
        if exc.name == REGISTRY[settings.type]:
            raise ConfigError(f"{settings.type} stores cannot be searched yet") from None
        if exc.name is None or exc.name.split(".")[0] in ("migrate", "provisioners"):
            raise
        _, extra = backends.REGISTRY.get(settings.type, ("", settings.type))
        raise MissingExtraError(
            f"{settings.type} needs the package {exc.name}, which is not installed",
            hint=f"pip install 'memlift[{extra}]'",
        ) from exc


class _Callable(ModuleType):
    """This package, which is also the function `migrate.search(store, ...)`.

    One name has to stand for both: importing a part of the package makes
    `migrate.search` the package, whatever it was before.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        from migrate.search import service

        return service.search(*args, **options)


sys.modules[__name__].__class__ = _Callable
