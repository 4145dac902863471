"""The rows of a COPY TO, taken from libpq's own buffer while it has any."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.errors import error_from_result

from migrate.backends.postgres.wire import HEADER, TRAILER

_LAST = len(TRAILER)


class CopyOut:
    """Takes the rows of a binary COPY TO that psycopg has begun; each has a field at least.

    `psycopg.Copy.read` makes and runs a generator for each row: 1.3 us, a third of what it takes to get
    one of 2 KB. A row that has arrived is taken with `PGconn.get_copy_data` instead
    (https://www.psycopg.org/psycopg3/docs/api/pq.html); where none has, psycopg waits for it, and ends
    the COPY.
    """

    def __init__(self, copy: psycopg.Copy) -> None:
        self._copy = copy
        self._server = copy.connection.pgconn
        self._ended = False
        self._taken = [bytes(copy.read())[len(HEADER) :]]  # the header comes with the first row
        self._end_at(self._taken)

    def take(self, n: int, limit: int) -> list[Any]:
        """Return the next n rows, as bytes or memoryviews; fewer once they have `limit` bytes, and at the end.

        Raises psycopg.Error.
        """
        rows: list[Any] = self._taken
        arrived = self._server.get_copy_data
        weight = sum(map(len, rows))
        while len(rows) < n and weight < limit and not self._ended:
            size, row = arrived(1)
            if size <= 0:
                row = self._waited_for(size)
                size = len(row)
            rows.append(row)
            weight += size
            if size == _LAST:
                self._end_at(rows)
        self._taken = []
        return rows

    def _waited_for(self, size: int) -> Any:
        """Return a row that has not arrived; raise what the server says where none comes (size is -1)."""
        if size == 0:
            return self._copy.read()
        result = self._server.get_result()
        while self._server.get_result() is not None:
            pass
        if result is None:
            raise psycopg.OperationalError("the COPY ended before its last row")
        raise error_from_result(result, self._copy.connection.info.encoding)

    def _end_at(self, rows: list[Any]) -> None:
        """Drop the trailer, and end the COPY, where that is what came last."""
        if rows[-1] == TRAILER:
            del rows[-1]
            self._copy.read()
            self._ended = True
