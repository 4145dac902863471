"""The parent's side of the engine process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from integration.qdrant_server.errors import QdrantError, from_engine

ROOT = Path(__file__).resolve().parents[2]


class EngineBusyError(Exception):
    """An optimization holds the engine: answer from what is known."""


class Engine:
    """Calls into the engine process, one at a time, from any thread."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        watched, self._alive = os.pipe()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "integration.qdrant_server.engine_process",
                str(theirs.fileno()),
                str(watched),
            ],
            pass_fds=(theirs.fileno(), watched),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        os.close(watched)

    def call(self, name: str, *args: Any) -> Any:
        """Run one method of `engine_process.Shards`; its errors become the server's."""
        with self._lock:
            return self._exchange(name, args)

    def call_within(self, seconds: float, name: str, *args: Any) -> Any:
        """As `call`, but `EngineBusyError` if another call is under way for longer."""
        if not self._lock.acquire(timeout=seconds):
            raise EngineBusyError
        try:
            return self._exchange(name, args)
        finally:
            self._lock.release()

    def _exchange(self, name: str, args: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send((name, args))
            answer = self._pipe.recv()
        except (EOFError, OSError) as exc:
            raise QdrantError("service", "the engine process ended") from exc
        if answer[0]:
            return answer[1]
        raise from_engine(answer[1], answer[2])

    def close(self) -> None:
        with self._lock:
            self._pipe.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._alive)
