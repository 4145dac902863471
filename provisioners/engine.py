"""What a container engine must do for us: a small interface, so that tests can play every state.

`docker_engine.DockerEngine` is the real one. All methods raise `EngineError` where the
engine refuses for a reason that has no class of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from provisioners.errors import ProvisionError


class EngineError(ProvisionError):
    """The container engine refused or failed."""


class EngineMissingError(EngineError):
    """There is no container engine on this machine."""


class EngineDownError(EngineError):
    """A container engine is installed, and does not run."""


class EngineDeniedError(EngineError):
    """A container engine runs, and this user may not use it."""


class NameTakenError(EngineError):
    """A container of this name exists already."""


class PortTakenError(EngineError):
    """A port is in use on the engine's machine."""


class PullError(EngineError):
    """An image could not be fetched."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine sees it now.

    state: created, running, paused, restarting, removing, exited or dead.
    health: starting, healthy, unhealthy, or None where it has no check.
    ports: container port -> (host address, host port), as configured.
    started: UTC, ISO 8601, or None. restarts: how often the engine started it again by itself.
    """

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    image: str
    health: str | None = None
    exit_code: int | None = None
    error: str = ""
    started: str | None = None
    restarts: int = 0
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has; digest: `sha256:...` of the registry, None for one built here."""

    id: str
    digest: str | None
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    user: str = ""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be made; memory and shm in bytes.

    files: path inside -> (mode, content), copied in before the first start: unlike variables and
        arguments they show in no listing of the engine.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    env: Mapping[str, str] = field(repr=False)
    files: Mapping[str, tuple[int, bytes]] = field(repr=False)
    volumes: Mapping[str, str]
    ports: Mapping[int, tuple[str, int]]
    command: tuple[str, ...]
    memory: int
    shm: int
    pids: int
    check: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is; done and total: bytes known so far."""

    done: int
    total: int
    status: str


class Engine(Protocol):
    """A container engine."""

    host: str
    """Where its published ports are reached from here; an address or a host name."""

    bind: str
    """The address to publish on: 127.0.0.1, or one address of the engine's own machine if that is another."""

    local: bool
    """Whether it runs on this machine."""

    memory: int
    """The memory of its machine, bytes."""

    address: str
    """How it was reached, for messages."""

    id: str
    """Which engine it is, however it was reached."""

    def container(self, name: str) -> Container | None: ...

    def containers(self, labels: Mapping[str, str]) -> list[Container]: ...

    def volume(self, name: str) -> Volume | None: ...

    def volumes(self, labels: Mapping[str, str]) -> list[Volume]: ...

    def make_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Make a volume; one that exists is returned with the labels that it has."""
        ...

    def remove_volume(self, name: str) -> None: ...

    def image(self, reference: str) -> Image | None: ...

    def pull(self, reference: str, *, stall: float, on_progress: Callable[[Progress], None]) -> Image:
        """Fetch an image; raises PullError, also when nothing arrives for `stall` seconds."""
        ...

    def create(self, spec: ContainerSpec) -> str:
        """Make a container, not started, and return its id. Raises NameTakenError."""
        ...

    def start(self, id: str) -> None:
        """Start a container. Raises PortTakenError."""
        ...

    def unpause(self, id: str) -> None: ...

    def stop(self, id: str, *, timeout: int) -> None:
        """Send the image's stop signal, and after `timeout` seconds SIGKILL."""
        ...

    def remove(self, id: str) -> None:
        """Remove a container in any state, and its anonymous volumes; named volumes stay."""
        ...

    def logs(self, id: str, *, lines: int) -> str: ...

    def run(self, id: str, command: tuple[str, ...]) -> tuple[int, str]:
        """Run a command in a running container; return its exit code and output."""
        ...

    def close(self) -> None: ...
