"""Rows that are changed after the load: upserted and removed by key, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from migrate import values
from migrate.backends.postgres import ddl, wire
from migrate.backends.postgres.names import fitting, fitting_column, ident
from migrate.backends.postgres.types import columns_here
from migrate.backends.sqlbooks import keys_kept_aside
from migrate.batch import ExactCell, Row
from migrate.failpoints import hit
from migrate.schema import Table

if TYPE_CHECKING:
    from migrate.backends.postgres.target import PostgresTarget


def amend(
    target: PostgresTarget,
    table: Table,
    rows: Sequence[Row],
    exact: Sequence[ExactCell],
    *,
    replace: bool,
    removed: Sequence[Row] = (),
    removed_rows: Sequence[Row] = (),
) -> None:
    """Do what `Target.amend` says. Rows pass through a temporary table, so that they are written by COPY too."""
    columns, codecs, binary, picked = target.shape(table)
    kinds = [c.kind for c in table.columns]
    with target.transaction("amend rows", table=table.name) as db:
        relation = target.at(fitting(table.name))
        book = target.books.drop_exact_row
        rest = [row for row in removed_rows if not book(table.name, values.exact_row(kinds, row))]
        _remove(target, table, table.column_names, rest)
        if table.key:
            key_kinds = [kinds[i] for i in table.key_positions]
            target.books.drop_exact(table.name, (values.key_bytes(key_kinds, key) for key in removed))
            target.books.drop_exact(table.name, (values.row_key(table, row) for row in rows))
            target.books.drop_exact(table.name, {c.key for c in exact if c.key is not None})
            fits = target.fit(table)  # a key that does not fit was kept aside, and is forgotten by now
            gone = [*removed, *(keys_kept_aside(exact) if replace else ())]
            _remove(target, table, table.key, [key for key in gone if fits.holds_key(key)])
        names = [ident(n) for n in columns]
        if rows:
            db.execute(
                f"CREATE TEMP TABLE memlift_staged ON COMMIT DROP AS SELECT {', '.join(names)} FROM {relation} LIMIT 0"
            )
            form = "BINARY" if binary else "TEXT"
            taken = rows if picked is None else [tuple(row[i] for i in picked) for row in rows]
            data = wire.encode(taken, codecs) if binary else wire.encode_text(taken, codecs)
            with (
                db.cursor() as cursor,
                cursor.copy(f"COPY memlift_staged FROM STDIN (FORMAT {form})") as copy,
            ):
                copy.write(wire.HEADER + data + wire.TRAILER if binary else data)
            db.execute(
                f"INSERT INTO {relation} ({', '.join(names)}) OVERRIDING SYSTEM VALUE"
                f" SELECT * FROM memlift_staged{_on_conflict(table, columns, replace=replace)}"
            )
        target.books.add_exact(exact)
        hit("amend.inside")


def _on_conflict(table: Table, columns: Sequence[str], *, replace: bool) -> str:
    if not replace or not table.key:
        return " ON CONFLICT DO NOTHING"
    key = [fitting_column(k) for k in table.key]
    change = ", ".join(f"{ident(c)} = excluded.{ident(c)}" for c in columns if c not in key)
    return f" ON CONFLICT ({', '.join(map(ident, key))}) DO " + (
        f"UPDATE SET {change}" if change else "NOTHING"
    )


def _remove(target: PostgresTarget, table: Table, names: Sequence[str], removed: Sequence[Row]) -> None:
    """Delete rows by some of their cells: by key all that match, by all cells one copy each."""
    if not removed:
        return
    relation = target.at(fitting(table.name))
    here = {c.name: (c, to) for c, to in zip(table.columns, columns_here(table, target.options), strict=True)}
    tests, codecs, at = [], [], []
    for i, name in enumerate(names):
        declared, there = here[name]
        if there is not None:
            kind = ddl.type_sql(declared, there, target.server).split(" COLLATE ")[0]
            column = ident(there.name) + ("::text" if kind == "json" else "")  # json has no equality
            kind = "text" if kind == "json" else kind
            test = "=" if table.key else "IS NOT DISTINCT FROM"
            tests.append(f"{column} {test} ?::text::{kind}")
            codecs.append(there.codec)
            at.append(i)
    where = " AND ".join(tests)
    if not table.key:
        where = f"ctid = (SELECT ctid FROM {relation} WHERE {where} LIMIT 1)"
    for row in removed:
        cells = [wire.plain_text(c, row[i]) for c, i in zip(codecs, at, strict=True)]
        target.books.run(f"DELETE FROM {relation} WHERE {where}", cells)
