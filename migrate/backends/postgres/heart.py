"""Keeping the lease alive from a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from migrate import lease
from migrate.backends.postgres.connect import Connection, connect
from migrate.backends.postgres.source import NOW
from migrate.config import PostgresSettings


class Heart:
    """Renews the lease from a connection of its own, whatever the writing one is waiting for."""

    def __init__(self, settings: PostgresSettings, at: Callable[[str], str], owner: str) -> None:
        self._settings, self._owner = settings, owner
        self._sql = f"UPDATE {at('memlift_lease')} SET beat = {NOW} WHERE id = 1 AND owner = %s"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="memlift lease", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        connection: Connection | None = None
        while not self._stop.wait(lease.BEAT_S):
            try:
                if connection is None:
                    connection = connect(self._settings)
                connection.execute(self._sql, (self._owner,))
            except Exception:  # a missed beat is not an error: every commit checks the lease itself
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stop.set()
        self._thread.join(timeout=30)
