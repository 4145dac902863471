"""Files that are no database, damaged or malicious: one line and a hint, and nothing happens to anything."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_opening_places import as_a_user_without_rights
from test_opening_states import (
    ROWS,
    Writer,
    beside,
    count,
    hot_journal,
    killed_wal,
    opened,
    rollback,
    untouched,
    without_shm,
)

from migrate.backends.sqlite.hostile import explaining, wal_has_commit
from migrate.backends.sqlite.names import translating
from migrate.backends.sqlite.opening import Opened, identity, open_source
from migrate.errors import ConfigError, TransientError


def missing(path: Path) -> None:
    pass


def a_folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("id,name\n1,x\n" * 1000)


def encrypted(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(8192))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's path has at most 107 bytes


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        rollback(path)
        os.truncate(path, keep(path.stat().st_size))

    return make


def with_a_broken_schema(path: Path) -> None:
    rollback(path)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 200)


def of_a_newer_format(path: Path) -> None:
    rollback(path)
    with open(path, "r+b") as file:
        file.seek(19)
        file.write(b"\x09")


def with_a_journal_cut_short(path: Path) -> None:
    hot_journal(path)
    journal = beside(path, "-journal")
    os.truncate(journal, journal.stat().st_size // 2)


def with_a_journal_that_restores_a_broken_page(path: Path) -> None:
    hot_journal(path)
    with open(beside(path, "-journal"), "r+b") as file:
        for record in (512, 512 + 4 + 4096 + 4):  # page number, page, a checksum of every 200th byte
            file.seek(record)
            if file.read(4) != b"\0\0\0\1":
                file.write(b"\x05" * 90)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "no such file"),
        (a_folder, "it is a folder"),
        (empty, "the file is empty"),
        (text, "not a SQLite database, or an encrypted one"),
        (encrypted, "not a SQLite database, or an encrypted one"),
        (fifo, "not a regular file"),
        (listening_socket, "not a regular file"),
        (device, "not a regular file"),
        (link_to_itself, "too many levels of symbolic links"),
        (link_to_nothing, "no such file"),
        (cut(lambda size: size // 2), "truncated: 16384 of 32768 bytes"),
        (cut(lambda size: size - 1), "truncated: 32767 of 32768 bytes"),
        (cut(lambda size: 50), "truncated: 50 bytes"),
        (with_a_broken_schema, "malformed"),
        (of_a_newer_format, "file is not a database"),
        (with_a_journal_that_restores_a_broken_page, "damaged after that"),
        (with_a_journal_cut_short, "its -journal is truncated"),
    ],
)
def test_what_is_no_readable_database_is_refused_in_one_line_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    private, folder = tmp_path / "private", tmp_path / "source"
    private.mkdir()
    folder.mkdir()
    path = folder / "a.db"
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    monkeypatch.chdir(folder)
    make(path)
    with untouched(folder), pytest.raises(ConfigError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert list(private.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "/".join(["y" * 100] * 6)])
def test_a_name_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    if len(name) > 300:
        (tmp_path / name).parent.mkdir(parents=True)
        rollback(tmp_path / "short.db")
        os.rename(tmp_path / "short.db", tmp_path / name)
    with untouched(tmp_path), pytest.raises(ConfigError) as caught:
        open_source(tmp_path / name)
    assert caught.value.hint


def test_a_file_that_we_may_not_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.db"
        rollback(path)
        Path(name).chmod(0o755)
        path.chmod(0o000)
        with as_a_user_without_rights(), pytest.raises(ConfigError, match="permission denied"):
            open_source(path)
        with as_a_user_without_rights(), pytest.raises(ConfigError, match="permission denied"):
            identity(path)


def test_a_journal_of_several_databases_is_refused_as_it_may_name_any_file_for_deletion(
    tmp_path: Path,
) -> None:
    path, victim = tmp_path / "a.db", tmp_path / "victim"
    hot_journal(path)
    victim.write_text("dear")
    name = os.fsencode(victim)
    with open(beside(path, "-journal"), "ab") as file:
        file.write(struct.pack(">I", 0x40000000 // 4096 + 1) + name)
        file.write(struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7"))
    with untouched(tmp_path), pytest.raises(ConfigError, match="several databases"):
        open_source(path)


def test_no_room_for_a_private_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hot_journal(tmp_path / "a.db")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with untouched(tmp_path), pytest.raises(ConfigError, match="no room") as caught:
        open_source(tmp_path / "a.db")
    assert "TMPDIR" in str(caught.value.hint)


HOSTILE = """
CREATE TABLE t (i INTEGER PRIMARY KEY, v, u GENERATED ALWAYS AS (upper(v)) VIRTUAL);
INSERT INTO t (v) VALUES ('a');
CREATE VIEW endless AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r;
CREATE VIEW plain AS SELECT * FROM t;
CREATE VIRTUAL TABLE fts USING fts5(body);
INSERT INTO fts VALUES ('words');
CREATE VIRTUAL TABLE unknown USING fts5(body);
PRAGMA writable_schema = ON;
UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE unknown USING nosuch(body)' WHERE name = 'unknown';
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Opened]:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.executescript(HOSTILE)
    connection.close()
    with untouched(tmp_path), opened(tmp_path / "a.db") as source:
        yield source


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (v) VALUES (1)",
        "UPDATE t SET v = 1",
        "DELETE FROM t",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_master",
        "DROP TABLE t",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "ATTACH ':memory:' AS x",
        "VACUUM",
        "VACUUM INTO 'x.db'",
        "REINDEX",
        "ANALYZE",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT x",
        "PRAGMA query_only = OFF",
        "PRAGMA trusted_schema = ON",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 3",
        "PRAGMA mmap_size = 1000000",
        "PRAGMA wal_checkpoint",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple', x'00')",
        "SELECT n FROM endless LIMIT 1",
        "SELECT v FROM plain",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r LIMIT 1",
        "SELECT * FROM unknown",
    ],
)
def test_what_is_not_reading_a_table_fails(hostile: Opened, sql: str) -> None:
    with pytest.raises(sqlite3.Error):
        hostile.connection.execute(sql).fetchall()
    assert hostile.connection.in_transaction
    with pytest.raises(sqlite3.Error):
        hostile.connection.commit()


def test_what_reading_a_schema_needs_works(hostile: Opened) -> None:
    def ask(sql: str) -> list[tuple[object, ...]]:
        return hostile.connection.execute(sql).fetchall()

    listed = ask("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
    assert {("t", "table"), ("plain", "view"), ("fts", "virtual"), ("fts_data", "shadow")} <= set(listed)
    assert [row[1] for row in ask("PRAGMA table_xinfo('t')")] == ["i", "v", "u"]
    assert ask("SELECT i, v, u, typeof(v), rowid FROM t WHERE (i, v) > (0, '') ORDER BY i") == [
        (1, "a", "A", "text", 1)
    ]
    assert ask("SELECT body FROM fts") == [("words",)]
    for pragma in ("index_list('t')", "foreign_key_list('t')", "user_version", "cache_size = -65536"):
        ask(f"PRAGMA {pragma}")
    assert ask("PRAGMA trusted_schema") == ask("PRAGMA mmap_size") == [(0,)]
    assert ask("PRAGMA query_only") == ask("PRAGMA cell_size_check") == [(1,)]


def sqlite_finds_a_commit(path: Path) -> bool:
    connection = sqlite3.connect(path)  # a throw-away copy
    try:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        connection.close()


def test_a_commit_in_a_wal_is_found_exactly_where_sqlite_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    many_pages = "CREATE TABLE t AS SELECT zeroblob(40000) AS v"
    with Writer(path, "PRAGMA journal_mode = WAL", many_pages) as writer:
        main, wal = path.read_bytes(), beside(path, "-wal").read_bytes()
        writer.kill()
    dice, found = random.Random(7), []
    for trial in range(60):
        damaged = bytearray(wal)
        if trial % 3 == 1:
            damaged[dice.randrange(len(wal))] ^= 1 << dice.randrange(8)
        elif trial % 3 == 2:
            del damaged[dice.randrange(len(wal)) :]
        copy = tmp_path / f"{trial}.db"
        copy.write_bytes(main)
        beside(copy, "-wal").write_bytes(damaged)
        found.append(wal_has_commit(beside(copy, "-wal")))
        assert found[-1] == sqlite_finds_a_commit(copy)
    assert {True, False} == set(found)


def test_a_wal_of_a_big_endian_machine_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    without_shm(path)
    wal = bytearray(beside(path, "-wal").read_bytes())

    def sums(data: bytes, a: int, b: int) -> tuple[int, int]:
        for x, y in struct.iter_unpack(">II", data):
            a = (a + x + b) & 0xFFFFFFFF
            b = (b + y + a) & 0xFFFFFFFF
        return a, b

    wal[3] |= 1
    at = sums(bytes(wal[:24]), 0, 0)
    wal[24:32] = struct.pack(">II", *at)
    for frame in range(32, len(wal), 24 + 4096):
        at = sums(bytes(wal[frame : frame + 8] + wal[frame + 24 : frame + 24 + 4096]), *at)
        wal[frame + 16 : frame + 24] = struct.pack(">II", *at)
    beside(path, "-wal").write_bytes(wal)
    assert wal_has_commit(beside(path, "-wal"))
    with untouched(tmp_path), opened(path) as source:
        assert (source.how, count(source)) == ("no-lock", ROWS)


def test_a_shm_of_another_database_does_not_mislead(tmp_path: Path) -> None:
    killed_wal(tmp_path / "a.db")
    beside(tmp_path / "a.db", "-shm").write_bytes(random.Random(2).randbytes(32768))
    with untouched(tmp_path), opened(tmp_path / "a.db") as source:
        assert (source.how, count(source)) == ("wal", ROWS)


@pytest.mark.parametrize("name", ["SQLITE_BUSY_RECOVERY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"])
def test_what_passes_by_itself_is_worth_another_try(name: str, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("wait")
    error.sqlite_errorname = name
    for raised in (lambda: explaining(tmp_path), lambda: translating("read rows")):
        with pytest.raises(TransientError, match="wait"), raised():
            raise error
