"""What a run promises apart from rows: dry runs, choices of tables, checks, vector indexes, progress."""

from __future__ import annotations

import sqlite3
import sys
from collections import defaultdict
from pathlib import Path

import psycopg
import pytest

from integration.support import comparing, stores
from integration.support.servers import Database
from migrate import api
from migrate.backends.postgres.source import PostgresSource
from migrate.errors import MisfitError, SchemaError, VerifyError
from migrate.reach import opened_source


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_dry_run_creates_and_changes_nothing(tmp_path: Path, database: Database) -> None:
    source = stores.brain(tmp_path / "a.sqlite")
    before = files(tmp_path)
    for target in (database.at("store"), str(tmp_path / "b.sqlite")):
        report = api.migrate(source, target, dry_run=True)
        assert report.dry_run
        assert not report.verified
        assert {t.name: t.rows_source for t in report.tables}["memory_traces"] == 317
    assert files(tmp_path) == before
    assert database.run("SELECT 1 FROM pg_namespace WHERE nspname = 'store'") == []


def test_a_dry_run_counts_every_misfit_and_shows_the_first(tmp_path: Path, database: Database) -> None:
    rows = [(i, "a\0" if i % 2 else "fine") for i in range(100)]
    source = stores.filled(tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", rows)
    report = api.migrate(source, database.at("store"), dry_run=True)
    assert report.misfits == 50
    shown = report.tables[0].misfits["shown"]
    assert len(shown) >= 20
    assert shown[0] == {"key": [1], "column": "v", "reason": "a NUL character in text"}


def test_a_misfit_leaves_a_target_with_data_as_it_was(tmp_path: Path, database: Database) -> None:
    source = stores.filled(
        tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", [(1, "a"), (2, "b")]
    )
    api.migrate(source, database.at("store"))
    with sqlite3.connect(source) as db:
        db.execute("INSERT INTO t VALUES (3, 'c'), (4, 'd' || char(0))")
    db.close()
    with database.connect() as pg:
        before = (
            comparing.books(lambda s: pg.execute(s.encode()).fetchall(), "store."),
            comparing.pg_texts(pg, "store"),
        )
        with pytest.raises(MisfitError):
            api.migrate(source, database.at("store"), update=True)
        after = (
            comparing.books(lambda s: pg.execute(s.encode()).fetchall(), "store."),
            comparing.pg_texts(pg, "store"),
        )
    comparing.same(after, before)


def test_only_the_tables_that_were_asked_for_are_carried(tmp_path: Path, database: Database) -> None:
    source = stores.brain(tmp_path / "a.sqlite")
    report = api.migrate(source, database.at("one"), tables=["messages", "conversations"])
    assert sorted(t.name for t in report.tables) == ["conversations", "messages"]
    report = api.migrate(source, database.at("two"), exclude=["messages"])
    assert "messages" not in {t.name for t in report.tables}
    with pytest.raises(SchemaError, match="no table 'nonsense'"):
        api.migrate(source, database.at("three"), tables=["nonsense"])


def test_a_check_of_a_sample_or_of_counts_finds_lost_rows(tmp_path: Path, database: Database) -> None:
    rows = [(i, f"v{i}") for i in range(2000)]
    source = stores.filled(tmp_path / "a.sqlite", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", rows)
    for mode in ("sample", "counts"):
        there = database.at(mode)
        report = api.migrate(source, there, verify=mode)
        assert report.verified
        assert report.verify_mode == mode
        assert api.verify(source, there, mode=mode).verified
        database.run(f"DELETE FROM {mode}.t WHERE id = 7")
        with pytest.raises(VerifyError):
            api.verify(source, there, mode=mode)
        database.run(f"INSERT INTO {mode}.t VALUES (7, 'v7')", f"UPDATE {mode}.t SET v = v || '!'")
    with pytest.raises(VerifyError):
        api.verify(source, database.at("sample"), mode="sample")
    assert api.migrate(source, database.at("none"), verify="none").verified is False


@pytest.mark.parametrize(
    ("dim", "indexed"), [(3, "vector(3)"), (2001, "halfvec"), (4001, None), (16001, None)]
)
def test_vectors_of_any_dimension_are_kept_and_indexed_where_that_can_be(
    dim: int, indexed: str | None, tmp_path: Path, database: Database
) -> None:
    rows = [(i, stores.vector(*((i + j) % 7 / 7 for j in range(dim)))) for i in range(8)]
    source = stores.filled(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [*rows, (8, bytes(4 * dim)), (9, None)],
    )
    report = api.migrate(source, database.at("store"), vectors=["t.embedding"])
    assert report.verified
    made = database.run(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'store' AND indexdef LIKE '%hnsw%'"
    )
    assert len(made) == (1 if indexed else 0)
    if indexed == "halfvec":
        assert "halfvec" in made[0][0]
    if dim <= 16000:
        assert any("all-zero" in note for note in report.tables[0].notes)
    if indexed is None:
        told = [*report.warnings, *report.tables[0].notes]
        assert any(str(dim) in text or "16000" in text for text in told), told
    assert api.migrate(database.at("store"), tmp_path / "b.sqlite").verified
    comparing.same(comparing.sqlite_rows(tmp_path / "b.sqlite"), comparing.sqlite_rows(source))


def test_progress_is_told_after_commits_and_ends_at_the_total(tmp_path: Path, database: Database) -> None:
    told: dict[str, list[tuple[int, int]]] = defaultdict(list)
    source = stores.brain(tmp_path / "a.sqlite")
    report = api.migrate(
        source, database.at("store"), on_progress=lambda done, total, table: told[table].append((done, total))
    )
    assert {t.name for t in report.tables} == set(told)
    for table in report.tables:
        steps = told[table.name]
        assert steps[-1] == (table.rows_source, table.rows_source)
        assert [d for d, _ in steps] == sorted(d for d, _ in steps)


def test_indexes_can_be_left_out(tmp_path: Path, database: Database) -> None:
    source = stores.brain(tmp_path / "a.sqlite")
    assert api.migrate(source, database.at("store"), index="none").verified
    assert database.run("SELECT 1 FROM pg_indexes WHERE indexdef LIKE '%hnsw%'") == []


def test_generated_and_derived_things_are_listed_and_not_carried(tmp_path: Path, database: Database) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER CHECK (a > 0), b INTEGER AS (a * 2), c TEXT AS ('x') STORED);"
        "INSERT INTO t (id, a) VALUES (1, 5); CREATE VIEW v AS SELECT * FROM t; CREATE INDEX e ON t (a + 1);"
        "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('text');"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; ANALYZE",
    )
    report = api.migrate(source, database.at("store"))
    assert report.verified
    assert {t.name for t in report.tables} == {"t", "f"}
    listed = {str(n["name"]) for n in report.not_carried}
    assert {"v", "e", "g", "t.b", "t.c"} <= listed
    assert any("CHECK" in str(n["reason"]) for n in report.not_carried)


def test_indexes_and_links_that_would_have_one_name_are_all_built(tmp_path: Path, database: Database) -> None:
    source = stores.made(
        tmp_path / "a.sqlite",
        """CREATE TABLE g (id INTEGER PRIMARY KEY);
        CREATE TABLE user (id INTEGER PRIMARY KEY, group_id INTEGER UNIQUE REFERENCES g (id));
        CREATE TABLE user_group (x TEXT, id INTEGER UNIQUE REFERENCES g (ID));
        CREATE TABLE user_pkey (id INTEGER PRIMARY KEY);
        CREATE TABLE user_id_seq (id INTEGER);
        CREATE INDEX user_group_pkey ON user (group_id);
        INSERT INTO g VALUES (1); INSERT INTO user VALUES (1, 1); INSERT INTO user_group VALUES ('x', 1)""",
    )
    for _ in range(2):  # the second run finds all of it
        assert api.migrate(source, database.at("store")).verified
        built = database.run(
            "SELECT i.indrelid::regclass::text, i.indisunique, array_agg(a.attname::text)"
            " FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid"
            " WHERE i.indrelid::regclass::text LIKE 'store.%user%' AND NOT i.indisprimary"
            " GROUP BY i.indexrelid, 1, 2 ORDER BY 1, 2"
        )
        assert sorted((name.replace('"', ""), unique, columns) for name, unique, columns in built) == [
            ("store.user", False, ["group_id"]),
            ("store.user", True, ["group_id"]),
            ("store.user_group", True, ["id"]),
        ]
        links = database.run(
            "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
            " AND connamespace = 'store'::regnamespace AND convalidated ORDER BY 1"
        )
        assert len(links) == 2


def test_rows_of_tables_that_inherit_are_counted_once(tmp_path: Path, database: Database) -> None:
    database.run(
        "CREATE SCHEMA store",
        "CREATE TABLE store.p (id int PRIMARY KEY)",
        "CREATE TABLE store.c (more text) INHERITS (store.p)",
        "INSERT INTO store.p VALUES (1)",
        "INSERT INTO store.c VALUES (2, 'x')",
    )
    report = api.migrate(database.at("store"), tmp_path / "b.sqlite", verify="counts")
    assert report.verified
    assert {t.name: t.rows_source for t in report.tables} == {"p": 1, "c": 1}


def test_partitions_beyond_a_schema_are_carried_or_named(tmp_path: Path, database: Database) -> None:
    database.run(
        "CREATE SCHEMA store",
        "CREATE SCHEMA other",
        "CREATE FOREIGN DATA WRAPPER none",
        "CREATE SERVER afar FOREIGN DATA WRAPPER none",
        "CREATE TABLE other.p (id int, k int) PARTITION BY LIST (k)",
        "CREATE TABLE store.of_other PARTITION OF other.p FOR VALUES IN (1)",
        "CREATE TABLE other.u (id int PRIMARY KEY)",
        "CREATE TABLE store.u (id int PRIMARY KEY, o int CONSTRAINT away REFERENCES other.u)",
        "CREATE TABLE store.p (id int, k int) PARTITION BY LIST (k)",
        "CREATE TABLE store.p1 PARTITION OF store.p FOR VALUES IN (1)",
        "CREATE FOREIGN TABLE store.p2 PARTITION OF store.p FOR VALUES IN (2) SERVER afar",
        "INSERT INTO other.p VALUES (7, 1)",
        "INSERT INTO store.p VALUES (8, 1)",
        "INSERT INTO other.u VALUES (9)",
        "INSERT INTO store.u VALUES (1, 9)",
    )
    report = api.migrate(database.at("store"), tmp_path / "b.sqlite")
    assert report.verified
    assert report.warnings == ()
    assert {t.name: t.rows_written for t in report.tables} == {"of_other": 1, "p": 1, "u": 1}
    assert {n["name"]: n["reason"] for n in report.not_carried} == {
        "store.p2": "ITS ROWS ARE LEFT BEHIND: a foreign table that is a partition of p",
        "u.away": "a foreign key to a table of another schema",
        "p": "its partitions: the target has one table",
    }


def test_whatever_of_a_schema_no_row_carries_is_listed(tmp_path: Path, database: Database) -> None:
    database.run(
        "CREATE SCHEMA store",
        "CREATE SEQUENCE store.lone",
        "SELECT nextval('store.lone')",
        "CREATE TABLE store.p (id serial PRIMARY KEY, v text DEFAULT 'x', w text COLLATE \"POSIX\", j jsonb,"
        " u int CONSTRAINT late UNIQUE DEFERRABLE)",
        "CREATE INDEX i_include ON store.p (v) INCLUDE (w)",
        "CREATE INDEX i_class ON store.p (v text_pattern_ops)",
        "CREATE UNIQUE INDEX i_nulls ON store.p (v) NULLS NOT DISTINCT",
        "CREATE INDEX i_first ON store.p (v NULLS FIRST)",
        "CREATE INDEX i_plain ON store.p (v DESC, w)",
        "CREATE INDEX i_part ON store.p (v) WHERE v <> ''",
        "CREATE INDEX i_gin ON store.p USING gin (j)",
        "CREATE INDEX i_own ON store.p USING gin (j jsonb_path_ops)",
        "COMMENT ON COLUMN store.p.v IS 'what was said'",
        "GRANT SELECT ON store.p TO PUBLIC",
    )
    report = api.migrate(database.at("store"), tmp_path / "b.sqlite")
    assert {(n["name"], n["reason"], n["derived"]) for n in report.not_carried} == {
        ("lone", "a sequence of no column, at 1", False),
        ("p.w", "COLLATE POSIX", False),
        ("p.late", "DEFERRABLE of a key", False),
        ("i_include", "INCLUDE (w)", False),
        ("i_class", "operator class text_pattern_ops", False),
        ("i_nulls", "NULLS NOT DISTINCT", False),
        ("i_first", "NULLS FIRST or LAST", False),
        ("i_gin", "a gin index", False),
        ("i_own", "a gin index", True),
        ("comments", "on p", False),
        ("grants", "on p", False),
    }
    assert [note.partition(":")[0] for note in report.tables[0].notes] == [
        "p.v DEFAULT 'x'",
        "index i_part WHERE (v <> ''",
    ]
    assert not any("COLLATE" in str(n) for n in _back_and_forth(tmp_path, database))


def _back_and_forth(tmp_path: Path, database: Database) -> tuple[object, ...]:
    source = stores.made(tmp_path / "texts.sqlite", "CREATE TABLE k (v TEXT PRIMARY KEY NOT NULL)")
    api.migrate(source, database.at("keys"))
    return api.migrate(database.at("keys"), tmp_path / "texts-back.sqlite").not_carried


def test_a_link_that_is_checked_at_once_unless_asked_otherwise_stays_so(
    tmp_path: Path, database: Database
) -> None:
    database.run(
        "CREATE SCHEMA store",
        "CREATE TABLE store.p (id int PRIMARY KEY)",
        "CREATE TABLE store.c (a int REFERENCES store.p DEFERRABLE INITIALLY IMMEDIATE,"
        " b int REFERENCES store.p DEFERRABLE INITIALLY DEFERRED, d int REFERENCES store.p)",
    )
    between = tmp_path / "b.sqlite"
    api.migrate(database.at("store"), between)
    for source, name in ((database.at("store"), "direct"), (str(between), "back")):
        api.migrate(source, database.at(name))
        assert database.run(
            "SELECT array_agg((condeferrable, condeferred)::text ORDER BY conkey) FROM pg_constraint"
            f" WHERE conrelid = '{name}.c'::regclass AND contype = 'f'"
        ) == [(["(t,f)", "(t,t)", "(f,f)"],)]


def test_a_unique_constraint_is_one_again_also_after_rows_were_amended(
    tmp_path: Path, database: Database
) -> None:
    database.run(
        "CREATE SCHEMA store",
        'CREATE TABLE store.p (id int PRIMARY KEY, a int, b text, CONSTRAINT "a and b" UNIQUE (a, b), c int UNIQUE)',
        "CREATE UNIQUE INDEX p_b ON store.p (b DESC)",
        "CREATE TABLE store.c (x int REFERENCES store.p (c))",
        "INSERT INTO store.p VALUES (1, 1, 'x', 1), (2, 2, 'y', 2)",
        "INSERT INTO store.c VALUES (1)",
    )
    kept = (
        "SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint"
        " WHERE conrelid = 'there.p'::regclass AND contype = 'u'"
    )
    between = tmp_path / "b.sqlite"
    api.migrate(database.at("store"), between)
    api.migrate(between, database.at("there"))
    assert database.run(kept) == [(["a and b", "p_c_key"],)]
    database.run(  # each has the other's value now
        "UPDATE store.c SET x = NULL",
        "UPDATE store.p SET c = 9 WHERE id = 1",
        "UPDATE store.p SET c = 1 WHERE id = 2",
        "UPDATE store.p SET c = 2 WHERE id = 1",
        "UPDATE store.c SET x = 2",
    )
    api.migrate(database.at("store"), between, update=True, mirror=True)
    assert api.migrate(between, database.at("there"), mirror=True).verified
    assert database.run(kept) == [(["a and b", "p_c_key"],)]
    assert database.run("SELECT 1 FROM pg_indexes WHERE schemaname = 'there' AND indexname = 'p_b'") == [(1,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.run("INSERT INTO there.p VALUES (3, 9, 'z', 1)")


def test_what_is_under_a_domain_is_what_is_carried(tmp_path: Path, database: Database) -> None:
    database.run(
        "CREATE SCHEMA store",
        "CREATE DOMAIN store.one AS int",
        "CREATE DOMAIN store.two AS store.one",
        "CREATE TYPE store.mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN store.moods AS store.mood",
        "CREATE DOMAIN store.place AS vector(2)",
        "CREATE TABLE store.t (id store.two PRIMARY KEY, m store.moods, many store.one[], v store.place)",
        "INSERT INTO store.t VALUES (1, 'sad', '{1,2}', '[1,2]')",
    )
    back = tmp_path / "b.sqlite"
    assert api.migrate(database.at("store"), back).verified
    assert api.migrate(back, database.at("again")).verified
    assert api.verify(database.at("store"), database.at("again")).verified
    types = "SELECT array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute"
    assert database.run(f"{types} WHERE attrelid = 'again.t'::regclass AND attnum > 0") == [
        (["integer", "again.mood", "integer[]", "vector(2)"],)
    ]


def test_names_that_sqlite_takes_for_one_are_refused_before_anything_is_written(
    tmp_path: Path, database: Database
) -> None:
    database.run(
        "CREATE SCHEMA store",
        'CREATE TABLE store.t (id int PRIMARY KEY, a int, "A" int)',
        "CREATE TABLE store.none ()",
    )
    for choice in ("fail", "quarantine"):
        with pytest.raises(SchemaError, match="differ only in case: a, A"):
            api.migrate(database.at("store"), tmp_path / "b.sqlite", on_misfit=choice)
    assert not (tmp_path / "b.sqlite").exists()


def test_rows_that_are_heavy_come_in_small_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[PostgresSource.__module__], "BATCH_BYTES", 1000)
    database.run(
        "CREATE SCHEMA store",
        "CREATE TABLE store.t (id int PRIMARY KEY, v text)",
        "INSERT INTO store.t SELECT i, repeat('x', CASE WHEN i < 30 THEN 1 ELSE 400 END) FROM generate_series(0, 59) i",
    )
    with opened_source(database.at("store")) as source:
        [table] = source.tables()
        batches = list(source.batches(table, size=10))
        assert [row[0] for batch in batches for row in batch.rows] == list(range(60))
        assert len(batches[0].rows) == 10
        assert all(len(batch.rows) <= 4 for batch in batches[4:])
        rest = source.batches(table, size=10, after=batches[6].cursor)
        assert [row[0] for batch in rest for row in batch.rows] == [
            row[0] for batch in batches[7:] for row in batch.rows
        ]
