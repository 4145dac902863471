"""A vector store and its sidecar as one store: each call goes to the one that has the table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from migrate.backends.sidecar import SidecarSettings, exists
from migrate.errors import ConfigError
from migrate.search.base import (
    Answer,
    Direction,
    Edge,
    Graph,
    Health,
    Key,
    Means,
    Query,
    Searchable,
    Searched,
    Sparse,
    Vector,
)


class Own(Searchable, Protocol):
    """A vector store by itself, which knows nothing of its sidecar."""

    def names(self) -> Collection[str]:
        """Return the names of all its tables; the sidecar may mirror them without vectors."""
        ...


class WithSidecar:
    """An open vector store with the sidecar beside it, which is opened when first asked for.

    Tables without vectors are searched in the sidecar, through its own tier, and the knowledge graph is walked there.
    """

    def __init__(self, own: Own, at: SidecarSettings, means: Means) -> None:
        self.own = own
        self._at, self._means = at, means
        self._sidecar: Searchable | None = None
        try:
            self._tables = (*own.tables(), *self._beside())
        except BaseException:
            self.close()
            raise

    @property
    def sidecar(self) -> Searchable:
        """Return the sidecar as a store. Raises ConfigError where there is none."""
        if self._sidecar is None:
            from migrate.search import open_searchable

            if not exists(self._at):
                raise ConfigError("there is no sidecar beside this store", hint="name it with sidecar=")
            self._sidecar = open_searchable(self._at, self._means)
        return self._sidecar

    def _beside(self) -> Sequence[Searched]:
        """Return the sidecar's own tables that can be searched."""
        if not exists(self._at):
            return ()
        own = self.own.names()
        return tuple(s for s in self.sidecar.tables() if s.name not in own)

    def _home(self, searched: Searched) -> tuple[Searchable, Searched]:
        """Return the store that has a table, and how it knows the table."""
        if searched.name not in self.own.names():
            for known in self._beside():
                if known.name == searched.name:
                    return self.sidecar, known
        return self.own, searched

    def describe(self) -> str:
        """See `Searchable.describe`."""
        return self.own.describe()

    def close(self) -> None:
        """See `Searchable.close`."""
        self.own.close()
        sidecar, self._sidecar = self._sidecar, None
        if sidecar is not None:
            sidecar.close()

    def tables(self) -> Sequence[Searched]:
        """See `Searchable.tables`."""
        return self._tables

    def search(self, searched: Searched, query: Query) -> Answer:
        """See `Searchable.search`."""
        store, known = self._home(searched)
        return store.search(known, query)

    def vector_of(self, searched: Searched, key: Key) -> Vector | Sparse | None:
        """See `Searchable.vector_of`."""
        store, known = self._home(searched)
        return store.vector_of(known, key)

    def sample(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, Vector]]:
        """See `Searchable.sample`."""
        store, known = self._home(searched)
        return store.sample(known, n, seed)

    def texts(self, searched: Searched, n: int, seed: int) -> list[tuple[Key, str]]:
        """See `Searchable.texts`."""
        store, known = self._home(searched)
        return store.texts(known, n, seed)

    def health(self, searched: Searched) -> Health:
        """See `Searchable.health`."""
        store, known = self._home(searched)
        return store.health(known)

    # --- the knowledge graph --------------------------------------------------

    def _walked(self) -> Graph:
        store = self.sidecar
        if not isinstance(store, Graph):
            raise ConfigError(f"{store.describe()} has no knowledge graph that can be walked")
        return store

    def neighbours(
        self,
        node: str,
        *,
        depth: int = 1,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[Edge]:
        """See `Graph.neighbours`."""
        return self._walked().neighbours(node, depth=depth, tenant=tenant, direction=direction)

    def paths(
        self,
        start: str,
        goal: str,
        *,
        depth: int = 4,
        tenant: str | None = None,
        direction: Direction = Direction.BOTH,
    ) -> Iterator[tuple[Edge, ...]]:
        """See `Graph.paths`."""
        return self._walked().paths(start, goal, depth=depth, tenant=tenant, direction=direction)
