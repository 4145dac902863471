"""Recall, order, drift and sets: what is right is told by hand, and ties by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.schema import Metric
from migrate.search.parity import measures

COSINE = Metric.COSINE
scores = st.floats(-1, 1, allow_nan=False, width=32)


def test_recall_counts_what_is_as_near_as_the_last_true_neighbour() -> None:
    truth = {"a": 0.9, "b": 0.5, "c": 0.5}
    assert measures.recall(truth, {"a": 0.9, "b": 0.5, "c": 0.5}, COSINE, 1) == 1
    assert measures.recall(truth, {"a": 0.9, "d": 0.5, "e": 0.5 - 1e-7}, COSINE, 1) == 1
    assert measures.recall(truth, {"a": 0.9, "d": 0.4999, "e": 0.1}, COSINE, 1) == pytest.approx(1 / 3)
    assert measures.recall(truth, {}, COSINE, 1) == 0
    assert measures.recall({}, {"a": 1.0}, COSINE, 1) is None


@given(st.lists(scores, min_size=2, max_size=30, unique=True), st.integers(1, 10))
def test_any_choice_among_ties_has_full_recall(values: list[float], k: int) -> None:
    # Every score three times: whichever twin is taken at the k-th place is right.
    rows = [(f"{i}{twin}", s) for i, s in enumerate(values) for twin in "xyz"]
    best = sorted(rows, key=lambda r: (-r[1], r[0]))[:k]
    other = sorted(rows, key=lambda r: (-r[1], r[0][::-1], -ord(r[0][-1])))[:k]
    assert measures.recall(dict(best), dict(other), COSINE, 1) == 1


@given(st.lists(scores, min_size=1, max_size=12))
def test_order_is_one_for_the_truth_and_minus_one_for_its_opposite(values: list[float]) -> None:
    ranked = sorted(values, reverse=True)
    told = measures.order(ranked, COSINE, 1)
    assert told in (1, None)
    assert (told is None) == (max(values) - min(values) <= measures.SLACK)
    assert measures.order(ranked[::-1], COSINE, 1) == (None if told is None else -1)


def test_order_of_two_hits_is_defined_and_ties_may_stand_anyhow() -> None:
    assert measures.order([0.9, 0.1], COSINE, 1) == 1
    assert measures.order([0.1, 0.9], COSINE, 1) == -1
    assert measures.order([0.5], COSINE, 1) is None
    assert measures.order([0.5, 0.9, 0.5, 0.1], COSINE, 1) == pytest.approx((4 - 1) / 5)


@pytest.mark.parametrize("metric", list(Metric))
@given(seed=st.integers(0, 10_000), length=st.sampled_from([1e-3, 1.0, 40.0, 1e4]))
def test_float32_arithmetic_in_any_form_is_no_drift(metric: Metric, seed: int, length: float) -> None:
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal(384) / 19.6 * length).astype(np.float32)
    b = (
        a + rng.standard_normal(384).astype(np.float32) * np.float32(length * rng.choice([0, 0.01, 0.1]))
    ).astype(np.float32)
    exact = measures.score(metric, a, b)
    if metric is Metric.DOT:
        rough = float(np.dot(a, b))
    elif metric is Metric.MANHATTAN:
        rough = -float(np.abs(a - b).sum())
    elif metric is Metric.EUCLID:  # out of squares, as a matrix product gives it
        rough = -math.sqrt(max(float(a @ a) + float(b @ b) - 2 * float(a @ b), 0))
    else:
        rough = float((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)))
    assert measures.drift(metric, exact, rough, float(np.linalg.norm(a))) <= measures.SLACK


def test_halved_precision_and_another_metric_are_drift() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(64).astype(np.float32) for _ in range(2))
    length = float(np.linalg.norm(a))
    exact = measures.score(COSINE, a, b)
    halved = measures.score(COSINE, a, b.astype(np.float16).astype(np.float32))
    assert measures.drift(COSINE, exact, halved, length) > measures.SLACK
    assert measures.drift(COSINE, exact, measures.score(Metric.DOT, a, b), length) > 0.1
    assert measures.drift(COSINE, exact, math.nan, length) == math.inf


def test_filtered_sets_are_equal_but_for_ties_at_the_end_of_a_full_answer() -> None:
    full, twin = {"a": 0.9, "b": 0.5}, {"a": 0.9, "c": 0.5}
    assert measures.same_set(full, twin, 2, COSINE, 1)
    assert not measures.same_set(full, twin, 3, COSINE, 1)  # neither is cut: b and c do differ
    assert not measures.same_set(full, {"a": 0.9}, 2, COSINE, 1)
    assert not measures.same_set({"a": 0.9, "b": 0.8}, {"b": 0.8, "c": 0.5}, 2, COSINE, 1)


def test_rows_without_keys_pair_up_by_their_scores() -> None:
    assert measures.alike([0.9, 0.5, 0.5, 0.1], [0.9, 0.5, 0.2, 0.1], COSINE, 1, 1e-6) == 3
    assert measures.alike([], [0.1], COSINE, 1, 1e-6) == 0


def test_the_histogram_keeps_perfect_queries_apart() -> None:
    assert measures.histogram([1.0, 1.0, 0.95, 0.9, 0.35, 0.0]) == [1, 0, 0, 1, 0, 0, 0, 0, 0, 2, 2]


@given(st.integers(0, 1000))
def test_noise_has_the_length_it_was_given(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(32).astype(np.float32)
    apart = np.linalg.norm(measures.perturbed(vector, rng, 0.1) - vector)
    assert apart == pytest.approx(0.1 * np.linalg.norm(vector), rel=1e-3)
