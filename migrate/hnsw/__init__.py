"""HNSW sidecars: `brain.hnsw` beside `brain.sqlite`, for those who search it and those who fill it.

Knows SQLite files and nothing of queries: `migrate.search` asks an index for
candidates and scores them, `migrate.backends.sqlite` builds one after a copy.
"""
