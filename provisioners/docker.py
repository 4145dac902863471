"""Bringing a store up in a container, whatever state an earlier run left it in.

Secrets are saved before anything that depends on them exists, and every step looks at
the engine again, so a crash at any point, or another process at the same work, can be
taken up by the next look.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from pathlib import Path

from provisioners import pgprobe, ready, saved, services
from provisioners.base import Endpoint, Say
from provisioners.docker_access import endpoint_of, fingerprint
from provisioners.docker_life import STOP_S, OwnedContainer
from provisioners.engine import (
    Container,
    ContainerSpec,
    Image,
    NameTakenError,
    PortTakenError,
    Progress,
    Volume,
)
from provisioners.errors import NotReadyError, ProvisionError
from provisioners.pgtuning import MIB

PORT_PATIENCE_S = 10.0  # that a port we had before may need to become free again on a busy machine
_ROUNDS = 8  # looks at the engine: each takes one step, and a racing process may undo one
_IN_CONTAINER = Path("/.dockerenv")


class DockerStore(OwnedContainer):
    """A store in a container, on one engine."""

    _facts: ready.Facts | None = None

    def up(self) -> Endpoint:
        """Bring the store up and return its address once it has answered a real query.

        Idempotent; several processes at once end with one container. What this call has
        half made is removed again when it fails. Raises ProvisionError and its kin, with the
        container's last messages where it died.
        """
        self._facts = None
        self.say(f"[4/7] looking for our container {self.container_name}")
        longest = self.options.stall * 4 + self.options.ready_timeout + STOP_S
        with saved.lock(self.container_name, timeout=longest):
            for _ in range(_ROUNDS):
                container = self.engine.container(self.container_name)
                container = self._create() if container is None else self._advance(container)
                if container is not None:
                    return self._finish(container)
        raise ProvisionError(
            "the container changes under our hands",
            hint="is another program managing it? run this again",
            container=self.container_name,
        )

    # -- a container that exists: each method returns it running, or None to look again ------------

    def _advance(self, container: Container) -> Container | None:
        name, state = container.name, container.state
        if not self.is_ours(container.labels):
            raise ProvisionError(
                f"a container named {name} exists that memlift did not make; it stays untouched",
                hint="choose another name with --name, or remove it yourself",
            )
        if state == "removing":
            time.sleep(ready.POLL_S)
            return None
        if state in ("created", "dead"):
            self.say(f"container {name} is {'half made' if state == 'created' else 'dead'}: making it anew")
            self.engine.remove(container.id)
            return None
        self.access.check(container)
        if self._is_replaced(container):
            return None
        if state == "exited":
            self.say(f"container {name} is stopped: starting it")
            return self._start_again(container)
        if state == "paused":
            self.say(f"container {name} is paused: going on")
            self.engine.unpause(container.id)
            return self.engine.container(name)
        if state == "restarting":
            self.say(f"container {name} keeps ending; its last messages:\n{self._last(container)}")
        elif container.health == "unhealthy":
            return self._heal(container)
        else:
            self.say(f"container {name} is running")
        return container

    def _start_again(self, container: Container) -> Container | None:
        try:
            self._start(container.id)
        except PortTakenError:
            taken = [port for _, port in container.ports.values()]
            self.say(
                f"port {taken[0] if taken else '?'} is in use by now: making the container anew on another"
            )
            self.engine.remove(container.id)
            self.access.update(ports=None, avoid=taken)
            return None
        return self.engine.container(self.container_name)

    def _start(self, made: str) -> None:
        """Start a container. The ports of one that has just ended are free a moment later, and an address is kept."""
        until = time.monotonic() + (PORT_PATIENCE_S if self.access.entry().get("ports") else 0)
        while True:
            try:
                return self.engine.start(made)
            except PortTakenError:
                if time.monotonic() >= until:
                    raise
            time.sleep(PORT_PATIENCE_S / 30)

    def _heal(self, container: Container) -> Container | None:
        """The engine calls it unhealthy: our own query decides, and one restart is tried."""
        try:
            self.access.ask(container)
        except NotReadyError:
            self.say(f"container {container.name} is unhealthy: restarting it")
            self.engine.stop(container.id, timeout=STOP_S)
            return self._start_again(container)
        self.say(f"container {container.name} is called unhealthy, but it answers")
        return container

    def _is_replaced(self, container: Container) -> bool:
        """Handle another version than the asked one: refuse it, or make way for it on the same data."""
        have, asked, image = container.labels.get("memlift.major"), self.options.version, self.options.image
        changed = image is not None and image != container.image
        if image is not None and changed:
            asked = services.major_of(self.service, self._image(image), image)
        if asked is not None and asked != have:
            raise ProvisionError(
                f"the container holds {self.service.kind} {have}, not {asked}",
                hint=f"go on with --version {have}; or make a new one with --name OTHER and migrate into it",
                container=container.name,
            )
        if image is None or not changed:
            return False
        self._refuse_downgrade(container.image, image)
        self.say(f"container {container.name} runs {container.image}: changing to {image}")
        self.stop()
        self.engine.remove(container.id)
        return True

    def _refuse_downgrade(self, old: str, new: str) -> None:
        before, after = _version_in(old), _version_in(new)
        if self.service.kind == "qdrant" and before and after and after < before:
            raise ProvisionError(
                f"Qdrant's data cannot go back from {old} to {new}",
                hint="keep the newer image, or make another store with --name and migrate into it",
            )

    # -- making one -------------------------------------------------------------------------------

    def _create(self) -> Container | None:
        """Make a container on its volume, start it, and wait for its first answer; None: look again."""
        reference = self._reference()
        image = self._image(reference)
        major = services.major_of(self.service, image, reference)
        volume, is_new = self._volume(major, reference)
        made: str | None = None
        try:
            spec = self._spec(reference, image, major, volume.name)
            self.say(f"[5/7] starting {reference} as {self.container_name}")
            made = self.engine.create(spec)
            self._start(made)
            container = self.engine.container(self.container_name)
            if container is not None:
                self._facts = self._make_ready(container, fresh=True)
            return container
        except NameTakenError:
            return None  # another process was first; the next look finds its container
        except PortTakenError:
            taken = [port for _, port in spec.ports.values()]
            self.say(f"a port of {taken} is in use: choosing another")
            avoid = [*self.access.entry().get("avoid", []), *taken]
            self._undo(made, volume if is_new else None)
            self.access.update(ports=None, avoid=avoid)
            return None
        except NotReadyError:
            raise  # it runs, and may only be slow: what it is doing is not thrown away
        except BaseException:
            self._undo(made, volume if is_new else None)
            raise

    def _undo(self, made: str | None, volume: Volume | None) -> None:
        """Remove what this call has made, a volume with its secret; not one that another container stands on."""
        if made is not None:
            self.engine.remove(made)
        if volume is not None and self.engine.container(self.container_name) is None:
            self.engine.remove_volume(volume.name)
            self.access.forget({volume.labels["memlift.secret"]})

    def _reference(self) -> str:
        """Return the image to use: the asked one, else that of the data at hand, else the pinned one.

        Raises ProvisionError where data of another version is there, or of several.
        """
        if self.options.image is not None:
            return self.options.image
        majors = {v.labels.get("memlift.major", "?"): v for v in self.volumes()}
        asked = self.options.version
        if asked is None and len(majors) > 1:
            raise ProvisionError(
                f"there is data of several versions ({', '.join(sorted(majors))})",
                hint="choose one with --version",
            )
        major = asked or next(iter(majors), self.service.default)
        if major in majors and (used := majors[major].labels.get("memlift.image")):
            return used
        return self.service.image_for(major)

    def _image(self, reference: str) -> Image:
        image = self.engine.image(reference)
        if image is None:
            self.say(f"[5/7] pulling {reference}")
            image = self.engine.pull(reference, stall=self.options.stall, on_progress=_Pulling(self.say))
            self.say(f"[5/7] pulled {image.digest or image.id}")
        return image

    def _volume(self, major: str, reference: str) -> tuple[Volume, bool]:
        """Return the volume of a version, and whether this call made it."""
        others = {v.labels.get("memlift.major"): v.name for v in self.volumes()}
        if others and major not in others:
            have, name = next(iter(others.items()))
            raise ProvisionError(
                f"the volume {name} holds data of {self.service.kind} {have}, which {major} cannot read",
                hint=f"go on with --version {have}; or make a new store with --name OTHER and migrate into it",
            )
        name = f"{self.container_name}-{major}"
        volume, token = self.engine.volume(name), secrets.token_hex(8)
        if volume is None:
            # Saved before the volume exists: once it is set up, only this password opens it.
            password = self.access.renew()["password"]
            labels = self.labels | {"memlift.major": major, "memlift.image": reference}
            labels |= {"memlift.secret": fingerprint(password), "memlift.token": token}
            volume = self.engine.make_volume(name, labels)
            if volume.labels.get("memlift.token") == token:
                return volume, True
        if not self.is_ours(volume.labels):
            raise ProvisionError(
                f"a volume named {name} exists that memlift did not make; it stays untouched",
                hint="choose another name with --name",
            )
        self.access.check(volume)
        return volume, False

    def _spec(self, reference: str, image: Image, major: str, volume: str) -> ContainerSpec:
        entry = self.access.update(
            container=self.container_name,
            volume=volume,
            image=reference,
            digest=image.digest,
            major=major,
            engine=self.engine.address,
            engine_id=self.engine.id,
            ports=self._ports(),
        )
        limits = services.limits_for(self.service, self.engine.memory, self.options.memory)
        labels = self.labels | {"memlift.major": major, "memlift.digest": image.digest or ""}
        return ContainerSpec(
            name=self.container_name,
            image=reference,
            labels=labels | {"memlift.secret": fingerprint(entry["password"])},
            env=services.env_for(self.service, entry.get("first_password") or secrets.token_urlsafe(32)),
            files=services.files_for(self.service, entry["password"]),
            volumes={services.data_folder(self.service, image): volume},
            ports={int(inside): (self.engine.bind, port) for inside, port in entry["ports"].items()},
            command=services.command_for(self.service, limits),
            memory=limits.memory,
            shm=limits.shm,
            pids=self.service.pids,
            check=services.check_for(self.service),
        )

    def _ports(self) -> dict[str, int]:
        """Return the host ports: remembered ones, else the usual ones where they are free, else free ones."""
        entry = self.access.entry()
        if entry.get("ports") and self.options.port is None:
            return dict(entry["ports"])
        chosen: dict[str, int] = {}
        for n, inside in enumerate(self.service.ports):
            wanted = inside if self.options.port is None else self.options.port + n
            # Of a remote machine's ports we learn only by trying.
            if self.engine.local and not pgprobe.port_is_free(wanted):
                self.say(f"port {wanted} is in use: choosing another")
                wanted = pgprobe.free_port()
            elif wanted in entry.get("avoid", []):
                wanted = pgprobe.free_port()
            chosen[str(inside)] = wanted
        return chosen

    # -- ready ------------------------------------------------------------------------------------

    def _make_ready(self, container: Container, *, fresh: bool) -> ready.Facts:
        """Wait for its first answer; give a Postgres its extension. fresh: it has never answered before."""
        self.say(f"[6/7] waiting up to {self.options.ready_timeout:g} s for an answer to a real query")
        try:
            facts = ready.wait(
                lambda: self.access.ask(container),
                timeout=self.options.ready_timeout,
                died=lambda: self._death(container, fresh=fresh),
            )
        except NotReadyError as exc:
            exc.message += f"; the container's last messages:\n{self._last(container)}"
            if _IN_CONTAINER.exists() and self.engine.local:
                exc.hint = (
                    "memlift itself runs in a container, where 127.0.0.1 is another machine: "
                    "run it with the host's network, or name a reachable address with --publish"
                )
            raise
        if self.service.kind != "postgres":
            return facts
        extension = ready.ensure_vector(self.access.url(container), own=True)
        return dataclasses.replace(facts, extension=extension)

    def _death(self, before: Container, *, fresh: bool) -> str | None:
        """Return why a container will not become ready, with its last messages; None while it may.

        One that ran well before may be restarted by the engine once, as after a crash.
        """
        now = self.engine.container(self.container_name)
        if now is None or now.id != before.id:
            return f"container {before.name} was removed meanwhile"
        again = now.restarts - before.restarts
        ended = now.state in ("exited", "dead") or (fresh and now.state == "restarting")
        if ended and not fresh and "address already in use" in (now.error or ""):
            # The engine restarted it before it had let go of its own port, and gave up.
            with contextlib.suppress(PortTakenError):
                self.engine.start(now.id)
            return None
        if ended or again > (0 if fresh else 1):
            error = f", {now.error}" if now.error else ""
            return (
                f"container {before.name} ended (exit code {now.exit_code}{error}); "
                f"its last messages:\n{self._last(before)}"
            )
        return None

    def _last(self, container: Container) -> str:
        if self.engine.container(container.name) is None:
            return "(none)"
        return self.engine.logs(container.id, lines=20).rstrip() or "(none)"

    def _finish(self, container: Container) -> Endpoint:
        """See that it answers, and save its address."""
        facts = self._facts or self._make_ready(container, fresh=False)
        extra = f" with pgvector {facts.extension}" if facts.extension else ""
        self.say(f"{self.service.kind} {facts.version}{extra} is ready")
        entry = self.access.update(
            url=self.access.url(container),
            api_key=self.access.entry()["password"] if self.service.kind == "qdrant" else None,
            version=facts.version,
            extension=facts.extension,
            ports={str(inside): port for inside, (_, port) in container.ports.items()},
            avoid=None,
        )
        endpoint = endpoint_of(entry, self.container_name)
        self.say(f"[7/7] saved {endpoint.masked} in {saved.path()}")
        return endpoint


class _Pulling:
    """Says how far a pull is, at most every two seconds."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.total and time.monotonic() >= self._next:
            self._next = time.monotonic() + 2
            self._say(f"pulling: {progress.done / MIB:.1f} of {progress.total / MIB:.1f} MiB")


def _version_in(reference: str) -> tuple[int, ...]:
    tag = reference.rsplit("/", 1)[-1].partition("@")[0].partition(":")[2]
    return tuple(int(part) for part in tag.lstrip("v").split("-")[0].split(".") if part.isdigit())
