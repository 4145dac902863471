"""`memlift search` and `memlift graph`, as a user runs them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate.cli import main
from migrate.search.question import KEYWORDS_INSTEAD

SAMPLE = Path(__file__).parents[2] / "migrate" / "samples" / "brain.sqlite"


@pytest.fixture
def brain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copyfile(SAMPLE, tmp_path / "brain.sqlite"))


Capture = pytest.CaptureFixture[str]


def _json(capsys: Capture, *words: Any, code: int = 0) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def _vector_of(brain: Path, number: int = 0) -> tuple[str, bytes]:
    with closing(sqlite3.connect(f"file:{brain}?mode=ro&immutable=1", uri=True)) as connection:
        sql = "SELECT id, embedding FROM memory_traces WHERE embedding IS NOT NULL LIMIT 1 OFFSET ?"
        found: tuple[str, bytes] = connection.execute(sql, (number,)).fetchone()
    return found


def test_words_are_found_and_the_way_is_told(brain: Path, capsys: Capture) -> None:
    assert main(["search", str(brain), "--text", "dark mode", "-k", "2", "--table", "memory_traces"]) == 0
    told = capsys.readouterr()
    assert "dark mode" in told.out
    assert "2 hits by keyword in 1 table (FTS5, memory_traces_fts)" in told.out
    assert f"note: {KEYWORDS_INSTEAD}" in told.err


def test_json_is_one_document_with_the_notes(brain: Path, capsys: Capture) -> None:
    found = _json(capsys, "search", brain, "--text", "dark mode", "--where", '{"type": "semantic"}')
    assert set(found) == {"mode", "hits", "how", "notes"}
    assert found["mode"] == "keyword"
    assert KEYWORDS_INSTEAD in found["notes"]
    assert {h["table"] for h in found["hits"]} == {"memory_traces"}
    assert all(h["metadata"]["type"] == "semantic" for h in found["hits"])


@pytest.mark.parametrize("form", ["json", "npy", "raw"])
def test_a_vector_comes_from_a_file(brain: Path, capsys: Capture, form: str) -> None:
    key, packed = _vector_of(brain, 3)
    vector = np.frombuffer(packed, "<f4")
    file = brain.with_name(f"vector.{form}")
    if form == "json":
        file.write_text(json.dumps(vector.tolist()))
    elif form == "npy":
        np.save(file, vector)
    else:
        file.write_bytes(packed)
    found = _json(capsys, "search", brain, "--vector", file, "-k", 1)
    assert found["mode"] == "vector"
    assert found["hits"][0]["key"][1] == key
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_file_of_several_vectors_is_refused(brain: Path, capsys: Capture) -> None:
    brain.with_name("v.json").write_text(json.dumps([[1.0] * 32, [2.0] * 32]))
    found = _json(capsys, "search", brain, "--vector", brain.with_name("v.json"), code=2)
    assert "holds 2 vectors" in found["error"]


def test_rows_like_a_row(brain: Path, capsys: Capture) -> None:
    key, _ = _vector_of(brain)
    found = _json(capsys, "search", brain, "--like", key, "-k", 3, "--exact", "--table", "memory_traces")
    assert len(found["hits"]) == 3
    assert key not in {h["key"][1] for h in found["hits"]}


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_vectors_of_a_text_need_an_embedder(brain: Path, capsys: Capture, mode: str) -> None:
    assert main(["search", str(brain), "--text", "dark mode", "--mode", mode]) == 2
    assert f"error: {mode} mode needs the vector of the text" in capsys.readouterr().err


def test_an_embedder_is_a_function_or_a_program(
    brain: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (brain.parent / "house_embedder.py").write_text(
        "def embed(texts): return [[float(len(t))] + [1.0] * 31 for t in texts]\n"
    )
    (brain.parent / "program.py").write_text(
        "import json, sys\nfor line in sys.stdin:\n"
        "    print(json.dumps([float(len(json.loads(line)['text']))] + [1.0] * 31))\n"
    )
    common = ("search", brain, "--text", "dark mode", "--table", "memory_traces")
    first = _json(capsys, *common, "--embedder", "house_embedder:embed")
    command = f"{sys.executable} program.py"
    assert _json(capsys, *common, "--embedder-command", command) == first
    assert first["mode"] == "hybrid"
    both = _json(capsys, *common, "--embedder", "a:b", "--embedder-command", "c", code=2)
    assert both["error"] == "two embedders were given"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "nothing is asked"),
        (["--text", "a", "--where", "{"], "the filter is no JSON"),
        (["--text", "a", "-k", "0"], "not a number from 1 on"),
        (["--text", "a", "--table", "none"], "there is no table none to search"),
        (["--vector", "none.json"], "cannot read the vector"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(
    brain: Path, capsys: Capture, words: list[str], error: str
) -> None:
    assert main(["search", str(brain), *words]) == 2
    told = capsys.readouterr().err
    assert error in told
    assert told.count("\n") == 2
    assert "hint: " in told


def test_nothing_found_is_no_failure(brain: Path, capsys: Capture) -> None:
    assert main(["search", str(brain), "--text", "qqqqzzzz", "--mode", "keyword"]) == 0
    assert capsys.readouterr().out == "nothing found\n"


def test_the_graph_is_walked(brain: Path, capsys: Capture) -> None:
    near = _json(capsys, "graph", brain, "ent-000", "--depth", 2)
    assert {e["depth"] for e in near["edges"]} == {1, 2}
    assert near["more"] is False
    assert len(_json(capsys, "graph", brain, "ent-000", "--depth", 3, "--limit", 4)["edges"]) == 4
    paths = _json(capsys, "graph", brain, "ent-000", "--to", "ent-024")["paths"]
    lengths = [len(path) for path in paths]
    assert lengths == sorted(lengths)
    assert main(["graph", str(brain), "ent-000", "--to", "ent-024", "--tenant", "fixture-agent"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "ent-000 -[knows]-> ent-003 -[related_to]-> ent-024"
    assert len(set(told)) == len(told)
    assert main(["graph", str(brain), "ent-000", "--tenant", "nobody"]) == 0
    assert capsys.readouterr().out == "no edge at ent-000\n"


def test_a_walk_without_a_graph_or_without_end_is_refused(brain: Path, capsys: Capture) -> None:
    assert main(["graph", str(brain), "ent-000", "--depth", "99"]) == 2
    assert "99 steps deep" in capsys.readouterr().err
    bare = brain.with_name("bare.sqlite")
    with closing(sqlite3.connect(bare)) as connection:
        connection.execute("CREATE TABLE notes (id TEXT PRIMARY KEY, content TEXT)")
    assert main(["graph", str(bare), "a"]) == 2
    assert "no knowledge graph" in capsys.readouterr().err


def test_a_hostile_text_cannot_steer_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (id TEXT PRIMARY KEY, content TEXT, kind TEXT)")
        connection.execute(
            "INSERT INTO notes VALUES (?, ?, ?)", ("\x1b[31m", "honey \x1b]0;x\x07", "\x1b[2J")
        )
        connection.commit()
    assert main(["search", str(path), "--text", "honey"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("search", "--text", "dark mode", "-k"),
        ("search", "--like", "mt_020ffab2-8567-473d-8dba-4227c384325e", "-k"),
        ("graph", "ent-000", "--limit"),
    ],
)
def test_a_number_beyond_what_any_store_holds_means_all(
    words: tuple[str, ...], brain: Path, capsys: Capture
) -> None:
    command, *rest = words
    some = _json(capsys, command, brain, *rest, 1)
    all_ = _json(capsys, command, brain, *rest, 10**26)
    found = "hits" if command == "search" else "edges"
    assert len(all_[found]) > len(some[found]) == 1
    assert "more" not in all_ or all_["more"] is False


def test_it_runs_in_a_process_of_its_own(brain: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "migrate",
            "search",
            str(brain),
            "--text",
            "dark mode",
            "--quiet",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr.count("note: ")) == (0, 2)
    assert sorted(p.name for p in brain.parent.iterdir()) == ["brain.sqlite"]
