"""One embedded server, many users: started, shared, killed, recovered, raced for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from embedded_kit import finish, line, postmaster, python, rows

from provisioners import pgcluster, pgprobe
from provisioners.embedded import EmbeddedPostgres
from provisioners.errors import NotReadyError, ProvisionError


@contextlib.contextmanager
def orphans_become_ours() -> Iterator[None]:
    """Be the parent of orphans and reap none: killed servers stay zombies, as under a careless PID 1."""
    pr_set_child_subreaper = 36  # linux/prctl.h
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(pr_set_child_subreaper, 0, 0, 0, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def test_a_stopped_server_starts_again_with_its_rows(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    server.start()  # idempotent
    url = server.url
    server.stop()
    server.stop()
    assert not server.running()
    with pytest.raises(ProvisionError, match="not been started"):
        _ = server.url
    server.start()
    assert server.url == url
    assert rows(url) == 1000
    server.stop()


def test_the_last_of_two_users_stops_it(folder: Path) -> None:
    child = python(
        f"from provisioners.embedded import EmbeddedPostgres\n"
        f"s = EmbeddedPostgres({str(folder)!r}); s.start()\n"
        f"print(s.url, flush=True); sys.stdin.read(); s.stop()"
    )
    url = line(child)
    server = EmbeddedPostgres(folder)
    server.start()
    assert server.url == url
    assert server.user_count() == 2
    server.stop()
    assert rows(url) == 1000
    finish(child)
    assert not server.running()


def test_two_objects_in_one_process_are_two_users(folder: Path) -> None:
    with EmbeddedPostgres(folder) as outer:
        with EmbeddedPostgres(folder) as inner:
            assert inner.url == outer.url
        assert rows(outer.url) == 1000
    assert not outer.running()


def test_a_killed_owner_leaves_the_server_and_no_entry(folder: Path) -> None:
    child = python(
        f"from provisioners.embedded import EmbeddedPostgres\n"
        f"s = EmbeddedPostgres({str(folder)!r}); s.start(); print(s.url, flush=True); sys.stdin.read()"
    )
    url = line(child)
    child.kill()
    finish(child)
    assert rows(url) == 1000
    with EmbeddedPostgres(folder) as server:
        assert server.url == url
        assert server.user_count() == 1
    assert not server.running()


def test_a_kept_server_outlives_its_users_until_it_is_forced(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start(keep=True)
    url = server.url
    server.stop()
    with EmbeddedPostgres(folder):
        assert rows(url) == 1000
    assert rows(url) == 1000
    server.stop(force=True)
    assert not server.running()
    with EmbeddedPostgres(folder) as again:
        assert again.user_count() == 1
    assert not again.running()


@pytest.mark.skipif(sys.platform != "linux", reason="a zombie of ours is made by prctl, which only Linux has")
def test_a_killed_postmaster_that_stays_a_zombie_is_not_taken_for_alive(folder: Path) -> None:
    with orphans_become_ours():
        server = EmbeddedPostgres(folder)
        server.start()
        url, pid = server.url, postmaster(folder)
        with psycopg.connect(url) as conn:
            conn.execute("INSERT INTO chunk VALUES (1001, 'committed')")
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "Z":
                break
            time.sleep(0.05)
        assert state == "Z"
        server.start()
        assert postmaster(folder) != pid
        assert rows(server.url) == 1001
        server.stop(force=True)
        assert not server.running()


def test_a_pid_file_that_names_a_living_stranger_does_no_harm(folder: Path) -> None:
    (folder / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder}/data\n1\n5432\n\n127.0.0.1\n1 1\nready\n"
    )
    with EmbeddedPostgres(folder) as server:
        assert rows(server.url) == 1000


def test_recovery_longer_than_ten_seconds_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The postmaster is frozen for 11 s right after its start, as a long recovery would look from outside."""
    server = EmbeddedPostgres(folder)
    server.start()
    os.kill(postmaster(folder), signal.SIGKILL)
    (folder / "data" / "postmaster.pid").unlink()
    real = pgcluster.Cluster.start

    def start_frozen(self: pgcluster.Cluster, port: int, *, log: int, alive: int) -> bool:
        started = real(self, port, log=log, alive=alive)
        written = folder / "data" / "postmaster.pid"
        while not (written.exists() and written.read_text()):
            time.sleep(0.001)
        pid = postmaster(folder)
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(11, os.kill, (pid, signal.SIGCONT)).start()
        return started

    monkeypatch.setattr(pgcluster.Cluster, "start", start_frozen)
    begun = time.monotonic()
    server.start()
    assert time.monotonic() - begun > 10
    assert rows(server.url) == 1000
    server.stop(force=True)


def test_a_server_that_cannot_start_says_why_at_once(folder: Path) -> None:
    auto = folder / "data" / "postgresql.auto.conf"
    auto.write_text("shared_buffers = 'nonsense'\n")
    begun = time.monotonic()
    with pytest.raises(ProvisionError, match="nonsense"):
        EmbeddedPostgres(folder).start()
    assert time.monotonic() - begun < 10
    auto.write_text("")
    with EmbeddedPostgres(folder) as server:
        assert rows(server.url) == 1000


def test_a_silent_server_ends_the_wait_at_its_limit(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    pid = postmaster(folder)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(NotReadyError, match="did not answer"):
            EmbeddedPostgres(folder, start_timeout=0.5).start()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert rows(server.url) == 1000
    server.stop()
    assert not server.running()


def test_processes_that_race_for_a_new_folder_share_one_server(tmp_path: Path) -> None:
    folder = tmp_path / "raced"
    code = (
        f"from provisioners.embedded import EmbeddedPostgres\n"
        f"s = EmbeddedPostgres({str(folder)!r}); s.start()\n"
        f"print(s.url, flush=True); sys.stdin.read(); s.stop()"
    )
    children = [python(code) for _ in range(3)]
    urls = {line(child) for child in children}
    assert len(urls) == 1
    url = urls.pop()
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    for child in children:
        finish(child)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert not EmbeddedPostgres(folder).running()


def test_a_first_start_that_was_killed_is_made_good_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    child = python(
        f"from provisioners.embedded import EmbeddedPostgres\n"
        f"print('go', flush=True); EmbeddedPostgres({str(folder)!r}).start()"
    )
    line(child)
    while not list(folder.glob(".data-*/base")):
        time.sleep(0.005)
    child.kill()
    finish(child)
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert not list(folder.glob(".data-*"))


def test_a_server_started_by_hand_is_left_alone(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    (folder / "alive").unlink()  # as if our lock were not known to it
    with pytest.raises(ProvisionError, match="did not start runs on this data"):
        EmbeddedPostgres(folder).start()
    os.kill(postmaster(folder), signal.SIGINT)
    while (folder / "data" / "postmaster.pid").exists():
        time.sleep(0.05)


def test_a_server_whose_starter_died_before_it_made_the_database_gets_one(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        with pgprobe.connect(server.url, "postgres") as conn:
            conn.execute("DROP DATABASE memory")
        with EmbeddedPostgres(folder) as attached, psycopg.connect(attached.url) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(40))
def test_starters_and_server_killed_at_any_moment_leave_a_folder_that_starts(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "killed"
    code = (
        f"from provisioners.embedded import EmbeddedPostgres\n"
        f"s = EmbeddedPostgres({str(folder)!r}); s.start(); sys.stdin.read()"
    )
    children = [python(code) for _ in range(2)]
    time.sleep(chance.uniform(0.2, 2.2))
    for child in children:
        child.kill()
        finish(child)
    if chance.random() < 0.4:
        with contextlib.suppress(OSError, ValueError):  # no server yet
            os.kill(postmaster(folder), signal.SIGKILL)
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.url) as conn:
        conn.execute("CREATE EXTENSION vector")
    assert not server.running()
    assert not list(folder.glob(".data-*"))
