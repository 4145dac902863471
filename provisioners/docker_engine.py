"""The real engine, over docker-py's low-level client: Docker, rootless Docker, podman.

Facts about it, measured on engine 20.10: a taken port appears at start, not at create, as
HTTP 500, and leaves the container in state `created`; a taken name is 409; making a
volume that exists returns the old one; a name filter matches parts of names.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from migrate.config import mask
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

if TYPE_CHECKING:
    from docker import APIClient

_PORT_TAKEN = re.compile(
    r"port is already allocated|address already in use|port.*(?:in use|is not available)|"
    r"ports are not available|forbidden by its access permissions",
    re.I,
)

_PODMAN_STATES = {
    "configured": "created",
    "initialized": "created",
    "stopped": "exited",
    "stopping": "running",
}


class DockerEngine:
    """See `engine.Engine`, whose methods these are."""

    def __init__(
        self,
        client: APIClient,
        info: Mapping[str, Any],
        *,
        id: str,
        host: str,
        bind: str,
        local: bool,
        address: str,
    ) -> None:
        self._client = client
        self.host = host
        self.bind = bind
        self.local = local
        self.address = address
        self.id = id
        self.memory = int(info.get("MemTotal") or 0)
        # A rootless engine without cgroups v2 cannot limit, and would refuse or warn.
        self._limits = {
            option: info.get(flag) is not False
            for option, flag in (("mem_limit", "MemoryLimit"), ("pids_limit", "PidsLimit"))
        }
        self._log_driver = str(info.get("LoggingDriver") or "")

    def container(self, name: str) -> Container | None:
        with _translated("look at a container", container=name):
            try:
                return _container(self._client.inspect_container(name))
            except _errors().NotFound:
                return None

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        wanted = {"label": [f"{key}={value}" for key, value in labels.items()]}
        with _translated("list containers"):
            found = self._client.containers(all=True, filters=wanted)
            seen = [self.container(item["Id"]) for item in found]
        return sorted((c for c in seen if c is not None), key=lambda c: c.name)

    def volume(self, name: str) -> Volume | None:
        with _translated("look at a volume", volume=name):
            try:
                return _volume(self._client.inspect_volume(name))
            except _errors().NotFound:
                return None

    def volumes(self, labels: Mapping[str, str]) -> list[Volume]:
        wanted = {"label": [f"{key}={value}" for key, value in labels.items()]}
        with _translated("list volumes"):
            found = self._client.volumes(filters=wanted).get("Volumes") or []
        return sorted((_volume(item) for item in found), key=lambda v: v.name)

    def make_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        with _translated("make a volume", volume=name):
            return _volume(self._client.create_volume(name=name, labels=dict(labels)))

    def remove_volume(self, name: str) -> None:
        with _translated("remove a volume", volume=name), contextlib.suppress(_errors().NotFound):
            self._client.remove_volume(name)

    def image(self, reference: str) -> Image | None:
        with _translated("look at an image", image=reference):
            try:
                found: dict[str, Any] = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except _errors().NotFound:
                return None
        config = found.get("Config") or {}
        env = dict(item.split("=", 1) for item in config.get("Env") or [] if "=" in item)
        digests = [d.split("@", 1)[1] for d in found.get("RepoDigests") or [] if "@" in d]
        return Image(
            id=found["Id"],
            digest=digests[0] if digests else None,
            env=env,
            volumes=tuple(sorted(config.get("Volumes") or {})),
            user=config.get("User") or "",
        )

    def pull(self, reference: str, *, stall: float, on_progress: Callable[[Progress], None]) -> Image:
        import requests

        layers: dict[str, tuple[int, int]] = {}
        try:
            for event in self._pull_events(reference, stall):
                if "error" in event:
                    raise _pull_error(reference, str(event["error"]))
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and detail.get("total"):
                    layers[str(event.get("id"))] = (int(detail["current"]), int(detail["total"]))
                elif event.get("status") in ("Download complete", "Pull complete"):
                    total = layers.get(str(event.get("id")), (0, 0))[1]
                    layers[str(event.get("id"))] = (total, total)
                done, total = (
                    (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
                )
                on_progress(Progress(done, total, str(event.get("status", ""))))
        except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError) as exc:
            raise PullError(
                f"nothing came from the registry for {stall:.0f} s, or the engine went away",
                hint="look at the network and run this again: what has arrived is kept",
                image=reference,
            ) from exc
        except _errors().APIError as exc:
            raise _pull_error(reference, str(exc.explanation or exc)) from exc
        image = self.image(reference)
        if image is None:
            raise PullError("the image is not there after its pull", hint="run this again", image=reference)
        return image

    def _pull_events(self, reference: str, stall: float) -> Iterator[dict[str, Any]]:
        """Ask for the pull ourselves: docker-py's own `pull` has no time limit between two events."""
        from docker import auth

        repository, tag = _split(reference)
        headers = {}
        registry, _ = auth.resolve_repository_name(repository)
        if header := auth.get_config_header(self._client, registry):
            headers["X-Registry-Auth"] = header.decode() if isinstance(header, bytes) else str(header)
        url = f"{self._client.base_url}/v{self._client.api_version}/images/create"
        response = self._client.post(
            url,
            params={"fromImage": repository, "tag": tag},
            headers=headers,
            stream=True,
            timeout=(30, stall),
        )
        with contextlib.closing(response):
            if response.status_code >= 400:
                text = response.text
                with contextlib.suppress(ValueError, AttributeError):
                    text = json.loads(text).get("message", text)
                raise _pull_error(reference, text)
            for line in response.iter_lines(chunk_size=1024):
                if line.strip():
                    yield json.loads(line)

    def create(self, spec: ContainerSpec) -> str:
        errors = _errors()
        with _translated("make a container", container=spec.name):
            options: dict[str, Any] = {
                "binds": {volume: {"bind": inside, "mode": "rw"} for inside, volume in spec.volumes.items()},
                "port_bindings": {port: address for port, address in spec.ports.items()},  # noqa: C416
                "mem_limit": spec.memory,
                "shm_size": spec.shm,
                "pids_limit": spec.pids,
                "security_opt": ["no-new-privileges"],
                "restart_policy": {"Name": "unless-stopped"},
            }
            options = {name: value for name, value in options.items() if self._limits.get(name, True)}
            if self._log_driver == "json-file":
                options["log_config"] = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
            second = 1_000_000_000  # the engine counts in nanoseconds
            check = spec.check and {
                "test": list(spec.check),
                "interval": 10 * second,
                "timeout": 5 * second,
                "retries": 3,
                "start_period": 60 * second,
            }
            try:
                made = self._client.create_container(
                    spec.image,
                    command=list(spec.command) or None,
                    name=spec.name,
                    environment=dict(spec.env),
                    labels=dict(spec.labels),
                    ports=list(spec.ports),
                    healthcheck=check,
                    host_config=self._client.create_host_config(**options),
                )
            except errors.APIError as exc:
                text = str(exc.explanation or exc)
                if exc.status_code == 409 or ("name" in text and "already in use" in text):  # 500 from podman
                    raise NameTakenError("a container of this name exists", container=spec.name) from exc
                raise
            id = str(made["Id"])
            try:
                if spec.files:
                    self._client.put_archive(id, "/", _archive(spec.files))
            except BaseException:
                self.remove(id)
                raise
        return id

    def start(self, id: str) -> None:
        with _translated("start a container"):
            try:
                self._client.start(id)
            except _errors().APIError as exc:
                text = str(exc.explanation or exc)
                if _PORT_TAKEN.search(text):
                    raise PortTakenError(text.strip()[-200:]) from exc
                raise

    def unpause(self, id: str) -> None:
        with _translated("unpause a container"):
            self._client.unpause(id)

    def stop(self, id: str, *, timeout: int) -> None:
        with _translated("stop a container"), contextlib.suppress(_errors().NotFound):
            self._client.stop(id, timeout=timeout)

    def remove(self, id: str) -> None:
        with _translated("remove a container"):
            try:
                self._client.remove_container(id, v=True, force=True)
            except _errors().NotFound:
                return
            except _errors().APIError as exc:
                if exc.status_code != 409:  # 409: somebody else is removing it just now
                    raise

    def logs(self, id: str, *, lines: int) -> str:
        with _translated("read logs"):
            raw: bytes = self._client.logs(id, stdout=True, stderr=True, tail=lines)
        return mask(raw.decode(errors="replace"))

    def run(self, id: str, command: tuple[str, ...]) -> tuple[int, str]:
        with _translated("run a command in a container"):
            made = self._client.exec_create(id, list(command))
            output: bytes = self._client.exec_start(made["Id"])
            code = self._client.exec_inspect(made["Id"])["ExitCode"]
        return (1 if code is None else int(code)), output.decode(errors="replace")

    def close(self) -> None:
        self._client.close()


def _errors() -> Any:
    import docker.errors

    return docker.errors


@contextlib.contextmanager
def _translated(what: str, **where: Any) -> Iterator[None]:
    """Turn docker-py's and its transport's errors into ours, in one place."""
    import requests

    try:
        yield
    except EngineError:
        raise
    except _errors().DockerException as exc:
        text = str(getattr(exc, "explanation", None) or exc).strip()
        raise EngineError(f"cannot {what}: {mask(text)[:500]}", hint=_advice(text), **where) from exc
    except requests.exceptions.RequestException as exc:
        raise EngineError(
            f"cannot {what}: the engine does not answer",
            hint="see whether it still runs: docker info",
            **where,
        ) from exc


def _advice(text: str) -> str:
    if "no space left" in text.lower():
        return "make room on the engine's disk: docker system df"
    return "see the engine's own logs"


def _pull_error(reference: str, text: str) -> PullError:
    low = text.lower()
    if "toomanyrequests" in low or "rate limit" in low:
        message, hint = "the registry limits how often you may pull", "docker login, or wait an hour"
    elif "no matching manifest" in low:
        message, hint = "there is no such image for this machine's processor", "name another with --image"
    elif "not found" in low or "manifest unknown" in low or "not exist" in low:
        message, hint = "there is no such image", "look at the name and tag given with --image"
    elif "denied" in low or "unauthorized" in low:
        message, hint = (
            "the registry refuses to give this image",
            "docker login, or name another with --image",
        )
    elif "no space left" in low:
        message, hint = "the engine's disk is full", "docker system df, docker image prune"
    else:
        message, hint = "the registry cannot be reached", "look at the network, or use --embedded"
    return PullError(f"{message}: {mask(text).strip()[:300]}", hint=hint, image=reference)


def _split(reference: str) -> tuple[str, str]:
    """Return repository and tag (or digest) of an image's name; a colon before a slash is a port's."""
    if "@" in reference:
        repository, digest = reference.split("@", 1)
        return repository.rsplit(":", 1)[0] if ":" in repository.rsplit("/", 1)[-1] else repository, digest
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag or "latest"


def _archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (mode, content) in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _container(found: Mapping[str, Any]) -> Container:
    state = found["State"]
    status = str(state.get("Status", "")).lower()
    bindings = (found.get("HostConfig") or {}).get("PortBindings") or {}
    ports = {
        int(inside.split("/")[0]): (hosts[0].get("HostIp") or "0.0.0.0", int(hosts[0]["HostPort"]))  # noqa: S104
        for inside, hosts in bindings.items()
        if hosts and hosts[0].get("HostPort")
    }
    started = str(state.get("StartedAt") or "")
    return Container(
        id=found["Id"],
        name=str(found["Name"]).lstrip("/"),
        state=_PODMAN_STATES.get(status, status),
        labels=dict(found["Config"].get("Labels") or {}),
        image=str(found["Config"].get("Image") or ""),
        health=(state.get("Health") or {}).get("Status") or None,
        exit_code=state.get("ExitCode"),
        error=str(state.get("Error") or ""),
        started=started[:19] + "+00:00" if started and not started.startswith("0001") else None,
        restarts=int(found.get("RestartCount") or 0),
        ports=ports,
    )


def _volume(found: Mapping[str, Any]) -> Volume:
    return Volume(name=str(found["Name"]), labels=dict(found.get("Labels") or {}))
