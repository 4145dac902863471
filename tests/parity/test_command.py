"""The check of search as a user meets it: options, page, JSON, exit codes, files of vectors."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migrate import api, cli
from migrate.cli_parity import search_lines
from migrate.cli_text import Page
from migrate.errors import ConfigError, VerifyError
from migrate.search.parity import check
from migrate.search.vector_file import read_vectors
from tests.parity.fake_search import FakeStore, notes, rows

SAMPLE = Path(__file__).resolve().parents[2] / "migrate" / "samples" / "brain.sqlite"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal brains."""
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    shutil.copyfile(SAMPLE, one)
    shutil.copyfile(SAMPLE, two)
    return one, two


def changed(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = cli.main([*map(str, words), "--quiet"])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_equal_brains_find_the_same(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "verify", *pair, "--search", "--queries", 10)
    assert code == 0, err
    assert "verified: every row compared, no difference" in out
    assert "search finds the same: recall@10 1.000" in out
    assert "memory_traces" in out


def test_a_migration_checks_search_on_request(pair: tuple[Path, Path], tmp_path: Path) -> None:
    report = api.migrate(pair[0], tmp_path / "out.sqlite", check_search=True)
    assert report.search is not None
    assert report.search["passed"]
    assert api.migrate(pair[0], tmp_path / "plain.sqlite").search is None
    partly = api.migrate(pair[0], tmp_path / "part.sqlite", tables=["messages"], check_search=True)
    assert partly.search is not None
    assert [t["name"] for t in partly.search["tables"]] == ["messages"]


def test_other_values_on_the_other_side_exit_with_3_and_are_named(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    changed(pair[1], "UPDATE memory_traces SET type = 'lost' WHERE type = 'episodic'")
    words = (
        "verify",
        *pair,
        "--search",
        "--mode",
        "none",
        "--queries",
        5,
        "--filter",
        '{"type": "episodic"}',
    )
    code, out, err = run(capsys, *words)
    assert code == 3
    assert 'memory_traces: {"type": "episodic"} finds other rows:' in out
    assert "missing, 0 extra" in out
    assert err.startswith("error: search in the target does not find the same: memory_traces:")

    code, out, _ = run(capsys, *words, "--json")
    told = json.loads(out)
    assert code == told["exit_code"] == 3
    assert told["search"]["filter_parity"] < 1
    assert told["search"]["failures"]
    assert told["verify_mode"] == "none"


def test_rows_and_search_are_both_in_the_report_of_a_difference(pair: tuple[Path, Path]) -> None:
    changed(pair[1], "UPDATE messages SET content = 'nothing'")
    with pytest.raises(VerifyError) as raised:
        api.verify(*pair, search=True)
    report = raised.value.report
    assert report is not None
    assert report.differs
    assert report.search is not None
    assert report.search["keyword_overlap"] < 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--queries", "5"), "no check was asked for"),
        (("--filter", "{}"), "no check was asked for"),
        (("--mode", "none"), "verify mode cannot be 'none'"),
        (("--search", "--queries", "0"), "queries cannot be 0"),
        (("--search", "-k", "9999999999999999999"), "k cannot be 9999999999999999999"),
        (("--search", "--min-recall", "2"), "min_recall cannot be 2"),
        (("--search", "--filter", "{nothing"), "the filter is no JSON"),
        (("--search", "--filter", '{"nowhere": 1}'), "nowhere"),
        (("--search", "--vector", "none.npy"), "cannot read the vector"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    if "nowhere" in words[-1]:  # every AgentOS table but some has a bag of JSON that could hold it
        for path in pair:
            path.unlink()
            changed(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    code, out, err = run(capsys, "verify", *pair, *words)
    assert code == 2, out
    assert says in err


def test_stores_that_cannot_be_searched_are_refused_before_rows_move(tmp_path: Path, shelves: Any) -> None:
    source = Path(shutil.copyfile(SAMPLE, tmp_path / "a.sqlite"))
    with pytest.raises(ConfigError, match="cannot be searched"):
        api.migrate(source, "memory:out", check_search=True)
    assert "out" not in shelves.shelves
    with pytest.raises(ConfigError, match="upgrade"):
        api.migrate(source, tmp_path / "b.sqlite", check_search=True, upgrade=True)


def test_the_page_has_a_histogram_and_fits_plain_terminals() -> None:
    halved = FakeStore(notes(), rows(80), indexed=lambda row: row["id"] % 2 == 0)
    search = check(FakeStore(notes(), rows(80)), halved).to_dict()
    page = "\n".join(search_lines(search, Page(width=120)))
    assert any(bar in page for bar in "▁▂▃▄▅▆▇")
    assert "✗  notes" in page
    assert "notes: recall is 0." in page
    narrow = search_lines(search, Page(width=60, plain=True))
    assert all(line.isascii() and len(line) <= 60 for line in narrow), narrow
    nothing = check(FakeStore(notes(), []), FakeStore(notes(), [])).to_dict()
    assert search_lines(nothing, Page())[-1] == "search: there was nothing to ask for"


def test_vectors_are_read_from_json_and_numpy(tmp_path: Path) -> None:
    one, many = tmp_path / "one.json", tmp_path / "many.npy"
    one.write_text("[1, 2.5, -3e-2]")
    np.save(many, np.arange(6, dtype=np.float64).reshape(2, 3))
    (vector,) = read_vectors(one)
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.0, 2.5, np.float32(-0.03)]
    assert [v.tolist() for v in read_vectors(many)] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'["a"]',
        b"[1, [2]]",
        b"[1e400]",
        b"[NaN]",
        b"[1e39]",
        b"\x93NUMPY",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_files_that_hold_no_vector_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "v"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        read_vectors(file)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "v.npy"
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError):
        read_vectors(file)
