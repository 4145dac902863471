"""`auto_setup`: the target's server is found or set up before the run.

The engine knows nothing of provisioners; here a wish of the user's is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from migrate.addresses import parse, plain_keys
from migrate.config import Endpoint, PostgresSettings, QdrantSettings, Settings, home
from migrate.errors import ConfigError

Confirm = Callable[[str], bool]
_KEPT = ("schema", "prefix", "sidecar")  # what a target says beside its address


def ready_target(
    target: Endpoint,
    how: str | bool,
    say: Callable[[str], None],
    *,
    dry_run: bool,
    confirm: Confirm | None = None,
) -> Endpoint:
    """Return the address of a server that answers, for a target like `postgresql:?schema=s` or `{"type": "postgres"}`.

    how: "any" (or True), "docker" or "embedded". A dry run sets nothing up; it
    judges against a server that does not run yet. Raises ConfigError for a
    target that cannot be set up, and what `provisioners.auto_setup` raises.
    """
    kind, given, kept = _asked(target)
    if kind is None:
        raise ConfigError(
            f"there is nothing to set up for {parse(target)}",
            hint="--auto-setup is for postgresql: and qdrant:",
        )
    if given is not None and _has_address(given):
        return given  # an address is an address; nothing has to be found
    if dry_run:
        if kind == "postgres":
            return PostgresSettings("", kept.get("schema"), Path(home() / "not-set-up-yet"))
        raise ConfigError("a dry run starts nothing", hint="memlift up qdrant first, or leave --dry-run")
    from provisioners import auto_setup

    place = how if how in ("docker", "embedded") else None
    endpoint = auto_setup(kind, str(place) if place else None, say, confirm=confirm)
    return {**endpoint.settings(), **kept}


def _asked(target: Endpoint) -> tuple[str | None, Settings | None, dict[str, Any]]:
    """Return what kind of store is asked for, its settings where it has an address, and what else was said."""
    if isinstance(target, Mapping):
        data = plain_keys(target)
        kept = {k: data[k] for k in _KEPT if data.get(k)}
        addressed = any(data.get(k) for k in ("connection_string", "url", "path", "embedded"))
        kind = str(data["type"]) if data["type"] in ("postgres", "qdrant") else None
        return kind, parse(target) if addressed else None, kept
    if not isinstance(target, str):
        return None, None, {}
    scheme = target.partition(":")[0].lower()
    if scheme in ("postgres", "postgresql"):
        parts = urlsplit(target)
        schema = dict(parse_qsl(parts.query)).get("schema")
        # `postgresql:` alone would be DATABASE_URL, which the set-up looks at itself.
        given = parse(target) if parts.netloc or parts.path else None
        return "postgres", given, {"schema": schema} if schema else {}
    if scheme == "qdrant" and not target.partition(":")[2]:
        return "qdrant", None, {}
    if scheme.startswith(("postgresql+", "qdrant")):
        return scheme.partition("+")[0].replace("postgresql", "postgres"), parse(target), {}
    return None, None, {}


def _has_address(settings: Settings) -> bool:
    if isinstance(settings, PostgresSettings):
        return bool(settings.conninfo) or settings.embedded is not None
    return isinstance(settings, QdrantSettings)
