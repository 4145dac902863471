"""What Pinecone takes, as data: the documented limits and prices in units.

Sources, by the name of the public page: "Database limits" (operations, identifiers, metadata), the
OpenAPI file of the data plane 2026-07 (an all-zero dense vector), "Understanding cost" (units).
"""

from __future__ import annotations

REQUEST_BYTES = 2_000_000  # of an upsert; the page says 2 MB and not which, so the smaller
REQUEST_RECORDS = 1_000
METADATA_BYTES = 40_960  # a record; measured on compact JSON
ID_CHARS = 512
NAMESPACE_CHARS = 512
INDEX_NAME_CHARS = 45
MAX_DIM = 20_000
SPARSE_VALUES = 2_048
SPARSE_INDEX = 2**32 - 1
ZERO = 1e-8  # a dense vector needs one value of at least this magnitude
EXACT_INTEGER = 2**53  # numbers of metadata are doubles
LIST_PAGE = 100
DELETE_IDS = 1_000
FETCH_IDS = 100  # 1,000 are allowed; 100 x 1536 dimensions are 1.7 MB of JSON
FETCH_URL_CHARS = 6_000  # ids are part of the URL, which proxies cut at 8 kB

WRITE_UNIT_BYTES = 1_024
WRITE_UNITS_A_REQUEST = 5  # the least that an upsert, update or delete costs


def write_units(record_bytes: int) -> int:
    """Return what a request costs that writes records of so many bytes."""
    return max(WRITE_UNITS_A_REQUEST, -(-record_bytes // WRITE_UNIT_BYTES))
