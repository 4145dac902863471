"""Moving a memory to another tier in one go, and only then saying that it has moved.

Advise, set the target up where that is allowed, migrate, verify every row, check that
search finds the same, and last of all write the new address to `vector-store.json`. A
failure at any moment, a kill included, leaves the old store as it was and the old address
in place; the same command goes on. The old store is never removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from migrate import addresses, config, tiers
from migrate.advising import advise
from migrate.config import Endpoint, Settings, SqliteSettings
from migrate.engine import OnProgress
from migrate.errors import ConfigError, MissingExtraError, VerifyError
from migrate.failpoints import hit
from migrate.inspect import has_sidecar, tier_of
from migrate.reach import opened_source
from migrate.report import Observer, Report, Silent
from migrate.running import Request, audit, run
from migrate.search.parity import Wanted

AUTO = "auto"
Confirm = Callable[[str], bool]
_FILES = ("sqlite", "sqlite+hnsw")
_LONGEST_INDEX = 45  # of Pinecone's; its names have no underscores
_LONGEST = 32  # characters of a name: with its hash it fits an index of Pinecone's


@dataclass(frozen=True, slots=True)
class Move:
    """How a memory moves.

    tier:       one of `migrate.tiers.NAMES`, or "auto": the one that is advised.
    auto_setup: True, "docker" or "embedded": a server may be set up without asking.
    confirm:    asks the user, where there is one; None: nobody can be asked.
    search:     the check of search at the end.
    thresholds, servers, writers: as for `advise`.
    """

    tier: str = AUTO
    auto_setup: bool | str = False
    confirm: Confirm | None = None
    search: Wanted | None = None
    thresholds: Mapping[str, float] | None = None
    servers: bool = True
    writers: int | None = None


def promote(
    source: Endpoint,
    move: Move | None = None,
    request: Request | None = None,
    *,
    observer: Observer | None = None,
    on_progress: OnProgress | None = None,
    stop: Event | None = None,
) -> Report:
    """Move a store to another tier and return the report, its `promotion` filled in.

    A store that is in its tier already is left alone, and the report says so. Raises a
    MigrateError, its report where there is one; then nothing is said to have moved.
    """
    move, request = move or Move(), request or Request()
    request.check()
    _refuse_parts(request)
    watching = observer or Silent()
    settings = addresses.parse(source)
    before = tier_of(settings)
    chosen, reasons = _chosen(source, move, watching)
    hit("promote.advised")
    told: dict[str, Any] = {"tier": chosen, "before": before, "reasons": list(reasons)}
    if _there(before, chosen):
        return _stayed(settings, told, watching)
    if request.dry_run:
        report = audit(source, request=replace(request, check_search=False), observer=watching, stop=stop)
        return replace(report, promotion=told | {"name": name_of(settings), "moved": False, "saved": None})
    name = name_of(settings)
    if before == "sqlite" and chosen == "sqlite+hnsw":
        address, report = _with_sidecar(settings, move, watching)
    else:
        address = _ready(chosen, name, move, watching)
        hit("promote.ready")
        request = replace(request, auto_setup=False, check_search=move.search or Wanted())
        report = run(source, address, request, observer=watching, on_progress=on_progress, stop=stop)
        _refuse_unverified(report)
    hit("promote.proven")
    path = _remember(name, chosen, address, settings)
    hit("promote.saved")
    watching.say(f"{name} is in {chosen} now; its address is in {path}; {settings} is as it was")
    return replace(report, promotion=told | {"name": name, "moved": True, "saved": str(path)})


def moved(
    source: Endpoint,
    request: Request,
    *,
    observer: Observer | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Move a store to the tier that is advised, as `migrate(source, "auto", ...)` is told in its options."""
    search = None if isinstance(request.check_search, bool) else request.check_search
    move = Move(auto_setup=request.auto_setup, search=search)
    return promote(source, move, request, observer=observer, on_progress=on_progress)


def where_is(source: Endpoint) -> dict[str, Any] | None:
    """Return the address that a memory has moved to, as a dict that `migrate()` takes, or None.

    source: where it was before its first move, or where it is now. Holds what opens the store.
    """
    from provisioners import saved

    entry = saved.memories().get(name_of(addresses.parse(source)))
    return dict(entry["address"]) if entry else None


# --- the parts ----------------------------------------------------------------


def _refuse_parts(request: Request) -> None:
    for name, value in (
        ("tables", request.tables),
        ("exclude", request.exclude),
        ("where_tenant", request.where_tenant),
    ):
        if value:
            raise ConfigError(
                f"a part of a store cannot take its place ({name})",
                hint="name a TARGET to copy a part of it",
            )
    if request.upgrade:
        raise ConfigError(
            "an upgrade and a move to another tier are two steps", hint="upgrade into a SQLite file first"
        )
    if request.verify in ("none", "counts"):
        raise ConfigError(
            "an address changes only after rows were compared", hint="leave --verify, or say full or sample"
        )


def _refuse_unverified(report: Report) -> None:
    if not report.verified:
        error = VerifyError(
            "not every row was compared, so the address was not changed", hint="--verify full"
        )
        error.report = report
        raise error


def _chosen(source: Endpoint, move: Move, observer: Observer) -> tuple[str, tuple[str, ...]]:
    if move.tier != AUTO:
        return tiers.tier(move.tier).name, (f"{move.tier} was asked for",)
    advice = advise(
        source,
        thresholds=move.thresholds,
        servers=move.servers,
        writers=move.writers,
        observer=observer,
    )
    observer.say(f"advised: {advice.tier}; {advice.reasons[0]}")
    return advice.tier, advice.reasons


def _there(before: str | None, chosen: str) -> bool:
    """Whether a store is in its tier; a file with an index beside it is a file still."""
    return before == chosen or (before == "sqlite+hnsw" and chosen == "sqlite")


def _stayed(settings: Settings, told: dict[str, Any], observer: Observer) -> Report:
    with opened_source(settings, observer):  # a store that is not there is in no tier
        pass
    note = f"it is in {told['before']} already, so nothing was done"
    return Report(
        source=str(settings),
        target=str(settings),
        verify_mode="none",
        notes=(note,),
        promotion=told | {"name": name_of(settings), "moved": False, "saved": None},
    )


def name_of(settings: Settings) -> str:
    """Return the name of a memory: of its schema, its prefix and its entry among the saved addresses.

    A memory that has moved keeps its name. A new one has its file's (or schema's) name and a hash of
    its address, so that two files called brain.sqlite stay two memories.
    """
    from provisioners import saved

    for name, entry in saved.memories().items():
        try:
            if addresses.parse(entry["address"]) == settings:
                return name
        except ConfigError:  # an address by a variable that is not set now
            continue
    if isinstance(settings, SqliteSettings):
        plain, address = settings.path.stem, str(settings.path.absolute())
    else:
        plain, address = getattr(settings, "schema", None) or settings.type, str(settings)
    word = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")[:_LONGEST] or "memory"
    word = word if word[0].isalpha() else f"m{word}"
    return f"{word}_{hashlib.sha256(address.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _with_sidecar(settings: Settings, move: Move, observer: Observer) -> tuple[dict[str, Any], Report]:
    """Build an index beside a file that stays, and see that it finds what looking at every vector finds."""
    from migrate.hnsw import graph
    from migrate.hnsw import settings as hnsw
    from migrate.search import open_searchable
    from migrate.search.base import Means, Mode, Query
    from migrate.search.parity.stores import refuse_where_it_failed, with_search

    if not isinstance(settings, SqliteSettings):
        raise ConfigError(f"{settings} is no SQLite file")
    if not graph.installed():
        raise MissingExtraError("an index beside a file needs hnswlib", hint="pip install 'memlift[hnsw]'")
    observer.say(f"building an index beside {settings.path}")
    # A first question begins the index of a table, and closing waits until it is written.
    with closing(open_searchable(settings, Means(say=observer.say))) as store:
        for searched in store.tables():
            if searched.vector is not None:
                any_vector = np.ones(searched.vector.dim or 1, np.float32)
                store.search(searched, Query(Mode.VECTOR, vector=any_vector, rows=False))
    if not has_sidecar(settings.path):
        raise ConfigError(
            f"no index was built beside {settings.path}: no table has {hnsw.BUILD_FROM:,} vectors that it takes",
            hint="looking at every vector is quick enough; there is nothing to do",
        )
    hit("promote.ready")
    # The rows have not moved, so nothing of them is to be compared.
    report = Report(str(settings), str(settings), verify_mode="none")
    report = with_search(report, settings, settings, move.search or Wanted(), observer)
    refuse_where_it_failed(report)
    return {"type": "sqlite", "path": str(settings.path.absolute())}, report


def _ready(tier: str, name: str, move: Move, observer: Observer) -> dict[str, Any]:
    """Return the address of the target, its server set up and running where that is needed and allowed."""
    if tier in _FILES:
        folder = config.home()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {"type": "sqlite", "path": str(folder / f"{name}.sqlite")}
    if tier == "pinecone":
        return _index(name, move)
    own = {"schema": name} if tier == "postgres" else {"prefix": f"{name}_"}
    return {**_server(tier, move, observer), **own}


def _index(name: str, move: Move) -> dict[str, Any]:
    """Return the address of a Pinecone index: the one that is named by its host, or one of the memory's own.

    An index costs money, so that a new one needs leave as a server does.
    """
    if config.env("PINECONE_INDEX_HOST") is not None:
        address: dict[str, Any] = {"type": "pinecone", "namespace": name}
    else:
        address = {"type": "pinecone", "index": name.replace("_", "-")[:_LONGEST_INDEX]}
    addresses.parse(address)  # says where the key is missing
    question = f"A Pinecone index {address.get('index')} would be made, which may cost money. Make it?"
    if "index" in address and not move.auto_setup and not (move.confirm and move.confirm(question)):
        raise ConfigError(
            f"nobody allowed the Pinecone index {address['index']} to be made",
            hint="--auto-setup makes it; or set PINECONE_INDEX_HOST to one that you have",
        )
    return address


def _server(kind: str, move: Move, observer: Observer) -> dict[str, Any]:
    from provisioners import auto_setup
    from provisioners.setup import VARIABLES, running_store

    how = str(move.auto_setup) if move.auto_setup in ("docker", "embedded") else None
    found = running_store("postgres" if kind == "postgres" else "qdrant", how, "memlift", observer.say)
    if found is None:
        variable = VARIABLES[kind]
        if not move.auto_setup and config.env(variable) is None and not _allowed(kind, move.confirm):
            raise ConfigError(
                f"there is no {kind} yet, and nobody allowed one to be set up",
                hint=f"--auto-setup sets one up (docker or embedded); or set {variable}",
            )
        found = auto_setup(kind, how, observer.say, confirm=move.confirm)
    if found.how == "environment":
        return {"type": kind}  # the variable stays the one home of its secrets
    folder = found.details.get("folder")
    if kind == "postgres" and found.how == "embedded" and folder:
        return {"type": kind, "embedded": str(folder)}  # its port may be another tomorrow
    return found.settings()


def _allowed(kind: str, confirm: Confirm | None) -> bool:
    return confirm is not None and confirm(f"There is no {kind} yet. Set one up on this machine?")


def _remember(name: str, tier: str, address: dict[str, Any], before: Settings) -> Path:
    from provisioners import saved

    old = str(before.path.absolute()) if isinstance(before, SqliteSettings) else str(before)
    saved.remember(name, {"tier": tier, "address": address, "previous": old})
    return saved.path()
