"""One call that ends with a store that answers: given, from the environment, in Docker, or embedded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from migrate.config import env, mask
from migrate.errors import ConfigError
from provisioners import ready, remote, saved, services
from provisioners.base import Confirm, Endpoint, Kind, Say, silent
from provisioners.docker import DockerStore
from provisioners.docker_access import endpoint_of
from provisioners.docker_life import Options
from provisioners.embedded_store import EmbeddedStore, key_of
from provisioners.engine import Engine, EngineError
from provisioners.errors import ProvisionError

VARIABLES = {"postgres": "DATABASE_URL", "qdrant": "QDRANT_URL"}


def auto_setup(
    kind: str,
    how: str | None = None,
    say: Say = silent,
    *,
    url: str | None = None,
    api_key: str | None = None,
    name: str = "memlift",
    version: str | int | None = None,
    image: str | None = None,
    port: int | None = None,
    memory: int | None = None,
    folder: str | Path | None = None,
    publish: str | None = None,
    ready_timeout: float = ready.TIMEOUT_S,
    stall: float = 120.0,
    confirm: Confirm | None = None,
    engine: Callable[[], Engine] | None = None,
) -> Endpoint:
    """Return the address of a store of this kind that has just answered a real query.

    In this order, each step said: (1) the given `url`, or our own store that runs; (2) the
    environment; (3) a Docker engine; (4) our container in any state; (5) start it, or pull
    its image and run it; (6) wait for its answer, and for pgvector; (7) save the address.

    kind: postgres or qdrant. how: None looks everywhere; `docker` or `embedded` asks for a store
        of our own there, whatever the environment says.
    folder: for embedded stores. ready_timeout, stall: seconds. memory: bytes. publish: the address
        that a container's ports are bound to (default 127.0.0.1).
    confirm: asks the user a question; None where nobody can be asked.
    engine: finds the container engine, for tests.
    Raises ProvisionError and its kin (nothing is made then), ConfigError, MissingExtraError.
    """
    service = services.service_of(kind)
    kind_ = cast(Kind, kind)
    if how not in (None, "docker", "embedded"):
        raise ConfigError(f"cannot set up {how!r}", hint="choose docker or embedded")
    major = None if version is None else str(version)
    say(f"[1/7] looking for a {kind} that is given or runs")
    if url is not None:
        return check(kind_, url, api_key, how="given", say=say)
    plain = version is None and image is None and folder is None
    if plain and (endpoint := running_store(kind_, how, name, say)) is not None:
        return endpoint
    variable = VARIABLES[kind]
    if how is None:
        say(f"[2/7] looking at {variable}")
        if env(variable) is not None:
            return from_environment(kind_, say, confirm)
    elif env(variable) is not None:
        say(f"[2/7] {variable} is set; it is not used, because {how} was asked for")
    if how != "embedded":
        say("[3/7] looking for a Docker engine")
        try:
            found = engine() if engine is not None else _find_engine(publish)
        except EngineError as exc:
            question = f"{exc.message}. Use an embedded {kind}, without Docker, instead?"
            if how is not None or confirm is None or not confirm(question):
                raise
        else:
            say(f"[3/7] Docker engine at {mask(found.address)}")
            options = Options(name, major, image, port, memory, ready_timeout, stall)
            try:
                return DockerStore(service, found, options, say=say).up()
            finally:
                found.close()
    return EmbeddedStore(kind_, name=name, folder=folder, version=major, say=say).up()


def _find_engine(publish: str | None) -> Engine:
    from provisioners.discovery import find_engine

    return find_engine(publish=publish)


def running_store(kind: Kind, how: str | None, name: str, say: Say = silent) -> Endpoint | None:
    """Return our saved store where it answers with its secret now, or None. Starts nothing."""
    for key, place in ((f"{name}-{kind}", "docker"), (key_of(kind, name), "embedded")):
        entry = saved.get(key)
        if entry is None or how not in (None, place) or not entry.get("url"):
            continue
        try:
            if place == "embedded":
                store = EmbeddedStore(kind, name=name)
                store.ask()
                entry = entry | {"url": store.url()}
            elif kind == "qdrant":
                ready.ask_qdrant(entry["url"], entry.get("api_key"))
            else:
                ready.ask_postgres(entry["url"])
            if kind == "postgres":
                entry = entry | {"extension": ready.ensure_vector(entry["url"], own=True)}
        except ProvisionError as exc:
            say(f"our {place} store {key} does not answer now: {mask(exc.message)}")
            continue
        endpoint = endpoint_of(entry, key)
        say(f"our {place} store {key} runs and answers at {endpoint.masked}")
        if env(VARIABLES[kind]) is not None:
            say(f"{VARIABLES[kind]} is set too; give it as the target to use that one")
        return endpoint
    return None


def from_environment(kind: Kind, say: Say = silent, confirm: Confirm | None = None) -> Endpoint:
    """Return the store that the environment names, proven to work.

    Raises ProvisionError where it is set and does not work, or where its database holds tables
    of another application and neither `?schema=` nor the user says that it is meant.
    """
    variable = VARIABLES[kind]
    url = env(variable)
    if url is None:
        raise ConfigError(f"{variable} is not set")
    api_key = env("QDRANT_API_KEY") if kind == "qdrant" else None
    try:
        endpoint = check(
            kind, url, api_key, how="environment", say=say, consent=lambda: _consent(url, variable, confirm)
        )
    except _NotMeantError:
        raise
    except (ProvisionError, ConfigError) as exc:
        raise type(exc)(
            f"{variable} is set, but does not work: {exc.message}",
            hint=f"{exc.hint or 'look at the message'}; or unset {variable} "
            "(no new database is made while it is set)",
            **exc.where,
        ) from exc
    saved.put(
        f"{kind}-environment",
        {
            "kind": kind,
            "how": "environment",
            "variable": variable,
            "url": mask(url),
            "version": endpoint.version,
        },
    )
    say(f"[7/7] saved that {variable} is used in {saved.path()} (without its secrets)")
    return endpoint


class _NotMeantError(ProvisionError):
    """The user, or his silence, says that this database is not meant."""


def _consent(url: str, variable: str, confirm: Confirm | None) -> None:
    """See that tables may be made in this database: ours are there, none are, a schema is named, or we ask."""
    if ready.schema_of(url) is not None:
        return
    others = ready.other_tables(url)
    if not others:
        return
    found = f"{variable} names a database with tables that memlift did not make ({', '.join(others)})"
    if confirm is None or not confirm(f"{found}. Make our tables in it too?"):
        raise _NotMeantError(
            found,
            hint=f"add ?schema=agent_memory to {variable}, or give the URL as the target",
            url=mask(url),
        )


def check(
    kind: Kind,
    url: str,
    api_key: str | None,
    *,
    how: Literal["given", "environment"],
    say: Say = silent,
    consent: Callable[[], None] | None = None,
) -> Endpoint:
    """Prove that a store that is not ours works: log in, query, pgvector; say what to mind with its host.

    consent: asked after the first query and before anything is made in the store; raises to refuse.
    Raises RefusedError, NotReadyError, ProvisionError, ConfigError.
    """
    if kind == "qdrant":
        plain = url.removeprefix("qdrant+").partition("?")[0]
        for advice in remote.advise_qdrant(plain, api_key):
            say(f"note: {advice}")
        facts = ready.ask_qdrant(plain, api_key, timeout=10)
        say(f"Qdrant {facts.version} answers at {mask(plain)}")
        return Endpoint("qdrant", how, plain, api_key, None, facts.version)
    for advice in remote.advise_postgres(ready.libpq_url(url)):
        say(f"note: {advice}")
    facts = ready.ask_postgres(url, timeout=10)
    if consent is not None:
        consent()
    extension = ready.ensure_vector(url, own=False)
    say(f"Postgres {facts.version} with pgvector {extension} answers at {mask(url)}")
    return Endpoint("postgres", how, url, None, None, facts.version, extension)
