"""The life of stores that are set up: up, status, logs, stop, down; and stores for a test's time."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from migrate.config import env, mask
from migrate.errors import ConfigError
from provisioners import census, ready, saved, services
from provisioners.base import KINDS, Confirm, Endpoint, Kind, Say, Status, silent
from provisioners.docker import DockerStore
from provisioners.docker_life import MANAGED, Options
from provisioners.embedded_store import EmbeddedStore
from provisioners.engine import Engine, EngineError
from provisioners.errors import ProvisionError
from provisioners.pgprobe import driver
from provisioners.setup import VARIABLES, auto_setup

FindEngine = Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class Known:
    """A store of ours: saved in our home, or found on the engine by its labels."""

    kind: Kind
    how: str
    name: str
    key: str


def up(kind: str, how: str | None = None, say: Say = silent, **options: Any) -> Endpoint:
    """Set a store up, or find it running; the same as `auto_setup`, whose options these are."""
    return auto_setup(kind, how, say, **options)


def known(kind: str | None = None, how: str | None = None, name: str | None = None) -> list[Known]:
    """Return our saved stores that match; an omitted part matches all."""
    if kind is not None:
        services.service_of(kind)
    found = []
    for key, entry in sorted(saved.load().items()):
        if kind not in (None, entry.get("kind")) or how not in (None, entry.get("how")):
            continue
        if entry.get("how") in ("docker", "embedded") and name in (None, entry.get("name")):
            found.append(Known(entry["kind"], entry["how"], entry.get("name", "memlift"), key))
    # Embedded ones first: an engine that is away must not keep them from being stopped.
    return sorted(found, key=lambda store: (store.how != "embedded", store.key))


def status(
    kind: str | None = None, *, name: str | None = None, engine: FindEngine | None = None
) -> list[Status]:
    """Return how every store of ours stands now: saved ones, and containers with our label; starts nothing.

    A store named by the environment is listed too. An engine that cannot be reached makes the
    state of its stores `unknown`, with the reason as note.
    """
    stores = known(kind, name=name)
    with _Engine(engine) as shared:
        found = [_status_of(store, shared) for store in stores]
        seen = {store.key for store in stores}
        others = [] if name is not None else [n for n in _labelled(shared, kind) if n not in seen]
        found += [replace(_of_label(n, shared), note="set up from another MEMLIFT_HOME") for n in others]
    found += [_of_environment(k) for k in KINDS if kind in (None, k) and name is None and env(VARIABLES[k])]
    return found


def logs(
    kind: str | None = None,
    *,
    name: str | None = None,
    how: str | None = None,
    lines: int = 100,
    engine: FindEngine | None = None,
) -> str:
    """Return the last lines that one store of ours has written, secrets masked.

    Raises ProvisionError where none or several match.
    """
    store = _only(known(kind, how, name), kind)
    with _Engine(engine) as shared:
        return _embedded(store).logs(lines) if store.how == "embedded" else _owned(store, shared).logs(lines)


def stop(
    kind: str | None = None,
    *,
    name: str | None = None,
    how: str | None = None,
    say: Say = silent,
    engine: FindEngine | None = None,
) -> list[str]:
    """Stop every store of ours that matches; data and addresses stay. Returns the names of the stopped."""
    stopped = []
    with _Engine(engine) as shared:
        for store in known(kind, how, name):
            ended = _embedded(store).stop() if store.how == "embedded" else _owned(store, shared).stop()
            say(f"{store.key}: {'stopped' if ended else 'was not running'}")
            stopped += [store.key] if ended else []
    return stopped


def down(
    kind: str | None = None,
    *,
    volumes: bool = False,
    name: str | None = None,
    how: str | None = None,
    confirm: Confirm | None = None,
    say: Say = silent,
    engine: FindEngine | None = None,
) -> list[str]:
    """Remove the containers of ours that match, and stop embedded servers; return what was removed.

    Data stays, and `up` finds it again. With `volumes` the data goes too, after `confirm` has
    been asked with what will be lost. Takes only what carries our label or is saved as ours.
    Raises ProvisionError where nobody confirms.
    """
    stores = known(kind, how, name)
    removed: list[str] = []
    with _Engine(engine) as shared:
        if volumes and stores:
            loss = "\n".join(_loss(store, shared) for store in stores)
            if confirm is None or not confirm(f"This removes for good:\n{loss}\nGo on?"):
                raise ProvisionError(
                    f"nothing was removed; it would have been:\n{loss}", hint="confirm it, or add --yes"
                )
        for store in stores:
            target = _embedded(store) if store.how == "embedded" else _owned(store, shared)
            gone = target.down(volumes=volumes)
            kept = "stopped, data kept" if store.how == "embedded" else "nothing to remove"
            say(f"{store.key}: {'removed ' + ', '.join(gone) if gone else kept}")
            removed += gone
    return removed


@contextlib.contextmanager
def temporary(kind: str = "postgres", how: str = "embedded", **options: Any) -> Iterator[Endpoint]:
    """A new, empty store for the time of a `with`; it and all its data are removed at the end. For tests.

    how: `embedded` or `docker`; never what the environment names. options: those of `auto_setup`.
    """
    if how not in ("embedded", "docker"):
        raise ConfigError(f"a temporary store cannot be {how!r}", hint="choose embedded or docker")
    name = options.pop("name", f"memlift-test-{secrets.token_hex(4)}")
    folder = Path(tempfile.mkdtemp(prefix="memlift-test-")) if how == "embedded" else None
    try:
        try:
            yield auto_setup(kind, how, name=name, folder=folder and folder / "store", **options)
        finally:
            down(kind, volumes=True, name=name, confirm=lambda _: True, engine=options.get("engine"))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Engine:
    """Finds the engine when it is first needed, once, and remembers why it could not be found."""

    def __init__(self, find: FindEngine | None) -> None:
        self._find = find
        self._engine: Engine | None = None
        self._failure: ProvisionError | None = None

    def get(self) -> Engine:
        if self._failure is not None:
            raise self._failure
        if self._engine is None:
            try:
                self._engine = self._find() if self._find is not None else _find_engine()
            except ProvisionError as exc:
                self._failure = exc
                raise
        return self._engine

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()


def _find_engine() -> Engine:
    from provisioners.discovery import find_engine

    return find_engine()


def _embedded(store: Known) -> EmbeddedStore:
    return EmbeddedStore(store.kind, name=store.name)


def _owned(store: Known, engine: _Engine) -> DockerStore:
    return DockerStore(services.service_of(store.kind), engine.get(), Options(name=store.name))


def _only(stores: list[Known], kind: str | None) -> Known:
    if len(stores) == 1:
        return stores[0]
    if not stores:
        raise ProvisionError("there is no such store of ours", hint=f"memlift up {kind or 'postgres'}")
    raise ProvisionError(
        f"which one? ({', '.join(store.key for store in stores)})",
        hint="name the kind, and --name or --embedded",
    )


def _loss(store: Known, engine: _Engine) -> str:
    """Say what `down --volumes` takes from one store, sized as far as it can be told."""
    now = _status_of(store, engine)
    size = "" if now.disk is None else f", {now.disk / 1e6:.1f} MB"
    rows = "" if now.rows is None else f", {now.rows} rows"
    if store.how == "embedded":
        return f"  {store.kind} in {_embedded(store).folder}{rows}{size}"
    names = ", ".join(volume.name for volume in _owned(store, engine).volumes()) or "no volume"
    return f"  {store.kind}: container {store.key}, {names}{rows}{size}"


def _status_of(store: Known, engine: _Engine) -> Status:
    entry = saved.get(store.key) or {}
    base = Status(
        kind=store.kind,
        name=store.key,
        where=store.how,
        state="unknown",
        address=mask(str(entry.get("url", "-"))),
        version=entry.get("version"),
        extension=entry.get("extension"),
        image=entry.get("image"),
        digest=entry.get("digest"),
    )
    if store.how == "embedded":
        embedded = _embedded(store)
        state = "running" if embedded.running() else "stopped" if embedded.folder.is_dir() else "missing"
        where = f"embedded {embedded.folder}"
        now = replace(
            base, where=where, state=state, disk=embedded.disk(), address=mask(embedded.url() or "-")
        )
        return now if state != "running" else _with_health(now, embedded.ask, embedded.url(), None)
    try:
        owned = _owned(store, engine)
        container = owned.found()
    except EngineError as exc:
        return replace(base, note=exc.message)
    if container is None and entry.get("engine_id") not in (None, owned.engine.id):
        return replace(base, note=f"set up on another engine: {entry.get('engine')}")
    if container is None:
        kept = ", ".join(volume.name for volume in owned.volumes())
        return replace(base, state="missing", note=f"data kept in {kept}" if kept else None)
    now = replace(
        base, state=container.state, since=container.started, where=f"docker {owned.engine.address}"
    )
    if container.state != "running":
        return now
    now = replace(now, disk=owned.disk(), address=mask(owned.access.address(container)))
    url = owned.access.url(container) if entry.get("password") else None
    return _with_health(now, lambda: owned.access.ask(container), url, entry.get("password"))


def _with_health(now: Status, ask: Callable[[], ready.Facts], url: str | None, api_key: str | None) -> Status:
    """Ask the store itself, and count its rows where it answers."""
    try:
        facts = ask()
    except ProvisionError as exc:
        return replace(now, health="unhealthy", note=mask(exc.message))
    now = replace(now, health="healthy", version=facts.version)
    if url is None or url.startswith("qdrant:"):  # a folder is open to one process at a time: not counted
        return now
    try:
        found = census.of_postgres(url) if now.kind == "postgres" else census.of_qdrant(url, api_key)
    except (ProvisionError, driver().Error) as exc:
        return replace(now, note=f"rows not counted: {mask(str(exc))[:200]}")
    return replace(now, rows=found.rows, rows_exact=found.exact, since=now.since or found.since)


def _labelled(engine: _Engine, kind: str | None) -> list[str]:
    """Return the names of containers with our label, of any home; none where there is no engine."""
    try:
        found = engine.get().containers(MANAGED)
    except (ProvisionError, ImportError):
        return []
    return [c.name for c in found if kind in (None, c.labels.get("memlift.service"))]


def _of_label(name: str, engine: _Engine) -> Status:
    container = engine.get().container(name)
    if container is None:
        return Status(kind="-", name=name, where="docker", state="missing")
    labels = container.labels
    return Status(
        kind=str(labels.get("memlift.service", "-")),
        name=name,
        where=f"docker {engine.get().address}",
        state=container.state,
        health=container.health or "-",
        since=container.started,
        image=container.image,
        digest=labels.get("memlift.digest") or None,
    )


def _of_environment(kind: Kind) -> Status:
    variable = VARIABLES[kind]
    url = str(env(variable))
    now = Status(kind=kind, name=variable, where="environment", state="running", address=mask(url))
    api_key = env("QDRANT_API_KEY")
    if kind == "qdrant":
        return _with_health(now, lambda: ready.ask_qdrant(url, api_key), url, api_key)
    return _with_health(now, lambda: ready.ask_postgres(url), url, None)
