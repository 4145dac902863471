"""Targets in one call: Postgres + pgvector and Qdrant, with Docker or without."""
