"""Advice over a Postgres: who writes, how fast it grows, and that it stays where it is."""

from __future__ import annotations

from datetime import UTC, datetime

from integration.support.servers import Database
from migrate.advising import advise
from migrate.inspect import inspect

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def filled(database: Database) -> None:
    database.run(
        "CREATE SCHEMA agent",
        "CREATE TABLE agent.facts (id int PRIMARY KEY, tenant_id text, created_at timestamptz, embedding vector(8))",
        "INSERT INTO agent.facts SELECT i, 't' || i % 4, '2026-06-01Z'::timestamptz - i * interval '12 hours',"
        " (SELECT array_agg(sin(i * j)) FROM generate_series(1, 8) j)::vector FROM generate_series(0, 279) i",
    )


def test_a_postgres_is_measured_and_stays(database: Database) -> None:
    filled(database)
    found = advise(database.at("agent"), now=NOW)
    assert (found.tier, found.current, found.command) == ("postgres", "postgres", None)
    assert "in postgres already, which serves; sqlite would be enough" in found.reasons[0]
    m = found.measured
    assert (m["rows"], m["vectors"]) == (280, 280)
    assert m["growth"]["per_week"] == 14
    assert m["growth"]["column"] == "facts.created_at"
    assert m["tenants"] == {"count": 4, "columns": "tenant_id", "largest_rows": 70, "exact": True}
    assert m["latency_ms"]["p95"] > 0
    assert found.next["tier"] == "qdrant"
    assert found.store.count("***") == 1
    assert inspect(database.at("agent")).tier == "postgres"


def test_connections_that_write_are_counted(database: Database) -> None:
    filled(database)
    alone = advise(database.at("agent"), now=NOW).measured["writers"]
    with database.connect() as one, database.connect():
        one.execute("BEGIN")
        one.execute("DELETE FROM agent.facts WHERE id = 0")
        seen = advise(database.at("agent"), now=NOW).measured["writers"]
        one.execute("ROLLBACK")
    assert (alone["count"], alone["busy"]) == (0, 0)
    assert (seen["count"], seen["busy"]) == (2, 1)


def test_nobody_who_may_not_look_is_counted_as_idle(database: Database) -> None:
    filled(database)
    database.run(
        "CREATE ROLE looker LOGIN PASSWORD 'secret'",
        "GRANT USAGE ON SCHEMA agent TO looker",
        "GRANT SELECT ON ALL TABLES IN SCHEMA agent TO looker",
    )
    try:
        with database.connect() as one:
            one.execute("SELECT 1")
            seen = advise(database.role("looker").at("agent"), now=NOW).measured["writers"]
    finally:
        database.run("DROP OWNED BY looker", "DROP ROLE looker")
    assert seen["count"] >= 1
    assert "of other roles show nothing" in seen["note"]
