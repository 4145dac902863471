"""`import migrate` is light, and a missing driver is said in one line with what mends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from migrate import api, backends
from migrate.errors import ConfigError, MissingExtraError

ROOT = Path(__file__).parents[1]
DRIVERS = [
    "psycopg",
    "qdrant_client",
    "qdrant_edge",
    "pinecone",
    "boto3",
    "docker",
    "hnswlib",
    "pgserver",
    "zstandard",
]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import migrate", "from migrate import MigrationEngine, Report, migrate", "import migrate.cli"],
)
def test_importing_the_package_loads_no_driver(statement: str) -> None:
    assert not loaded_after(statement) & set(DRIVERS)


def test_importing_the_package_alone_loads_no_numpy() -> None:
    assert not loaded_after("import migrate") & {"numpy", "tenacity", "tqdm"}


def test_moving_between_files_loads_no_driver(tmp_path: Path) -> None:
    statement = (
        "import sqlite3, migrate; sqlite3.connect('a.db').execute('CREATE TABLE t (v)');"
        "migrate.migrate('a.db', 'b.db')"
    )
    code = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.chdir({str(tmp_path)!r}); {statement}"
    assert not loaded_after(code) & set(DRIVERS)


class Absent(MetaPathFinder):
    """Makes a package look as if it were not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] == self._name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


@pytest.fixture
def without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "psycopg" or name.startswith("migrate.backends.postgres"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent("psycopg"), *sys.meta_path])


@pytest.mark.usefixtures("without_psycopg")
def test_a_missing_driver_says_which_extra_brings_it() -> None:
    with pytest.raises(MissingExtraError) as raised:
        backends.load("postgres")
    assert str(raised.value) == "postgres needs the package psycopg, which is not installed"
    assert raised.value.hint == "pip install 'memlift[postgres]'"
    assert raised.value.exit_code == 2


@pytest.mark.usefixtures("without_psycopg")
def test_a_missing_driver_is_met_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError):
        api.migrate(tmp_path / "a.db", "postgresql://h/db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_psycopg")
def test_an_audit_without_a_target_tells_which_stores_it_could_not_judge(tmp_path: Path) -> None:
    from tests.small_stores import sqlite_file

    path = sqlite_file(tmp_path / "a.db", "CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('x')")
    report = api.audit(path)
    said = [*report.notes, *report.warnings]
    assert any("not judged for postgres" in text and "memlift[postgres]" in text for text in said)


def test_a_store_without_a_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="no backend for mongodb"):
        backends.load("mongodb")


def test_every_backend_offers_source_target_and_fit() -> None:
    for kind in backends.REGISTRY:
        module = backends.load(kind)
        assert all(callable(getattr(module, name)) for name in ("source", "target", "fit")), kind
