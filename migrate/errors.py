"""The one tree of errors.

Every error says what failed, where (`where`: backend, table, cursor, ...) and
what to do next (`hint`). Only `TransientError` is ever retried; an error that
is not in this tree is a bug and stops the run. The CLI alone turns errors into
text and exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrate.report import Report


class MigrateError(Exception):
    """Base of all errors of memlift.

    `exit_code` is what the command line answers with; `report` is the partial
    report of a run that failed, or None where no run had begun.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, **where: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where: dict[str, Any] = {k: v for k, v in where.items() if v is not None}
        self.report: Report | None = None

    def __str__(self) -> str:
        place = ", ".join(f"{k} {v}" for k, v in self.where.items())
        return f"{self.message} ({place})" if place else self.message


class ConfigError(MigrateError):
    """Nothing was begun: a wrong URL, option or password, a missing extra, an unreadable store."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """A backend's driver is not installed; the hint is the `pip install` that mends it."""


class SchemaError(MigrateError):
    """A table cannot be planned: a name that is taken, a changed plan, a type without a home."""

    exit_code = 2


class RecordError(MigrateError):
    """One record is at fault; `where` has table, key and column."""


class MisfitError(MigrateError):
    """Cells that the target cannot hold, with `--on-misfit fail`; nothing was written."""

    exit_code = 4


class BackendError(MigrateError):
    """A store answered with an error that trying again does not mend."""


class TransientError(BackendError):
    """A store was away, busy or overloaded; worth another try.

    `retry_after`: seconds the store asked us to wait, or None.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, hint: str | None = None, **where: Any
    ) -> None:
        super().__init__(message, hint=hint, **where)
        self.retry_after = retry_after


class UnreachableError(TransientError):
    """No connection could be made: a store that is away for a moment, or an address that is wrong."""


class CheckpointError(MigrateError):
    """An unfinished run is in the way: another plan, or another owner."""

    exit_code = 2


class LeaseLostError(CheckpointError):
    """Another run took this target over; this one must not write again."""

    exit_code = 1


class VerifyError(MigrateError):
    """Source and target differ; `report` carries the differences."""

    exit_code = 3


class InterruptedRunError(MigrateError):
    """SIGINT or SIGTERM ended the run at a clean checkpoint; run it again to go on."""

    def __init__(self, message: str, *, exit_code: int = 130, hint: str | None = None, **where: Any) -> None:
        super().__init__(message, hint=hint, **where)
        self.exit_code = exit_code
