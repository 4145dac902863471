"""The stores memlift knows: one line each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from migrate.errors import ConfigError, MissingExtraError

# type: (module, pip extra that brings its driver, or None)
REGISTRY: dict[str, tuple[str, str | None]] = {
    "memory": ("migrate.backends.memory", None),
    "sqlite": ("migrate.backends.sqlite", None),
    "postgres": ("migrate.backends.postgres", "postgres"),
    "qdrant": ("migrate.backends.qdrant", "qdrant"),
    "pinecone": ("migrate.backends.pinecone", "pinecone"),
}


def load(kind: str) -> ModuleType:
    """Import a backend's module.

    Raises ConfigError for a type without a backend, MissingExtraError where its driver is missing.
    """
    if kind not in REGISTRY:
        raise ConfigError(f"no backend for {kind} yet", hint=f"stores: {', '.join(sorted(REGISTRY))}")
    name, extra = REGISTRY[kind]
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] in ("migrate", "provisioners"):
            raise
        raise MissingExtraError(
            f"{kind} needs the package {exc.name}, which is not installed",
            hint=f"pip install 'memlift[{extra}]'",
        ) from exc
