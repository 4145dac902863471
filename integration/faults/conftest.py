"""Servers that these tests may stop, and small disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.support.servers import Postgres, a_server


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres that a test may stop or kill; it must run again at the test's end."""
    with a_server(tmp_path_factory.mktemp("mortal") / "pg", 18, ahead=False) as server:
        yield server


@pytest.fixture
def small_disk() -> Iterator[Callable[[str], Path]]:
    """Return a function that gives a disk of a size (`4m`), and makes it larger when called again."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk that fills up is a small tmpfs, and mounting one needs root")
    # Not below tmp_path, which the server's own user may not enter.
    place = Path(tempfile.mkdtemp(prefix="small-disk-"))

    def sized(size: str) -> Path:
        how = (
            ["-o", f"remount,size={size}"]
            if os.path.ismount(place)
            else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        )
        subprocess.run(["mount", *how, str(place)], check=True)
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()
