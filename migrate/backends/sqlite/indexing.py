"""HNSW sidecars as steps of a copy into a SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.backends.base import Phase, Step
from migrate.backends.sqlite.introspect import read_schema
from migrate.backends.sqlite.names import ident, rowid_name
from migrate.backends.sqlite.vectorscan import can_scan
from migrate.hnsw import graph, settings
from migrate.schema import Column, Metric, Table

if TYPE_CHECKING:
    from migrate.hnsw.sidecar import Sidecar

_BEAT_S = 3.0


class Sidecars:
    """The sidecars of the tables that a run has filled."""

    def __init__(self, path: Path, index: str) -> None:
        """Take a file, and what `Options.index` says."""
        self._path, self._index = path, index
        self._made: list[Sidecar] = []
        self.notes: list[str] = []

    def steps(
        self, connection: sqlite3.Connection, tables: Sequence[Table], beat: Callable[[], None]
    ) -> list[Step]:
        """Return a step for each vector column that can have one. `beat` is called every few seconds."""
        self.notes.clear()
        if self._index == "none":
            return []
        declared = {table.name.lower(): table for table in read_schema(connection)[0]}
        steps = []
        for table in tables:
            here = declared.get(table.name.lower())
            column = next((c for c in table.vectors if can_scan(c)), None)
            if here is None or column is None or rowid_name(here) is None:
                continue
            metric = column.metric or Metric.COSINE
            if metric in settings.SPACES and _many(connection, here, column) and self._installed(table):
                run = self._step(here, column, metric, beat)
                steps.append(Step(table.name, "HNSW sidecar", Phase.INDEX, run))
        return steps

    def _installed(self, table: Table) -> bool:
        if graph.installed() is None and self._index == "hnsw":
            self.notes.append(
                f"{table.name}: no HNSW sidecar, as hnswlib is not installed: pip install 'memlift[hnsw]'"
            )
        return graph.installed() is not None

    def _step(
        self, here: Table, column: Column, metric: Metric, beat: Callable[[], None]
    ) -> Callable[[Callable[[int, int], None]], None]:
        def run(progress: Callable[[int, int], None]) -> None:
            from migrate.hnsw.sidecar import Sidecar  # which reads files by this package

            last = time.monotonic()

            def going_on(done: int, total: int) -> None:
                nonlocal last
                progress(done, total)
                if time.monotonic() - last > _BEAT_S:
                    beat()
                    last = time.monotonic()

            sidecar = Sidecar(self._path, here, column, metric)
            if sidecar.bring_up_to_date(going_on):
                self._made.append(sidecar)
            if sidecar.note is not None:
                self.notes.append(f"{here.name}: {sidecar.note}")

        return run

    def settle(self) -> None:
        """Compare the indexes with the file once more, when all is written, so that the first search need not."""
        for sidecar in self._made:
            sidecar.bring_up_to_date()
        self.close()

    def close(self) -> None:
        """Let go of the indexes."""
        for sidecar in self._made:
            sidecar.close()
        self._made.clear()


def _many(connection: sqlite3.Connection, here: Table, column: Column) -> bool:
    """Whether there may be enough vectors, without counting all of them."""
    some = f"SELECT {ident(column.name)} AS cell FROM {ident(here.name)} WHERE cell IS NOT NULL LIMIT ?"
    (n,) = connection.execute(f"SELECT count(*) FROM ({some})", (settings.BUILD_FROM,)).fetchone()
    return int(n) >= settings.BUILD_FROM
