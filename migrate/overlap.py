"""Whether a run would write into the store that it reads."""

from __future__ import annotations

import os
from pathlib import Path

from migrate import backends
from migrate.config import PostgresSettings, QdrantSettings, Settings, SqliteSettings
from migrate.errors import ConfigError

_HINT = "name another file, schema or prefix for the target"


def refuse_overlap(source: Settings, target: Settings) -> None:
    """Raise ConfigError where the target is the source, is one of its files, or lies in its folder."""
    if str(source) == str(target) or _one_folder(source, target):
        raise ConfigError(f"source and target are the same store: {target}", hint=_HINT)
    mine, theirs = _parts(source), _parts(target)
    for part in theirs:
        same = next((one for one in mine if _same(one, part)), None)
        if same is not None:
            if part is target and same is source:
                raise ConfigError(f"source and target are the same store: {target}", hint=_HINT)
            raise ConfigError(f"the target would be written into a part of the source: {part}", hint=_HINT)
    around = _folder(source)
    for part in theirs:
        place = _file(part) or _folder(part)
        if around is not None and place is not None and around.resolve() in place.resolve().parents:
            raise ConfigError(f"the target {place} would lie inside the source {source}", hint=_HINT)


def _parts(settings: Settings) -> list[Settings]:
    """Return the store and its sidecar, where it has one."""
    sidecar_of = getattr(backends.load(settings.type), "sidecar_of", None)
    return [settings] if sidecar_of is None else [settings, sidecar_of(settings)]


def _same(one: Settings, other: Settings) -> bool:
    mine, theirs = _file(one), _file(other)
    if mine is None or theirs is None:
        return str(one) == str(other)
    try:
        return os.path.samefile(mine, theirs)  # by another name, too
    except OSError:  # one of them is not there yet
        return mine.resolve() == theirs.resolve()


def _one_folder(source: Settings, target: Settings) -> bool:
    mine, theirs = _folder(source), _folder(target)
    if mine is None or theirs is None or source.type != target.type or mine.resolve() != theirs.resolve():
        return False
    return all(getattr(source, name, None) == getattr(target, name, None) for name in ("schema", "prefix"))


def _file(settings: Settings) -> Path | None:
    return settings.path if isinstance(settings, SqliteSettings) else None


def _folder(settings: Settings) -> Path | None:
    if isinstance(settings, QdrantSettings):
        return settings.path
    return settings.embedded if isinstance(settings, PostgresSettings) else None
