"""A SQLite file is read for one query at a time: always as it is now, and in nobody's way."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from migrate.config import SqliteSettings
from migrate.errors import ConfigError
from migrate.search import open_searchable
from migrate.search.base import Means, Mode, Query, Searchable
from migrate.search.sqlite import reading
from migrate.search.sqlite.reading import SqliteFile


def _f32(*numbers: float) -> bytes:
    return np.array([*numbers, *[0.0] * 15], "<f4").tobytes()


def _make(path: Path, journal: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}").fetchall()
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT, embedding BLOB)")
        rows = [(i, f"honey {i}", _f32(1.0, float(i))) for i in range(1, 6)]
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)
        connection.commit()
    return path


@pytest.fixture(params=["wal", "delete"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return _make(tmp_path / "notes.db", request.param)


@pytest.fixture
def store(path: Path) -> Iterator[Searchable]:
    opened = open_searchable(SqliteSettings(path), Means(hnsw=False))
    yield opened
    opened.close()


def _found(store: Searchable, text: str = "honey") -> list[int]:
    (table,) = store.tables()
    near = store.search(table, Query(Mode.VECTOR, np.frombuffer(_f32(1.0, 1.0), "<f4"), k=100)).hits
    worded = store.search(table, Query(Mode.KEYWORD, text=text, k=100)).hits
    assert {h.key for h in near} == {h.key for h in worded}
    return sorted(h.key[0] for h in near)


def test_what_a_live_writer_commits_is_found_at_once(path: Path, store: Searchable) -> None:
    assert _found(store) == [1, 2, 3, 4, 5]
    with closing(sqlite3.connect(path)) as writer:
        for i in range(6, 16):
            writer.execute("INSERT INTO notes VALUES (?, 'honey', ?)", (i, _f32(1.0, float(i))))
            assert _found(store) == list(range(1, i))
            writer.commit()
            assert _found(store) == list(range(1, i + 1))
        writer.execute("DELETE FROM notes WHERE id < 15")
        writer.commit()
        assert _found(store) == [15]
    assert _found(store) == [15]
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("UPDATE notes SET id = 16")
        writer.commit()
    assert _found(store) == [16]


def test_between_queries_nobody_is_kept_waiting(path: Path, store: Searchable) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as writer:
        assert _found(store) == [1, 2, 3, 4, 5]
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM notes WHERE id = 1")
        writer.commit()
        assert _found(store) == [2, 3, 4, 5]
        if writer.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert _found(store) == [2, 3, 4, 5]


def test_an_agent_in_this_process_can_write_after_a_search(path: Path, store: Searchable) -> None:
    for number in (6, 7):
        _found(store)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("INSERT INTO notes VALUES (?, 'honey', ?)", (number, _f32(1.0, 6.0)))
            writer.commit()
            _found(store)
            writer.execute("UPDATE notes SET content = 'honey!' WHERE id = 1")
            writer.commit()
    assert _found(store) == [1, 2, 3, 4, 5, 6, 7]


def test_a_file_that_is_replaced_is_read_anew(path: Path, store: Searchable, tmp_path: Path) -> None:
    assert _found(store) == [1, 2, 3, 4, 5]
    other = _make(tmp_path / "other.db", "delete")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("DELETE FROM notes WHERE id > 2")
        connection.commit()
    os.replace(other, path)
    assert _found(store) == [1, 2]
    path.unlink()
    with pytest.raises(ConfigError, match="cannot open"):
        _found(store)


def test_a_table_that_comes_later_is_found(path: Path, store: Searchable) -> None:
    assert [s.name for s in store.tables()] == ["notes"]
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE talks (id TEXT PRIMARY KEY, content TEXT)")
        writer.commit()
    assert {s.name for s in store.tables()} == {"notes", "talks"}


def test_a_column_becomes_one_of_vectors_by_its_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT, embedding BLOB)")
        writer.commit()
        file = SqliteFile(path)
        assert file.tables()[0].vector is None
        writer.execute("INSERT INTO notes VALUES (1, 'a', ?)", (_f32(1.0),))
        writer.commit()
        monkeypatch.setattr(reading, "_LOOK_AGAIN_S", 0.0)
        assert file.tables()[0].vector is not None
    file.close()


def test_a_folder_that_cannot_be_written_is_no_obstacle(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        store = open_searchable(SqliteSettings(path), Means())
        assert _found(store) == [1, 2, 3, 4, 5]
        store.close()
    finally:
        path.parent.chmod(0o700)


def test_the_folder_is_left_as_it_was(path: Path, store: Searchable) -> None:
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    _found(store)
    store.close()
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_pair_copied_from_a_live_writer_is_read_with_its_wal(tmp_path: Path) -> None:
    path = _make(tmp_path / "live.db", "wal")
    copy = tmp_path / "copy" / "live.db"
    copy.parent.mkdir()
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("DELETE FROM notes WHERE id = 1")
        writer.commit()
        for name in ("live.db", "live.db-wal"):
            shutil.copy(tmp_path / name, copy.parent / name)
    store = open_searchable(SqliteSettings(copy), Means(hnsw=False))
    assert _found(store) == [2, 3, 4, 5]
    assert _found(store) == [2, 3, 4, 5]
    store.close()


def test_threads_ask_one_store_while_it_is_written(path: Path, store: Searchable) -> None:
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        (table,) = store.tables()
        query = Query(Mode.HYBRID, np.frombuffer(_f32(1.0, 1.0), "<f4"), "honey", k=100)
        while not done.is_set():
            try:
                hits = store.search(table, query).hits
                if len(hits) not in (5, 6):
                    wrong.append(hits)
            except Exception as exc:
                wrong.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with closing(sqlite3.connect(path)) as writer:
        for _ in range(30):
            writer.execute("INSERT INTO notes VALUES (6, 'honey', NULL)")
            writer.commit()
            writer.execute("DELETE FROM notes WHERE id = 6")
            writer.commit()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
