"""What is provisioned: pinned images, ports, data folders, limits. Adding a service is adding a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from provisioners import pgtuning
from provisioners.base import Kind
from provisioners.engine import Image
from provisioners.errors import ProvisionError
from provisioners.pgprobe import DATABASE, ROLE
from provisioners.pgtuning import GIB, MIB, between


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of store as it runs in a container.

    images: major version -> pinned image; default: the major of a new store.
    data: the folder to keep, where the image itself names none.
    """

    kind: Kind
    images: Mapping[str, str]
    default: str
    port: int
    grpc_port: int | None
    data: str
    pids: int

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,) if self.grpc_port is None else (self.port, self.grpc_port)

    def image_for(self, major: str) -> str:
        """Return the pinned image of a major version. Raises ProvisionError where there is none."""
        try:
            return self.images[major]
        except KeyError:
            raise ProvisionError(
                f"no pinned image of {self.kind} {major} (there are {', '.join(self.images)})",
                hint="name one with --image",
            ) from None


# pgvector 0.8.5 for each major. 16 is the default: the longest proven, supported until November 2028
# (postgresql.org/support/versioning).
POSTGRES = Service(
    kind="postgres",
    images={major: f"pgvector/pgvector:0.8.5-pg{major}" for major in ("16", "17", "18")},
    default="16",
    port=5432,
    grpc_port=None,
    data="/var/lib/postgresql/data",
    pids=512,
)

# Not `latest`: a Qdrant may not be downgraded, nor jump over a minor version (qdrant.tech, "Upgrading").
QDRANT = Service(
    kind="qdrant",
    images={"1": "qdrant/qdrant:v1.19.1"},
    default="1",
    port=6333,
    grpc_port=6334,
    data="/qdrant/storage",
    pids=2048,  # it starts a thread for each core and segment
)

SERVICES: Mapping[str, Service] = {"postgres": POSTGRES, "qdrant": QDRANT}

QDRANT_SECRETS = "/qdrant/config/local.yaml"
"""Read after the image's own settings (qdrant.tech, "Configuration"); a variable would show in `inspect`."""


def service_of(kind: str) -> Service:
    """Return the service of a kind. Raises ProvisionError for another word."""
    try:
        return SERVICES[kind]
    except KeyError:
        raise ProvisionError(
            f"nothing is known to set up for {kind!r}", hint=f"choose {' or '.join(SERVICES)}"
        ) from None


def major_of(service: Service, image: Image, reference: str) -> str:
    """Return the major version inside an image: the image's own word, else its tag.

    Raises ProvisionError where neither tells: a volume must never meet a version by accident.
    """
    if service.kind == "qdrant":
        found = re.search(r":v?(\d+)\.", reference)
        return found[1] if found else service.default
    if major := image.env.get("PG_MAJOR"):
        return major.split(".")[0]
    if found := re.search(r":(?:.*pg)?(\d\d)\b", reference):
        return found[1]
    raise ProvisionError(
        "cannot tell which Postgres is in this image",
        hint="use an image that sets PG_MAJOR, as the official ones do",
        image=reference,
    )


def data_folder(service: Service, image: Image) -> str:
    """Return what the volume is mounted on: what the image declares, else the service's folder.

    Postgres 18 images declare `/var/lib/postgresql`, older ones its `data` (docker-library/postgres 1259);
    a volume elsewhere would leave the data in an anonymous one that goes with the container.
    """
    declared = [v for v in image.volumes if v == service.data or service.data.startswith(v.rstrip("/") + "/")]
    return declared[0].rstrip("/") if declared else service.data


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of memory, and of shared memory within it."""

    memory: int
    shm: int


def limits_for(service: Service, machine: int, asked: int | None) -> Limits:
    """Return a container's limits on a machine with `machine` bytes; asked: bytes, or None for half of it."""
    memory = asked or between(512 * MIB, machine // 2, 8 * GIB)
    # A parallel HNSW build keeps maintenance_work_mem in shared memory; the engine's default is 64 MB.
    return Limits(memory, memory // 8 + 128 * MIB if service.kind == "postgres" else 64 * MIB)


def command_for(service: Service, limits: Limits) -> tuple[str, ...]:
    """Return the container's command: Postgres with settings for bulk loads, within its limits."""
    if service.kind != "postgres":
        return ()
    values = pgtuning.bulk_settings(memory=limits.memory)
    return ("postgres", *(part for name, value in values.items() for part in ("-c", f"{name}={value}")))


def env_for(service: Service, password: str) -> dict[str, str]:
    """Return a container's variables; `password` shows in `inspect`, so it is for the first login only."""
    if service.kind == "postgres":
        return {"POSTGRES_USER": ROLE, "POSTGRES_DB": DATABASE, "POSTGRES_PASSWORD": password}
    return {"QDRANT__TELEMETRY_DISABLED": "true"}


def files_for(service: Service, api_key: str) -> dict[str, tuple[int, bytes]]:
    """Return files to copy into a container before its first start: path -> (mode, content)."""
    if service.kind != "qdrant":
        return {}
    # 0444: the unprivileged image runs as another user, and nobody else lives in the container.
    return {QDRANT_SECRETS: (0o444, f"service:\n  api_key: {api_key}\n".encode())}


def check_for(service: Service) -> tuple[str, ...] | None:
    """Return the engine's own health check. By TCP: a socket answers during the first set-up already."""
    if service.kind == "postgres":
        return ("CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-U", ROLE, "-d", DATABASE)
    return None  # the image has neither curl nor wget; our own query is the check
