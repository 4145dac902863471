"""A file as memory: who would write it waits, and where that cannot be had it is copied."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from migrate.hnsw import container
from migrate.hnsw.mapping import ChangedError, steady
from tests.search.hnsw.stores import Asking, Rows, fill, vectors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read leases are Linux's")


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    (tmp_path / "file").write_bytes(b"as it was" * 1000)
    return os.open(tmp_path / "file", os.O_RDONLY)


def test_a_file_is_memory_and_who_would_write_it_has_to_wait(descriptor: int, tmp_path: Path) -> None:
    with steady(descriptor) as found:
        assert found is not None
        assert found.tobytes() == b"as it was" * 1000
        assert not found.flags.writeable
        for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            with pytest.raises(BlockingIOError):
                os.open(tmp_path / "file", flags | os.O_NONBLOCK)
        os.close(os.open(tmp_path / "file", os.O_RDONLY))  # readers need not
    os.close(os.open(tmp_path / "file", os.O_WRONLY | os.O_NONBLOCK))


def test_a_file_that_is_open_for_writing_is_not_mapped(descriptor: int, tmp_path: Path) -> None:
    with open(tmp_path / "file", "ab"), steady(descriptor) as found:
        assert found is None


def test_an_empty_file_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as file, steady(file.fileno()) as found:
        assert found is None


def test_a_file_that_was_written_after_all_is_told(descriptor: int, tmp_path: Path) -> None:
    with pytest.raises(ChangedError), steady(descriptor):
        os.utime(tmp_path / "file", (1, 1))  # stands for a write: the kernel lets one through after 45 s


@pytest.mark.parametrize("copied", [False, True])
def test_a_sidecar_is_the_same_mapped_and_copied(
    copied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate.hnsw.settings.BUILD_FROM", 100)
    rows: Rows = vectors(300)
    fill(tmp_path / "b.sqlite", rows)
    first = Asking(tmp_path / "b.sqlite")
    first.settled()
    wanted = first.near(rows[7])
    first.close()
    read: list[bool] = []

    def copying(*parts: object) -> dict[str, container.Bytes]:
        read.append(True)
        return plainly(*parts)  # type: ignore[arg-type]

    plainly = container._copied
    monkeypatch.setattr(container, "_copied", copying)
    again = Asking(tmp_path / "b.sqlite")
    if copied:
        with open(tmp_path / "b.hnsw", "r+b"):  # nobody gets a lease on it now
            found = again.near(rows[7])
    else:
        found = again.near(rows[7])
    assert (found.found, found.how) == (wanted.found, "HNSW sidecar")
    assert read == ([True] if copied else [])
    again.close()
