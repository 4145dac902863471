"""An audit without a target: the same judgement against every store that memlift writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrate import backends
from migrate.backends.base import Options, Standing
from migrate.errors import MissingExtraError
from migrate.fit import Fit, Found
from migrate.schema import Table


@dataclass(frozen=True, slots=True)
class Strictest(Fit):
    """What the strictest of several stores can hold; each reason names the store."""

    stores: tuple[tuple[str, Fit], ...] = ()

    def check(self, columns: Sequence[Sequence[Any]]) -> list[Found]:
        """See `Fit.check`. A cell that several stores refuse is counted once."""
        found: dict[tuple[int, int | None], Found] = {}
        for name, fit in self.stores:
            for f in fit.check(columns):
                if f.harmless:
                    continue
                known = found.get((f.row, f.column))
                reason = f"{known.reason}; {name}: {f.reason}" if known else f"{name}: {f.reason}"
                found[(f.row, f.column)] = replace(f, reason=reason)
        return list(found.values())


class Strict:
    """Judges tables against all stores; stands in for the target of an audit that has none."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stores: list[tuple[str, Any]] = []
        self._notes: list[str] = []
        for kind in backends.REGISTRY:
            if kind == "memory":
                continue
            try:
                self._stores.append((kind, backends.load(kind)))
            except MissingExtraError as exc:
                self._notes.append(f"not judged for {kind}: {exc.message} ({exc.hint})")

    def describe(self) -> str:
        """Return the names of the stores."""
        return ", ".join(name for name, _ in self._stores)

    def look(self, tables: Sequence[Table]) -> Standing:
        """Return an empty target."""
        return Standing(notes=tuple(self._notes))

    def fit(self, table: Table) -> Fit:
        """Return what the strictest store can hold of a table."""
        fits = tuple((name, module.fit(table, self._options)) for name, module in self._stores)
        problems = tuple(f"{name}: {p}" for name, fit in fits for p in fit.problems)
        notes = tuple(dict.fromkeys(f"{name}: {n}" for name, fit in fits for n in fit.notes))
        rules = fits[0][1].rules if fits else ()
        return Strictest(table, rules, problems=problems, notes=notes, stores=fits)
