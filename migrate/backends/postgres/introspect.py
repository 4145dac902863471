"""What a Postgres schema declares: tables, columns, keys, indexes, and what is not carried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migrate.backends.postgres.connect import Connection, qualified
from migrate.backends.sqlbooks import is_ours
from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, Metric, NotCarried, Table

_KINDS = {
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "oid": Kind.INTEGER,
    "float4": Kind.REAL,
    "float8": Kind.REAL,
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "bytea": Kind.BLOB,
    "bool": Kind.BOOL,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    "timestamptz": Kind.TIMESTAMP,
    "vector": Kind.VECTOR,
    "halfvec": Kind.HALF,
    "sparsevec": Kind.SPARSE,
}
_CODECS = {
    "varchar": "text",
    "bpchar": "text",
    "json": "text",
    "text": "text",
}
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_METRICS = {
    "cosine": Metric.COSINE,
    "l2": Metric.EUCLID,
    "ip": Metric.DOT,
    "l1": Metric.MANHATTAN,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A table as it stands: where its rows are, and how each column's cells travel.

    leaves: the relations that hold rows (a table itself, or its partitions), by oid.
    codecs: column name -> codec of `wire.decode`; "cast" ones are read as text.
    """

    schema: str
    name: str
    oid: int
    leaves: tuple[tuple[str, str], ...]
    codecs: dict[str, str] = field(default_factory=dict)


def read_schema(
    connection: Connection, schema: str
) -> tuple[list[Table], dict[str, Stored], list[NotCarried]]:
    """Return the ordinary tables of a schema, what stands behind them, and all that is not carried."""
    left: list[NotCarried] = []
    tables: list[Table] = []
    stored: dict[str, Stored] = {}
    relations = connection.execute(
        "SELECT c.oid::bigint, c.relname::text, c.relkind::text, EXISTS (SELECT 1 FROM pg_catalog.pg_inherits h"
        "   JOIN pg_catalog.pg_class p ON p.oid = h.inhparent WHERE h.inhrelid = c.oid AND c.relispartition"
        "   AND p.relnamespace = c.relnamespace)"  # of a parent elsewhere: a table of its own here
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid"
        "   AND d.classid = 'pg_class'::regclass AND d.deptype = 'e') ORDER BY c.relname",
        (schema,),
    ).fetchall()
    oids = {oid: name for oid, name, kind, part in relations if kind in "rp" and not part}
    columns = _columns(connection, list(oids), left, oids)
    keys, foreign, uniques = _constraints(connection, list(oids), left, oids)
    indexes, metrics = _indexes(connection, list(oids), left, uniques)
    for oid, name, kind, is_partition in relations:
        if is_ours(name) or is_partition:
            continue
        if kind not in "rp":
            what = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}[kind]
            left.append(NotCarried(name, what))
            continue
        named = [
            replace(c, metric=metrics.get((oid, c.name))) if (oid, c.name) in metrics else c
            for c, _ in columns.get(oid, [])
        ]
        if not named:
            left.append(NotCarried(name, "a table without a column that is carried"))
            continue
        table = Table(
            name,
            tuple(named),
            keys.get(oid, ()),
            tuple(foreign.get(oid, [])),
            tuple(indexes.get(oid, [])),
            "postgres",
        )
        tables.append(_with_sequence(connection, schema, table))
        leaves = _leaves(connection, oid, name, left) if kind == "p" else ((schema, name),)
        stored[name] = Stored(schema, name, oid, leaves, {c.name: codec for c, codec in columns.get(oid, [])})
    left += _others(connection, schema)
    return tables, stored, left


def _under(oid: str, typmod: str) -> str:
    """Return SQL for the row of a type that is no domain: what is under a domain, also of a domain of a domain."""
    return (
        f"(WITH RECURSIVE under (oid, typmod, n) AS (SELECT {oid}, {typmod}, 0 UNION ALL"
        " SELECT d.typbasetype, d.typtypmod, n + 1 FROM under JOIN pg_catalog.pg_type d"
        " ON d.oid = under.oid AND d.typtype = 'd')"
        " SELECT b.oid, b.typname, b.typtype, b.typnamespace, b.typelem, b.typcategory, under.typmod"
        " FROM under JOIN pg_catalog.pg_type b ON b.oid = under.oid ORDER BY n DESC LIMIT 1)"
    )


def _columns(
    connection: Connection, oids: Sequence[int], left: list[NotCarried], names: dict[int, str]
) -> dict[int, list[tuple[Column, str]]]:
    found: dict[int, list[tuple[Column, str]]] = {}
    rows = connection.execute(
        "SELECT a.attrelid::bigint, a.attname::text, CASE WHEN e.typtype = 'd'"
        " THEN pg_catalog.format_type(m.oid, m.typmod) || '[]' ELSE pg_catalog.format_type(t.oid, t.typmod) END,"
        " t.typname::text, a.attnotnull, a.attidentity::text,"
        " a.attgenerated::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typmod,"
        " CASE WHEN coalesce(m.typtype, t.typtype) = 'e' THEN (SELECT array_agg(e.enumlabel::text"
        "   ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = coalesce(m.oid, t.oid)) END,"
        " coalesce(m.typtype, t.typtype) IN ('c', 'r', 'm')"
        "   AND coalesce(m.typnamespace, t.typnamespace) <> 'pg_catalog'::regnamespace"
        f" FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL {_under('a.atttypid', 'a.atttypmod')} t"
        " LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'"
        f" LEFT JOIN LATERAL {_under('e.oid', 't.typmod')} m ON true"
        " LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
        (list(oids),),
    ).fetchall()
    for oid, name, declared, base, not_null, identity, generated, default, typmod, labels, own in rows:
        if generated:
            derived = base == "tsvector"
            left.append(NotCarried(f"{names[oid]}.{name}", f"a generated column: {default}", derived))
            continue
        kind = _KINDS.get(base, Kind.NATIVE)
        if own:
            left.append(
                NotCarried(f"{names[oid]}.{name}", f"the type {declared}; its values are carried as text")
            )
            declared = "text"
        serial = default is not None and default.startswith("nextval(")
        column = Column(
            name,
            kind,
            declared,
            not not_null,
            None if serial else default,
            dim=typmod if base in ("vector", "halfvec", "sparsevec") and typmod > 0 else None,
            identity=bool(identity) or serial,
            labels=tuple(labels or ()),
        )
        codec = _CODECS.get(base, base if base in _KINDS else "cast")
        if base in ("jsonb", "timestamptz"):
            codec = "cast" if base == "jsonb" else "timestamptz"
        found.setdefault(oid, []).append((column, codec))
    return found


def _constraints(
    connection: Connection, oids: Sequence[int], left: list[NotCarried], names: dict[int, str]
) -> tuple[dict[int, tuple[str, ...]], dict[int, list[ForeignKey]], set[int]]:
    keys: dict[int, tuple[str, ...]] = {}
    foreign: dict[int, list[ForeignKey]] = {}
    uniques: set[int] = set()
    rows = connection.execute(
        "SELECT k.conrelid::bigint, k.conname::text, k.contype::text, k.conindid::bigint,"
        " ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (n, i)"
        "   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),"
        " p.relname::text,"
        " ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (n, i)"
        "   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i),"
        " k.confdeltype::text, k.confupdtype::text, k.condeferrable, k.condeferred, k.confmatchtype::text,"
        " (SELECT c.relnamespace <> p.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = k.conrelid)"
        " FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_class p ON p.oid = k.confrelid"
        " WHERE k.conrelid = ANY(%s::oid[]) ORDER BY k.conrelid, k.conname",
        (list(oids),),
    ).fetchall()
    for (
        oid,
        name,
        kind,
        index,
        columns,
        parent,
        parent_columns,
        on_delete,
        on_update,
        deferrable,
        deferred,
        match,
        away,
    ) in rows:
        if deferrable and kind in ("p", "u"):
            left.append(NotCarried(f"{names[oid]}.{name}", "DEFERRABLE of a key"))
        if kind == "f" and not away and match == "f":
            left.append(NotCarried(f"{names[oid]}.{name}", "MATCH FULL of a foreign key"))
        if kind == "p":
            keys[oid] = tuple(columns)
        elif kind == "f" and away:
            left.append(NotCarried(f"{names[oid]}.{name}", "a foreign key to a table of another schema"))
        elif kind == "f":
            foreign.setdefault(oid, []).append(
                ForeignKey(
                    tuple(columns),
                    parent,
                    tuple(parent_columns),
                    _ACTIONS[on_delete],
                    _ACTIONS[on_update],
                    deferrable,
                    deferrable and not deferred,
                )
            )
        elif kind == "u":
            uniques.add(index)
        elif kind == "c":
            left.append(NotCarried(f"{names[oid]}.{name}", "a CHECK constraint"))
        elif kind == "x":
            left.append(NotCarried(f"{names[oid]}.{name}", "an exclusion constraint"))
    return keys, foreign, uniques


def _indexes(
    connection: Connection, oids: Sequence[int], left: list[NotCarried], uniques: set[int]
) -> tuple[dict[int, list[Index]], dict[tuple[int, str], Metric]]:
    found: dict[int, list[Index]] = {}
    metrics: dict[tuple[int, str], Metric] = {}
    rows = connection.execute(
        "SELECT i.indrelid::bigint, i.indexrelid::bigint, c.relname::text, m.amname::text, i.indisunique,"
        " i.indkey::int2[], i.indoption::int2[], pg_catalog.pg_get_expr(i.indpred, i.indrelid),"
        " ARRAY(SELECT o.opcname::text FROM unnest(i.indclass::oid[]) WITH ORDINALITY u (o, n)"
        "   JOIN pg_catalog.pg_opclass o ON o.oid = u.o ORDER BY u.n),"
        " pg_catalog.pg_get_indexdef(i.indexrelid), i.indnkeyatts,"
        " ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY u (a, n)"
        "   LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.a ORDER BY u.n),"
        " ARRAY(SELECT o.opcname::text FROM unnest(i.indclass::oid[]) o_ (o)"
        "   JOIN pg_catalog.pg_opclass o ON o.oid = o_.o WHERE NOT o.opcdefault),"
        " ARRAY(SELECT l.collname::text FROM unnest(i.indcollation::oid[], i.indkey::int2[]) u (c, a)"
        "   JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.a"
        "   JOIN pg_catalog.pg_collation l ON l.oid = u.c WHERE a.attcollation <> u.c),"
        " coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false), i.indisvalid"
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_am m ON m.oid = c.relam"
        " WHERE i.indrelid = ANY(%s::oid[]) AND NOT i.indisprimary ORDER BY c.relname",
        (list(oids),),
    ).fetchall()
    for (
        oid,
        index_oid,
        name,
        method,
        unique,
        _,
        options,
        where,
        classes,
        definition,
        n,
        columns,
        own_classes,
        collations,
        nulls_alike,
        valid,
    ) in rows:
        if not valid:
            left.append(NotCarried(name, "an index that was never completed"))
        elif method in ("hnsw", "ivfflat"):
            metric = next((m for word, m in _METRICS.items() if f"_{word}_" in classes[0]), None)
            column = columns[0] or _cast_column(definition)
            if metric and column:
                metrics[(oid, column)] = metric
            left.append(NotCarried(name, "a vector index; the target builds its own", derived=True))
        elif method != "btree":
            left.append(NotCarried(name, f"a {method} index", derived=_of_words(method, definition, columns)))
        elif None in columns[:n]:
            left.append(NotCarried(name, "an index on an expression"))
        else:
            lost = [f"INCLUDE ({', '.join(map(str, columns[n:]))})"] if columns[n:] else []
            lost += [f"operator class {c}" for c in own_classes]
            lost += [f"COLLATE {c}" for c in collations]
            lost += ["NULLS NOT DISTINCT"] if nulls_alike and unique else []
            # https://www.postgresql.org/docs/current/catalog-pg-index.html: 1 descending, 2 NULLs first
            lost += ["NULLS FIRST or LAST"] if any(o in (1, 2) for o in options[:n]) else []
            left += [NotCarried(name, what) for what in lost]
            parts = tuple(IndexPart(c, bool(o & 1)) for c, o in zip(columns[:n], options, strict=False))
            found.setdefault(oid, []).append(
                Index(name, parts, unique, where, constraint=index_oid in uniques)
            )
    return found, metrics


def _of_words(method: str, definition: str, columns: Sequence[str | None]) -> bool:
    """Whether an index is of the kind that a target builds by itself: over words, or over JSON for filters."""
    return method == "gin" and (
        "to_tsvector(" in definition or "jsonb_path_ops" in definition or "_tsv" in columns
    )


def _cast_column(definition: str) -> str | None:
    found = re.search(r"\(\(\(?\"?([^\"():]+)\"?\)?::", definition)
    return found[1] if found else None


def _with_sequence(connection: Connection, schema: str, table: Table) -> Table:
    """Fill in the last number given out, where a column is numbered by a sequence we can see."""
    for column in table.columns:
        if not column.identity:
            continue
        row = connection.execute(
            "SELECT pg_catalog.pg_get_serial_sequence(%s, %s)", (qualified(schema, table.name), column.name)
        ).fetchone()
        if row is None or row[0] is None:
            continue
        last: tuple[Any, ...] | None = connection.execute(
            "SELECT last_value FROM pg_catalog.pg_sequences WHERE"
            " format('%%I.%%I', schemaname, sequencename) = %s",
            (row[0],),
        ).fetchone()
        if last is not None and last[0] is not None:
            return replace(table, sequence=int(last[0]))
    return table


def _leaves(
    connection: Connection, oid: int, name: str, left: list[NotCarried]
) -> tuple[tuple[str, str], ...]:
    rows = connection.execute(
        "SELECT n.nspname::text, c.relname::text, c.relkind = 'r'"
        " FROM pg_catalog.pg_partition_tree(%s::oid::regclass) t"
        " JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE t.isleaf AND c.relkind <> 'p' ORDER BY 1, 2",
        (oid,),
    ).fetchall()
    left += [
        NotCarried(f"{a}.{b}", f"ITS ROWS ARE LEFT BEHIND: a foreign table that is a partition of {name}")
        for a, b, ordinary in rows
        if not ordinary
    ]
    return tuple((a, b) for a, b, ordinary in rows if ordinary)


def _others(connection: Connection, schema: str) -> list[NotCarried]:
    """List triggers, policies and whatever else no row carries."""
    rows = connection.execute(
        "SELECT c.relname::text || '.' || t.tgname::text, 'a trigger' FROM pg_catalog.pg_trigger t"
        " JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND NOT t.tgisinternal"
        " UNION ALL SELECT c.relname::text, 'a sequence of no column, at '"
        "   || CASE WHEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, SELECT')"
        "   THEN coalesce(pg_catalog.pg_sequence_last_value(c.oid)::text, 'its start') ELSE '?' END"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'S' AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d"
        "   WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i', 'e'))"
        " UNION ALL SELECT c.relname::text, 'its partitions: the target has one table'"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'p' AND NOT c.relispartition"
        " UNION ALL SELECT c.relname::text || '.' || a.attname::text, 'COLLATE ' || l.collname::text"
        " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0"
        "   AND a.attcollation <> t.typcollation AND c.relname NOT LIKE 'memlift\\_%%'"
        " UNION ALL SELECT 'comments', 'on ' || string_agg(DISTINCT c.relname::text, ', ')"
        " FROM pg_catalog.pg_description d JOIN pg_catalog.pg_class c ON c.oid = d.objoid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND d.classoid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') HAVING count(*) > 0"
        " UNION ALL SELECT 'grants', 'on ' || string_agg(c.relname::text, ', ' ORDER BY c.relname)"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relacl IS NOT NULL"
        "   AND c.relname NOT LIKE 'memlift\\_%%' HAVING count(*) > 0"
        " UNION ALL SELECT c.relname::text || '.' || p.polname::text, 'a row security policy'"
        " FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s ORDER BY 1",
        (schema,) * 7,
    ).fetchall()
    return [NotCarried(name, what) for name, what in rows]
