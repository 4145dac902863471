"""Searching a store: what the command and programs call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from migrate import values
from migrate.config import Endpoint
from migrate.errors import ConfigError
from migrate.reach import Reach
from migrate.search import embedders, open_searchable
from migrate.search.base import (
    MOST_HITS,
    Answer,
    Edge,
    Graph,
    Hit,
    Key,
    Means,
    Mode,
    Query,
    Searchable,
    Searched,
    Sparse,
    Vector,
)
from migrate.search.embedders import Embedder
from migrate.search.filters import All, Equals, Field, Filter, parse
from migrate.search.question import (
    SPARSE_HINT,
    Question,
    as_vector,
    choose,
    chosen_mode,
    effective,
    key_cells,
    merged,
    typed,
    way_of,
)

__all__ = ["Found", "Search", "effective", "open_search", "search"]


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
        tenant: str | int | None = None,
        exact: bool = False,
    ) -> Found:
        """Answer one question; see `migrate.search` for what can be asked.

        Raises ConfigError for a question that cannot be asked of this store.
        """
        whose = _digits(tenant)
        question, notes = self._asked(text, vector, like, k, where, mode, table, whose, exact)
        asked, left_out = choose(self.tables(), question)
        answers, refused = self._answers(asked, question)
        hits, told = merged([(s, answers[s.name]) for s, _ in asked if s.name in answers], question)
        notes += [note for answer in answers.values() for note in answer.notes]
        return Found(
            question.mode,
            hits,
            {name: answer.how for name, answer in answers.items()},
            tuple(dict.fromkeys([*notes, *told, *left_out, *refused])),
        )

    def _answers(
        self, asked: Sequence[tuple[Searched, Query]], question: Question
    ) -> tuple[dict[str, Answer], list[str]]:
        """Ask the tables, and say which of those that nobody named cannot answer; one of them has to."""
        answers: dict[str, Answer] = {}
        refused: list[ConfigError] = []
        for searched, query in asked:
            try:
                answers[searched.name] = self._opened.search(searched, query)
            except ConfigError as exc:
                if question.tables:
                    raise
                refused.append(exc)
        if not answers:
            raise refused[0]
        return answers, [f"not searched: {exc.message}" for exc in refused]

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
    ) -> tuple[Question, list[str]]:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"{k!r} is no number of hits", hint="-k 1 or more")
        if sum(given is not None for given in (vector, like)) > 1:
            raise ConfigError("a vector and a row to be like are two questions", hint="ask one of them")
        tables = (table,) if isinstance(table, str) else tuple(table or ())
        besides, found = None, None if vector is None else as_vector(vector)
        if like is not None:
            besides, found = self._like(like, tables, tenant)
        chosen, notes = chosen_mode(mode, text, found, self._embedder)
        if chosen is not Mode.KEYWORD and found is None and text is not None and self._embedder is not None:
            found = embedders.embed(self._embedder, text)
        parsed = None if where is None else parse(where)
        return Question(chosen, text, found, min(k, MOST_HITS), parsed, tenant, exact, tables, besides), notes

    def _like(
        self, like: Any, tables: Sequence[str], tenant: str | None
    ) -> tuple[tuple[str, Key], Vector | Sparse]:
        """Return the table and key of the row that is meant, and its vector."""
        cells = key_cells(like)
        found: dict[tuple[str, Key], Vector | Sparse | None] = {}
        wanted = [s for s in self.tables() if not tables or s.name in tables]
        compared = [s for s in wanted if s.vector is not None or s.sparse is not None]
        if not compared and any(s.has_sparse for s in wanted):
            raise ConfigError("this store cannot compare sparse vectors, and has no others", hint=SPARSE_HINT)
        for searched in compared:
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
            yield from typed(searched, names, cells)
            return
        own = [name for name in names if name != searched.tenant]
        if len(cells) != len(own) or searched.tenant not in names:
            return
        tenants = searched.tenants if tenant is None else (tenant,)
        if tenants or searched.vector is None:
            rest = dict(zip(own, cells, strict=True))
            for one in tenants:
                yield from typed(searched, names, [rest.get(name, one) for name in names])
            return
        for given in typed(searched, own, cells):
            by_name = dict(zip(own, given, strict=True))
            tests: list[Filter] = [Equals(Field(name), (cell,)) for name, cell in by_name.items()]
            # The rows of such a key, whichever tenant's they are: every vector is near enough.
            near = np.ones(searched.vector.dim or 1, np.float32)
            query = Query(
                Mode.VECTOR, near, k=3, where=All(tuple(tests)), tenant=tenant, exact=True, rows=False
            )
            yield from (h.key for h in self._opened.search(searched, query).hits)

    def neighbours(
        self, node: str, *, depth: int = 1, tenant: str | int | None = None, direction: str = "both"
    ) -> Iterator[Edge]:
        """Yield the edges of the knowledge graph within `depth` steps of a node, nearest first."""
        way, whose = way_of(direction), _digits(tenant)
        return self._graph().neighbours(node, depth=depth, tenant=whose, direction=way)

    def paths(
        self,
        start: str,
        goal: str,
        *,
        depth: int = 4,
        tenant: str | int | None = None,
        direction: str = "both",
    ) -> Iterator[tuple[Edge, ...]]:
        """Yield the paths between two nodes of at most `depth` edges, shortest first."""
        way, whose = way_of(direction), _digits(tenant)
        return self._graph().paths(start, goal, depth=depth, tenant=whose, direction=way)

    def _graph(self) -> Graph:
        if not isinstance(self._opened, Graph):
            raise ConfigError(f"{self._opened.describe()} has no knowledge graph that can be walked")
        return self._opened


def _digits(tenant: str | int | None) -> str | None:
    """Return a tenant as tiers take it: a number is named by its digits, as on a command line."""
    return None if tenant is None else str(tenant)


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
    vector:   numbers to be near to; or a sparse vector, {"indices": [...], "values": [...]}.
    like:     the key of a row to be near to; that row itself is left out.
    k:        how many hits at most, 10 unless said.
    where:    a filter (`migrate.search.filters`), as JSON or as a dict.
    mode:     "vector", "keyword" or "hybrid"; by what is given unless said.
    table:    a table, or several; all that can be asked unless said.
    tenant:   only rows of this tenant; a number or its digits.
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
