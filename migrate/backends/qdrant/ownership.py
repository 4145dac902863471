"""Whose a collection is: this sidecar's, another machine's, or nobody's of ours.

A folder is moved together with its sidecar, whose lease is all there is. A
server can be written to from several machines with a sidecar each, so there the
collections' metadata and `books` tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migrate.backends.base import Position, Standing
from migrate.backends.qdrant.books import ServerBooks, Told
from migrate.backends.qdrant.engine import Engine, Json
from migrate.backends.qdrant.names import METADATA
from migrate.backends.sidecar import Sidecar
from migrate.errors import SchemaError
from migrate.schema import Table


def maker(engine: Engine, books: ServerBooks | None, name: str) -> tuple[str, str] | None:
    """Return which sidecar (identity and address) a collection was made with; None where memlift did not make it."""
    ours = engine.metadata(name).get(METADATA)
    if isinstance(ours, dict):
        return str(ours.get("sidecar_id")), str(ours.get("sidecar"))
    for told in books.read().values() if books is not None else ():  # servers before 1.16 keep no metadata
        if told.taken is None and any(k.collection == name and k.run for k in told.tables.values()):
            return told.sidecar_id, told.sidecar
    return None


class Ownership:
    """What this run may write to. books: None for a folder."""

    def __init__(self, engine: Engine, side: Sidecar, books: ServerBooks | None) -> None:
        self._engine, self._side, self._books = engine, side, books
        self._run, self._plan = "", Json()
        self._elsewhere: Told | None = None  # an unfinished run of another machine that goes on here

    # --- before a run ---------------------------------------------------------

    def look(
        self, collections: dict[str, str], standing: Standing, identity: str | None, here: set[str]
    ) -> Told | None:
        """Return the run of another sidecar that was broken off and has collections we are to write.

        collections: {table: collection}. Raises SchemaError where our own unfinished run was taken over.
        """
        self._elsewhere = None
        if self._books is None:
            return None
        told = self._books.read()
        if standing.plan is not None:
            mine = told.get(identity or "")
            if mine is not None and mine.taken is not None:
                raise SchemaError(
                    f"another machine went on with this run, with the sidecar {mine.taken}",
                    hint="run there, or choose another prefix",
                )
            return None
        for other in told.values():
            if not other.done and other.taken is None and other.sidecar_id != identity:
                kept = {t: k.collection for t, k in other.tables.items()}
                if any(kept.get(t) == name and name in here for t, name in collections.items()):
                    self._elsewhere = other
        return self._elsewhere

    def made(self, name: str, identity: str) -> bool:
        """Whether a collection is here and was made with that sidecar."""
        found = maker(self._engine, self._books, name)
        return found is not None and found[0] == identity

    def check_not_others(self, name: str, identity: str | None) -> None:
        """Refuse a collection of another sidecar's."""
        found = maker(self._engine, self._books, name)
        if found is not None and found[0] != identity:
            raise SchemaError(
                f"the collection {name!r} was made by memlift with another sidecar: {found[1]}",
                hint="run from the machine that has it, name it with sidecar=..., or choose another prefix",
            )

    def drop(self, name: str, identity: str | None) -> None:
        """Drop a collection of ours, unless another sidecar's run has made or taken it meanwhile."""
        found = maker(self._engine, self._books, name)
        if found is None or found[0] == identity:
            self._engine.drop(name)

    # --- a run ----------------------------------------------------------------

    def take_over(self, say: Callable[[str], None]) -> None:
        """Take the run that `look` found from its machine. Raises CheckpointError while that is at work."""
        if self._books is not None and self._elsewhere is not None:
            self._books.take_over(self._elsewhere, self._side.describe(), say)

    def begin(self, run: str, plan: dict[str, Any], *, restart: bool) -> None:
        """Tell the server of a run whose sidecar is ours by now; make the collections taken over ours."""
        self._run, self._plan = run, plan
        if self._books is None:
            return
        self._books.open(self._side.identity)
        self._books.begin(run, plan, self._side.describe())
        if self._elsewhere is not None:
            self._adopt(self._elsewhere, restart=restart)

    def _adopt(self, other: Told, *, restart: bool) -> None:
        """Enter another sidecar's collections into ours, or drop those that its unfinished run made."""
        here = set(self._engine.names())
        for kept in other.tables.values():
            made = kept.run == other.run
            if kept.collection not in here:
                continue
            if restart:
                if made:
                    self._engine.drop(kept.collection)
                continue
            self._side.enrol(kept.table, kept.collection, self._run if made else "")
            if kept.position is not None:
                self._side.save(self._run, kept.position, ())
            metadata = {METADATA: self.metadata(kept.table)}
            self._engine.change(kept.collection, {"metadata": metadata})
            self.keep(kept.table, kept.collection, self._run if made else "", kept.position)

    def metadata(self, table: Table) -> Json:
        """Return what tells a collection as ours, also on another machine."""
        return {
            "version": 1,
            "table": table.to_dict(),
            "sidecar": self._side.describe(),
            "sidecar_id": self._side.identity,
            "run": self._run,
        }

    def check(self) -> None:
        """Raise LeaseLostError where another machine has taken the run over."""
        if self._books is not None:
            self._books.check()

    def keep(self, table: Table, collection: str, run: str, position: Position | None) -> None:
        """Tell the server of a table of ours, and how far it has got."""
        if self._books is not None:
            self._books.keep(table, collection, run, position)

    def end(self) -> None:
        """Tell the server that the run is done."""
        if self._books is not None:
            self._books.end(self._run, self._plan, self._side.describe())

    def release(self) -> None:
        """Give the lease on the server back. Idempotent."""
        if self._books is not None:
            self._books.release()

    def stop(self) -> None:
        """End what goes on in the background. Idempotent."""
        if self._books is not None:
            self._books.stop()

    def forget(self, identity: str | None) -> None:
        """Take back what the server was told of us."""
        if self._books is not None and identity is not None:
            self._books.forget(identity)
