"""Shared by the tests on real engines: in CI a skipped test is a failed test."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from docker_kit import DockerKit, missing_reason, running_kit


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def kit() -> Iterator[DockerKit]:
    """A Docker daemon and a registry of our own for the whole run."""
    if (reason := missing_reason()) is not None:
        pytest.skip(reason)
    with running_kit() as running:
        yield running
