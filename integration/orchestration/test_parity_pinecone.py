"""A memory that moved to Pinecone finds the same, and faults planted there are found (on the emulator)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `integration` is no installed package

from integration.pinecone.backend_kit import address, client, family, impatient  # noqa: F401 - a fixture
from integration.pinecone_emulator import PineconeEmulator
from integration.support.stores import BRAIN
from migrate import api
from migrate.config import PineconeSettings
from migrate.errors import VerifyError
from migrate.report import Report
from migrate.search.parity import Wanted

SMALL = Wanted(queries=8, k=5)


@pytest.fixture(scope="module")
def emulator() -> Iterator[PineconeEmulator]:
    with PineconeEmulator() as running:
        yield running


def checked(source: Path, settings: PineconeSettings) -> dict[str, Any]:
    """Return the `search` of a verification, whether it passed or not."""
    try:
        report: Report | None = api.verify(source, settings, mode="none", search=SMALL)
    except VerifyError as exc:
        report = exc.report
    assert report is not None
    assert report.search is not None
    return report.search


def test_a_moved_memory_finds_the_same_until_records_are_gone(
    emulator: PineconeEmulator, tmp_path: Path
) -> None:
    source = Path(shutil.copyfile(BRAIN, tmp_path / "brain.sqlite"))
    settings = address(emulator, tmp_path)
    report = api.migrate(source, settings, check_search=SMALL)
    assert report.search is not None
    assert report.search["passed"], report.search["failures"]
    assert report.search["filter_parity"] == 1

    with client(emulator) as pc:
        for name in family(emulator, settings):
            with pc.index(name=name) as index:
                for namespace in index.describe_index_stats().namespaces:
                    ids = [str(i.id) for page in index.list(namespace=namespace) for i in page.vectors]
                    if len(ids) > 100:
                        index.delete(ids=ids[::2], namespace=namespace)
    found = checked(source, settings)
    assert any("recall" in failure for failure in found["failures"]), found["failures"]
