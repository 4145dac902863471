"""One run in a process of its own, which may be killed at any moment.

A nursery process has imported everything and forks one for each run, because importing takes
longer than most runs here. The process that runs is a grandchild: its parent only waits for it
and tells how it ended, so that a killed run is no zombie.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    """How a run ended: its exit status (negative: a signal), what it printed and told at the end."""

    status: int
    said: dict[str, Any]
    lines: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.status == -signal.SIGKILL


class Child:
    """A run in another process.

    failpoint:    see `migrate.failpoints`.
    commit_bytes: small, so that small stores have many commits.
    pause:        seconds to wait at the first passes of a failpoint; it prints `at POINT` before.
    patches:      {"module:name": value}, constants to be changed, or dicts to be updated.
    options:      those of `migrate.api.migrate`.
    """

    def __init__(
        self,
        source: str | Path,
        target: str | Path | dict[str, Any],
        *,
        failpoint: str | None = None,
        commit_bytes: int = 4000,
        pause: dict[str, float] | None = None,
        patches: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        asked = {
            "source": str(source),
            "target": target if isinstance(target, dict) else str(target),
            "options": options,
            "commit_bytes": commit_bytes,
            "failpoint": failpoint,
            "pause": pause or {},
            "patches": patches or {},
        }
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(nursery().address)
        self._file: TextIO = self._socket.makefile("r", encoding="utf-8")
        self._socket.sendall(json.dumps(asked).encode() + b"\n")
        self.lines: list[str] = []
        _children.append(self)
        self.pid = int(self._file.readline().removeprefix("pid "))

    def wait(self, timeout_s: float = 120) -> Ended:
        """Wait for its end. Raises TimeoutError, and kills it, when that takes too long."""
        self._socket.settimeout(timeout_s)
        try:
            for line in self._file:
                self.lines.append(line.rstrip("\n"))
        except TimeoutError:
            self.signal(signal.SIGKILL)
            raise
        finally:
            self._file.close()
            self._socket.close()
        status = int(self.lines.pop().removeprefix("status "))
        told = self.lines[-1] if self.lines else ""
        said = json.loads(told) if told.startswith("{") else {}
        if not said and status >= 0:
            raise AssertionError("the run told nothing:\n" + "\n".join(self.lines[-6:]))
        return Ended(status, said, self.lines)

    def line(self, beginning: str) -> str:
        """Read what it prints up to a line that begins so."""
        for line in self._file:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return line
        last = "\n".join(self.lines[-6:])
        self.close()
        raise AssertionError(f"the run ended without a line {beginning!r}:\n{last}")

    def close(self) -> None:
        """End it, if it still runs, and let go of it. Idempotent."""
        if self._file.closed:
            return
        self.signal(signal.SIGKILL)
        self._file.close()
        self._socket.close()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> Ended:
        """End it as `kill -9` does."""
        self.signal(signal.SIGKILL)
        return self.wait()


def run(source: str | Path, target: str | Path | dict[str, Any], **options: Any) -> Ended:
    """Run in a process and wait."""
    return Child(source, target, **options).wait()


class Nursery:
    """The process that forks runs; it ends when this one does."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="runs-")
        self.address = f"{self._folder.name}/s"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.support.child", self.address], cwd=ROOT, stdin=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while not os.path.exists(self.address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the process that forks runs did not start")
            time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        self._process.communicate()  # closes its standard input
        self._folder.cleanup()


_IMPORTED = (
    "migrate.api",
    "migrate.backends.sqlite",
    "migrate.backends.postgres",
    "migrate.backends.qdrant.server",  # the client's models take a second and more
    "migrate.backends.qdrant.edge",
    "migrate.backends.pinecone.control",
)
_PAUSES = 15  # a run is held up at a point so many times; then it goes on at full speed

_children: list[Child] = []
_nursery: Nursery | None = None


def end_children() -> None:
    """End the runs that a test left behind."""
    while _children:
        _children.pop().close()


def nursery() -> Nursery:
    """Return the one of this session."""
    global _nursery
    if _nursery is None:
        _nursery = Nursery()
    return _nursery


def end_nursery() -> None:
    """End it, if it was started."""
    global _nursery
    if _nursery is not None:
        _nursery.close()
        _nursery = None


# --- in the nursery -----------------------------------------------------------


def serve(address: str) -> None:
    """Fork a run for each connection, until standard input ends."""
    for module in _IMPORTED:
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait end by themselves
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(8)
    os.rename(address + ".new", address)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _watch(connection)
        connection.close()


def _watch(connection: socket.socket) -> None:
    """Fork the run, wait for it, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out = connection.makefile("rw", encoding="utf-8", buffering=1)
    asked = json.loads(out.readline())
    child = os.fork()
    if child == 0:
        os.dup2(connection.fileno(), 1)
        os.dup2(connection.fileno(), 2)
        status = 70
        try:
            _tell(f"pid {os.getpid()}")
            status = work(asked)
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    _, waited = os.waitpid(child, 0)
    with contextlib.suppress(OSError):  # nobody listens any more
        out.write(f"status {os.waitstatus_to_exitcode(waited)}\n")
        out.flush()
    os._exit(0)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Said:
    def say(self, text: str) -> None:
        _tell(f"say {text}")

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        if phase != "copy":
            _tell(f"{phase} {table} {done}/{total}")


def _progress(done: int, total: int, table: str) -> None:
    _tell(f"copy {table} {done}/{total}")


def _pausing(seconds: dict[str, float]) -> None:
    from migrate import failpoints

    hit = failpoints.hit
    passed: Counter[str] = Counter()

    def pause(name: str) -> None:
        passed[name] += 1
        if name in seconds and passed[name] <= _PAUSES:
            _tell(f"at {name}")
            time.sleep(seconds[name])
        hit(name)

    for module in list(sys.modules.values()):
        if module.__name__.startswith("migrate.") and getattr(module, "hit", None) is hit:
            setattr(module, "hit", pause)  # noqa: B010 - they have it under this name


def work(asked: dict[str, Any]) -> int:
    """Run here; print progress, and one line of JSON at the end."""
    from migrate import api, engine, failpoints
    from migrate.errors import MigrateError

    warnings.simplefilter("error")
    faulthandler.register(signal.SIGUSR1)  # tells where it is, for whoever looks for a hang
    engine.COMMIT_BYTES = asked["commit_bytes"]
    if asked["failpoint"] is not None:
        os.environ["MEMLIFT_FAILPOINT"] = asked["failpoint"]
        failpoints.ask()
    for place, value in asked["patches"].items():
        module, _, name = place.partition(":")
        *outer, last = name.split(".")
        owner: Any = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        if isinstance(value, dict):
            getattr(owner, last).update(value)
        else:
            setattr(owner, last, value)
    if asked["pause"]:
        _pausing(asked["pause"])
    told: dict[str, Any] = {}
    status = 0
    try:
        report = api.migrate(
            asked["source"], asked["target"], observer=_Said(), on_progress=_progress, **asked["options"]
        )
        told["report"] = report.to_dict()
    except MigrateError as exc:
        status = exc.exit_code
        told |= {"error": type(exc).__name__, "message": str(exc), "hint": exc.hint, "where": exc.where}
        told["report"] = exc.report.to_dict() if exc.report else None
    told["hits"] = dict(failpoints.counts)
    _tell(json.dumps(told))
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
