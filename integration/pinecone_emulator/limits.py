"""The limits the service documents, as data.

Sources, by the name of the public page or file:
  - "Operation limits" and "Pinecone Database limits" (documentation),
  - "Pinecone Data Plane API" and "Pinecone Control Plane API", version 2026-07 (OpenAPI files).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, record or answer may hold. Sizes are bytes unless the name says otherwise."""

    # "Operation limits": 1,000 records, up to 2 MB total. The page does not say whether an MB is 10**6
    # or 2**20; the metadata limit ("40 KB") is 40,960 in the service's own message, so 2**20 here.
    upsert_bytes: int = 2 * 1024 * 1024
    upsert_records: int = 1000
    upsert_texts: int = 96  # "Operation limits": records with text
    metadata_bytes: int = 40 * 1024
    id_chars: int = 512
    namespace_chars: int = 512
    dimension: int = 20_000
    sparse_values: int = 2048
    sparse_index: int = 2**32 - 1
    # OpenAPI, Vector.values: smaller magnitudes count as zero.
    zero_magnitude: float = 1e-8
    top_k: int = 10_000
    # "Operation limits": a query answer is at most 4 MB.
    query_result_bytes: int = 4 * 1024 * 1024
    fetch_ids: int = 1000
    delete_ids: int = 1000
    list_page: int = 100
    fetch_by_metadata_page: int = 10_000
    fetch_by_metadata_default_page: int = 100
    namespace_page: int = 100
    import_page: int = 100
    import_uri_chars: int = 1500
    namespace_schema_fields: int = 50
    # "Filter by metadata": $in and $nin take at most 10,000 values each.
    filter_values: int = 10_000
    index_name_chars: int = 45
