"""Text as vectors without a model: words hashed to places, so that texts with words in common are near.

The service embeds by hosted models ("Integrated embedding"); no test can ask what those find, only that
something is embedded and found again.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter

import numpy as np

from integration.pinecone_emulator.vectors import Floats
from integration.pinecone_emulator.wire import Decoded


def dense(text: str, dimension: int) -> Floats:
    """A unit vector."""
    out = np.zeros(dimension, np.float32)
    for word, times in _words(text).items():
        out[word % dimension] += times
    return np.asarray(out / np.linalg.norm(out), np.float32)


def sparse(text: str) -> Decoded:
    """A SparseValues message."""
    words = _words(text)
    return {"indices": list(words), "values": np.array(list(words.values()), np.float32)}


def _words(text: str) -> Counter[int]:
    return Counter(zlib.crc32(word.encode()) for word in re.findall(r"\w+", text.lower()) or [""])
