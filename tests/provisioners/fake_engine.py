"""A container engine in memory, with servers in its containers, that can be put into every state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from provisioners import ready, services
from provisioners.docker import DockerStore
from provisioners.docker_life import Options
from provisioners.engine import (
    Container,
    ContainerSpec,
    EngineError,
    Image,
    NameTakenError,
    PortTakenError,
    Progress,
    PullError,
    Volume,
)
from provisioners.errors import NotReadyError, ProvisionError

PG16 = "pgvector/pgvector:0.8.5-pg16"
PG17 = "pgvector/pgvector:0.8.5-pg17"
NAME = "memlift-postgres"
QDRANT = "qdrant/qdrant:v1.19.1"


def postgres_image(major: str) -> Image:
    folder = "/var/lib/postgresql" if int(major) >= 18 else "/var/lib/postgresql/data"
    return Image(f"sha256:{major * 8}", f"sha256:digest{major}", {"PG_MAJOR": major}, (folder,))


@dataclass
class FakeEngine:
    """Engine and servers. `busy`: ports in use. `dies`: containers end right after their start.

    `sleepy`: how many questions a server leaves unanswered first. `calls`: what was done.
    """

    host: str = "127.0.0.1"
    bind: str = "127.0.0.1"
    local: bool = True
    memory: int = 8 * 1024**3
    address: str = "unix:///fake.sock"
    id: str = "engine-1"
    boxes: dict[str, Container] = field(default_factory=dict)
    specs: dict[str, ContainerSpec] = field(default_factory=dict)
    disks: dict[str, Volume] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    registry: dict[str, Image] = field(
        default_factory=lambda: {
            PG16: postgres_image("16"),
            PG17: postgres_image("17"),
            QDRANT: Image("sha256:q", "sha256:digestq", {}, ()),
        }
    )
    busy: set[int] = field(default_factory=set)
    dies: bool = False
    sleepy: int = 0
    vector: str | None = "0.8.5"
    calls: list[str] = field(default_factory=list)
    on_pull: Callable[[], None] = lambda: None
    on_create: Callable[[], None] = lambda: None
    closed: bool = False

    # -- engine

    def container(self, name: str) -> Container | None:
        return self.boxes.get(name)

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        return [c for c in self.boxes.values() if labels.items() <= c.labels.items()]

    def volume(self, name: str) -> Volume | None:
        return self.disks.get(name)

    def volumes(self, labels: Mapping[str, str]) -> list[Volume]:
        return [v for v in self.disks.values() if labels.items() <= v.labels.items()]

    def make_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        return self.disks.setdefault(name, Volume(name, dict(labels)))

    def remove_volume(self, name: str) -> None:
        self.calls.append(f"remove volume {name}")
        self.disks.pop(name, None)
        self.passwords.pop(name, None)

    def image(self, reference: str) -> Image | None:
        return self.images.get(reference)

    def pull(self, reference: str, *, stall: float, on_progress: Callable[[Progress], None]) -> Image:
        self.calls.append(f"pull {reference}")
        self.on_pull()
        if reference not in self.registry:
            raise PullError("there is no such image", image=reference)
        on_progress(Progress(1_048_576, 2_097_152, "Downloading"))
        self.images[reference] = self.registry[reference]
        return self.images[reference]

    def create(self, spec: ContainerSpec) -> str:
        self.on_create()
        if spec.name in self.boxes:
            raise NameTakenError("taken")
        self.calls.append(f"create {spec.name}")
        self.boxes[spec.name] = Container(
            id=f"id{len(self.calls)}",
            name=spec.name,
            state="created",
            labels=dict(spec.labels),
            image=spec.image,
            ports=dict(spec.ports),
        )
        self.specs[spec.name] = spec
        return self.boxes[spec.name].id

    def _by_id(self, id: str) -> Container:
        for box in self.boxes.values():
            if box.id == id:
                return box
        raise EngineError(f"no such container {id}")

    def put(self, name: str, **changes: object) -> None:
        self.boxes[name] = replace(self.boxes[name], **changes)  # type: ignore[arg-type]

    def start(self, id: str) -> None:
        box = self._by_id(id)
        self.calls.append(f"start {box.name}")
        if any(self.in_use(port) for _, port in box.ports.values()):
            raise PortTakenError("port is already allocated")
        spec = self.specs[box.name]
        volume = next(iter(spec.volumes.values()))
        if "POSTGRES_PASSWORD" in spec.env:
            self.passwords.setdefault(volume, spec.env["POSTGRES_PASSWORD"])
        if self.dies:
            self.put(box.name, state="restarting", restarts=1, exit_code=1)
        else:
            self.put(box.name, state="running", started="2026-01-01T00:00:00+00:00", health="starting")

    def in_use(self, port: int) -> bool:
        running = {p for c in self.boxes.values() if c.state == "running" for _, p in c.ports.values()}
        return port in self.busy | running

    def unpause(self, id: str) -> None:
        box = self._by_id(id)
        self.calls.append(f"unpause {box.name}")
        self.put(box.name, state="running")

    def stop(self, id: str, *, timeout: int) -> None:
        box = self._by_id(id)
        self.calls.append(f"stop {box.name}")
        self.put(box.name, state="exited", health=None)

    def remove(self, id: str) -> None:
        for name, box in list(self.boxes.items()):
            if box.id == id:
                self.calls.append(f"remove {name}")
                del self.boxes[name]

    def logs(self, id: str, *, lines: int) -> str:
        self._by_id(id)
        return "last words of the server\n"

    def run(self, id: str, command: tuple[str, ...]) -> tuple[int, str]:
        return 0, "2048\t/data\n"

    def close(self) -> None:
        self.closed = True

    # -- servers

    def _server(self, url: str) -> Container:
        port = urlsplit(url).port
        for box in self.boxes.values():
            if any(p == port for _, p in box.ports.values()) and box.state == "running":
                if self.sleepy > 0:
                    self.sleepy -= 1
                    raise NotReadyError("server closed the connection")
                return box
        raise NotReadyError("connection refused")

    def _login(self, url: str) -> str:
        box = self._server(url)
        volume = next(iter(self.specs[box.name].volumes.values()))
        if urlsplit(url).password != self.passwords[volume]:
            raise ready.RefusedError("password authentication failed")
        return volume

    def ask_postgres(self, url: str, *, timeout: float = 3.0) -> ready.Facts:
        self._login(url)
        return ready.Facts("16.14")

    def set_password(self, url: str, password: str) -> None:
        self.passwords[self._login(url)] = password

    def ensure_vector(self, url: str, *, own: bool) -> str:
        self._login(url)
        if self.vector is None:
            raise ProvisionError("this Postgres has no pgvector")
        return self.vector

    def ask_qdrant(self, url: str, api_key: str | None, *, timeout: float = 3.0) -> ready.Facts:
        box = self._server(url)
        content = b"".join(content for _, content in self.specs[box.name].files.values())
        if api_key is None or api_key.encode() not in content:
            raise ready.RefusedError("Qdrant refuses the API key (HTTP 401)")
        return ready.Facts("1.19.1")


said: list[str] = []
"""What the last store made by `store` has said."""


def store(engine: FakeEngine, kind: str = "postgres", **options: Any) -> DockerStore:
    """Return a store on this engine, with these options."""
    said.clear()
    return DockerStore(services.service_of(kind), engine, Options(**options), say=said.append)
