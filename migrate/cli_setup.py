"""`--auto-setup`: the target's server is found or set up before the run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from migrate.config import Endpoint, PostgresSettings, QdrantSettings, Settings, home, parse
from migrate.errors import ConfigError


def ready_target(target: str, how: str, say: Callable[[str], None], *, dry_run: bool) -> Endpoint:
    """Return the address of a server that answers, for a target like `postgresql:` or `postgresql:?schema=s`.

    how: "any", "docker" or "embedded". A dry run sets nothing up; it judges
    against a server that does not run yet.
    """
    kind, given, schema = _asked(target)
    if kind is None:
        raise ConfigError(
            f"there is nothing to set up for {target}", hint="--auto-setup is for postgresql: and qdrant:"
        )
    if given is not None and _has_address(given):
        return given  # an address is an address; nothing has to be found
    if dry_run:
        if kind == "postgres":
            return PostgresSettings("", schema, Path(home() / "not-set-up-yet"))
        raise ConfigError("a dry run starts nothing", hint="memlift up qdrant first, or leave --dry-run")
    from provisioners.setup import auto_setup

    endpoint = auto_setup(kind, None if how == "any" else how, say, confirm=_confirm)
    settings = endpoint.settings()
    return settings | {"schema": schema} if schema else settings


def _asked(target: str) -> tuple[str | None, Settings | None, str | None]:
    scheme = target.partition(":")[0].lower()
    if scheme in ("postgres", "postgresql"):
        parts = urlsplit(target)
        schema = dict(parse_qsl(parts.query)).get("schema")
        # `postgresql:` alone would be DATABASE_URL, which the set-up looks at itself.
        return "postgres", parse(target) if parts.netloc or parts.path else None, schema
    if scheme == "qdrant" and not target.partition(":")[2]:
        return "qdrant", None, None
    if scheme.startswith(("postgresql+", "qdrant")):
        return scheme.partition("+")[0].replace("postgresql", "postgres"), parse(target), None
    return None, None, None


def _has_address(settings: Settings) -> bool:
    if isinstance(settings, PostgresSettings):
        return bool(settings.conninfo) or settings.embedded is not None
    return isinstance(settings, QdrantSettings)


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
