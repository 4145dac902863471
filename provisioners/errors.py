"""What can go wrong while a database is set up.

All of these are raised before a row moves, so their exit code is 2: the
target is as it was, and running the same command again is safe.
"""

from __future__ import annotations

from migrate.errors import MigrateError


class ProvisionError(MigrateError):
    """A database could not be found, started or made ready; `hint` says what to do."""

    exit_code = 2


class NotReadyError(ProvisionError):
    """A service did not answer a real query within its time; it may still be starting."""
