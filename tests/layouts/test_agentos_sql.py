"""The statements for SQLite make what the framework makes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from layout_files import BRAIN, BRAIN_V1, FIXTURES, built, opened, quoted, sampler, tables

from migrate.layouts import Wishes, by_name
from migrate.layouts.agentos_schema import schema
from migrate.schema import Column, Kind, Table

AGENTOS = by_name("agentos")


def read(path: Path) -> list[Table]:
    with closing(opened(path)) as connection:
        return AGENTOS.read(tables(connection), sampler(connection), Wishes()).tables


@pytest.fixture(params=[BRAIN, BRAIN_V1], ids=["schema 2", "schema 1"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, ...]]:
    """Return a real brain, and one built from its tables by our statements."""
    with closing(opened(request.param)) as real:
        ours = built(tmp_path / "ours.sqlite", AGENTOS, read(request.param))
        with closing(ours):
            yield real, ours


def described(connection: sqlite3.Connection, table: str) -> dict[str, object]:
    """Return all that SQLite says of a table, names of automatic indexes included."""
    indexes = {}
    for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list({quoted(table)})"):
        parts = connection.execute(f"PRAGMA index_xinfo({quoted(name)})").fetchall()
        indexes[name] = (unique, origin, partial, parts)
    return {
        "columns": connection.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall(),
        "links": connection.execute(f"PRAGMA foreign_key_list({quoted(table)})").fetchall(),
        "indexes": indexes,
        "kind": connection.execute(
            'SELECT type, wr, "strict" FROM pragma_table_list WHERE name = ?', (table,)
        ).fetchall(),
    }


def test_our_tables_are_in_effect_the_frameworks_own(pair: tuple[sqlite3.Connection, ...]) -> None:
    real, ours = pair
    names = [row[0] for row in real.execute("SELECT name FROM pragma_table_list WHERE schema = 'main'")]
    names = [n for n in names if not n.startswith("sqlite_s")] + ["sqlite_sequence"]
    assert len(names) == 14 + 5 + 1
    for name in names:
        assert described(ours, name) == described(real, name), name
    assert ours.execute("SELECT type, name FROM sqlite_schema ORDER BY 1, 2").fetchall() == (
        real.execute("SELECT type, name FROM sqlite_schema ORDER BY 1, 2").fetchall()
    )


def test_the_full_text_index_is_the_frameworks(pair: tuple[sqlite3.Connection, ...]) -> None:
    sql = "SELECT sql FROM sqlite_schema WHERE name = 'memory_traces_fts'"
    words = [" ".join(c.execute(sql).fetchone()[0].replace("IF NOT EXISTS ", "").split()) for c in pair]
    assert words[0] == words[1]


def test_the_full_text_index_finds_what_it_found(tmp_path: Path) -> None:
    with closing(opened(BRAIN)) as real, closing(built(tmp_path / "b", AGENTOS, read(BRAIN), real)) as ours:
        match = (
            "SELECT t.id FROM memory_traces_fts f JOIN memory_traces t ON t.rowid = f.rowid"
            " WHERE memory_traces_fts MATCH ? ORDER BY rank, t.id"
        )
        terms = [row[0].split()[0] for row in real.execute("SELECT content FROM memory_traces LIMIT 50")]
        for term in {t for t in terms if t.isalpha()}:
            assert ours.execute(match, (term,)).fetchall() == real.execute(match, (term,)).fetchall()
        ours.execute("INSERT INTO memory_traces_fts(memory_traces_fts, rank) VALUES('integrity-check', 1)")


def test_the_statements_can_be_run_twice(tmp_path: Path) -> None:
    found = read(BRAIN)
    with closing(built(tmp_path / "b", AGENTOS, found)) as connection:
        for table in found:
            for statement in AGENTOS.sqlite_ddl(table) or []:
                connection.execute(statement)
        for statement in AGENTOS.sqlite_after(found):
            connection.execute(statement)


def test_a_brain_from_postgres_gets_the_frameworks_tables() -> None:
    types = {"TEXT": "text", "INTEGER": "bigint", "REAL": "real", "BLOB": "bytea"}
    for table in schema(2).values():
        columns = tuple(replace(c, declared=types[c.declared]) for c in table.columns)
        assert AGENTOS.sqlite_ddl(replace(table, columns=columns, dialect="postgres")) is not None


def test_foreign_keys_to_tables_that_stay_behind_are_left_out(tmp_path: Path) -> None:
    edges = replace(schema(2)["knowledge_edges"], foreign_keys=())
    (statement,) = AGENTOS.sqlite_ddl(edges) or []
    assert "REFERENCES" not in statement


TRACES = schema(2)["memory_traces"]


@pytest.mark.parametrize(
    "table",
    [
        replace(TRACES, columns=(*TRACES.columns, Column("mood", Kind.TEXT, "TEXT"))),
        replace(TRACES, columns=TRACES.columns[:-1]),
        replace(TRACES, key=("id",)),
        replace(TRACES, key=()),
        replace(TRACES, role="table"),
        replace(TRACES, name="other_traces"),
        TRACES.with_columns(tuple(replace(c, nullable=True) for c in TRACES.columns)),
        TRACES.with_columns(
            tuple(replace(c, declared="TEXT") if c.name == "created_at" else c for c in TRACES.columns)
        ),
        replace(
            TRACES.with_columns(
                tuple(
                    replace(c, kind=Kind.INTEGER, declared="bigint") if c.name == "strength" else c
                    for c in TRACES.columns
                )
            ),
            dialect="postgres",
        ),
    ],
    ids=["more", "fewer", "key", "no key", "role", "name", "null", "type", "integer strength"],
)
def test_a_table_that_is_not_quite_the_frameworks_is_left_to_its_own_description(table: Table) -> None:
    assert AGENTOS.sqlite_ddl(table) is None
    assert AGENTOS.sqlite_after([table]) == []


def test_the_sample_brain_has_no_files_beside_it() -> None:
    """An installed package is read-only: nothing can be checkpointed or recovered there."""
    for path in (BRAIN, BRAIN_V1, FIXTURES / "agentos" / "mini" / "brain.sqlite"):
        assert path.read_bytes()[18:20] == b"\x02\x02"  # WAL mode, as the framework leaves it
        assert not [p.name for p in path.parent.iterdir() if p.name.startswith(f"{path.name}-")]
        with closing(opened(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
