"""Where a source may lie: odd names, links, folders and media that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_opening_states import (
    ROWS,
    beside,
    closed_wal,
    count,
    hot_journal,
    killed_wal,
    opened,
    rollback,
    untouched,
    without_shm,
)


@pytest.mark.parametrize(
    "name",
    [
        "a b?mode=rwc#x.db",
        "100%41.db",
        "ü日本🧠.db",
        "'\"&=;.db",
        "new\nline.db",
        "file:a.db",
        os.fsdecode(b"\xff.db"),
    ],
)
def test_any_name_of_a_file_is_that_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    killed_wal(path)
    with untouched(tmp_path):
        with opened(path) as source:
            assert (source.how, count(source)) == ("wal", ROWS)
        beside(path, "-shm").rename(tmp_path / "elsewhere")
        with opened(path) as source:
            assert (source.how, count(source)) == ("no-lock", ROWS)
        (tmp_path / "elsewhere").rename(beside(path, "-shm"))


def test_a_relative_path_and_a_symlink_find_the_wal_beside_the_real_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    killed_wal(tmp_path / "real" / "a.db")
    (tmp_path / "links" / "b.db").symlink_to(Path("..") / "real" / "a.db")
    monkeypatch.chdir(tmp_path / "links")
    with untouched(tmp_path), opened(Path("b.db")) as source:
        assert (source.how, count(source)) == ("wal", ROWS)


@contextmanager
def as_a_user_without_rights() -> Iterator[None]:
    """Root may do everything; be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (killed_wal, "wal"),
        (without_shm, "no-lock"),
        (closed_wal, "immutable"),
        (rollback, "locks"),
        (hot_journal, "copy"),
    ],
)
def test_a_folder_in_which_we_may_not_write(make: Callable[[Path], None], how: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        make(folder / "a.db")
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        try:
            with untouched(folder), as_a_user_without_rights(), opened(folder / "a.db") as source:
                assert (source.how, count(source)) == (how, ROWS)
                source.check()
        finally:
            folder.chmod(0o755)


_ON_READ_ONLY_MEDIA = """
import sys
from pathlib import Path
from migrate.backends.sqlite.opening import open_source
for name in sys.argv[1:]:
    source = open_source(Path(name))
    print(source.how, *source.connection.execute("SELECT count(v) FROM t WHERE i > 0").fetchone())
    source.check()
    source.close()
"""


def test_read_only_media(tmp_path: Path) -> None:
    media, makers = tmp_path / "media", [killed_wal, without_shm, closed_wal, rollback, hot_journal]
    media.mkdir()
    for make in makers:
        make(media / f"{make.__name__}.db")
    mounted = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 77; exec "$@"'
    names = [str(media / f"{make.__name__}.db") for make in makers]
    command = ["unshare", "-m", "sh", "-c", mounted, str(media), sys.executable, "-c", _ON_READ_ONLY_MEDIA]
    try:
        with untouched(tmp_path):
            done = subprocess.run([*command, *names], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("a read-only mount of its own is made by unshare, which this system has not")
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("a read-only mount needs root or user namespaces")
    assert done.stdout.split("\n") == ["wal 100", "no-lock 100", "immutable 100", "locks 100", "copy 100", ""]
