"""The way to the process that Qdrant's engine runs in: requests, answers, and what happens when it ends."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from migrate.backends.qdrant.edge_files import translated
from migrate.errors import BackendError, TransientError

UPSERT = "upsert"  # the one request that nobody waits for
_UNDER_WAY = 8  # requests sent and not yet answered
_END_S = 2.0  # how long an engine that nobody needs may take to end
_BUSY_S = 30.0  # how long a folder that another process holds is waited for


@dataclass(slots=True)
class _Process:
    """The engine's process of one folder, shared by all that read and write it here."""

    child: subprocess.Popen[bytes]
    pipe: Connection[Any, Any]
    alive: int
    users: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    waiting: list[str] = field(default_factory=list)  # what was sent and is not yet answered
    trouble: BackendError | None = None

    @property
    def stuck(self) -> bool:
        """Whether an interrupted call, perhaps a long one, is still unanswered."""
        return any(name != UPSERT for name in self.waiting)

    def raise_trouble(self) -> None:
        """Raise what an upsert met since the last time."""
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble

    def end(self) -> int:
        """End it, if it has not ended; return its exit code. Idempotent."""
        self.waiting.clear()
        self.pipe.close()
        alive, self.alive = self.alive, -1
        if alive >= 0:
            os.close(alive)  # the kernel ends it now at the latest
        try:
            return self.child.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


_processes: dict[tuple[int, Path], _Process] = {}
_guard = threading.Lock()


def _start(folder: Path) -> _Process:
    ours, theirs = socket.socketpair()
    alive, watched = socket.socketpair()
    script = Path(__file__).with_name("edge_process.py")
    child = subprocess.Popen(
        [sys.executable, str(script), str(theirs.fileno()), str(watched.fileno()), str(folder)],
        pass_fds=(theirs.fileno(), watched.fileno()),
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    watched.close()
    return _Process(child, Connection(ours.detach()), alive.detach())


class Channel:
    """Asks the process of a folder, which is started when first asked and shared by all that use the folder here.

    address: the folder's, for errors.
    """

    def __init__(self, root: Path, address: str) -> None:
        self._root, self._address = root, address
        self._process: _Process | None = None

    def call(self, name: str, *args: Any, idle: Callable[[], None] | None = None) -> Any:
        """Run one call and return its result. `idle` is called about each second meanwhile."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            process = self._running()
            with process.lock:
                while process.waiting:
                    self._answered(process)
                self._send(process, name, marshal.dumps((name, args)))
                while idle is not None and not process.pipe.poll(1.0):
                    idle()
                try:
                    return self._answered(process)
                except TransientError as exc:
                    if "another process" not in exc.message or time.monotonic() > deadline:
                        raise
            time.sleep(0.2)  # an engine whose parent was killed a moment ago ends by itself

    def upsert(self, requests: Iterable[bytes | memoryview]) -> None:
        """Send upserts without waiting for them; raises what an earlier one met."""
        process = self._running()
        with process.lock:
            for request in requests:
                process.raise_trouble()
                self._send(process, UPSERT, request)

    def settle(self) -> None:
        """Return when all upserts are durable; raises what one of them met."""
        self.call("sync")
        process = self._running()
        with process.lock:
            process.raise_trouble()

    def abandon(self) -> None:
        """Forget what is under way and what it met."""
        process = self._process
        if process is None:
            return
        with process.lock:
            if process.stuck:
                process.end()  # its log keeps what was acknowledged
            try:
                while process.waiting and not process.pipe.closed:
                    self._answered(process)
            except BackendError:
                process.waiting.clear()  # what was not acknowledged is sent again
            process.trouble = None

    def close(self) -> None:
        """Let go of the process; it ends when nobody else here uses it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with _guard:
            process.users -= 1
            if process.users > 0:
                return
            for key, found in list(_processes.items()):
                if found is process:
                    del _processes[key]
        with process.lock:
            if process.stuck:
                process.end()  # its log keeps what was acknowledged
            with contextlib.suppress(BackendError):  # it ends in any case
                if not process.pipe.closed:
                    self._send(process, "close", marshal.dumps(("close", ())))
                    while process.waiting:
                        self._answered(process)
            process.end()

    def _running(self) -> _Process:
        if self._process is None or self._process.pipe.closed:
            key = (os.getpid(), self._root)
            with _guard:
                found = _processes.get(key)
                if found is None or found.child.poll() is not None or found.pipe.closed:
                    self._root.mkdir(parents=True, exist_ok=True)
                    found = _processes[key] = _start(self._root)
                if found is not self._process:
                    found.users += 1
                self._process = found
        return self._process

    def _send(self, process: _Process, name: str, request: bytes | memoryview) -> None:
        while len(process.waiting) >= _UNDER_WAY:
            self._answered(process)
        try:
            process.pipe.send_bytes(request)
        except (OSError, ValueError) as exc:
            raise self._gone(process) from exc
        process.waiting.append(name)

    def _answered(self, process: _Process) -> Any:
        """Take the answer to the oldest request; what an upsert met is kept for `settle`."""
        try:
            answer = marshal.loads(process.pipe.recv_bytes())  # noqa: S302 - plain values, from our own process
        except (EOFError, OSError) as exc:
            raise self._gone(process) from exc
        name = process.waiting.pop(0)
        if answer[0] == "ok":
            return answer[1]
        error = translated(name, answer[1], answer[2], self._address)
        if name != UPSERT:
            raise error
        process.trouble = process.trouble or error
        return None

    def _gone(self, process: _Process) -> BackendError:
        """Return the error of a process that ended by itself."""
        code = process.end()
        if code == -signal.SIGBUS:  # a page of a mapped file that no disk could be found for
            return BackendError(
                "Qdrant's engine ended for want of room: the disk is full",
                hint="make room and run the same command again, it goes on from its checkpoint",
                store=self._address,
            )
        return TransientError(
            f"the process of Qdrant's engine ended with {code}",
            hint="is there memory left?",
            store=self._address,
        )
