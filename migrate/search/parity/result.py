"""What a check of search is asked for, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from migrate.errors import ConfigError
from migrate.search.base import Vector
from migrate.search.parity import measures

_MOST = 1_000_000  # queries, and neighbours of each: more is a slip


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a table must reach; None asks for nothing.

    min_recall:        share of the true neighbours, plain and under filters.
    min_correlation:   order of the hits, -1 to 1.
    max_score_drift:   difference of scores for one pair. Float error is below 1e-6 on this scale;
                       vectors kept as float16 are above 1e-5 up to some hundred dimensions, and
                       another metric is at any.
    min_filter_parity: share of filters with equal results.
    min_keyword_overlap: share of hits that both have; rankers differ, so nothing is asked by default.
    max_latency_ratio: p95 of the target to that of the source.
    """

    min_recall: float | None = 0.95
    min_correlation: float | None = 0.9
    max_score_drift: float | None = 1e-5
    min_filter_parity: float | None = 1.0
    min_keyword_overlap: float | None = None
    max_latency_ratio: float | None = None

    def check(self) -> None:
        """Raise ConfigError for a threshold that nothing can be measured by."""
        for one in fields(self):
            value = getattr(self, one.name)
            least = -1.0 if one.name == "min_correlation" else 0.0
            most = 1.0 if one.name.startswith("min_") else float("inf")
            if value is not None and not least <= value <= most:
                raise ConfigError(
                    f"{one.name} cannot be {value}", hint=f"a number from {least:g} to {most:g}"
                )


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a check is made.

    queries: a table, half of them vectors of the source, half such vectors with noise.
    vectors: more queries, for the tables of their dimension.
    filters: more filters, as parsed JSON, for the tables that have their columns.
    indexed: whether the target was to have vector indexes; then what is wrong with one is a failure.
    always_indexed: the target's kind of store gets one however few vectors there are.
    approximate: the target cannot look at every vector (Pinecone), so that of a filter that lets more
             rows through than are compared some may be others: as many as `min_recall` allows.
    tables:  only these, by name; None is all.
    tenant:  only rows of this tenant, as in a migration of one.
    """

    queries: int = 50
    k: int = 10
    vectors: tuple[Vector, ...] = ()
    filters: tuple[dict[str, Any], ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    indexed: bool = True
    always_indexed: bool = False
    approximate: bool = False
    tables: frozenset[str] | None = None
    tenant: str | None = None
    seed: int = 1

    def check(self) -> None:
        """Raise ConfigError for what no check can be made by."""
        for name, value in (("queries", self.queries), ("k", self.k)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} cannot be {value!r}", hint="a number from 1 on")
            if value > _MOST:
                raise ConfigError(f"{name} cannot be {value!r}", hint=f"a number from 1 to {_MOST:,}")
        self.thresholds.check()


@dataclass(frozen=True, slots=True)
class TableParity:
    """One table. Shares from 0 to 1; None where nothing could be measured (no vectors, no words, no filters).

    recall_histogram: queries by recall: below 0.1, below 0.2, ..., below 1, and 1.
    filters:  {"run", "equal", "not_supported", "different": [{"filter", "missing", "extra"}, ...]}.
    index:    what stands ready in the target: {"index", "metric", "covered", "vectors"}.
    how:      what answered: {"source", "target"}.
    problems: what is wrong with the target's index. failures: thresholds that were not reached, in words.
    """

    name: str
    queries: int = 0
    recall_at_k: float | None = None
    recall_histogram: tuple[int, ...] = ()
    rank_correlation: float | None = None
    score_drift: dict[str, float] | None = None
    filter_parity: float | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    filtered_recall_at_k: float | None = None
    keyword_overlap: float | None = None
    keyword_queries: int = 0
    latency_ms: dict[str, dict[str, float | None]] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """All tables. `to_dict` is the `search` of a report: means over all queries, then each table.

    failures: what was not reached, in words with the table's name; empty means passed.
    """

    k: int
    tables: tuple[TableParity, ...]
    latency_ms: dict[str, dict[str, float | None]]
    thresholds: Thresholds
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every threshold was reached and nothing is wrong with an index."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        drifts = [t.score_drift for t in self.tables if t.score_drift is not None]
        weights: Mapping[str, float] = {t.name: float(t.queries) for t in self.tables}
        return {
            "passed": self.passed,
            "k": self.k,
            "queries": sum(t.queries for t in self.tables),
            "recall_at_k": self._mean("recall_at_k", weights),
            "filtered_recall_at_k": self._mean(
                "filtered_recall_at_k", {t.name: float(t.filters.get("run", 0)) for t in self.tables}
            ),
            "rank_correlation": self._mean("rank_correlation", weights),
            "score_drift": {
                "max": max(d["max"] for d in drifts),
                "mean": measures.mean([d["mean"] for d in drifts]),
            }
            if drifts
            else None,
            "filter_parity": self._mean(
                "filter_parity", {t.name: float(t.filters.get("run", 0)) for t in self.tables}
            ),
            "keyword_overlap": self._mean(
                "keyword_overlap", {t.name: float(t.keyword_queries) for t in self.tables}
            ),
            "latency_ms": self.latency_ms,
            "problems": [f"{t.name}: {p}" for t in self.tables for p in t.problems],
            "failures": list(self.failures),
            "thresholds": asdict(self.thresholds),
            "tables": [asdict(t) for t in self.tables],
        }

    def _mean(self, name: str, weights: Mapping[str, float]) -> float | None:
        pairs = [(getattr(t, name), weights[t.name]) for t in self.tables if getattr(t, name) is not None]
        total = sum(w for _, w in pairs)
        return round(sum(v * w for v, w in pairs) / total, 6) if total else None
