"""From an address to an engine and a sidecar: the one place that knows which is which."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from migrate.backends import sidecar
from migrate.backends.qdrant.engine import SERVER_LIMITS, Engine, Limits
from migrate.backends.sidecar import SidecarSettings
from migrate.config import QdrantSettings
from migrate.errors import ConfigError, MissingExtraError


def open_engine(settings: QdrantSettings, *, writing: bool) -> Engine:
    """Return the engine of an address; a server is not asked anything yet."""
    if settings.path is not None:
        _check_extra("qdrant_edge")  # imported by the engine's own process alone
        from migrate.backends.qdrant.edge import EdgeEngine

        return EdgeEngine(settings.path, writing=writing)
    _check_extra("qdrant_client")
    from migrate.backends.qdrant.server import ServerEngine

    return ServerEngine(settings)


def _check_extra(package: str) -> None:
    if find_spec(package) is None:
        raise MissingExtraError(
            f"this Qdrant store needs the package {package}, which is not installed",
            hint="pip install 'memlift[qdrant]'",
        )


def limits_of(settings: QdrantSettings) -> Limits:
    """Return what a payload may be there, without a connection."""
    return Limits() if settings.path is not None else SERVER_LIMITS


def sidecar_of(settings: QdrantSettings) -> SidecarSettings:
    """Return where the sidecar is: where `sidecar=` says, beside the folder, or in our own for a server."""
    if settings.path is not None:
        folder = settings.path.absolute()
        found = sidecar.settings_of(settings.sidecar, sidecar.default_beside(folder, settings.prefix))
        place: Path | None = getattr(found, "path", None)
        if place is not None and folder in place.absolute().parents:
            raise ConfigError(
                f"the sidecar {place} would lie inside the Qdrant folder", hint="name a file beside it"
            )
        return found
    default = sidecar.default_for_server(settings.url or "", settings.prefix)
    return sidecar.settings_of(settings.sidecar, default)
