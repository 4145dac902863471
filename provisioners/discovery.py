"""Finding the container engine: DOCKER_HOST, contexts, Docker's sockets, rootless ones, podman's.

Not installed, not running and no permission are three errors, each with its own way
out, and all of them offer the embedded store, which needs no engine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from migrate.config import env
from migrate.errors import ConfigError, MissingExtraError
from provisioners.docker_engine import DockerEngine
from provisioners.engine import EngineDeniedError, EngineDownError, EngineError, EngineMissingError

OR_EMBEDDED = "or use --embedded, which needs no Docker"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place where an engine may listen; source: where we read of it."""

    url: str
    source: str
    tls: Any = None


def find_engine(*, publish: str | None = None) -> DockerEngine:
    """Connect to the engine that the user chose, else to the first that answers.

    publish: the address to publish ports on, if not the safe default.
    Raises EngineMissingError, EngineDownError, EngineDeniedError, MissingExtraError.
    """
    try:
        import docker  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Docker is driven by the package docker", hint=f"pip install 'memlift[docker]', {OR_EMBEDDED}"
        ) from None
    chosen = chosen_engine()
    if chosen is not None:
        return _connect(chosen, publish)
    failures: list[EngineError] = []
    for candidate in usual_places():
        try:
            return _connect(candidate, publish)
        except EngineError as exc:
            failures.append(exc)
    raise worst_of(failures)


def chosen_engine() -> Candidate | None:
    """Return the engine that DOCKER_HOST or a context names, or None where nobody chose.

    Raises ConfigError for a context that does not exist (the client itself would
    silently take the default engine).
    """
    from docker import errors, utils

    if env("DOCKER_HOST"):
        names = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
        found = {name: value for name in names if (value := env(name)) is not None}
        try:
            kwargs = utils.kwargs_from_env(environment=found)
        except errors.TLSParameterError as exc:
            raise ConfigError(
                f"DOCKER_CERT_PATH: {exc}", hint="point it at ca.pem, cert.pem and key.pem"
            ) from exc
        # kwargs_from_env turns tcp:// into https:// where TLS is on.
        return Candidate(kwargs["base_url"], "DOCKER_HOST", kwargs.get("tls"))
    name = env("DOCKER_CONTEXT") or _current_context()
    if name is None or name == "default":
        return None
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_context(name)
    except errors.DockerException as exc:
        raise ConfigError(
            f"cannot read the Docker context {name!r}: {exc}", hint="see: docker context ls"
        ) from exc
    if context is None:
        raise ConfigError(f"there is no Docker context {name!r}", hint="see: docker context ls")
    tls = context.TLSConfig
    return Candidate(str(context.Host), f"context {name}", tls if tls is not None else None)


def _current_context() -> str | None:
    """Return the context that `docker context use` chose."""
    folder = Path(env("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("currentContext")
    except (OSError, ValueError, AttributeError):
        return None  # no file, or one that the docker command itself could not use either
    return found if isinstance(found, str) and found else None


def usual_places() -> list[Candidate]:
    """Return where engines listen when nobody chose one: Docker, rootless Docker, Docker Desktop, podman."""
    run = Path(env("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    own = Path.home() / ".docker"
    places = [
        (Path("/var/run/docker.sock"), "Docker"),
        (run / "docker.sock", "rootless Docker"),
        (own / "run" / "docker.sock", "Docker Desktop"),
        (own / "desktop" / "docker.sock", "Docker Desktop"),
        (run / "podman" / "podman.sock", "podman"),
        (Path("/run/podman/podman.sock"), "podman"),
    ]
    return [Candidate(f"unix://{path}", source) for path, source in places]


def _connect(candidate: Candidate, publish: str | None) -> DockerEngine:
    """Connect and ask for the engine's facts; raises one of the three errors."""
    import docker
    import requests

    where = {"engine": candidate.url}
    if candidate.url.startswith("unix://"):
        _knock(candidate, where)
    # ssh through the user's own ssh command: his keys, agent and known hosts.
    ssh = candidate.url.startswith("ssh://")
    try:
        client = docker.APIClient(
            base_url=candidate.url, version="auto", timeout=60, tls=candidate.tls or False, use_ssh_client=ssh
        )
        info = client.info()
        parts = [str(part.get("Name")) for part in client.version(api_version=False).get("Components") or []]
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        reason = " ".join(str(_bottom(exc)).split())[:200]
        raise EngineDownError(
            f"{candidate.source} does not answer: {reason}", hint=f"{start_hint()}; {OR_EMBEDDED}", **where
        ) from exc
    host, local = reached_at(candidate.url)
    bind = publish or (LOOPBACK if local else _address_of(host))
    # podman gives itself a new ID at every question; there the address has to do.
    id = candidate.url if "Podman Engine" in parts else str(info.get("ID") or candidate.url)
    return DockerEngine(client, info, id=id, host=host, bind=bind, local=local, address=candidate.url)


def _knock(candidate: Candidate, where: dict[str, str]) -> None:
    """Connect to a socket file ourselves: docker-py folds every reason into one class and a text."""
    path = candidate.url.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        try:
            sock.connect(path)
        except PermissionError as exc:
            raise EngineDeniedError(
                f"{candidate.source} is there, and you may not use it",
                hint="sudo usermod -aG docker $USER, then log in again; or rootless Docker; " + OR_EMBEDDED,
                **where,
            ) from exc
        except FileNotFoundError as exc:
            raise EngineMissingError(
                f"{candidate.source}: nothing listens there",
                hint=f"{start_hint()}, or correct {candidate.source}; {OR_EMBEDDED}",
                **where,
            ) from exc
        except OSError as exc:  # a socket left by an engine that is gone, or one that does not accept
            raise EngineDownError(
                f"{candidate.source} does not answer: {exc.strerror or exc}",
                hint=f"{start_hint()}; {OR_EMBEDDED}",
                **where,
            ) from exc


def _bottom(exc: BaseException) -> BaseException:
    """Return the first cause of an error."""
    seen = []
    while exc not in seen:
        seen.append(exc)
        exc = exc.__cause__ or exc.__context__ or exc
    return exc


def worst_of(failures: list[EngineError]) -> EngineError:
    """Return the one error that helps most, of one for each usual place: no permission before not running."""
    for kind in (EngineDeniedError, EngineDownError):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    if shutil.which("dockerd") or shutil.which("docker") or shutil.which("podman"):
        return EngineDownError(
            "a container engine is installed, and does not run", hint=f"{start_hint()}; {OR_EMBEDDED}"
        )
    return EngineMissingError(
        "no container engine is installed",
        hint=f"install Docker (docs.docker.com/get-started/get-docker) or podman; {OR_EMBEDDED}",
    )


def start_hint() -> str:
    """Return how an engine is started on this machine."""
    if shutil.which("podman") and not shutil.which("dockerd"):
        return "systemctl --user start podman.socket"
    if os.uname().sysname == "Darwin":
        return "open Docker Desktop"
    return "sudo systemctl start docker" if Path("/run/systemd/system").is_dir() else "start dockerd"


def reached_at(url: str) -> tuple[str, bool]:
    """Return the host that published ports are reached at, and whether it is this machine.

    The ports of an engine at tcp://build7:2376 are on build7, not here.
    """
    parts = urlsplit(url)
    if parts.scheme in ("tcp", "http", "https", "ssh") and parts.hostname:
        name = parts.hostname
        if name in ("localhost", "::1") or name.startswith("127."):
            return LOOPBACK, True
        return name, False
    return LOOPBACK, True


def _address_of(host: str) -> str:
    """Return the address of a remote engine's machine: ports are published on it alone, not on all."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise EngineDownError(
            f"cannot find the address of {host}: {exc}",
            hint="name the address to publish on with --publish",
        ) from exc
    return str(sorted(found, key=lambda f: f[0] != socket.AF_INET)[0][4][0])
