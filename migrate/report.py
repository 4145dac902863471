"""What happened, as data: the report of a run, and who is told while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

SHOWN = 20  # differences listed one by one, and misfits shown to a person; all are counted
LISTED = 100_000  # misfits of one table that a report holds: about 30 MB


class Observer(Protocol):
    """Is told how a run goes on; the command line draws bars with it."""

    def say(self, text: str) -> None:
        """Take one line for a person."""
        ...

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """Take the progress of one table in one phase: audit, copy, index, verify."""
        ...


class Silent:
    """An observer that looks away."""

    def say(self, text: str) -> None:
        """See `Observer.say`."""

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """See `Observer.step`."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table of a run. Times in seconds; `bytes` as read from the source (of a table of
    more than 16 batches an estimate, from one batch in eight).

    differences: {"missing", "extra", "different": counts, "shown": the first of them}.
    misfits:     {"cells": count, "shown": [{"key", "column", "reason"}, ...]}.
    """

    name: str
    kind: str
    rows_source: int = 0
    rows_written: int = 0
    rows_unchanged: int = 0
    rows_extra: int = 0
    rows_quarantined: int = 0
    bytes: int = 0
    vector: dict[str, Any] | None = None
    key: tuple[str, ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    audit_s: float = 0.0
    copy_s: float = 0.0
    index_s: float = 0.0
    verify_s: float = 0.0
    verified: bool = False
    rows_checked: int = 0
    misfits: dict[str, Any] = field(default_factory=lambda: {"cells": 0, "shown": []})
    differences: dict[str, Any] = field(
        default_factory=lambda: {"missing": 0, "extra": 0, "different": 0, "shown": []}
    )
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> int:
        """Return how many rows are missing, extra or different."""
        d = self.differences
        return int(d["missing"]) + int(d["extra"]) + int(d["different"])


@dataclass(frozen=True, slots=True)
class Report:
    """A run, whole or broken off. `verified` is True only when the asked check ran on every table
    and found no difference.

    usage: what a service has counted that charges for its use (requests, bytes, units); empty elsewhere.
    search: what a check of search found (`migrate.search.parity.Parity.to_dict`), None without one.
    promotion: of a move to another tier: {"tier", "before", "reasons", "name", "moved", "saved"}, else None.
    """

    source: str
    target: str
    dry_run: bool = False
    verified: bool = False
    verify_mode: str = "full"
    total_rows: int = 0
    duration_ms: int = 0
    resumed: bool = False
    layout: str = "generic"
    tables: tuple[TableReport, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    quarantine: str | None = None
    not_carried: tuple[dict[str, Any], ...] = ()
    estimate: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    promotion: dict[str, Any] | None = None

    @property
    def misfits(self) -> int:
        """Return how many cells (and table properties) the target cannot hold."""
        return sum(int(t.misfits["cells"]) for t in self.tables)

    @property
    def differs(self) -> int:
        """Return how many rows are missing, extra or different."""
        return sum(t.differs for t in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON document can hold, and what is read back from one: dicts, lists and scalars."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


class Progress:
    """Collects the report of a run while it goes on."""

    def __init__(self, source: str, target: str, verify_mode: str, *, dry_run: bool) -> None:
        self.report = Report(source, target, dry_run=dry_run, verify_mode=verify_mode)
        self._tables: dict[str, TableReport] = {}

    def set(self, **changes: Any) -> None:
        """Change fields of the report."""
        self.report = replace(self.report, **changes)

    def table(self, name: str, **changes: Any) -> TableReport:
        """Change fields of one table's report (made on first use) and return it."""
        old = self._tables.get(name) or TableReport(name, "table")
        self._tables[name] = replace(old, **changes)
        return self._tables[name]

    def add(self, name: str, **amounts: float) -> None:
        """Add to numbers of one table's report."""
        old = self.table(name)
        self.table(name, **{k: getattr(old, k) + v for k, v in amounts.items()})

    def used(self, amounts: Mapping[str, int]) -> None:
        """Add to what a service has counted."""
        known = self.report.usage
        self.report = replace(
            self.report, usage={**known, **{k: known.get(k, 0) + n for k, n in amounts.items()}}
        )

    def warn(self, *texts: str) -> None:
        """Add warnings."""
        self.report = replace(self.report, warnings=(*self.report.warnings, *texts))

    def current(self) -> Report:
        """Return the report as it stands."""
        tables = tuple(self._tables.values())
        return replace(self.report, tables=tables, total_rows=sum(t.rows_source for t in tables))
