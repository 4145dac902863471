"""What makes a check of search fail: thresholds that are not reached, and what is wrong with an index."""

from __future__ import annotations

from migrate.schema import Kind
from migrate.search.base import Health, Searched
from migrate.search.parity.result import TableParity, Thresholds, Wanted

_MOST_DIMENSIONS = 4000  # that pgvector's HNSW takes, as float16


def missing(searched: Searched, bounds: Thresholds) -> TableParity:
    """Return what is told of a table that the target cannot search: a failure, where it has vectors.

    Words alone are judged where that was asked for only: some stores keep such tables beside.
    """
    if searched.vector is None and not searched.text:
        return TableParity(searched.name, notes=not_compared(searched))
    if searched.vector is None and bounds.min_keyword_overlap is None:
        return TableParity(searched.name, notes=("its words cannot be searched in the target",))
    problems = ("it cannot be searched in the target",)
    return TableParity(searched.name, problems=problems, failures=problems)


def not_compared(searched: Searched) -> tuple[str, ...]:
    """Return what is told of a table's columns of sparse vectors: dense ones and words are compared, no others."""
    names = ", ".join(c.name for c in searched.table.columns if c.kind is Kind.SPARSE)
    return (f"sparse vectors are not compared: {names}",) if names else ()


def problems_of(health: Health, searched: Searched, wanted: Wanted) -> list[str]:
    """Return what is wrong with a table's index: what its store says, or what the figures say."""
    if not wanted.indexed:
        return []
    found = list(health.problems)
    dim = (searched.vector.dim if searched.vector is not None else None) or 0
    some = health.vectors is None or health.vectors > 0
    if health.index is None and wanted.always_indexed and some and dim <= _MOST_DIMENSIONS:
        found.insert(0, "there is no vector index")
    if health.problems or health.index is None:
        return found
    if health.metric is not None and health.metric is not searched.metric:
        found.append(f"the index compares by {health.metric}, the vectors are compared by {searched.metric}")
    covered, there = health.covered, health.vectors
    if covered is not None and there is not None and covered < there:
        found.append(f"the index holds {covered:,} of {there:,} vectors")
    return found


def failures(told: TableParity, bounds: Thresholds) -> list[str]:
    """Return the thresholds that a table does not reach, in words."""
    found = [*told.problems]
    for what, value, least in (
        ("recall", told.recall_at_k, bounds.min_recall),
        ("recall under filters", told.filtered_recall_at_k, bounds.min_recall),
        ("rank correlation", told.rank_correlation, bounds.min_correlation),
        ("filter parity", told.filter_parity, bounds.min_filter_parity),
        ("keyword overlap", told.keyword_overlap, bounds.min_keyword_overlap),
    ):
        if value is not None and least is not None and value < least:
            found.append(f"{what} is {value:.3f}, below {least:g}")
    if told.score_drift is not None and bounds.max_score_drift is not None:
        worst = told.score_drift["max"]
        if worst > bounds.max_score_drift:
            found.append(f"scores drift by {worst:.2g}, more than {bounds.max_score_drift:g}")
    if told.latency_ms and bounds.max_latency_ratio is not None:
        mine, theirs = told.latency_ms["source"]["p95"], told.latency_ms["target"]["p95"]
        if mine and theirs and theirs / mine > bounds.max_latency_ratio:
            found.append(f"p95 is {theirs / mine:.1f} times the source's, over {bounds.max_latency_ratio:g}")
    return found
