"""Advice on managed services: known by their host names, checked and explained, never provisioned."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from provisioners.errors import ProvisionError


@dataclass(frozen=True, slots=True)
class Managed:
    """A managed service; hosts: the ends of its host names."""

    name: str
    hosts: tuple[str, ...]
    extension: str
    ca: str


# Sources: each service's own documentation on connecting and on extensions, 2026.
POSTGRES = (
    Managed("Supabase", (".supabase.co", ".supabase.com"), "enable `vector` under Database, Extensions",
            "the certificate from Project Settings, Database"),
    Managed("Neon", (".neon.tech",), "run CREATE EXTENSION vector as the owner of the database",
            "sslrootcert=system"),
    Managed("Amazon RDS", (".rds.amazonaws.com",), "run CREATE EXTENSION vector as a member of rds_superuser",
            "the RDS bundle global-bundle.pem"),
    Managed("Azure Database for PostgreSQL", (".postgres.database.azure.com",),
            "add `vector` to the server parameter azure.extensions first", "sslrootcert=system"),
    Managed("Aiven", (".aivencloud.com",), "run CREATE EXTENSION vector as avnadmin", "ca.pem of the project"),
    Managed("DigitalOcean", (".ondigitalocean.com",), "run CREATE EXTENSION vector as doadmin",
            "the cluster's CA certificate"),
)  # fmt: skip
QDRANT_CLOUD = (".cloud.qdrant.io",)


def managed(host: str) -> Managed | None:
    """Return the managed Postgres service that a host belongs to, or None."""
    name = host.lower().rstrip(".")
    return next((service for service in POSTGRES if name.endswith(service.hosts)), None)


def advise_postgres(url: str) -> list[str]:
    """Return what to mind with this Postgres URL; empty where nothing is known of its host.

    Raises ProvisionError where a managed service is to be used without TLS: the password and all rows
    would cross the internet readable.
    """
    parts = urlsplit(url)
    service = managed(parts.hostname or "")
    if service is None:
        return []
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    mode = options.get("sslmode", "prefer")
    if mode in ("disable", "allow"):
        raise ProvisionError(
            f"{service.name} over sslmode={mode} would send the password and all rows in clear",
            hint="use sslmode=require, or verify-full with " + service.ca,
        )
    advice = []
    if mode == "prefer":
        advice.append(
            f"{service.name}: add sslmode=require to the URL (better verify-full with {service.ca}); "
            "without it libpq falls back to no encryption"
        )
    host = (parts.hostname or "").lower()
    if parts.port == 6543 or "-pooler." in host or ".pooler." in host:
        session = parts.port != 6543 and ".pooler.supabase.com" in host
        if not session:
            advice.append(
                f"{service.name}: this is a pooler in transaction mode; it works, but bulk copies and index "
                "builds are steadier over the direct connection"
                + (" (port 5432)" if parts.port == 6543 else " (host without -pooler)")
            )
    advice.append(f"{service.name}: where the extension is missing, {service.extension}")
    return advice


def advise_qdrant(url: str, api_key: str | None) -> list[str]:
    """Return what to mind with this Qdrant URL.

    Raises ProvisionError where a key would be sent in clear to Qdrant Cloud, or is missing there.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host.endswith(QDRANT_CLOUD):
        if parts.scheme != "https":
            raise ProvisionError("Qdrant Cloud is reached over https only", hint="write https://HOST:6333")
        if not api_key:
            raise ProvisionError("Qdrant Cloud needs an API key", hint="set QDRANT_API_KEY, or give api_key")
        return ["Qdrant Cloud: the free cluster is suspended after a week without use; back it up"]
    if api_key and parts.scheme != "https" and not is_local(host):
        return [f"the API key crosses the network to {host} readable; prefer https"]
    return []


def is_local(host: str) -> bool:
    """Whether a host name means this machine."""
    return host in ("localhost", "::1", "") or host.startswith("127.")
