"""One tenant's rows of a store that many agents share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.backends.base import Source
from migrate.batch import Batch, Cursor
from migrate.errors import ConfigError
from migrate.schema import NotCarried, Table

# Columns by which agents' stores tell tenants apart, first match wins.
COLUMNS = ("brain_id", "tenant_id", "agent_id", "agentId", "namespace", "user_id", "userId")


class OneTenant:
    """A source that shows only the rows of one tenant.

    Raises ConfigError where a table has no column that names a tenant: to carry
    it whole would give one tenant the rows of all.
    """

    def __init__(self, source: Source, tables: Sequence[Table], tenant: str, exclude: Sequence[str]) -> None:
        self._source, self._tenant = source, tenant
        self._at: dict[str, int] = {}
        for table in tables:
            if table.name in exclude:
                continue
            column = next((c for c in COLUMNS if c in table.column_names), None)
            if column is None:
                raise ConfigError(
                    f"table {table.name!r} has no column that names a tenant",
                    hint=f"leave it out with --exclude {table.name}; known columns: {', '.join(COLUMNS)}",
                )
            self._at[table.name] = table.column_names.index(column)
        if not any(self.count(t) for t in tables if t.name in self._at):
            raise ConfigError(f"no row belongs to a tenant {tenant!r}", hint="check the id of the tenant")

    def describe(self) -> str:
        """See `Store.describe`."""
        return f"{self._source.describe()} (tenant {self._tenant})"

    def close(self) -> None:
        """See `Store.close`."""
        self._source.close()

    def tables(self) -> list[Table]:
        """See `Source.tables`."""
        return [t for t in self._source.tables() if t.name in self._at]

    def not_carried(self) -> list[NotCarried]:
        """See `Source.not_carried`."""
        return self._source.not_carried()

    @property
    def snapshot(self) -> int:
        """See `Source.snapshot`."""
        return self._source.snapshot

    def problems(self) -> list[str]:
        """See `Source.problems`."""
        return self._source.problems()

    def count(self, table: Table) -> int:
        """See `Source.count`; reads the table."""
        return sum(len(batch.rows) for batch in self.batches(table, size=1000))

    def _is_ours(self, cell: object) -> bool:
        # The command line gives a text; a tenant's number matches it too.
        return cell == self._tenant or (type(cell) is int and str(cell) == self._tenant)

    def batches(self, table: Table, *, size: int, after: Cursor = None) -> Iterator[Batch]:
        """See `Source.batches`."""
        at = self._at[table.name]
        for batch in self._source.batches(table, size=size, after=after):
            rows = [row for row in batch.rows if self._is_ours(row[at])]
            if rows:
                yield Batch(table, rows, batch.cursor)
