"""A server as a child process, for tests: start, stop, `kill -9`, restart, faults, counters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from integration.qdrant_server.faults import Fault

ROOT = Path(__file__).resolve().parents[2]


class QdrantTestServer:
    """`with QdrantTestServer(path) as server:` then `server.url`, `server.grpc_port`.

    The server is a process of its own, so that the time and the memory of the client
    under test are its own, and so that it can be killed. Ports chosen at the first
    start are kept over `restart`.
    """

    def __init__(
        self,
        path: Path | str,
        api_key: str | None = None,
        http_port: int = 0,
        grpc_port: int = 0,
        *,
        read_only_api_key: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.http_port, self.grpc_port = http_port, grpc_port
        self._keys = {"--api-key": api_key, "--read-only-api-key": read_only_api_key}
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        """Of the serving process; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> QdrantTestServer:
        """Returns when both ports answer. Raises `RuntimeError` with what the server printed."""
        if self._process is not None:
            raise RuntimeError("the server is already started")
        self.path.mkdir(parents=True, exist_ok=True)
        log = self.path / "server.log"
        command = [sys.executable, "-m", "integration.qdrant_server", "--path", str(self.path)]
        command += ["--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port)]
        for option, key in self._keys.items():
            command += [option, key] if key else []
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "ERROR"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._ended()
            raise RuntimeError(f"the server ended with {code}:\n{log.read_text()[-4000:]}")
        ports = json.loads(line)
        self.http_port, self.grpc_port = ports["http_port"], ports["grpc_port"]
        return self

    def stop(self) -> None:
        """An orderly end; nothing when it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._ended()

    def kill(self) -> None:
        """`kill -9`: the engine's process is ended by the kernel with it."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for a server that ends by itself (a `crash` fault); its exit code."""
        if self._process is None:
            raise RuntimeError("the server is not started")
        self._process.wait(timeout_s)
        return self._ended()

    def restart(self) -> None:
        """Start again on the same folder and ports, after `stop`, `kill` or a crash."""
        if self._process is not None:
            self.stop()
        self.start()

    def _ended(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        try:
            code = process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code

    # The control endpoint

    def add_fault(self, fault: Fault) -> None:
        self._control("POST", "faults", fault.as_json())

    def clear_faults(self) -> None:
        self._control("DELETE", "faults")

    def counters(self) -> dict[str, Any]:
        """Requests, bytes and answers since the start or the last reset."""
        return self._control("GET", "counters")

    def reset_counters(self) -> None:
        self._control("DELETE", "counters")

    def set_optimizer_delay(self, seconds: float) -> None:
        """How long an optimization keeps a collection yellow at least."""
        self._control("POST", "settings", {"optimizer_delay_s": seconds})

    def set_deferred(self, points: int) -> None:
        """How many points collections with `prevent_unoptimized` say they hide; none at first."""
        self._control("POST", "settings", {"deferred": points})

    def set_max_request_bytes(self, size: int) -> None:
        """The largest REST body; 32 MiB at first."""
        self._control("POST", "settings", {"max_request_bytes": size})

    def set_version(self, version: str) -> None:
        """Behave as an older server does where this backend cares; "1.20.0" at first."""
        self._control("POST", "settings", {"version": version})

    def set_distributed(self, distributed: bool) -> None:
        """Whether it is a cluster of one, as at first, or a server that runs alone."""
        self._control("POST", "settings", {"distributed": distributed})

    def _control(self, method: str, name: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_test/{name}", data=data, method=method)  # noqa: S310
        # No proxy of the environment between two ends of one machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def __enter__(self) -> QdrantTestServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
