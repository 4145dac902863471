"""One question to one store: which tables are asked, in which mode, and how their answers become one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from migrate import values
from migrate.api import Reach
from migrate.config import Endpoint
from migrate.errors import ConfigError
from migrate.schema import Kind
from migrate.search import embedders, open_searchable
from migrate.search.base import (
    RRF_K,
    Answer,
    Direction,
    Edge,
    Graph,
    Hit,
    Key,
    Means,
    Mode,
    Query,
    Searchable,
    Searched,
    Vector,
)
from migrate.search.embedders import Embedder
from migrate.search.filters import All, Equals, Field, Filter, bound_to, fields, parse
from migrate.search.fuse import key_order

KEYWORDS_INSTEAD = (
    "searched by words: without an embedder a text has no vector "
    "(--embedder module:function, or --mode keyword to mean it)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first.

    mode:  how the question was answered.
    how:   what answered, for each table that was asked.
    notes: what a user must know.
    """

    mode: Mode
    hits: tuple[Hit, ...]
    how: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of the public contract."""
        return {
            "mode": self.mode.value,
            "hits": [
                {
                    "table": h.table,
                    "key": values.key_text(h.key),
                    "score": h.score,
                    "text": h.text,
                    "metadata": h.metadata,
                }
                for h in self.hits
            ],
            "how": dict(self.how),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Question:
    """What was asked, checked. tables: those that were named, or empty for all."""

    mode: Mode
    text: str | None
    vector: Vector | None
    k: int
    where: Filter | None
    tenant: str | None
    exact: bool
    tables: tuple[str, ...]
    besides: tuple[str, Key] | None = None  # a row that is left out


class Search:
    """A store that is open for searching; close it, or use it as a context.

    Safe to be asked again and again: caches and indexes that a store needs are
    kept from one question to the next.
    """

    def __init__(
        self, store: Endpoint, *, embedder: Embedder | str | None = None, means: Means | None = None
    ) -> None:
        self._stack = ExitStack()
        self._embedder = embedders.load(embedder) if isinstance(embedder, str) else embedder
        with ExitStack() as stack:
            reach = stack.enter_context(Reach())
            self._opened: Searchable = open_searchable(reach.settings(store, create=False), means)
            stack.callback(self._opened.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store. Idempotent."""
        self._stack.close()

    @property
    def store(self) -> Searchable:
        """Return the open store itself."""
        return self._opened

    def tables(self) -> Sequence[Searched]:
        """Return what can be searched."""
        return self._opened.tables()

    def search(
        self,
        text: str | None = None,
        *,
        vector: Any = None,
        like: Any = None,
        k: int = 10,
        where: Any = None,
        mode: str | None = None,
        table: str | Sequence[str] | None = None,
        tenant: str | None = None,
        exact: bool = False,
    ) -> Found:
        """Answer one question; see `migrate.search` for what can be asked.

        Raises ConfigError for a question that cannot be asked of this store.
        """
        question, notes = self._asked(text, vector, like, k, where, mode, table, tenant, exact)
        asked, left_out = _choose(self.tables(), question)
        answers = {s.name: self._opened.search(s, query) for s, query in asked}
        hits, merged = _merged([(s, answers[s.name]) for s, _ in asked], question)
        notes += [note for answer in answers.values() for note in answer.notes]
        return Found(
            question.mode,
            hits,
            {name: answer.how for name, answer in answers.items()},
            tuple(dict.fromkeys([*notes, *merged, *left_out])),
        )

    def _asked(
        self,
        text: str | None,
        vector: Any,
        like: Any,
        k: int,
        where: Any,
        mode: str | None,
        table: str | Sequence[str] | None,
        tenant: str | None,
        exact: bool,
    ) -> tuple[_Question, list[str]]:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"{k!r} is no number of hits", hint="-k 1 or more")
        if sum(given is not None for given in (vector, like)) > 1:
            raise ConfigError("a vector and a row to be like are two questions", hint="ask one of them")
        tables = (table,) if isinstance(table, str) else tuple(table or ())
        besides, found = None, None if vector is None else _vector(vector)
        if like is not None:
            besides, found = self._like(like, tables, tenant)
        chosen, notes = _mode(mode, text, found, self._embedder)
        if chosen is not Mode.KEYWORD and found is None and text is not None and self._embedder is not None:
            found = embedders.embed(self._embedder, text)
        parsed = None if where is None else parse(where)
        return _Question(chosen, text, found, k, parsed, tenant, exact, tables, besides), notes

    def _like(self, like: Any, tables: Sequence[str], tenant: str | None) -> tuple[tuple[str, Key], Vector]:
        """Return the table and key of the row that is meant, and its vector."""
        cells = _key_cells(like)
        found: dict[tuple[str, Key], Vector | None] = {}
        for searched in self.tables():
            if searched.vector is None or (tables and searched.name not in tables):
                continue
            for key in self._keys(searched, cells, tenant):
                try:
                    found[searched.name, key] = self._opened.vector_of(searched, key)
                except KeyError:
                    continue
        with_vector = {place: vector for place, vector in found.items() if vector is not None}
        shown = ", ".join(map(str, cells))
        if len(with_vector) > 1:
            places = ", ".join(f"{name} {list(key)}" for name, key in with_vector)
            raise ConfigError(f"{shown} names several rows: {places}", hint="choose with --table or --tenant")
        for place, vector in with_vector.items():
            return place, vector
        if found:
            raise ConfigError(f"the row {shown} has no vector", hint="--text searches by words")
        raise ConfigError(f"no row with a vector is called {shown}", hint="give its key as a hit shows it")

    def _keys(self, searched: Searched, cells: Sequence[Any], tenant: str | None) -> Iterator[Key]:
        """Yield the keys that cells may mean: the whole key, or the key without its tenant."""
        names = searched.table.key or ("",)
        if len(cells) == len(names):
            yield from _typed(searched, names, cells)
            return
        own = [name for name in names if name != searched.tenant]
        if len(cells) != len(own) or searched.tenant not in names:
            return
        for typed in _typed(searched, own, cells):
            by_name = dict(zip(own, typed, strict=True))
            tests: list[Filter] = [Equals(Field(name), (cell,)) for name, cell in by_name.items()]
            # The rows of such a key, whichever tenant's they are: every vector is near enough.
            near = np.ones(searched.vector.dim or 1, np.float32) if searched.vector else None
            query = Query(
                Mode.VECTOR, near, k=3, where=All(tuple(tests)), tenant=tenant, exact=True, rows=False
            )
            yield from (h.key for h in self._opened.search(searched, query).hits)

    def neighbours(
        self, node: str, *, depth: int = 1, tenant: str | None = None, direction: str = "both"
    ) -> Iterator[Edge]:
        """Yield the edges of the knowledge graph within `depth` steps of a node, nearest first."""
        return self._graph().neighbours(node, depth=depth, tenant=tenant, direction=_direction(direction))

    def paths(
        self, start: str, goal: str, *, depth: int = 4, tenant: str | None = None, direction: str = "both"
    ) -> Iterator[tuple[Edge, ...]]:
        """Yield the paths between two nodes of at most `depth` edges, shortest first."""
        way = _direction(direction)
        return self._graph().paths(start, goal, depth=depth, tenant=tenant, direction=way)

    def _graph(self) -> Graph:
        if not isinstance(self._opened, Graph):
            raise ConfigError(f"{self._opened.describe()} has no knowledge graph that can be walked")
        return self._opened


def search(
    store: Endpoint,
    text: str | None = None,
    *,
    embedder: Embedder | str | None = None,
    means: Means | None = None,
    **question: Any,
) -> Found:
    """Search a store once.

    text:     words; with an embedder also what its vector is made of.
    vector:   numbers to be near to.
    like:     the key of a row to be near to; that row itself is left out.
    k:        how many hits at most, 10 unless said.
    where:    a filter (`migrate.search.filters`), as JSON or as a dict.
    mode:     "vector", "keyword" or "hybrid"; by what is given unless said.
    table:    a table, or several; all that can be asked unless said.
    tenant:   only rows of this tenant.
    exact:    look at every vector instead of asking an index.
    embedder: a function from texts to vectors, or its name as "module:function".

    Raises `migrate.errors.ConfigError` for what cannot be asked.
    """
    with Search(store, embedder=embedder, means=means) as opened:
        return opened.search(text, **question)


def open_search(
    store: Endpoint, *, embedder: Embedder | str | None = None, means: Means | None = None
) -> Search:
    """Open a store to be searched many times: `with open_search("brain.sqlite") as s: s.search("...")`."""
    return Search(store, embedder=embedder, means=means)


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


def _mode(
    mode: str | None, text: str | None, vector: Vector | None, embedder: Embedder | None
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


def _vector(given: Any) -> Vector:
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise ConfigError("the vector is no list of numbers") from None
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise ConfigError("the vector is no list of finite numbers")
    return found


def _key_cells(like: Any) -> list[Any]:
    """Return the cells of a key as it was given: a tuple, one cell, or text that may be a JSON array."""
    if isinstance(like, str) and like.startswith("["):
        try:
            parsed = json.loads(like)
        except ValueError:
            return [like]
        return list(parsed) if isinstance(parsed, list) else [like]
    return list(like) if isinstance(like, tuple | list) else [like]


def _typed(searched: Searched, names: Sequence[str], cells: Sequence[Any]) -> Iterator[Key]:
    """Yield the keys that given cells may be: a number comes as its digits on a command line."""
    kinds = {c.name: c.kind for c in searched.table.columns}
    numbers: list[Any] = []
    for name, cell in zip(names, cells, strict=True):
        number = isinstance(cell, str) and cell.removeprefix("-").isdecimal() and len(cell) < 20
        numbers.append(int(cell) if number and kinds.get(name, Kind.INTEGER) is not Kind.TEXT else cell)
    yield tuple(numbers)
    if tuple(numbers) != tuple(cells):
        yield tuple(cells)


def _direction(name: str) -> Direction:
    if name not in set(Direction):
        raise ConfigError(f"direction cannot be {name!r}", hint=f"one of {', '.join(Direction)}")
    return Direction(name)


# --- which tables ----------------------------------------------------------------


def _choose(
    tables: Sequence[Searched], question: _Question
) -> tuple[list[tuple[Searched, Query]], list[str]]:
    """Return the tables that are asked with what they are asked, and what was left out of those not named.

    Raises ConfigError where a named table cannot be asked, or none can.
    """
    by_name = {s.name: s for s in tables}
    for name in question.tables:
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise ConfigError(f"there is no table {name} to search", hint=f"tables: {known}")
    wanted = [by_name[name] for name in dict.fromkeys(question.tables)] or list(tables)
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


def _is_news(searched: Searched, question: _Question) -> bool:
    """Whether a user may wonder why a table was left out: not where it has nothing of what was asked for."""
    has_vector, has_text = searched.vector is not None, bool(searched.text)
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


def _query(searched: Searched, question: _Question) -> Query:
    if question.mode is not Mode.KEYWORD:
        _check_vector(searched, question.vector)
    if question.mode is not Mode.VECTOR and not searched.text:
        raise ConfigError(f"{searched.name} has no words", hint="--mode vector")
    if question.tenant is not None and searched.tenant is None:
        raise ConfigError(f"{searched.name} has no column that names a tenant", hint="leave --tenant out")
    besides = question.besides is not None and question.besides[0] == searched.name
    return Query(
        question.mode,
        vector=question.vector if question.mode is not Mode.KEYWORD else None,
        text=question.text if question.mode is not Mode.VECTOR else None,
        k=question.k + besides,
        where=effective(searched, question.where),
        tenant=question.tenant,
        exact=question.exact,
    )


def _check_vector(searched: Searched, vector: Vector | None) -> None:
    if searched.vector is None:
        raise ConfigError(f"{searched.name} has no vectors", hint="--mode keyword")
    dim = searched.vector.dim
    if vector is not None and dim is not None and len(vector) != dim:
        raise ConfigError(
            f"{searched.name}.{searched.vector.name} has {dim:,} dimensions, the question {len(vector):,}",
            hint="use the model that made the store's vectors",
        )


# --- one answer out of several ------------------------------------------------------


def _merged(
    answers: Sequence[tuple[Searched, Answer]], question: _Question
) -> tuple[tuple[Hit, ...], list[str]]:
    """Return the k best hits of all tables: by score where scores mean the same, else by rank."""
    lists = [(s, [h for h in a.hits if (h.table, h.key) != question.besides]) for s, a in answers]
    told: list[str] = []
    by_rank = question.mode is Mode.KEYWORD and len(lists) > 1
    if question.mode is Mode.VECTOR and len({s.metric for s, _ in lists}) > 1:
        by_rank = True
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
