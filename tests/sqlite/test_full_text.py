"""Full-text tables that keep their own text: for many an agent they are the memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migrate import api
from migrate.backends.sqlite import fulltext
from migrate.backends.sqlite.source import SqliteSource
from migrate.schema import Kind, Table
from migrate.search.service import open_search
from tests.small_stores import asked, sqlite_file, typed

NOTES = """
    CREATE VIRTUAL TABLE notes USING fts5(title, body UNINDEXED, tokenize = 'porter unicode61', prefix='2 3');
    INSERT INTO notes (rowid, title, body) VALUES
        (-7, 'running along the river', 'first'), (9, NULL, 2.5), (40, 'two walks', x'00ff'), (41, 5, '');
"""
WORDS = "SELECT rowid, title, body FROM notes WHERE notes MATCH 'run' ORDER BY rowid"


def declared(path: Path, name: str = "notes") -> str:
    return str(asked(path, "SELECT sql FROM sqlite_schema WHERE name = ?", (name,))[0][0])


def read(path: Path) -> tuple[Table, list[tuple[object, ...]]]:
    source = SqliteSource(path)
    (table,) = source.tables()
    rows = [row for batch in source.batches(table, size=2) for row in batch.rows]
    assert source.count(table) == len(rows)
    source.close()
    return table, rows


def test_its_rows_are_read_as_those_of_any_table(tmp_path: Path) -> None:
    table, rows = read(sqlite_file(tmp_path / "a.db", NOTES))
    assert [(c.name, c.kind) for c in table.columns] == [
        ("rowid", Kind.INTEGER),
        ("title", Kind.TEXT),
        ("body", Kind.TEXT),
    ]
    assert table.key == ("rowid",)
    assert typed(rows) == typed(
        [(-7, "running along the river", "first"), (9, None, 2.5), (40, "two walks", b"\0\xff"), (41, 5, "")]
    )


def test_reading_after_a_cursor_continues_without_gap_or_overlap(tmp_path: Path) -> None:
    source = SqliteSource(sqlite_file(tmp_path / "a.db", NOTES))
    (table,) = source.tables()
    first = next(iter(source.batches(table, size=1)))
    rest = [row[0] for batch in source.batches(table, size=2, after=first.cursor) for row in batch.rows]
    assert [first.rows[0][0], *rest] == [-7, 9, 40, 41]
    source.close()


def test_another_file_finds_the_same_and_so_does_the_way_back_through_an_ordinary_table(
    tmp_path: Path,
) -> None:
    path = sqlite_file(tmp_path / "a.db", NOTES)
    there, back = tmp_path / "b.db", tmp_path / "c.db"
    assert api.migrate(path, there).verified
    assert asked(there, WORDS) == asked(path, WORDS) == [(-7, "running along the river", "first")]
    assert "porter unicode61" in declared(there)
    assert api.migrate(there, back).verified
    assert asked(back, WORDS) == asked(path, WORDS)
    assert api.verify(path, back).verified


def test_rows_that_come_later_are_added_changed_and_removed(tmp_path: Path) -> None:
    path, there = sqlite_file(tmp_path / "a.db", NOTES), tmp_path / "b.db"
    api.migrate(path, there)
    asked(path, "INSERT INTO notes (rowid, title) VALUES (50, 'a new run')")
    assert [t.rows_written for t in api.migrate(path, there).tables] == [1]
    asked(path, "UPDATE notes SET title = 'no more' WHERE rowid = -7")
    assert api.migrate(path, there, update=True).verified
    asked(path, "DELETE FROM notes WHERE rowid = 9")
    assert api.migrate(path, there, mirror=True).verified
    assert asked(there, WORDS) == asked(path, WORDS) == [(50, "a new run", None)]
    assert asked(there, "SELECT rowid FROM notes ORDER BY rowid") == [(-7,), (40,), (41,), (50,)]


def test_undo_takes_the_table_with_all_its_parts(tmp_path: Path) -> None:
    path, there = sqlite_file(tmp_path / "a.db", NOTES), tmp_path / "b.db"
    api.migrate(path, there)
    assert api.undo(there) == ["notes"]
    assert asked(there, "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'") == []


@pytest.mark.parametrize(
    ("declaration", "insert", "again"),
    [
        ("fts5([a b], 'c', \"d,e\" UNINDEXED)", "", 'fts5("a b", "c", "d,e" UNINDEXED)'),
        (
            "fts5(a, -- one, two\n /* ( */ b, pre='2', prefix=\"3\")",
            "",
            "fts5(\"a\", \"b\", prefix='2', prefix='3')",
        ),
        (
            "fts5(a, tok=\"unicode61 separators '_'\")",
            "",
            "fts5(\"a\", tokenize='unicode61 separators ''_''')",
        ),
        ("fts4(a VARCHAR(9, 2) NOT NULL, b, tokenize=porter)", "", 'fts4("a", "b", tokenize=porter)'),
        ('fts4(a, tokenize=unicode61 "tokenchars=.,")', "", 'fts4("a", tokenize=unicode61 "tokenchars=.,")'),
        (
            "fts4(a, b, languageid='l', notindexed=b)",
            ", l",
            "fts4(\"a\", \"b\", languageid='l', notindexed='b')",
        ),
        ("fts3()", "", 'fts3("content")'),
        ("'FTS3'(rowid, b)", "", 'fts3("rowid", "b")'),
    ],
)
def test_a_declaration_is_put_together_again(
    declaration: str, insert: str, again: str, tmp_path: Path
) -> None:
    path = sqlite_file(
        tmp_path / "a.db", f"CREATE VIRTUAL TABLE IF NOT EXISTS main.notes USING {declaration}"
    )
    names = [row[1] for row in asked(path, "PRAGMA table_info(notes)")] + ([insert[2:]] if insert else [])
    wanted = ", ".join(f'"{n}"' for n in names)
    asked(path, f"INSERT INTO notes ({wanted}) VALUES ({', '.join(map(str, range(len(names))))})")
    report = api.migrate(path, tmp_path / "b.db")
    assert report.verified
    assert [t.rows_written for t in report.tables] == [1]
    assert declared(tmp_path / "b.db") == f'CREATE VIRTUAL TABLE "notes" USING {again}'
    assert asked(tmp_path / "b.db", f"SELECT {wanted} FROM notes") == asked(
        path, f"SELECT {wanted} FROM notes"
    )


def rewritten(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'notes'", (sql,))
        db.commit()


@pytest.mark.parametrize("strange", ["tokenize='jieba'", "evil=1", "detail='x\"); DROP TABLE t; --'"])
def test_what_is_not_known_of_a_declaration_is_not_run_and_the_rows_come_all_the_same(
    strange: str, tmp_path: Path
) -> None:
    path = sqlite_file(tmp_path / "a.db", NOTES)
    rewritten(path, f"CREATE VIRTUAL TABLE notes USING fts5(title, body, {strange})")
    report = api.migrate(path, tmp_path / "b.db")
    assert report.verified
    assert [t.rows_written for t in report.tables] == [4]
    assert declared(tmp_path / "b.db").startswith("CREATE TABLE")
    (left,) = [n for n in report.not_carried if n["name"] == "notes"]
    assert "ordinary table" in left["reason"]
    assert not left["derived"]


def test_a_table_of_rows_that_is_not_the_declared_one_is_not_read(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "a.db", NOTES)
    rewritten(path, "CREATE VIRTUAL TABLE notes USING fts5(title, body, more)")
    source = SqliteSource(path)
    assert source.tables() == []
    assert "ITS ROWS ARE LEFT BEHIND" in {n.name: n.reason for n in source.not_carried()}["notes"]
    source.close()


def test_a_target_where_its_parts_would_not_have_their_names_has_an_ordinary_table(tmp_path: Path) -> None:
    path = sqlite_file(tmp_path / "a.db", NOTES)
    there = sqlite_file(tmp_path / "b.db", "CREATE TABLE notes_data (v)")
    report = api.migrate(path, there)
    assert report.verified
    assert "without a full-text index" in " ".join(report.warnings)
    assert declared(there).startswith("CREATE TABLE")


def test_its_definition_outlives_json_and_tables_without_one_are_as_they_were() -> None:
    text = fulltext.taken_apart("CREATE VIRTUAL TABLE n USING fts5(a UNINDEXED, prefix='2', prefix='3')")
    table = Table("n", fulltext.columns_of(text), ("rowid",), dialect="sqlite", full_text=text.text)
    assert Table.from_dict(table.to_dict()) == table
    assert "full_text" not in Table("t", table.columns).to_dict()


def test_its_words_are_searched(tmp_path: Path) -> None:
    with open_search(sqlite_file(tmp_path / "a.db", NOTES)) as store:
        assert [hit.key for hit in store.search(text="river", mode="keyword").hits] == [(-7,)]
