"""A text becomes a vector by a user's function or program; what they do wrong is one clear error."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.errors import ConfigError
from migrate.search.embedders import Command, embed, load


def _command(tmp_path: Path, body: str, timeout_s: float = 30.0) -> Command:
    program = tmp_path / "embed.py"
    program.write_text(f"import json, sys, time, os\n{body}\n")
    return Command([sys.executable, str(program), "--key", "sk-secret"], timeout_s)


@pytest.mark.parametrize(
    "given", [[[1, 2]], [(1.0, 2.0)], np.array([[1, 2]]), (np.array([1, 2], np.float32),)]
)
def test_numbers_in_any_form_become_one_vector(given: Any) -> None:
    vector = embed(lambda texts: given, "words")
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[1.0], [2.0]], r"shape \(2, 1\)"),
        ([[]], r"shape \(1, 0\)"),
        ("no", "no numbers"),
        (None, "embedder gave"),
        ([[1.0, float("nan")]], "no finite float32"),
        ([[1e300]], "no finite float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_anything_else_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embed(lambda texts: given, "words")


def test_a_function_that_fails_is_named_with_its_reason() -> None:
    def broken(texts: list[str]) -> Any:
        raise RuntimeError("no such model")

    with pytest.raises(ConfigError, match="the embedder failed: RuntimeError: no such model"):
        embed(broken, "words")


def test_a_function_is_loaded_from_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_embedder_module.py").write_text(
        "class Model:\n    @staticmethod\n    def embed(texts): return [[len(t), 0] for t in texts]\nnumber = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert embed(load("my_embedder_module:Model.embed"), "four").tolist() == [4, 0]
    with pytest.raises(ConfigError, match="is no function"):
        load("my_embedder_module:number")
    with pytest.raises(ConfigError, match=r"has no Model\.other"):
        load("my_embedder_module:Model.other")


@pytest.mark.parametrize("spec", ["nocolon", ":f", "m:", ""])
def test_a_name_without_both_parts_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="no embedder is called"):
        load(spec)


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no_such_module_here cannot be imported: ModuleNotFoundError"):
        load("no_such_module_here:f")


@pytest.mark.parametrize("form", ["[len(t), 1]", "{'embedding': [len(t), 1]}", "{'vector': [len(t), 1]}"])
def test_a_program_answers_line_by_line(tmp_path: Path, form: str) -> None:
    command = _command(
        tmp_path,
        f"for line in sys.stdin:\n    t = json.loads(line)['text']\n    print(json.dumps({form}))",
    )
    assert command(["four", "zwölf\n"]) == [[4, 1], [6, 1]]


def test_a_program_can_be_given_as_one_text(tmp_path: Path) -> None:
    (tmp_path / "a b.py").write_text("import sys\nfor line in sys.stdin: print('[1, 2]')\n")
    command = Command(f"{shlex.quote(sys.executable)} '{tmp_path}/a b.py' $HOME ; echo")
    assert command(["x"]) == [[1, 2]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.stderr.write('no model\\n'); sys.exit(3)", "ended with 3: no model"),
        ("print('[1]'); print('[1]')", "gave 2 lines for 1"),
        ("", "gave 0 lines for 1"),
        ("print('hello')", "no JSON"),
        ("print('{}')", "no array of numbers"),
    ],
)
def test_a_program_that_does_otherwise_is_refused_without_its_arguments(
    tmp_path: Path, body: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        _command(tmp_path, body)(["x"])
    assert "sk-secret" not in str(told.value)


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    body = (
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(noted)!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no answer within 1\.5 s"):
        _command(tmp_path, body, timeout_s=1.5)(["x"])
    assert time.monotonic() - began < 20
    child = int(noted.read_text())
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_program_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing-of-this-name cannot be started"):
        Command("/nowhere/nothing-of-this-name --key sk-secret")(["x"])
    with pytest.raises(ConfigError, match="is empty"):
        Command("")
    with pytest.raises(ConfigError, match="cannot be read"):
        Command("a 'b")
