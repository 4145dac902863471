"""Asking two stores the same, table by table."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from migrate import values
from migrate.errors import ConfigError
from migrate.report import Observer, Silent
from migrate.schema import Metric
from migrate.search.base import Answer, Hit, Key, Mode, Query, Searchable, Searched, Vector
from migrate.search.filters import bound_to, parse
from migrate.search.parity import measures
from migrate.search.parity.filtering import Json, filters_from, shown
from migrate.search.parity.judging import failures, missing, not_compared, problems_of
from migrate.search.parity.result import Parity, TableParity, Wanted
from migrate.search.service import effective

_FILTERS = 24  # a table
_FILTERED_K = 100  # so deep are filtered results compared
_WORDS = 20  # keyword queries a table
_WORD = re.compile(r"[^\W\d_]{4,}")
_LISTED = 10  # filters with different results that a report names

Scores = dict[bytes, float]


def check(
    source: Searchable, target: Searchable, wanted: Wanted | None = None, observer: Observer | None = None
) -> Parity:
    """Ask both stores the same and compare their answers, changing nothing.

    Raises ConfigError for what cannot be asked, BackendError where a store fails.
    """
    wanted = wanted or Wanted()
    wanted.check()
    theirs = {s.name: s for s in target.tables()}
    mine = [s for s in source.tables() if wanted.tables is None or s.name in wanted.tables]
    _check_given(wanted, mine)
    tables: list[TableParity] = []
    spent: dict[str, list[float]] = {"source": [], "target": []}
    for searched in mine:
        there = theirs.get(searched.name)
        if there is None:
            tables.append(missing(searched, wanted.thresholds))
            continue
        one = _Table(source, target, searched, there, wanted, observer or Silent())
        tables.append(one.compared())
        for side in spent:
            spent[side] += one.spent[side]
    return Parity(
        k=wanted.k,
        tables=tuple(tables),
        latency_ms={side: measures.percentiles(times) for side, times in spent.items()},
        thresholds=wanted.thresholds,
        failures=tuple(f"{t.name}: {failure}" for t in tables for failure in t.failures),
    )


def _check_given(wanted: Wanted, tables: Sequence[Searched]) -> None:
    """Raise ConfigError for a vector or a filter that fits no table."""
    dims = {s.vector.dim for s in tables if s.vector is not None}
    for vector in wanted.vectors:
        if len(vector) not in dims:
            raise ConfigError(
                f"a query vector has {len(vector)} dimensions, and no table has so many",
                hint=f"dimensions here: {', '.join(map(str, sorted(d for d in dims if d)))}",
            )
    for given in wanted.filters:
        problem: ConfigError | None = None
        for searched in tables:
            try:
                bound_to(parse(given), searched.table)
            except ConfigError as exc:
                problem = exc
            else:
                break
        else:
            if problem is not None:
                raise problem


@dataclass(slots=True)
class _Found:
    """What comparing one table has gathered, query by query."""

    recalls: list[float] = field(default_factory=list)
    orders: list[float | None] = field(default_factory=list)
    drifts: list[float] = field(default_factory=list)
    filtered: list[float] = field(default_factory=list)
    equal: int = 0
    run: int = 0
    refused: int = 0
    different: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)


class _Table:
    """One table of both stores."""

    def __init__(
        self,
        source: Searchable,
        target: Searchable,
        mine: Searched,
        theirs: Searched,
        wanted: Wanted,
        observer: Observer,
    ) -> None:
        self._source, self._target, self._mine, self._theirs = source, target, mine, theirs
        self._wanted, self._observer = wanted, observer
        self._rng = random.Random(f"{wanted.seed} {mine.name}")  # noqa: S311 - a sample, no secret
        self._found = _Found()
        self._kinds = [mine.table.column(name).kind for name in mine.table.key]
        self._exact_anyhow = False  # the source looks at every vector for its users, too
        self.spent: dict[str, list[float]] = {"source": [], "target": []}

    def compared(self) -> TableParity:
        """Ask everything and return what came of it."""
        told = TableParity(self._mine.name)
        self._found.notes |= dict.fromkeys(not_compared(self._mine))
        if self._mine.vector is not None:
            told = self._by_vector(told)
        told = self._by_words(told)
        told = replace(told, notes=tuple(self._found.notes))
        return replace(told, failures=tuple(failures(told, self._wanted.thresholds)))

    # --- by vector ------------------------------------------------------------

    def _by_vector(self, told: TableParity) -> TableParity:
        if self._theirs.vector is None:
            return replace(told, problems=("its vectors cannot be searched in the target",))
        queries = self._queries()
        health = self._target.health(self._theirs)
        rows: dict[Key, Mapping[str, Any]] = {}
        for n, vector in enumerate(queries):
            rows |= self._one(vector, warm=n > 0)
            self._observer.step("search", self._mine.name, n + 1, len(queries))
        if queries:
            self._by_filters(queries, list(rows.values()))
        found = self._found
        drifts = found.drifts
        return replace(
            told,
            queries=len(found.recalls),
            recall_at_k=_rounded(measures.mean(found.recalls)),
            recall_histogram=tuple(measures.histogram(found.recalls)),
            rank_correlation=_rounded(measures.mean(found.orders)),
            score_drift={"max": max(drifts), "mean": sum(drifts) / len(drifts)} if drifts else None,
            filter_parity=_rounded(found.equal / found.run) if found.run else None,
            filters={
                "run": found.run,
                "equal": found.equal,
                "not_supported": found.refused,
                "different": found.different[:_LISTED],
            },
            filtered_recall_at_k=_rounded(measures.mean(found.filtered)),
            latency_ms={side: measures.percentiles(times) for side, times in self.spent.items()},
            index={
                "index": health.index,
                "metric": health.metric,
                "covered": health.covered,
                "vectors": health.vectors,
            },
            how=found.how,
            problems=tuple(problems_of(health, self._mine, self._wanted)),
        )

    @property
    def _metric(self) -> Metric:
        return self._mine.metric

    def _queries(self) -> list[Vector]:
        """Return vectors of the source, vectors beside them, and those that were given."""
        n = self._wanted.queries
        picked = [v for _, v in self._source.sample(self._mine, n, self._wanted.seed) if self._askable(v)]
        rng = np.random.default_rng(self._wanted.seed)
        plain = picked[: (n + 1) // 2]
        beside = [measures.perturbed(v, rng) for v in (picked[len(plain) :] or picked)[: n - len(plain)]]
        dim = self._mine.vector.dim if self._mine.vector is not None else None
        return [*plain, *beside, *(v for v in self._wanted.vectors if len(v) == dim and self._askable(v))]

    def _askable(self, vector: Vector) -> bool:
        """Whether it has a direction, where directions are compared, and no NaN."""
        return bool(np.isfinite(vector).all() and (self._metric is not Metric.COSINE or vector.any()))

    def _one(self, vector: Vector, *, warm: bool) -> dict[Key, Mapping[str, Any]]:
        """Ask both stores for the neighbours of one vector; return the metadata of the true ones by key."""
        query = Query(
            Mode.VECTOR,
            vector=vector,
            k=self._wanted.k,
            where=effective(self._mine, None),
            tenant=self._wanted.tenant,
        )
        truth, took = _timed(self._source, self._mine, replace(query, exact=True))
        if not self._exact_anyhow:
            plain, took = _timed(self._source, self._mine, query)
            self._exact_anyhow = plain.how == truth.how
            self._found.how["source"] = plain.how
        answer, their_time = _timed(
            self._target, self._theirs, replace(query, where=effective(self._theirs, None))
        )
        self._found.how["target"] = answer.how
        self._found.notes |= dict.fromkeys(answer.notes)
        if warm:  # the first question to a store opens files and fills caches
            self.spent["source"].append(took)
            self.spent["target"].append(their_time)
        self._score(vector, truth.hits, answer.hits)
        return {hit.key: hit.metadata for hit in truth.hits}

    def _score(self, vector: Vector, truth: Sequence[Hit], hits: Sequence[Hit]) -> None:
        length = float(np.linalg.norm(vector))
        if not self._kinds:  # rows without a key are numbered by each store: only scores can be compared
            true, found = [h.score for h in truth], [h.score for h in hits]
            within = self._wanted.thresholds.max_score_drift or measures.SLACK
            if true:
                pairs = measures.alike(true, found, self._metric, length, within)
                self._found.recalls.append(pairs / len(true))
            return
        true_scores = {self._key(h.key): h.score for h in truth}
        exact = self._exact(vector, hits, true_scores)
        recall = measures.recall(true_scores, exact, self._metric, length)
        if recall is None:
            return
        self._found.recalls.append(recall)
        common = [h for h in hits if self._key(h.key) in true_scores]
        ranked = [true_scores[self._key(h.key)] for h in common]
        self._found.orders.append(measures.order(ranked, self._metric, length))
        self._found.drifts += [
            measures.drift(self._metric, h.score, s, length) for h, s in zip(common, ranked, strict=True)
        ]

    def _exact(self, vector: Vector, hits: Sequence[Hit], known: Mapping[bytes, float]) -> Scores:
        """Return the exact scores of hits by the source's own vectors; a row that it has not scores -inf."""
        scores: Scores = {}
        for hit in hits:
            key = self._key(hit.key)
            if key in known:
                scores[key] = known[key]
                continue
            try:
                own = self._source.vector_of(self._mine, hit.key)
            except KeyError:
                own = None
            scores[key] = (
                measures.score(self._metric, vector, own) if isinstance(own, np.ndarray) else -np.inf
            )
        return scores

    def _key(self, key: Key) -> bytes:
        return values.key_bytes(self._kinds, key)

    # --- by filters -----------------------------------------------------------

    def _by_filters(self, queries: Sequence[Vector], rows: Sequence[Mapping[str, Any]]) -> None:
        given = [f for f in self._wanted.filters if self._fits(f)]
        made = filters_from(rows, self._mine.table, _FILTERS, self._rng)
        for n, one in enumerate([*given, *made]):
            self._filtered(queries[n % len(queries)], one)
        if self._mine.tenant is not None and self._wanted.tenant is None:
            tenants = [row[self._mine.tenant] for row in rows if row.get(self._mine.tenant) is not None]
            if tenants:
                self._filtered(queries[0], None, str(self._rng.choice(tenants)))

    def _fits(self, given: Json) -> bool:
        try:
            bound_to(parse(given), self._mine.table)
        except ConfigError:
            return False
        return True

    def _filtered(self, vector: Vector, given: Json | None, tenant: str | None = None) -> None:
        """Compare what one filter lets through: every row of it, and then its nearest through the index."""
        tenant = tenant or self._wanted.tenant
        more = parse(given) if given is not None else None
        query = Query(Mode.VECTOR, vector=vector, k=_FILTERED_K, tenant=tenant, exact=True, rows=False)
        asked = replace(query, where=effective(self._mine, more))
        query = replace(query, where=effective(self._theirs, more))
        truth = self._or_refused("source", self._source, self._mine, asked)
        there = self._or_refused("target", self._target, self._theirs, query)
        if truth is None or there is None:
            self._found.refused += 1
            return
        self._found.run += 1
        length = float(np.linalg.norm(vector))
        if not self._kinds:
            within = self._wanted.thresholds.max_score_drift or measures.SLACK
            pairs = measures.alike(
                [h.score for h in truth.hits], [h.score for h in there.hits], self._metric, length, within
            )
            missing, extra = len(truth.hits) - pairs, len(there.hits) - pairs
            same = not missing and not extra
        else:
            mine = {self._key(h.key): h.score for h in truth.hits}
            theirs = {self._key(h.key): h.score for h in there.hits}
            missing, extra = len(mine.keys() - theirs.keys()), len(theirs.keys() - mine.keys())
            same = measures.same_set(mine, theirs, _FILTERED_K, self._metric, length)
            same = same or self._near_enough(missing, len(mine), len(theirs))
            self._filtered_recall(vector, query, truth)
        self._found.equal += same
        if not same:
            what = shown(given) if given is not None else f"tenant {tenant}"
            self._found.different.append({"filter": what, "missing": missing, "extra": extra})

    def _near_enough(self, missing: int, mine: int, theirs: int) -> bool:
        """Whether full answers of a store without exact search differ by no more than its index may miss."""
        least = self._wanted.thresholds.min_recall
        if not self._wanted.approximate or least is None or not mine == theirs == _FILTERED_K:
            return False
        return 1 - missing / mine >= least

    def _or_refused(self, side: str, store: Searchable, searched: Searched, query: Query) -> Answer | None:
        """Ask, or return None where a store has no means for a filter (Qdrant has no ranges over text)."""
        try:
            return store.search(searched, query)
        except ConfigError as exc:
            self._found.notes[f"not supported by the {side}: {exc.message}"] = None
            return None

    def _filtered_recall(self, vector: Vector, query: Query, truth: Answer) -> None:
        """See whether an index finds its k under the filter (it may stop before it has as many)."""
        k = self._wanted.k
        answer = self._target.search(self._theirs, replace(query, k=k, exact=False))
        true_scores = {self._key(h.key): h.score for h in truth.hits[:k]}
        exact = self._exact(vector, answer.hits, {self._key(h.key): h.score for h in truth.hits})
        recall = measures.recall(true_scores, exact, self._metric, float(np.linalg.norm(vector)))
        if recall is not None:
            self._found.filtered.append(recall)

    # --- by words -------------------------------------------------------------

    def _by_words(self, told: TableParity) -> TableParity:
        if not self._mine.text or not self._theirs.text or not self._kinds:
            return told
        shares: list[float] = []
        refused = False
        for word in self._words():
            query = Query(Mode.KEYWORD, text=word, k=self._wanted.k, tenant=self._wanted.tenant, rows=False)
            asked = replace(query, where=effective(self._mine, None))
            mine = self._or_refused("source", self._source, self._mine, asked)
            asked = replace(query, where=effective(self._theirs, None))
            theirs = self._or_refused("target", self._target, self._theirs, asked)
            refused = mine is None or theirs is None
            if mine is None or theirs is None:
                break
            share = measures.overlap(
                [self._key(h.key) for h in mine.hits], [self._key(h.key) for h in theirs.hits]
            )
            shares += [] if share is None else [share]
        if refused:
            # Said in a note; a failure only where an overlap was asked for.
            nothing = None if self._wanted.thresholds.min_keyword_overlap is None else 0.0
            return replace(told, keyword_overlap=nothing)
        return replace(told, keyword_overlap=_rounded(measures.mean(shares)), keyword_queries=len(shares))

    def _words(self) -> list[str]:
        """Return words of the source's texts, one of each text, the same for the same seed."""
        words: dict[str, None] = {}
        for _, text in self._source.texts(self._mine, 4 * _WORDS, self._wanted.seed):
            found = sorted({w.lower() for w in _WORD.findall(text)} - words.keys())
            if found:
                words[self._rng.choice(found)] = None
        return list(words)[:_WORDS]


def _timed(store: Searchable, searched: Searched, query: Query) -> tuple[Answer, float]:
    started = time.perf_counter()
    answer = store.search(searched, query)
    return answer, time.perf_counter() - started


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
