"""A check of search finds every fault that is planted in a target, and none where there is none."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from migrate.errors import ConfigError
from migrate.schema import Metric
from migrate.search.base import Answer, Health, Mode, Query, Searched
from migrate.search.filters import Equals, Filter, Not, holds
from migrate.search.parity import Parity, Thresholds, Wanted, check
from migrate.search.parity.judging import problems_of
from tests.parity.fake_search import DIM, FakeStore, notes, rows

SMALL = Wanted(queries=12, k=5)


def compared(target: FakeStore, wanted: Wanted = SMALL, source: FakeStore | None = None) -> Parity:
    return check(source or FakeStore(notes(), rows(80)), target, wanted)


@pytest.mark.parametrize("metric", list(Metric))
def test_equal_stores_pass_with_full_marks(metric: Metric) -> None:
    found = compared(
        FakeStore(notes(metric=metric), rows(80)), source=FakeStore(notes(metric=metric), rows(80))
    )
    (told,) = found.tables
    assert found.passed, found.failures
    assert (told.queries, told.recall_at_k, told.rank_correlation, told.filter_parity) == (12, 1, 1, 1)
    assert told.filtered_recall_at_k == told.keyword_overlap == 1
    assert told.score_drift == {"max": 0, "mean": 0}
    assert told.recall_histogram == (0,) * 10 + (12,)
    assert told.filters["run"] > 10
    assert told.how == {"source": "an index", "target": "an index"}


def test_the_report_has_the_promised_keys_and_is_json() -> None:
    told = json.loads(json.dumps(compared(FakeStore(notes(), rows(80))).to_dict()))
    assert {
        "recall_at_k",
        "rank_correlation",
        "filter_parity",
        "latency_ms",
        "passed",
        "tables",
    } <= told.keys()
    assert told["latency_ms"].keys() == {"source", "target"}
    assert told["latency_ms"]["target"]["p95"] >= told["latency_ms"]["target"]["p50"] > 0


def test_a_target_that_compares_by_another_metric_is_found() -> None:
    found = compared(FakeStore(notes(), rows(80), by=Metric.EUCLID))
    assert any("drift" in f for f in found.failures)
    assert any("recall" in f for f in found.failures)


def test_another_metric_is_found_on_unit_vectors_too_where_the_order_is_the_same() -> None:
    mine, theirs = rows(80), rows(80)
    for row in (*mine, *theirs):
        row["embedding"] = row["embedding"] / np.float32(np.linalg.norm(row["embedding"]))
    found = compared(FakeStore(notes(), theirs, by=Metric.EUCLID), source=FakeStore(notes(), mine))
    assert found.tables[0].recall_at_k == 1
    assert [f for f in found.failures if "drift" in f]


def test_an_index_of_half_the_rows_is_found() -> None:
    found = compared(FakeStore(notes(), rows(80), indexed=lambda row: row["id"] % 2 == 0))
    told = found.tables[0]
    assert told.recall_at_k is not None
    assert told.recall_at_k < 0.8
    assert told.filter_parity == 1  # rows are there, only the index has not all of them
    assert sum(told.recall_histogram) == told.queries


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (Health(None, problems=("there is no vector index on embedding",)), "there is no vector index"),
        (Health("hnsw", Metric.EUCLID, 80, 80), "compares by euclid"),
        (Health("hnsw", Metric.COSINE, 31, 80), "holds 31 of 80"),
        (Health("hnsw", Metric.COSINE, 80, 80, ("it was not built to its end",)), "not built to its end"),
    ],
)
def test_what_is_wrong_with_an_index_fails_the_check_unless_none_was_wanted(state: Health, says: str) -> None:
    target = FakeStore(notes(), rows(80), state=state)
    found = compared(target)
    assert says in found.tables[0].problems[0]
    assert says in found.failures[0]
    assert compared(target, replace(SMALL, indexed=False)).passed


def test_a_table_without_an_index_is_healthy_where_its_store_says_nothing() -> None:
    assert problems_of(Health(None, None, None, 80), notes(), SMALL) == []
    always = replace(SMALL, always_indexed=True)
    assert problems_of(Health(None, None, None, 80), notes(), always) == ["there is no vector index"]
    assert problems_of(Health(None, None, None, 0), notes(), always) == []


def test_a_filter_that_lets_other_rows_through_is_found_and_named() -> None:
    def through(of: Filter, row: dict[str, Any]) -> bool:
        # A store whose booleans arrived as numbers: what asks for true finds nothing.
        if isinstance(of, Equals) and of.field.column == "pinned":
            return False
        return not through(of.part, row) if isinstance(of, Not) else holds(of, row)

    found = compared(FakeStore(notes(), rows(80), through=through))
    told = found.tables[0]
    assert told.recall_at_k == 1
    assert told.filter_parity is not None
    assert told.filter_parity < 1
    assert any("pinned" in d["filter"] and d["missing"] for d in told.filters["different"])


def test_one_wrong_value_inside_json_is_found_by_the_filter_that_names_it() -> None:
    theirs = rows(80)
    theirs[11] = theirs[11] | {"metadata": {"user": {"name": "Eve"}}}
    filters = ({"metadata.user.name": rows(80)[11]["metadata"]["user"]["name"]},)
    found = compared(FakeStore(notes(), theirs), replace(SMALL, filters=filters))
    different = found.tables[0].filters["different"]
    assert {"filter": json.dumps(filters[0]), "missing": 1, "extra": 0} in different


def test_filters_ask_for_every_kind_of_value() -> None:
    target = FakeStore(notes(), rows(80))
    compared(target)
    asked = " ".join(repr(q.where) for q in target.asked if q.where is not None)
    for column in ("kind", "strength", "pinned", "agent_id", "metadata"):
        assert f"column='{column}'" in asked
    for part in ("Not(", "Some(", "All(", "Between(", "path=('user', 'name')", "path=('tags',)"):
        assert part in asked
    assert any(q.tenant in ("ada", "bob") for q in target.asked)


def test_an_index_that_gives_up_under_filters_is_found() -> None:
    class GivesUp(FakeStore):
        def _standing(self, query: Query) -> list[dict[str, Any]]:
            found = super()._standing(query)
            filtered = query.where is not None and not query.exact and query.mode is Mode.VECTOR
            return found[:1] if filtered else found

    found = compared(GivesUp(notes(), rows(80)))
    assert found.tables[0].recall_at_k == 1
    assert any("recall under filters" in f for f in found.failures)


def test_a_store_without_exact_search_may_miss_a_few_of_many_under_a_filter() -> None:
    class Rough(FakeStore):
        def _standing(self, query: Query) -> list[dict[str, Any]]:
            found = super()._standing(query)
            return [row for row in found if row["id"] % 40] if query.where is not None else found

    many = rows(600)
    rough, source = Rough(notes(), many), FakeStore(notes(), many)
    broad = replace(SMALL, filters=({"strength": {"gte": 0}},))
    assert compared(rough, broad, source).tables[0].filter_parity != 1
    found = compared(rough, replace(broad, approximate=True), source)
    different = [d["filter"] for d in found.tables[0].filters["different"]]
    assert json.dumps(broad.filters[0]) not in different
    assert different  # a filter of few rows has to give all of them


def test_a_filter_that_the_target_has_not_is_said_and_no_difference() -> None:
    found = compared(FakeStore(notes(), rows(80), refuses="ranges over text are not to be had here"))
    told = found.tables[0]
    assert told.filters["not_supported"] > 10
    assert "ranges over text" in told.notes[0]
    assert found.passed


def test_a_filter_that_the_source_has_not_is_said_too() -> None:
    source = FakeStore(notes(), rows(80), refuses="no ranges over text")
    found = compared(FakeStore(notes(), rows(80)), source=source)
    assert found.passed
    assert found.tables[0].filters["run"] == 1  # the tenant
    assert found.tables[0].filters["not_supported"] > 10
    assert found.tables[0].notes == ("not supported by the source: no ranges over text",)


def test_rows_that_are_missing_or_foreign_are_found() -> None:
    theirs = [row | {"id": row["id"] + 1000} if row["id"] < 30 else row for row in rows(80)]
    found = compared(FakeStore(notes(), theirs))
    assert found.tables[0].recall_at_k is not None
    assert found.tables[0].recall_at_k < 0.9


def test_keyword_overlap_is_reported_and_judged_only_where_asked() -> None:
    theirs = [row | {"body": "nothing of it"} for row in rows(80)]
    lenient = compared(FakeStore(notes(), theirs))
    assert lenient.tables[0].keyword_overlap == 0
    assert lenient.passed
    strict = replace(SMALL, thresholds=Thresholds(min_keyword_overlap=0.5))
    assert "keyword overlap is 0.000, below 0.5" in compared(FakeStore(notes(), theirs), strict).failures[0]


def test_a_target_that_knows_no_words_is_said_and_judged_only_where_asked() -> None:
    class Wordless(FakeStore):
        def search(self, searched: Searched, query: Query) -> Answer:
            if query.mode is Mode.KEYWORD:
                raise ConfigError("the index has no words to search")
            return super().search(searched, query)

    found = compared(Wordless(notes(), rows(80)))
    assert found.passed
    assert found.tables[0].keyword_overlap is None
    assert found.tables[0].notes == ("not supported by the target: the index has no words to search",)
    strict = replace(SMALL, thresholds=Thresholds(min_keyword_overlap=0.1))
    assert not compared(Wordless(notes(), rows(80)), strict).passed


def test_a_slow_target_fails_only_where_a_ratio_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()  # a clock of our own: every look at it takes a second

    def slow(query: Query) -> None:
        if query.mode is Mode.VECTOR and not query.exact:
            for _ in range(20):
                next(now)

    module = sys.modules["migrate.search.parity.check"]  # the package has a function of that name
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(now))))
    target = FakeStore(notes(), rows(80), slow=slow)
    assert compared(target).passed
    asked = replace(SMALL, thresholds=Thresholds(max_latency_ratio=3))
    assert "p95 is 21.0 times the source's" in compared(target, asked).failures[0]


def test_a_table_that_is_not_there_is_a_failure() -> None:
    found = compared(FakeStore(notes(name="other"), rows(5)))
    assert found.failures == ("notes: it cannot be searched in the target",)


def test_a_table_of_words_alone_may_be_kept_beside_unless_its_words_were_asked_for() -> None:
    words = FakeStore(replace(notes(), vector=None), rows(20))
    elsewhere = FakeStore(notes(name="other"), rows(5))
    found = compared(elsewhere, source=words)
    assert found.passed
    assert found.tables[0].notes == ("its words cannot be searched in the target",)
    strict = replace(SMALL, thresholds=Thresholds(min_keyword_overlap=0.1))
    assert not compared(elsewhere, strict, source=words).passed


def test_rows_without_a_key_are_compared_by_their_scores() -> None:
    mine, theirs = (FakeStore(notes(key=()), rows(80)) for _ in range(2))
    assert compared(theirs, source=mine).passed
    halved = FakeStore(notes(key=()), rows(80)[:40])
    found = compared(halved, source=mine)
    assert found.tables[0].recall_at_k is not None
    assert found.tables[0].recall_at_k < 0.8
    assert found.tables[0].filter_parity is not None
    assert found.tables[0].filter_parity < 1


def test_what_an_agent_has_forgotten_is_not_asked_for() -> None:
    live = replace(notes(), live=Not(Equals(next(_fields("pinned")), (True,))))
    target = FakeStore(live, rows(80))
    assert compared(target, source=FakeStore(live, rows(80))).passed
    assert all("pinned" in repr(q.where) for q in target.asked)


def _fields(name: str) -> Any:
    from migrate.search.filters import fields, parse

    return fields(parse({name: 1}))


def test_empty_and_vectorless_tables_are_no_failures() -> None:
    empty = compared(FakeStore(notes(), []), source=FakeStore(notes(), []))
    assert empty.passed
    assert empty.tables[0].recall_at_k is None
    words = replace(notes(), vector=None)
    only_words = compared(FakeStore(words, rows(80)), source=FakeStore(words, rows(80)))
    assert only_words.passed
    assert only_words.to_dict()["recall_at_k"] is None
    assert only_words.tables[0].keyword_overlap == 1


def test_zero_vectors_are_never_asked_for_where_directions_are_compared() -> None:
    mine = rows(10)
    for row in mine[:5]:
        row["embedding"] = np.zeros(DIM, np.float32)
    target = FakeStore(notes(), mine)
    assert compared(target, source=FakeStore(notes(), mine)).passed
    assert all(q.vector.any() for q in target.asked if q.vector is not None)


def test_a_migration_of_one_tenant_is_compared_with_that_tenants_rows() -> None:
    theirs = FakeStore(notes(), [row for row in rows(80) if row["agent_id"] == "ada"])
    assert not compared(theirs).passed
    assert compared(theirs, replace(SMALL, tenant="ada")).passed
    assert compared(theirs, replace(SMALL, tables=frozenset({"others"}))).tables == ()


def test_given_vectors_are_asked_and_wrong_ones_refused() -> None:
    vector = np.arange(DIM, dtype=np.float32)
    target = FakeStore(notes(), rows(80))
    found = compared(target, replace(SMALL, vectors=(vector,)))
    assert found.tables[0].queries == 13
    assert any(q.vector is vector for q in target.asked)
    with pytest.raises(ConfigError, match="3 dimensions"):
        compared(target, replace(SMALL, vectors=(np.zeros(3, np.float32),)))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SMALL, queries=0),
        replace(SMALL, k=0),
        replace(SMALL, thresholds=Thresholds(min_recall=1.5)),
        replace(SMALL, thresholds=Thresholds(max_score_drift=-1)),
        replace(SMALL, filters=({"nowhere": 1, "kind": {"gtt": 2}},)),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_asked(wrong: Wanted) -> None:
    target = FakeStore(notes(), rows(3))
    with pytest.raises(ConfigError):
        compared(target, wrong)
    assert not target.asked


def test_the_same_seed_asks_the_same_again() -> None:
    one, two = FakeStore(notes(), rows(80)), FakeStore(notes(), rows(80))
    compared(one)
    compared(two)
    assert [
        (q.mode, q.where, q.text, None if q.vector is None else q.vector.tobytes()) for q in one.asked
    ] == [(q.mode, q.where, q.text, None if q.vector is None else q.vector.tobytes()) for q in two.asked]
