"""`migrate()` and `MigrationEngine`: options, progress, reports on errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import migrate as package
from migrate import addresses, api, engine
from migrate.api import MigrationEngine, Request
from migrate.errors import (
    ConfigError,
    InterruptedRunError,
    MigrateError,
    MisfitError,
    SchemaError,
    VerifyError,
)
from migrate.overlap import refuse_overlap
from migrate.report import Report
from tests.small_stores import asked, in_memory, pairs, sqlite_file

pytestmark = pytest.mark.usefixtures("shelves")

SCRIPT = (
    "CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, v TEXT);"
    "CREATE TABLE empty (x); INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'z'); INSERT INTO b VALUES (1, 'w')"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return sqlite_file(tmp_path / "source.db", SCRIPT)


# --- options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": True},
        {"batch_size": "10"},
        {"batch_size": 1.5},
        {"workers": 0},
        {"workers": "2"},
        {"workers": None},
        {"verify": "most"},
        {"verify": "all"},
        {"on_misfit": "ignore"},
        {"index": "ivfflat"},
        {"json": "bson"},
        {"auto_setup": "vagrant"},
        {"tables": "ab"},
        {"colour": "red"},
    ],
)
def test_an_option_that_no_run_can_use_is_refused_before_anything_is_begun(
    options: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        api.migrate(source, tmp_path / "target.db", **options)
    assert raised.value.exit_code == 2
    assert not (tmp_path / "target.db").exists()


def test_the_defaults_are_those_of_the_contract() -> None:
    request = Request()
    assert (request.batch_size, request.verify, request.on_misfit, request.index) == (
        1000,
        None,  # the stores' own: full, but for those whose reading costs money
        "fail",
        "auto",
    )
    assert not any((request.dry_run, request.restart, request.update, request.mirror, request.auto_setup))


@pytest.mark.parametrize("spelling", ["same", "relative", "symlink", "hard link", "dict"])
def test_a_store_is_not_migrated_into_itself(
    spelling: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(source)
    (tmp_path / "hard.db").hardlink_to(source)
    names = {"same": source, "relative": "source.db", "symlink": "link.db", "hard link": "hard.db"}
    target: Any = names.get(spelling) or {"type": "sqlite", "path": str(source)}
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="same"):
        api.migrate(source, target, into_existing=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("origin", "target", "said"),
    [
        ("source.db", "qdrant:./f?sidecar=source.db", "into a part of the source: source.db"),
        ("source.db", "pinecone+http://127.0.0.1:1?sidecar=./source.db", "into a part of the source"),
        ("qdrant:./f", "qdrant:f", "same store"),
        ("qdrant:./f", "qdrant:./f?sidecar=other.db", "same store"),
        ("qdrant:./f", "f.memlift.sqlite", "into a part of the source: f.memlift.sqlite"),
        ("qdrant:./f", "qdrant:./g?sidecar=f.memlift.sqlite", "into a part of the source"),
        ("qdrant:./f", "f/x.db", "would lie inside the source qdrant:f"),
        ("postgresql+embedded:./pg", "pg/x.db", "would lie inside the source"),
    ],
)
def test_no_part_of_a_source_is_written_to(
    origin: str, target: str, said: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PINECONE_API_KEY", "pk")
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=said) as raised:
        api.migrate(origin, target, into_existing=True)
    assert raised.value.hint == "name another file, schema or prefix for the target"
    assert source.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["source.db"]


def test_another_prefix_in_one_folder_and_another_schema_in_one_cluster_are_other_stores() -> None:
    parse = addresses.parse
    refuse_overlap(parse("qdrant:./f"), parse("qdrant:./f?prefix=b_"))
    refuse_overlap(parse("postgresql+embedded:./pg?schema=a"), parse("postgresql+embedded:./pg?schema=b"))
    refuse_overlap(parse("a.db"), parse("f/a.db"))


def test_an_option_that_is_mistyped_is_named_with_what_was_meant(source: Path) -> None:
    with pytest.raises(ConfigError, match="migrate has no option 'batchsize'") as raised:
        api.migrate(source, "target.db", batchsize=10)
    assert raised.value.hint == "batch_size"


def test_tables_are_chosen_and_left_out(source: Path, tmp_path: Path) -> None:
    assert [t.name for t in api.migrate(source, tmp_path / "1.db", tables=["b"]).tables] == ["b"]
    assert [t.name for t in api.migrate(source, tmp_path / "2.db", exclude=["a"]).tables] == ["b", "empty"]
    with pytest.raises(SchemaError, match="no table 'c'"):
        api.migrate(source, tmp_path / "3.db", tables=["c"])
    assert not (tmp_path / "3.db").exists()


# --- the engine's seed names ------------------------------------------------------------


@pytest.mark.parametrize("form", ["keywords", "dict", "mixed"])
def test_the_engine_takes_its_seed_names(form: str, source: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    origin: dict[str, Any] = {"type": "sqlite", "path": str(source)}
    to: dict[str, Any] = {"type": "sqlite", "path": str(tmp_path / "target.db")}

    def on_progress(done: int, total: int, table: str) -> None:
        seen.append((done, total, table))

    if form == "keywords":
        report = MigrationEngine.migrate(from_=origin, to=to, batch_size=2, on_progress=on_progress)
    elif form == "dict":
        report = MigrationEngine.migrate(
            {"from": origin, "to": to, "batchSize": 2, "onProgress": on_progress, "dryRun": False}
        )
    else:
        report = MigrationEngine.migrate({"from": origin, "onProgress": on_progress}, to=to)
    assert report.verified
    assert (3, 3, "a") in seen


@pytest.mark.parametrize("options", [{}, {"from": "a.db"}, {"to": "b.db"}])
def test_the_engine_needs_both_ends(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"MigrationEngine\.migrate needs"):
        MigrationEngine.migrate(options)


def test_the_package_offers_the_public_names() -> None:
    assert package.migrate is api.migrate
    assert package.MigrationEngine is MigrationEngine
    assert package.Report is Report
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


# --- progress ---------------------------------------------------------------------------


def progress_of(run: Callable[[engine.OnProgress], object]) -> dict[str, list[tuple[int, int]]]:
    seen: dict[str, list[tuple[int, int]]] = {}
    run(lambda done, total, table: seen.setdefault(table, []).append((done, total)))
    return seen


def check_progress(seen: dict[str, list[tuple[int, int]]]) -> None:
    assert set(seen) == {"a", "b", "empty"}
    for steps in seen.values():
        dones = [done for done, _ in steps]
        assert dones == sorted(dones)
        assert all(0 <= done <= total for done, total in steps)
        assert len({total for _, total in steps}) == 1
        assert steps[-1][0] == steps[-1][1]


def test_progress_is_monotonic_and_ends_whole_for_every_table(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 1)
    target = tmp_path / "target.db"
    first = progress_of(lambda on: api.migrate(source, target, batch_size=1, on_progress=on))
    check_progress(first)
    assert {(1, 3), (2, 3), (3, 3)} <= set(first["a"])
    check_progress(progress_of(lambda on: api.migrate(source, target, on_progress=on)))  # nothing to do
    asked(source, "INSERT INTO a VALUES (4, 'new')")
    check_progress(progress_of(lambda on: api.migrate(source, target, on_progress=on)))


def test_progress_of_a_rerun_is_told_after_each_commit(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    api.migrate(source, target)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)"
    asked(source, f"{numbers} INSERT INTO a SELECT i, 'new' FROM n")
    seen = progress_of(lambda on: api.migrate(source, target, batch_size=100, on_progress=on))
    check_progress(seen)
    assert [done for done, _ in seen["a"]] == [600, 1100, 1294, 1294]


class StopHereError(Exception):
    """A caller's own."""


def test_an_exception_in_on_progress_stops_the_run_and_a_rerun_completes_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMIT_BYTES", 1)
    for at in itertools.count(1):
        calls, target = itertools.count(1), tmp_path / f"target {at}.db"

        def stop(done: int, total: int, table: str) -> None:
            if next(calls) == at:  # noqa: B023  # called before the loop goes on
                raise StopHereError

        try:
            api.migrate(source, target, batch_size=1, on_progress=stop)
            break
        except StopHereError:
            pass
        report = api.migrate(source, target, batch_size=1)
        assert (report.verified, report.resumed) == (True, True)
        for table in ("a", "b"):
            assert asked(target, f"SELECT * FROM {table}") == asked(source, f"SELECT * FROM {table}")
    assert at > 8


def test_a_stop_that_was_asked_for_leaves_a_clean_checkpoint(source: Path, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(InterruptedRunError) as raised:
        api.run(source, tmp_path / "target.db", Request(), stop=stop)
    assert raised.value.report is not None
    assert api.migrate(source, tmp_path / "target.db").verified


# --- reports ------------------------------------------------------------------------------


def test_a_source_without_tables_is_said_to_be_one(tmp_path: Path) -> None:
    bare = sqlite_file(tmp_path / "bare.db", "CREATE TABLE t (x); DROP TABLE t")
    report = api.migrate(bare, tmp_path / "target.db")
    assert (report.warnings, report.verified) == (
        ("the source has no tables, so there is nothing to migrate",),
        False,
    )


def test_a_report_as_a_dict_is_what_its_json_is_read_back_as(source: Path, tmp_path: Path) -> None:
    found = api.migrate(source, tmp_path / "target.db").to_dict()
    assert json.loads(json.dumps(found)) == found
    assert isinstance(found["tables"], list)


def test_a_report_has_the_fields_of_the_contract_and_is_json(source: Path, tmp_path: Path) -> None:
    report = api.migrate(source, tmp_path / "target.db")
    data = report.to_dict()
    assert json.loads(json.dumps(data))["total_rows"] == 4
    wanted = "source target dry_run verified verify_mode total_rows duration_ms resumed tables warnings errors quarantine"
    assert set(wanted.split()) <= set(data)
    wanted = (
        "name kind rows_source rows_written rows_unchanged rows_extra rows_quarantined bytes vector audit_s copy_s"
        " index_s verify_s verified differences"
    )
    assert all(set(wanted.split()) <= set(table) for table in data["tables"])
    assert [(t["name"], t["rows_source"], t["rows_written"]) for t in data["tables"]] == [
        ("a", 3, 3),
        ("b", 1, 1),
        ("empty", 0, 0),
    ]


@pytest.mark.parametrize(
    ("mode", "verified"), [("full", True), ("sample", True), ("counts", True), ("none", False)]
)
def test_verified_is_true_only_when_something_was_verified(
    mode: str, verified: bool, source: Path, tmp_path: Path
) -> None:
    report = api.migrate(source, tmp_path / "target.db", verify=mode)
    assert (report.verified, report.verify_mode) == (verified, mode)
    assert {t.verified for t in report.tables} == {verified}


def test_a_store_without_tables_is_not_called_verified(tmp_path: Path) -> None:
    empty = sqlite_file(tmp_path / "empty.db", "CREATE TABLE t (v); DROP TABLE t")
    assert not api.migrate(empty, tmp_path / "target.db").verified


def test_a_failed_run_raises_with_the_partial_report(tmp_path: Path) -> None:
    in_memory("odd", (pairs(), [(1, "ok"), (2**70, "x"), (2, "\ud800")]))
    with pytest.raises(MisfitError, match="2 cells do not fit") as raised:
        api.migrate("memory:odd", tmp_path / "target.db")
    report = raised.value.report
    assert report is not None
    assert (report.misfits, report.verified, report.total_rows) == (2, False, 3)
    assert report.errors == (str(raised.value),)
    assert [s["key"] for s in report.tables[0].misfits["shown"]] == [[2**70], [2]]
    assert not (tmp_path / "target.db").exists()


def test_an_audit_finds_what_a_run_would_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    report = api.audit(source, tmp_path / "target.db")
    assert (report.dry_run, report.total_rows, report.misfits) == (True, 4, 0)
    assert api.audit(source).total_rows == 4
    assert [p.name for p in tmp_path.iterdir()] == ["source.db"]


def test_verify_compares_two_stores_and_changes_neither(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    api.migrate(source, target)
    before = source.read_bytes(), target.read_bytes()
    assert api.verify(source, target).verified
    assert (source.read_bytes(), target.read_bytes()) == before
    asked(target, "UPDATE a SET v = 'changed' WHERE id = 2")
    with pytest.raises(VerifyError) as raised:
        api.verify(source, target)
    assert raised.value.report is not None
    assert raised.value.report.tables[0].differences["shown"] == [
        {"table": "a", "what": "different", "key": [2], "columns": ["v"]}
    ]
    assert api.verify(source, target, mode="counts").verified
    for mode in ("none", "most"):
        with pytest.raises(ConfigError):
            api.verify(source, target, mode=mode)


def test_a_table_that_the_target_lacks_is_a_difference(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    api.migrate(source, target, tables=["a"])
    with pytest.raises(VerifyError) as raised:
        api.verify(source, target)
    assert raised.value.report is not None
    assert raised.value.report.errors == (
        "table 'b' (1 rows) is not in the target",
        "table 'empty' (0 rows) is not in the target",
    )


def test_undoing_where_nothing_was_made_does_nothing(source: Path) -> None:
    before = source.read_bytes()
    assert api.undo(source) == []
    assert source.read_bytes() == before


@pytest.mark.parametrize("missing", ["nothing.db", "folder"])
def test_a_source_that_is_not_there_is_refused_and_not_made(missing: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MigrateError) as raised:
        api.migrate(tmp_path / missing, tmp_path / "target.db")
    assert raised.value.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("command", [api.audit, api.undo, package.search])
def test_a_folder_without_a_postgres_gets_none_for_being_looked_at(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "pg").mkdir()
    with pytest.raises(ConfigError, match="there is no embedded Postgres in"):
        command(f"postgresql+embedded:{tmp_path / 'pg'}")
    assert list((tmp_path / "pg").iterdir()) == []
