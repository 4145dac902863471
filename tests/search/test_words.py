"""Words in a SQLite file: its own full-text index where it is sound, one of ours where it is not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from migrate.config import SqliteSettings
from migrate.search import open_searchable, text
from migrate.search.base import Answer, Means, Mode, Query, Searchable
from migrate.search.sqlite import words
from migrate.search.sqlite.wordindex import WordIndex

OURS = "FTS5, words indexed for this search"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


def _run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(";\n".join(statements))
        connection.commit()


@contextmanager
def _open(path: Path) -> Iterator[Searchable]:
    store = open_searchable(SqliteSettings(path), Means(hnsw=False))
    yield store
    store.close()


def _ask(store: Searchable, asked: str, k: int = 10) -> Answer:
    (table,) = (s for s in store.tables() if s.name == "notes")
    return store.search(table, Query(Mode.KEYWORD, text=asked, k=k))


def _texts(answer: Answer) -> list[str | None]:
    return [h.text for h in answer.hits]


_NOTES = (
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT, tags TEXT)",
    "INSERT INTO notes VALUES (1, 'the walking bear', 'forest'), (2, 'a bear walks', 'sea'), (3, 'honey', '')",
)
_OWN = "CREATE VIRTUAL TABLE notes_fts USING fts5(content, tags, content='notes', content_rowid='id', tokenize='porter')"
_REBUILD = "INSERT INTO notes_fts(notes_fts) VALUES ('rebuild')"


def test_the_files_own_index_is_used(path: Path) -> None:
    _run(path, *_NOTES, _OWN, _REBUILD)
    with _open(path) as store:
        answer = _ask(store, "walk sea")
    assert answer.how == "FTS5, notes_fts"
    assert _texts(answer) == ["a bear walks", "the walking bear"]
    assert answer.notes == ()


def test_an_own_index_that_lost_touch_with_its_table_is_not_used(path: Path) -> None:
    _run(path, *_NOTES, _OWN, _REBUILD, "INSERT INTO notes VALUES (4, 'a late bear', '')")
    with _open(path) as store:
        answer = _ask(store, "late")
        assert answer.how == OURS
        assert _texts(answer) == ["a late bear"]
        assert "notes_fts does not cover notes" in answer.notes[0]
        _run(path, _REBUILD)
        assert _ask(store, "late").how == "FTS5, notes_fts"


def test_an_index_over_other_rowids_is_not_used(path: Path) -> None:
    _run(path, *_NOTES, _OWN, _REBUILD, "UPDATE notes SET id = 30 WHERE id = 3")
    with _open(path) as store:
        assert _ask(store, "honey").hits[0].key == (30,)


def test_rows_that_only_the_index_has_are_not_hits(path: Path) -> None:
    _run(
        path,
        *_NOTES,
        _OWN,
        _REBUILD,
        "DELETE FROM notes WHERE id = 3",
        "INSERT INTO notes VALUES (4, 'wine', '')",
        "UPDATE notes SET id = id - 1 WHERE id = 1",  # 0, 2, 4: as many rows as before, and the same sum
    )
    with _open(path) as store:
        answer = _ask(store, "honey bear")
    assert answer.how == "FTS5, notes_fts"
    assert [h.key for h in answer.hits] == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIRTUAL TABLE other USING fts5(content, content='papers')",
        "CREATE VIRTUAL TABLE other USING fts5(content)",
        "CREATE VIRTUAL TABLE other USING fts5(tags, content='notes', content_rowid='id')",
        "CREATE VIRTUAL TABLE other USING fts5(content, content='')",
    ],
)
def test_an_index_of_something_else_is_not_taken_for_one(path: Path, statement: str) -> None:
    _run(path, *_NOTES, "CREATE TABLE papers (content TEXT)", statement)
    with _open(path) as store:
        assert _ask(store, "honey").how == OURS


def test_a_damaged_index_is_not_the_end(path: Path) -> None:
    _run(path, *_NOTES, _OWN, _REBUILD, "DELETE FROM notes_fts_data WHERE id > 10")
    with _open(path) as store:
        answer = _ask(store, "honey bear")
    assert answer.how == OURS
    assert "notes_fts cannot be used" in answer.notes[0]
    assert len(answer.hits) == 3


def test_a_change_of_the_store_is_seen_by_the_next_question(path: Path) -> None:
    _run(path, *_NOTES)
    with _open(path) as store:
        assert _texts(_ask(store, "honey")) == ["honey"]
        _run(path, "UPDATE notes SET content = 'mead' WHERE id = 3", "DELETE FROM notes WHERE id = 1")
        assert _texts(_ask(store, "honey")) == []
        assert _texts(_ask(store, "mead bears")) == ["mead", "a bear walks"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each beginning of an index, and each look at whether one is still as the table is."""
    noted: list[str] = []
    begin, append = WordIndex._begin, WordIndex._append

    def noting_begin(index: WordIndex, place: Any) -> None:
        noted.append("begun")
        begin(index, place)

    def noting_append(index: WordIndex, reading: Any, place: Any) -> bool:
        noted.append("looked")
        return append(index, reading, place)

    monkeypatch.setattr(WordIndex, "_begin", noting_begin)
    monkeypatch.setattr(WordIndex, "_append", noting_append)
    return noted


def test_words_are_indexed_once_while_nothing_changes(path: Path, made: list[str]) -> None:
    _run(path, *_NOTES)
    os.utime(path, (1e9, 1e9))  # a file that was written this moment could have been written again
    with _open(path) as store:
        for word in ("honey", "bear", "walk"):
            assert _ask(store, word).hits
    assert made == ["looked", "begun"]


def test_rows_that_were_added_are_added(path: Path, made: list[str]) -> None:
    _run(
        path, "CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT, tags TEXT)", "CREATE TABLE other (x)"
    )
    with _open(path) as store:
        assert _texts(_ask(store, "honey")) == []
        rows = ", ".join(f"({i}, 'honey {i}', '')" for i in range(1, 2501))
        _run(path, f"INSERT INTO notes VALUES {rows}")
        assert len(_ask(store, "honey", k=5000).hits) == 2500
        _run(path, "INSERT INTO notes VALUES (2501, 'honey 2501', ''), (9000, 'last honey', '')")
        assert len(_ask(store, "honey", k=5000).hits) == 2502
        assert _texts(_ask(store, "last")) == ["last honey"]
        _run(path, "INSERT INTO other VALUES (1)")
        assert _texts(_ask(store, "2501")) == ["honey 2501"]
        assert made.count("begun") == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE notes SET content = 'mead' WHERE id = 1",
        "DELETE FROM notes WHERE id = 3",
        "DELETE FROM notes WHERE id = 2",
        "INSERT INTO notes VALUES (-5, 'early honey', '')",
        "UPDATE notes SET id = 7 WHERE id = 3",
        "DELETE FROM notes",
    ],
)
def test_any_other_change_begins_anew(path: Path, made: list[str], change: str) -> None:
    _run(path, *_NOTES)
    asked = "honey bear mead forests early"
    with _open(path) as store:
        _ask(store, asked)
        _run(path, change)
        found = _ask(store, asked)
    assert made.count("begun") == 2
    with _open(path) as store:
        assert _ask(store, asked).hits == found.hits


def test_nothing_is_left_in_the_store_or_beside_it(path: Path) -> None:
    _run(path, *_NOTES)
    before, others = path.read_bytes(), sorted(os.listdir(path.parent))
    with _open(path) as store:
        assert _ask(store, "honey").hits
    assert (path.read_bytes(), sorted(os.listdir(path.parent))) == (before, others)


def test_a_table_without_rowid_is_found_by_its_key(path: Path) -> None:
    _run(
        path,
        "CREATE TABLE notes (a TEXT, b INTEGER, content TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "INSERT INTO notes VALUES ('x', 1, 'blue honey'), ('x', 2, 'red honey'), ('y', 1, 'wine')",
    )
    with _open(path) as store:
        (table,) = store.tables()
        found = store.search(table, Query(Mode.KEYWORD, text="honey red"))
    assert [h.key for h in found.hits] == [("x", 2), ("x", 1)]


def test_a_table_without_a_key_is_found_by_its_rowid(path: Path) -> None:
    _run(path, "CREATE TABLE notes (content TEXT)", "INSERT INTO notes VALUES ('honey'), ('wine')")
    with _open(path) as store:
        assert [h.key for h in _ask(store, "wine").hits] == [(2,)]


def test_of_json_the_strings_are_searched(path: Path) -> None:
    _run(
        path,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, content JSON)",
        """INSERT INTO notes VALUES (1, '{"text": "caf\\u00e9 noir", "n": 5}'), (2, '["text"]'), (3, 'no {json')""",
    )
    with _open(path) as store:
        (hit,) = _ask(store, "cafe").hits
        assert (hit.key, hit.text) == ((1,), "café noir")
        assert hit.metadata == {"content": {"text": "café noir", "n": 5}}
        assert [h.key for h in _ask(store, "text").hits] == [(2,)]
        assert [h.key for h in _ask(store, "json").hits] == [(3,)]


def test_odd_cells_are_no_obstacle(path: Path) -> None:
    _run(path, "CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT)")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO notes VALUES (1, CAST(x'ff686f6e6579' AS TEXT)), (2, x'00'), (3, NULL)"
        )
        connection.execute("INSERT INTO notes VALUES (4, ?)", ("wine\0honey",))
        connection.commit()
    with _open(path) as store:
        assert {h.key for h in _ask(store, "honey").hits} <= {(1,), (4,)}
        assert [h.key for h in _ask(store, "wine").hits] == [(4,)]


def test_a_question_without_words_says_so(path: Path) -> None:
    _run(path, *_NOTES)
    with _open(path) as store:
        answer = _ask(store, "?! ...")
    assert answer.hits == ()
    assert "no word" in answer.notes[0]


def test_a_long_question_is_no_problem(path: Path) -> None:
    _run(path, *_NOTES)
    with _open(path) as store:
        assert _texts(_ask(store, "honey " + " ".join(f"w{i}" for i in range(20_000)))) == ["honey"]


def test_words_that_stand_everywhere_do_not_count_unless_they_are_all() -> None:
    assert text.terms("Where is the honey, and what is it for?") == ["honey,"]
    assert text.terms("What is the") == ["What", "is", "the"]
    assert text.terms("Bär bär\0BÄR foo-bar ... 7") == ["Bär", "foo-bar", "7"]


def test_an_index_that_took_its_time_is_told_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_WORTH_SAYING_S", 0.0)
    _run(path, *_NOTES)
    os.utime(path, (1e9, 1e9))
    with _open(path) as store:
        assert "indexed 3 rows of notes" in _ask(store, "honey").notes[0]
        assert _ask(store, "honey").notes == ()


@pytest.mark.parametrize("word", ["Straße", "STRASSE", "ΣΊΣΥΦΟΣ", "naïve", "İzmir", "日本語"])
def test_words_of_any_language_are_found_as_they_are_written(path: Path, word: str) -> None:
    _run(
        path,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT)",
        f"INSERT INTO notes VALUES (1, '{word}')",
    )
    with _open(path) as store:
        assert _texts(_ask(store, word)) == [word]
