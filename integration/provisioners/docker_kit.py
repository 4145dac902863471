"""A Docker of our own for tests: daemon, bridge and registry, apart from any that the user has.

The daemon has its own socket, data, pid file, bridge and containerd namespace, and
writes no firewall rules. Only what was started here is stopped, by its pid. On Debian,
as root, missing packages are installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import images

PACKAGES = {
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "iptables": "iptables",
}


class DockerKit:
    """A running daemon that pulls from a registry of ours as if it were the usual one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mlkit-", dir="/var/tmp"))
        self.socket = self.folder / "d.sock"
        self.url = f"unix://{self.socket}"
        self.bridge = f"ml{os.getpid()}"
        self.registry_port = free_port()
        self.tcp_port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._has_bridge = False

    def start(self) -> None:
        self.registry = self._start_registry()
        self.address = self._make_bridge()
        self.remote_url = f"tcp://{self.address}:{self.tcp_port}"
        self._start_daemon()
        self.client = docker.DockerClient(base_url=self.url, timeout=60)
        images.build_all(self.client)
        self.publish(images.POSTGRES["16"])  # the others are found as local images

    def publish(self, name: str) -> None:
        """Put a local image into the registry, and forget it here."""
        repository, tag = name.split(":")
        local = f"127.0.0.1:{self.registry_port}/{repository}"
        self.client.images.get(name).tag(local, tag)
        for line in self.client.images.push(local, tag, stream=True, decode=True):
            if "error" in line:
                raise RuntimeError(line["error"])
        self.client.images.remove(f"{local}:{tag}")
        self.client.images.remove(name)

    def stop(self) -> None:
        with contextlib.suppress(AttributeError):
            self.client.close()
        for process in reversed(self._processes):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._has_bridge:
            subprocess.run(["ip", "link", "del", self.bridge], check=False)

    def _start_registry(self) -> subprocess.Popen[bytes]:
        config = self.folder / "registry.json"  # JSON is YAML too
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": str(self.folder / "registry")}},
                    "http": {"addr": f"127.0.0.1:{self.registry_port}"},
                }
            )
        )
        process = self._spawn("registry", ["docker-registry", "serve", str(config)])
        url = f"http://127.0.0.1:{self.registry_port}/v2/"
        self._await(process, "registry", lambda: answers(url))
        return process

    def _make_bridge(self) -> str:
        for n in range(200, 250):
            address = f"10.231.{n}.1"
            taken = subprocess.run(["ip", "addr"], capture_output=True, text=True, check=True).stdout
            if f"10.231.{n}." not in taken:
                break
        subprocess.run(["ip", "link", "add", "name", self.bridge, "type", "bridge"], check=True)
        self._has_bridge = True
        subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", self.bridge], check=True)
        subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)
        return address

    def _start_daemon(self) -> None:
        config = self.folder / "daemon.json"
        config.write_text(json.dumps({"registry-mirrors": [f"http://127.0.0.1:{self.registry_port}"]}))
        namespace = f"memlift-{os.getpid()}"
        process = self._spawn(
            "dockerd",
            [
                "dockerd",
                f"--config-file={config}",
                f"--data-root={self.folder / 'data'}",
                f"--exec-root={self.folder / 'exec'}",
                f"--pidfile={self.folder / 'pid'}",
                f"--host={self.url}",
                f"--host={self.remote_url}",
                "--tls=false",
                f"--bridge={self.bridge}",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-masq=false",
                f"--containerd-namespace={namespace}",
                f"--containerd-plugins-namespace={namespace}-plugins",
            ],
        )
        self._await(process, "dockerd", self._pings)

    def _pings(self) -> bool:
        if not self.socket.exists():
            return False
        with contextlib.closing(docker.DockerClient(base_url=self.url)) as client:
            return bool(client.ping())

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _await(self, process: subprocess.Popen[bytes], name: str, ask: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, docker.errors.DockerException):
                if ask():
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")


def missing_reason() -> str | None:
    """Return why the real Docker tests cannot run here, or None; on Debian what is missing is installed."""
    if os.geteuid() != 0:
        return "a Docker daemon of our own needs root"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing and shutil.which("apt-get"):
        _install(missing)
        missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def _install(packages: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # start no services
    commands = (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages])
    for attempt in range(5):  # another program may hold apt's lock, or a mirror may stumble
        time.sleep(3 * attempt)
        if all(
            subprocess.run(
                ["apt-get", *c], check=False, env=environment, stdout=subprocess.DEVNULL
            ).returncode
            == 0
            for c in commands
        ):
            return


@contextlib.contextmanager
def running_kit() -> Iterator[DockerKit]:
    kit = DockerKit()
    try:
        kit.start()
        yield kit
    finally:
        kit.stop()


def answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - our own
        return bool(response.status == 200)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
