"""What a migration into Pinecone will ask of it, from the sizes that an audit has read.

Units as documented ("Understanding cost"): an upsert costs one write unit for each KB of its
records (id, metadata, 4 bytes a dimension), 5 at least; a fetch one read unit for ten records.
An upsert over a record that is there costs that record's size once more, which is not foretold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from migrate.backends.pinecone.limits import FETCH_IDS, REQUEST_BYTES, REQUEST_RECORDS, write_units
from migrate.report import TableReport
from migrate.sampling import one_in

_DIGITS = 10.9  # characters of a float32 and its comma: 16.7 kB for 1,536 dimensions of embeddings
_ID = 20  # of a record's id, as far as nobody knows
_FRAME = 45  # the names of a record's JSON
_QUOTES = 6  # around a field's name and its text
_RECORDS_PER_READ_UNIT = 10


def foretell(tables: Sequence[TableReport], batch_size: int = REQUEST_RECORDS) -> dict[str, int]:
    """Return upserts, bytes_sent, write_units and (of a sample's verification) read_units.

    Every row of a table with vectors is reckoned as a record, so this is the most it can be.
    """
    total = {"upserts": 0, "bytes_sent": 0, "write_units": 0, "read_units": 0}
    for table in tables:
        for name, amount in _table(table, batch_size).items():
            total[name] += amount
    return total


def _table(table: TableReport, batch_size: int) -> dict[str, int]:
    rows, dim = table.rows_source, _dim(table)
    if dim is None or not rows:
        return {}
    fields = sum(len(name) + _QUOTES for name, kind in table.types.items() if kind == "metadata")
    metadata = max(table.bytes / rows - 4 * dim, 0) + fields
    sent, billed = _FRAME + _ID + dim * _DIGITS + metadata, _ID + 4 * dim + metadata
    group = min(rows, batch_size, REQUEST_RECORDS)
    cut = max(1, min(group, int(REQUEST_BYTES / sent)))  # records of a full request
    upserts = -(-rows // group) * -(-group // cut)
    sample = rows // one_in(rows)
    return {
        "upserts": upserts,
        "bytes_sent": round(rows * sent),
        "write_units": upserts * write_units(round(rows * billed / upserts)),
        "read_units": max(-(-sample // FETCH_IDS), -(-sample // _RECORDS_PER_READ_UNIT)),
    }


def _dim(table: TableReport) -> int | None:
    """Return the dimension of a table's records; 0 for sparse ones, None for a table without records."""
    for kind in table.types.values():
        found = re.match(r"values\((\d+)\)", kind)
        if found:
            return int(found[1])
    return 0 if "sparse values" in table.types.values() else None
