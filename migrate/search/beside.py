"""The sidecar of a vector store, searched through its own tier: tables without vectors, and the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from migrate.backends.sidecar import SidecarSettings, exists
from migrate.errors import ConfigError
from migrate.search.base import Direction, Edge, Graph, Means, Searchable, Searched


class Beside:
    """A sidecar, opened when first asked for.

    own: returns the names of the vector store's own tables, which the sidecar may mirror without vectors.
    """

    def __init__(self, at: SidecarSettings, means: Means, own: Callable[[], Collection[str]]) -> None:
        self._at, self._means, self._own = at, means, own
        self._store: Searchable | None = None

    def close(self) -> None:
        """Let go of the sidecar. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    @property
    def store(self) -> Searchable:
        """Return the sidecar as a store. Raises ConfigError where there is none."""
        if self._store is None:
            from migrate.search import open_searchable

            if not exists(self._at):
                raise ConfigError("there is no sidecar beside this store", hint="name it with sidecar=")
            self._store = open_searchable(self._at, self._means)
        return self._store

    def tables(self) -> Sequence[Searched]:
        """Return the sidecar's own tables that can be searched."""
        if not exists(self._at):
            return ()
        return tuple(s for s in self.store.tables() if s.name not in self._own())

    def holding(self, searched: Searched) -> tuple[Searchable, Searched] | None:
        """Return the store of a table of the sidecar, and how it knows the table; None for any other table."""
        if searched.name in self._own():
            return None
        found = next((s for s in self.tables() if s.name == searched.name), None)
        return None if found is None else (self.store, found)

    # --- the knowledge graph --------------------------------------------------

    def _walked(self) -> Graph:
        store = self.store
        if not isinstance(store, Graph):
            raise ConfigError(f"{store.describe()} has no knowledge graph that can be walked")
        return store

    def neighbours(self, node: str, depth: int, tenant: str | None, direction: Direction) -> Iterator[Edge]:
        """See `Graph.neighbours`."""
        return self._walked().neighbours(node, depth=depth, tenant=tenant, direction=direction)

    def paths(
        self, start: str, goal: str, depth: int, tenant: str | None, direction: Direction
    ) -> Iterator[tuple[Edge, ...]]:
        """See `Graph.paths`."""
        return self._walked().paths(start, goal, depth=depth, tenant=tenant, direction=direction)
