"""How many rows a store holds, since when it runs: what `memlift status` shows beside its health."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from provisioners import pgprobe
from provisioners.ready import ask_json, libpq_url

COUNT_MS = 2000


@dataclass(frozen=True, slots=True)
class Census:
    """rows: of all tables or collections; exact: False for the server's estimate. since: UTC, ISO 8601."""

    rows: int | None
    exact: bool = True
    since: str | None = None


def of_postgres(url: str) -> Census:
    """Count the rows of all users' tables, for up to COUNT_MS; beyond that take the server's estimate.

    Raises psycopg.Error where the server does not answer.
    """
    psycopg = pgprobe.driver()
    sql = psycopg.sql
    tables = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    )
    estimate = "SELECT coalesce(sum(greatest(n_live_tup, 0)), 0)::bigint FROM pg_stat_user_tables"
    with psycopg.connect(libpq_url(url), connect_timeout=3, autocommit=True) as conn:
        started = conn.execute("SELECT pg_postmaster_start_time() AT TIME ZONE 'UTC'").fetchone()[0]
        since = started.isoformat(timespec="seconds") + "+00:00"
        names = conn.execute(tables).fetchall()
        counts = [sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*name)) for name in names]
        if not counts:
            return Census(0, since=since)
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL statement_timeout = {COUNT_MS}")
                union = sql.SQL(" UNION ALL ").join(counts)
                row = conn.execute(
                    sql.SQL("SELECT sum(count)::bigint FROM ({}) AS t").format(union)
                ).fetchone()
            return Census(int(row[0]), since=since)
        except psycopg.errors.QueryCanceled:
            return Census(int(conn.execute(estimate).fetchone()[0]), exact=False, since=since)


def of_qdrant(url: str, api_key: str | None) -> Census:
    """Count the points of all collections exactly. Raises ProvisionError where the server does not answer."""
    listed = ask_json(url, "/collections", api_key, timeout=3)
    total = 0
    for item in listed["result"]["collections"]:
        path = f"/collections/{quote(str(item['name']), safe='')}/points/count"
        found = ask_json(url, path, api_key, timeout=10, body={"exact": True})
        total += int(found["result"]["count"])
    return Census(total)
