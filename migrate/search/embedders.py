"""Turning a question into a vector: by a user's own function, or by a command.

memlift has no model of its own. The one that made a store's vectors is the
only one whose vectors mean anything beside them, and only the user knows it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from migrate.errors import ConfigError
from migrate.search.base import Vector

Embedder = Callable[[list[str]], Any]
"""Takes texts, returns a vector for each: lists of numbers or an (n, dim) array."""

COMMAND_TIMEOUT_S = 120.0
"""For one call: loading a model takes seconds, some tens of them on a cold disk."""
_TOLD_CHARACTERS = 300  # of what a command says on stderr


def embed(embedder: Embedder, text: str) -> Vector:
    """Return the vector of one text, (dim,) float32. Raises ConfigError where the embedder fails or gives none."""
    try:
        given = embedder([text])
    except ConfigError:
        raise
    except Exception as exc:  # whatever a user's function raises, it is the user who can mend it
        raise ConfigError(
            f"the embedder failed: {type(exc).__name__}: {exc}", hint="MEMLIFT_DEBUG=1 shows where"
        ) from exc
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise _wrong(f"gave {type(given).__name__} that are no numbers") from None
    if found.ndim != 2 or len(found) != 1 or not found.size:
        raise _wrong(f"gave an array of shape {found.shape} for one text, not (1, dimensions)")
    if not np.isfinite(found).all():
        raise _wrong("gave a number that is no finite float32")
    vector: Vector = found[0]
    return vector


def _wrong(what: str) -> ConfigError:
    return ConfigError(
        f"the embedder {what}", hint="it takes a list of texts and returns a list of as many lists of numbers"
    )


def load(spec: str) -> Embedder:
    """Return the function that `module:function` names, found as `python -c` would: here, then on PYTHONPATH.

    Raises ConfigError where there is none.
    """
    module_name, colon, attributes = spec.partition(":")
    if not colon or not module_name or not attributes:
        raise ConfigError(f"no embedder is called {spec!r}", hint="--embedder module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except Exception as exc:  # a module runs whatever its author wrote
        raise ConfigError(
            f"the embedder's module {module_name} cannot be imported: {type(exc).__name__}: {exc}",
            hint="it is looked for in this folder and on PYTHONPATH",
        ) from exc
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigError(f"{module_name} has no {attributes}", hint="--embedder module:function")
        found = getattr(found, attribute)
    if not callable(found):
        raise ConfigError(f"{spec} is no function", hint="--embedder module:function")
    embedder: Embedder = found
    return embedder


class Command:
    """An embedder that is a program: a line of JSON in, `{"text": ...}`, and a line out, an array of numbers.

    Started anew for each call, without a shell; ended, with all that it
    started, after `timeout_s` seconds.
    """

    def __init__(self, command: str | Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        try:
            self._argv = shlex.split(command) if isinstance(command, str) else list(command)
        except ValueError as exc:
            raise ConfigError(f"the embedder's command cannot be read: {exc}") from None
        if not self._argv:
            raise ConfigError("the embedder's command is empty")
        self._timeout_s = timeout_s

    def __call__(self, texts: list[str]) -> list[Any]:
        """Return a vector for each text. Raises ConfigError where the program fails, hangs or says something else."""
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        out = self._run(lines.encode())
        answers = [line for line in out.splitlines() if line.strip()]
        if len(answers) != len(texts):
            raise self._failed(f"gave {len(answers)} lines for {len(texts)}")
        return [self._vector(line) for line in answers]

    def _run(self, given: bytes) -> bytes:
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as exc:
            raise self._failed(f"cannot be started: {exc.strerror}") from exc
        with process:
            try:
                out, said = process.communicate(given, timeout=self._timeout_s)
            except BaseException as exc:  # also Ctrl-C, which a group of its own does not get
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise self._failed(f"gave no answer within {self._timeout_s:g} s") from None
                raise
        if process.returncode:
            told = " ".join(said.decode("utf-8", "replace").split())[-_TOLD_CHARACTERS:]
            raise self._failed(f"ended with {process.returncode}" + (f": {told}" if told else ""))
        return out

    def _vector(self, line: bytes) -> Any:
        try:
            value = json.loads(line)
        except ValueError:
            raise self._failed("gave a line that is no JSON") from None
        if isinstance(value, dict):
            value = value.get("embedding", value.get("vector"))
        if not isinstance(value, list):
            raise self._failed("gave a line that is no array of numbers")
        return value

    def _failed(self, what: str) -> ConfigError:
        # The program's name only: its arguments may hold a key.
        return ConfigError(
            f"the embedder's command {Path(self._argv[0]).name} {what}",
            hint='for each line {"text": "..."} it prints one line, a JSON array of numbers',
        )
