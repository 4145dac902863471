"""A container of ours and its volumes: known by label, looked at, stopped, taken down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provisioners import ready, saved, services
from provisioners.base import Say, check_name, silent
from provisioners.docker_access import Access, fingerprint
from provisioners.engine import Container, Engine, Volume
from provisioners.errors import ProvisionError
from provisioners.services import Service

MANAGED = {"memlift.managed": "1"}
STOP_S = 60  # a checkpoint of a busy server takes seconds; SIGKILL comes after this


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose.

    version: major; image: any reference, instead of the pinned one. port: the first (None: the
    service's usual one, or a free one). memory: bytes. ready_timeout and stall: seconds, for
    readiness and for a pull in which nothing arrives.
    """

    name: str = "memlift"
    version: str | None = None
    image: str | None = None
    port: int | None = None
    memory: int | None = None
    ready_timeout: float = ready.TIMEOUT_S
    stall: float = 120.0


class OwnedContainer:
    """One store's container on one engine, and the volumes that outlive it.

    Ours is what carries our labels with this service and name; a stranger's container or
    volume of the same name is never touched.
    """

    def __init__(
        self, service: Service, engine: Engine, options: Options | None = None, *, say: Say = silent
    ) -> None:
        self.service = service
        self.engine = engine
        self.options = options or Options()
        self.say = say
        self.container_name = f"{check_name(self.options.name)}-{service.kind}"
        self.labels = MANAGED | {"memlift.service": service.kind, "memlift.name": self.options.name}
        self.access = Access(service, engine, self.container_name, self.options.name)

    def is_ours(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels are those of this store."""
        return all(labels.get(key) == value for key, value in self.labels.items())

    def found(self) -> Container | None:
        """Return our container, or None; a stranger's of the same name is None too."""
        container = self.engine.container(self.container_name)
        return container if container is not None and self.is_ours(container.labels) else None

    def volumes(self) -> list[Volume]:
        """Return our volumes of this store, of every version."""
        return self.engine.volumes(self.labels)

    def logs(self, lines: int = 100) -> str:
        """Return the last lines of the container's output, secrets masked. Raises ProvisionError without one."""
        container = self.found()
        if container is None:
            raise ProvisionError(
                "there is no such container of ours",
                hint=f"memlift up {self.service.kind}",
                container=self.container_name,
            )
        return self.engine.logs(container.id, lines=lines)

    def stop(self) -> bool:
        """Stop the container with its image's stop signal; return whether one was there to stop."""
        container = self.found()
        if container is None or container.state in ("exited", "created", "dead", "removing"):
            return False
        if container.state == "paused":  # a paused process cannot act on the signal
            self.engine.unpause(container.id)
        self.engine.stop(container.id, timeout=STOP_S)
        return True

    def down(self, *, volumes: bool = False) -> list[str]:
        """Stop and remove the container; with `volumes`, its data and saved password too.

        Returns the names of what was removed.
        """
        removed = []
        with saved.lock(self.container_name, timeout=STOP_S * 2):
            container = self.found()
            if container is not None:
                self.stop()
                self.engine.remove(container.id)
                removed.append(container.name)
            if volumes:
                self._remove_data(removed)
        return removed

    def _remove_data(self, removed: list[str]) -> None:
        found = self.volumes()
        for volume in found:
            self.engine.remove_volume(volume.name)
            removed.append(volume.name)
        prints = {volume.labels.get("memlift.secret", "") for volume in found}
        entry = self.access.entry()
        if entry.get("password") and entry.get("engine_id") in (None, self.engine.id):
            prints.add(fingerprint(entry["password"]))  # its data was here, and is gone
        if entry:
            self.access.forget(prints)

    def disk(self) -> int | None:
        """Return the bytes that the running store's data occupies, or None where it cannot be told."""
        container = self.found()
        if container is None or container.state != "running":
            return None
        image = self.engine.image(container.image)
        folder = self.service.data if image is None else services.data_folder(self.service, image)
        code, output = self.engine.run(container.id, ("du", "-sk", folder))
        size = output.split()[0] if code == 0 and output.split() else ""
        return int(size) * 1024 if size.isdigit() else None
