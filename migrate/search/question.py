"""What a question asks, which tables can answer it, and how their answers become one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from migrate.errors import ConfigError
from migrate.schema import Kind
from migrate.search import sparse
from migrate.search.base import RRF_K, Answer, Direction, Hit, Key, Mode, Query, Searched, Sparse, Vector
from migrate.search.embedders import Embedder
from migrate.search.filters import All, Filter, bound_to, fields
from migrate.search.fuse import key_order

KEYWORDS_INSTEAD = (
    "searched by words: without an embedder a text has no vector "
    "(--embedder module:function, or --mode keyword to mean it)"
)

SPARSE_HINT = "Qdrant compares sparse vectors, and Pinecone in an index that has no others"


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, checked. tables: those that were named, or empty for all."""

    mode: Mode
    text: str | None
    vector: Vector | Sparse | None
    k: int
    where: Filter | None
    tenant: str | None
    exact: bool
    tables: tuple[str, ...]
    besides: tuple[str, Key] | None = None  # a row that is left out


def effective(searched: Searched, where: Filter | None) -> Filter | None:
    """Return a filter with a table's own condition (`Searched.live`), bound to the table's columns.

    A filter that names the same column decides by itself. Raises ConfigError
    for a filter that cannot be asked of this table.
    """
    bound = None if where is None else bound_to(where, searched.table)
    if searched.live is None:
        return bound
    if bound is None:
        return searched.live
    named = {f.column for f in fields(bound)}
    if named & {f.column for f in fields(searched.live)}:
        return bound
    return All((searched.live, bound))


# --- what is asked --------------------------------------------------------------


def chosen_mode(
    mode: str | None, text: str | None, vector: Vector | Sparse | None, embedder: Embedder | None
) -> tuple[Mode, list[str]]:
    if mode is not None and mode not in set(Mode):
        raise ConfigError(f"mode cannot be {mode!r}", hint=f"one of {', '.join(Mode)}")
    has_vector = vector is not None or (text is not None and embedder is not None)
    if text is None and vector is None:
        raise ConfigError("nothing is asked", hint="--text WORDS, --like KEY or --vector FILE")
    if mode is None:
        if text is None:
            return Mode.VECTOR, []
        return (Mode.HYBRID, []) if has_vector else (Mode.KEYWORD, [KEYWORDS_INSTEAD])
    chosen = Mode(mode)
    if chosen is not Mode.VECTOR and text is None:
        raise ConfigError(f"{chosen} mode needs a text", hint="--text WORDS, or --mode vector")
    if chosen is not Mode.KEYWORD and not has_vector:
        raise ConfigError(
            f"{chosen} mode needs the vector of the text, and there is no embedder",
            hint="--embedder module:function or --embedder-command COMMAND; --mode keyword needs none",
        )
    return chosen, []


def as_vector(given: Any) -> Vector | Sparse:
    """Return a query vector: numbers, or a sparse one as `migrate.search.sparse` reads it."""
    if isinstance(given, Sparse):
        return given
    if isinstance(given, Mapping):
        return sparse.parse(given)
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise ConfigError("the vector is no list of numbers") from None
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise ConfigError("the vector is no list of finite numbers")
    return found


def key_cells(like: Any) -> list[Any]:
    """Return the cells of a key as it was given: a tuple, one cell, or text that may be a JSON array."""
    if isinstance(like, str) and like.startswith("["):
        try:
            parsed = json.loads(like)
        except ValueError:
            return [like]
        return list(parsed) if isinstance(parsed, list) else [like]
    return list(like) if isinstance(like, tuple | list) else [like]


def typed(searched: Searched, names: Sequence[str], cells: Sequence[Any]) -> Iterator[Key]:
    """Yield the keys that given cells may be: a number comes as its digits on a command line."""
    kinds = {c.name: c.kind for c in searched.table.columns}
    numbers: list[Any] = []
    for name, cell in zip(names, cells, strict=True):
        number = isinstance(cell, str) and cell.removeprefix("-").isdecimal() and len(cell) < 20
        numbers.append(int(cell) if number and kinds.get(name, Kind.INTEGER) is not Kind.TEXT else cell)
    yield tuple(numbers)
    if tuple(numbers) != tuple(cells):
        yield tuple(cells)


def way_of(name: str) -> Direction:
    if name not in set(Direction):
        raise ConfigError(f"direction cannot be {name!r}", hint=f"one of {', '.join(Direction)}")
    return Direction(name)


# --- which tables ----------------------------------------------------------------


def choose(tables: Sequence[Searched], question: Question) -> tuple[list[tuple[Searched, Query]], list[str]]:
    """Return the tables that are asked with what they are asked, and what was left out of those not named.

    Raises ConfigError where a named table cannot be asked, or none can.
    """
    by_name = {s.name: s for s in tables}
    for name in question.tables:
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise ConfigError(f"there is no table {name} to search", hint=f"tables: {known}")
    wanted = [by_name[name] for name in dict.fromkeys(question.tables)] or list(tables)
    sparse_asked = isinstance(question.vector, Sparse) and question.mode is not Mode.KEYWORD
    if sparse_asked and not question.tables and not any(s.sparse for s in wanted):
        raise ConfigError("this store has no sparse vectors that it can compare", hint=SPARSE_HINT)
    asked: list[tuple[Searched, Query]] = []
    refused: dict[str, ConfigError] = {}
    for searched in wanted:
        try:
            asked.append((searched, _query(searched, question)))
        except ConfigError as exc:
            if question.tables:
                raise
            refused[searched.name] = exc
    if not asked:
        raise _none(refused)
    told = [
        f"not searched: {exc.message}" for name, exc in refused.items() if _is_news(by_name[name], question)
    ]
    return asked, told


def _is_news(searched: Searched, question: Question) -> bool:
    """Whether a user may wonder why a table was left out: not where it has nothing of what was asked for."""
    column = searched.sparse if isinstance(question.vector, Sparse) else searched.vector
    has_vector, has_text = column is not None, bool(searched.text)
    if question.mode is Mode.VECTOR:
        return has_vector
    return has_text if question.mode is Mode.KEYWORD else has_vector or has_text


def _none(refused: Mapping[str, ConfigError]) -> ConfigError:
    """Return the error for a question that no table can answer."""
    reasons = {exc.message: exc for exc in refused.values()}
    if not reasons:
        return ConfigError(
            "there is nothing to search in this store", hint="memlift inspect shows what it has"
        )
    first = next(iter(reasons.values()))
    if len(reasons) == 1:
        return first
    return ConfigError(f"no table can be asked this: {'; '.join(reasons)}", hint=first.hint)


def _query(searched: Searched, question: Question) -> Query:
    if question.mode is not Mode.KEYWORD:
        _check_vector(searched, question.vector)
    if question.mode is not Mode.VECTOR and not searched.text:
        raise ConfigError(f"{searched.name} has no words", hint="--mode vector")
    if question.tenant is not None and searched.tenant is None:
        raise ConfigError(f"{searched.name} has no column that names a tenant", hint="leave --tenant out")
    besides = question.besides is not None and question.besides[0] == searched.name
    vector = question.vector if question.mode is not Mode.KEYWORD else None
    return Query(
        question.mode,
        vector=None if isinstance(vector, Sparse) else vector,
        text=question.text if question.mode is not Mode.VECTOR else None,
        k=question.k + besides,
        where=effective(searched, question.where),
        tenant=question.tenant,
        exact=question.exact,
        sparse=vector if isinstance(vector, Sparse) else None,
    )


def _check_vector(searched: Searched, vector: Vector | Sparse | None) -> None:
    if isinstance(vector, Sparse):
        if searched.sparse is None:
            raise ConfigError(
                f"{searched.name} has no sparse vectors that its store can compare", hint=SPARSE_HINT
            )
        return
    if searched.vector is None and searched.has_sparse:
        raise ConfigError(
            f"{searched.name} has sparse vectors alone", hint='ask with {"indices": [...], "values": [...]}'
        )
    if searched.vector is None:
        raise ConfigError(f"{searched.name} has no vectors", hint="--mode keyword")
    dim = searched.vector.dim
    if vector is not None and dim is not None and len(vector) != dim:
        raise ConfigError(
            f"{searched.name}.{searched.vector.name} has {dim:,} dimensions, the question {len(vector):,}",
            hint="use the model that made the store's vectors",
        )


# --- one answer out of several ------------------------------------------------------


def merged(
    answers: Sequence[tuple[Searched, Answer]], question: Question
) -> tuple[tuple[Hit, ...], list[str]]:
    """Return the k best hits of all tables: by score where scores mean the same, else by rank."""
    lists = [(s, [h for h in a.hits if (h.table, h.key) != question.besides]) for s, a in answers]
    told: list[str] = []
    by_rank = question.mode is Mode.KEYWORD and len(lists) > 1
    if question.mode is Mode.VECTOR and not isinstance(question.vector, Sparse):
        by_rank = len({s.metric for s, _ in lists}) > 1
    if by_rank:
        told = [f"scores of several tables do not compare: merged by rank, scored 1 / ({RRF_K} + rank)"]
        lists = [
            (s, [replace(h, score=1 / (RRF_K + rank)) for rank, h in enumerate(hits, 1)]) for s, hits in lists
        ]
    ranked: list[tuple[float, int, Any, Hit]] = []
    for at, (_, hits) in enumerate(lists):
        ranked += [(-h.score, at, key_order(h.key), h) for h in hits]
    ranked.sort(key=lambda item: item[:3])
    return tuple(h for *_, h in ranked[: question.k]), told
