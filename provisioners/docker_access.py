"""The secrets and addresses of one container store: saved before they are needed, checked before use."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from provisioners import pgprobe, ready, saved
from provisioners.base import Endpoint
from provisioners.engine import Container, Engine, Volume
from provisioners.errors import ProvisionError
from provisioners.services import Service


class Access:
    """What opens one store, as kept in `vector-store.json` under the container's name."""

    def __init__(self, service: Service, engine: Engine, key: str, name: str) -> None:
        self._service = service
        self._engine = engine
        self._key = key
        self._name = name

    def entry(self) -> saved.Entry:
        """Return what is saved; empty where nothing is."""
        return saved.get(self._key) or {}

    def update(self, **changes: Any) -> saved.Entry:
        """Save changes, durable on return; None removes a field. Returns the whole entry."""
        base = {"kind": self._service.kind, "how": "docker", "name": self._name}
        entry = {k: v for k, v in (base | self.entry() | changes).items() if v is not None}
        saved.put(self._key, entry)
        return entry

    def renew(self) -> saved.Entry:
        """Save new secrets for a new store: its password, and one for the very first login.

        The old password is kept: its data may live on another engine, or on another volume.
        """
        old = self.entry()
        kept = dict(old.get("old", {}))
        if password := old.get("password"):
            kept[fingerprint(password)] = password
        first = secrets.token_urlsafe(32)
        return self.update(password=secrets.token_urlsafe(32), first_password=first, old=kept or None)

    def forget(self, prints: set[str]) -> None:
        """Forget the passwords with these fingerprints; the whole entry where none is left."""
        entry = self.entry()
        old = {key: value for key, value in entry.get("old", {}).items() if key not in prints}
        password = entry.get("password")
        if password and fingerprint(password) not in prints:
            self.update(old=old or None)
        elif old:
            self.update(password=None, first_password=None, url=None, old=old)
        else:
            saved.forget(self._key)

    def check(self, found: Container | Volume) -> saved.Entry:
        """Return the saved entry that opens an existing container or volume of ours.

        Raises ProvisionError where it was set up with a secret that is not saved here.
        """
        entry = self.entry()
        password, print_ = entry.get("password"), found.labels.get("memlift.secret")
        if password and print_ in (None, fingerprint(password)):
            return entry
        if print_ is not None and (known := entry.get("old", {}).get(print_)):
            old = {key: value for key, value in entry["old"].items() if key != print_}
            if password:
                old[fingerprint(password)] = password
            return self.update(password=known, first_password=None, ports=None, old=old or None)
        if self._service.kind == "qdrant" and isinstance(found, Volume):
            return entry if password else self.renew()  # a key is not in the data: a new one is as good
        what = "container" if isinstance(found, Container) else "volume"
        hint = "put back the vector-store.json that belongs to it (another user's? another MEMLIFT_HOME?), "
        if self._service.kind == "qdrant":
            hint += "or memlift down qdrant, which keeps the data, and memlift up qdrant for a new key"
        else:
            hint += "or choose another name with --name; memlift down --volumes removes it with all its data"
        secret = "API key" if self._service.kind == "qdrant" else "password"
        raise ProvisionError(
            f"the {what} {found.name} was set up with another {secret} than the one saved in {saved.path()}; "
            "it stays untouched",
            hint=hint,
        )

    def address(self, container: Container) -> str:
        """Return the URL without secrets, from what the container really publishes."""
        engine = self._engine
        host = engine.host
        bind, port = container.ports.get(self._service.port, (engine.bind, self._service.port))
        everywhere = bind in ("", "0.0.0.0", "::")  # noqa: S104 - read, not chosen
        # 127.x is this machine's, or what a tunnel to the engine's machine ends in.
        if bind.startswith("127.") or (engine.local and not everywhere):
            host = bind
        host = f"[{host}]" if ":" in host else host
        if self._service.kind == "qdrant":
            return f"http://{host}:{port}"
        return f"postgresql://{pgprobe.ROLE}@{host}:{port}/{pgprobe.DATABASE}"

    def url(self, container: Container) -> str:
        """Return the URL as a client needs it; Postgres' has the password in it."""
        address = self.address(container)
        return address if self._service.kind == "qdrant" else _opened(address, str(self.entry()["password"]))

    def ask(self, container: Container) -> ready.Facts:
        """Ask the store a real query with its secret. Raises RefusedError, NotReadyError."""
        entry = self.entry()
        address, password = self.address(container), str(entry.get("password"))
        if self._service.kind == "qdrant":
            return ready.ask_qdrant(address, password)
        first = entry.get("first_password")
        if not first:
            return ready.ask_postgres(_opened(address, password))
        # A new volume opens to the password that its container shows in `inspect`: replace it at once.
        try:
            pgprobe.set_password(_opened(address, str(first)), password)
        except ready.RefusedError:
            facts = ready.ask_postgres(
                _opened(address, password)
            )  # replaced before, in a run that was killed
        else:
            facts = ready.ask_postgres(_opened(address, password))
        self.update(first_password=None)
        return facts


def endpoint_of(entry: Mapping[str, Any], key: str) -> Endpoint:
    """Return the endpoint of a saved entry."""
    ports = entry.get("ports") or {}
    shown = ("container", "volume", "image", "digest", "engine", "folder", "major")
    return Endpoint(
        kind=entry["kind"],
        how=entry["how"],
        url=entry["url"],
        api_key=entry.get("api_key"),
        grpc_port=ports.get("6334"),
        version=entry.get("version"),
        extension=entry.get("extension"),
        name=key,
        details={name: entry[name] for name in shown if entry.get(name)},
    )


def fingerprint(secret: str) -> str:
    """Return 12 hex digits that tell two random 32-byte secrets apart and give nothing of them away."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def _opened(url: str, password: str) -> str:
    return url.replace("@", f":{password}@", 1)
