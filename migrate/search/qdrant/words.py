"""Words in Qdrant: its sparse BM25 vectors, and BM25 over all texts where a collection has none."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from migrate.backends.qdrant.engine import Info, Json
from migrate.backends.qdrant.hybrid import VECTOR

Ref = TypeVar("Ref")
MOST_READ = 50_000  # points whose words are read for one query: some seconds
_TOKEN = re.compile(r"\w+")
_K1, _B = 1.2, 0.75  # as FTS5 and Qdrant have them


def has_vectors(info: Info) -> bool:
    """Whether a collection has BM25 vectors with rare words weighed more."""
    sparse = info.settings["params"].get("sparse_vectors") or {}
    return str((sparse.get(VECTOR) or {}).get("modifier")).lower() == "idf"


def encoded(text: str) -> Json | None:
    """Return a question as a sparse vector, None for one without words."""
    from qdrant_edge import Bm25

    found: Any = Bm25().embed_query(text.replace("\0", " ").encode("utf-8", "replace").decode())
    return {"indices": list(found.indices), "values": list(found.values)} if found.indices else None


def tokens(text: str) -> list[str]:
    """Return the words of a text, folded."""
    return _TOKEN.findall(text.casefold())


def ranked(asked: str, texts: Iterable[tuple[Ref, str, bool]], n: int) -> list[tuple[Ref, float]]:
    """Return the n texts that say most of a question, best first, by BM25.

    texts: (what names a text, the text, whether it may be found); all of them tell how rare a word is.
    """
    wanted = set(tokens(asked))
    found: list[tuple[Ref, Counter[str], int]] = []
    rows, length = 0, 0
    seen: Counter[str] = Counter()
    for ref, text, may in texts:
        words = tokens(text)
        rows, length = rows + 1, length + len(words)
        hits = Counter(w for w in words if w in wanted)
        seen.update(hits.keys())
        if hits and may:
            found.append((ref, hits, len(words)))
    average = length / rows if rows else 1.0
    scored = [(ref, _score(hits, n_words / average, seen, rows)) for ref, hits, n_words in found]
    return heapq.nlargest(n, scored, key=lambda pair: pair[1])


def _score(hits: Counter[str], length: float, seen: Counter[str], rows: int) -> float:
    total = 0.0
    for word, times in hits.items():
        rarity = math.log(1 + (rows - seen[word] + 0.5) / (seen[word] + 0.5))
        total += rarity * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * length))
    return total


def joined(cells: Sequence[str]) -> str:
    """Return the words of several cells."""
    return "\n".join(cell for cell in cells if cell)
