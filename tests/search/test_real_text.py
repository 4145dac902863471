"""Search over real sentences and what a real model makes of them (see scripts/make_sentences.py)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import migrate
from migrate.search.base import Means
from migrate.search.service import Found, Search
from migrate.search.text import terms

_MADE = np.load(Path(__file__).parents[1] / "fixtures" / "sentences.npz")
TEXTS = bytes(_MADE["texts"]).decode().split("\n")
VECTORS = _MADE["vectors"].astype("<f4")
QUESTIONS = bytes(_MADE["questions"]).decode().split("\n")
ANSWERS = bytes(_MADE["answers"]).decode().split("\n")
ASKED = dict(zip(QUESTIONS, _MADE["asked"].astype("<f4"), strict=True))


def _embed(texts: list[str]) -> list[list[float]]:
    return [ASKED[text].tolist() for text in texts]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sentences.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE sentences (id INTEGER PRIMARY KEY, content TEXT, metadata JSON, embedding BLOB)"
        )
        connection.executemany(
            "INSERT INTO sentences VALUES (?, ?, ?, ?)",
            [
                (i, text, json.dumps({"words": len(text.split()), "part": i % 10}), vector.tobytes())
                for i, (text, vector) in enumerate(zip(TEXTS, VECTORS, strict=True))
            ],
        )
        connection.commit()
    return path


@pytest.fixture(scope="module")
def store(path: Path) -> Iterator[Search]:
    with migrate.open_search(path, embedder=_embed, means=Means(hnsw=False)) as opened:
        yield opened


def _keys(found: Found) -> list[int]:
    return [h.key[0] for h in found.hits]


def _truth(
    vector: np.ndarray[tuple[int], np.dtype[np.float32]], k: int, part: int | None = None
) -> list[int]:
    scores = VECTORS.astype(float) @ vector.astype(float) / np.linalg.norm(VECTORS.astype(float), axis=1)
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order if part is None or i % 10 == part][:k]


@pytest.mark.parametrize(("question", "answer"), list(zip(QUESTIONS, ANSWERS, strict=True)))
def test_a_question_finds_its_answer_in_other_words(store: Search, question: str, answer: str) -> None:
    near = store.search(question, mode="vector", k=6)
    assert answer in {h.text for h in near.hits}
    assert _keys(near) == _truth(ASKED[question], 6)
    shared = any(word in answer.lower() for word in terms(question))
    worded = store.search(question, mode="keyword", k=50)
    assert (answer in {h.text for h in worded.hits}) is shared
    both = store.search(question, k=50)
    assert answer in {h.text for h in both.hits}


def test_every_vector_is_looked_at_and_filters_hold(store: Search) -> None:
    random = np.random.default_rng(3)
    for i in random.choice(len(TEXTS), 20, replace=False):
        found = store.search(vector=VECTORS[i], where={"part": 4}, k=10)
        assert _keys(found) == _truth(VECTORS[i], 10, part=4)


def test_recall_of_the_index_over_real_text(path: Path) -> None:
    random = np.random.default_rng(4)
    asked = [VECTORS[i] for i in random.choice(len(TEXTS), 100, replace=False)]
    asked += [v + random.normal(scale=0.03, size=len(v)).astype("<f4") for v in asked[:50]]
    with migrate.open_search(path, means=Means(hnsw=True)) as opened:
        opened.search(vector=asked[0])
    with migrate.open_search(path, means=Means(hnsw=True)) as opened:
        answers = [opened.search(vector=vector, k=10) for vector in asked]
    assert {tuple(a.how.values()) for a in answers} != {("every vector",)}
    recall = np.mean(
        [len(set(_keys(a)) & set(_truth(v, 10))) / 10 for a, v in zip(answers, asked, strict=True)]
    )
    assert recall >= 0.95
