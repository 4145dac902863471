"""Shared by all tests on real engines: `--slow`, and Postgres servers of their own.

Where a server cannot be had the test is skipped; with CI=true that is a failure.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `integration` is no installed package

from integration.support.child import end_children, end_nursery
from integration.support.servers import Database, Postgres, a_server
from migrate.errors import MissingExtraError
from tests.no_skips import pytest_runtest_makereport  # noqa: F401 - a hook

TOGETHER = ("docker", "agentos")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the long tests (many seeded crashes)")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for its markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # With several workers a file stays on one of them, and all files that need the one
    # Docker engine, or the one folder of Node packages, stay together. Those begin, for they take longest.
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) not in TOGETHER)
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(item.config.rootpath).as_posix()
    return next((name for name in TOGETHER if name in path), path)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # thousands of collected tests, which the collector need not walk over again and again
    if hasattr(session.config, "workerinput") and session.config.getoption("loadgroup"):
        apart = [item.nodeid for item in session.items if not item.nodeid.endswith(f"@{_group(item)}")]
        if apart:
            raise pytest.UsageError(f"xdist does not keep the tests of a file together: {apart[0]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    end_nursery()


def _server(folder: Path, version: int) -> Iterator[Postgres]:
    try:
        server = a_server(folder, version)
    except MissingExtraError as exc:  # any other failure is one of ours to see
        pytest.skip(f"there are no binaries of Postgres {version} here: {exc}")
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One Postgres 18 for all tests; they get a database each."""
    yield from _server(tmp_path_factory.mktemp("postgres") / "18", 18)


@pytest.fixture(scope="session")
def postgres16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One Postgres 16, for what depends on the version."""
    yield from _server(tmp_path_factory.mktemp("postgres") / "16", 16)


@pytest.fixture(autouse=True)
def no_run_is_left() -> Iterator[None]:
    """A test that fails ends the runs it started."""
    yield
    end_children()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """An empty database that has pgvector."""
    with postgres.database() as made:
        yield made


@pytest.fixture
def bare_database(postgres: Postgres) -> Iterator[Database]:
    """An empty database in which no extension was created."""
    with postgres.database(vector=False) as made:
        yield made
