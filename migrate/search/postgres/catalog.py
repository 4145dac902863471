"""What stands behind a table in Postgres: its columns, its vector indexes, and where its words are indexed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from migrate.backends.postgres import ddl
from migrate.backends.postgres.connect import Connection, Server, qualified
from migrate.backends.postgres.introspect import Stored
from migrate.backends.postgres.names import ident
from migrate.schema import Metric
from migrate.search.base import Searched
from migrate.search.postgres.where import ALIAS, Held

_METRICS = {"cosine": Metric.COSINE, "l2": Metric.EUCLID, "ip": Metric.DOT, "l1": Metric.MANHATTAN}
_CONFIG = re.compile(r"to_tsvector\('((?:[^']|'')+)'::regconfig,")
# Of a tsvector that a program or a trigger writes nothing tells how: both stems and whole words are asked for.
_LIKELY = ("simple", "english")
# What an expression over words may be made of to be used as it stands in an index of others: names of
# columns, joins of texts and the few functions that people build such expressions from.
_TOKEN = re.compile(
    r"""\s+|"(?:[^"]|"")+"|'(?:[^']|'')*'(?:::(?:text|regconfig|"char"|jsonb))?|::text|->>|\|\||[(),]|\w+"""
)
_FUNCTIONS = frozenset({"to_tsvector", "coalesce", "left", "setweight", "concat_ws", "regconfig", "text"})


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An index of pgvector's over one column.

    half:  it is built on a cast to `halfvec`. partial: it has only rows that satisfy a condition.
    lists: of an IVFFlat index.
    """

    name: str
    column: str
    method: str
    metric: Metric | None
    half: bool
    valid: bool
    partial: bool
    lists: int | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """Where a table's words are.

    vector: an expression over `t` that gives a tsvector.
    configs: the text search configuration that made it, or those that may have.
    index:  the GIN index that holds it, or None where it is made anew for every row.
    """

    vector: str
    configs: tuple[str, ...]
    index: str | None


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it stands. at: its qualified name. columns: by their names in the source.

    key: the columns of the key, empty where rows are told apart by where they lie.
    rows: the server's own estimate, None where it has none.
    """

    at: str
    oid: int
    columns: Mapping[str, Held]
    key: tuple[Held, ...]
    indexes: tuple[VectorIndex, ...]
    words: Words | None
    rows: int | None

    def indexes_of(self, column: Held) -> list[VectorIndex]:
        """Return the vector indexes over a column."""
        return [i for i in self.indexes if i.column == column.name]


def read_relation(
    connection: Connection, server: Server, searched: Searched, stored: Stored, here: Mapping[str, str]
) -> Relation:
    """Return what stands behind a table; `stored` and `here` as the source has read them."""
    columns = _columns(connection, searched, stored, here)
    indexes = vector_indexes(connection, stored.oid)
    row = connection.execute(
        "SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = %s::oid", (stored.oid,)
    ).fetchone()
    rows = int(row[0]) if row is not None and row[0] >= 0 else None
    return Relation(
        qualified(stored.schema, stored.name),
        stored.oid,
        columns,
        tuple(columns[name] for name in searched.table.key),
        tuple(indexes),
        _words(connection, searched, stored, columns),
        rows,
    )


def _columns(
    connection: Connection, searched: Searched, stored: Stored, here: Mapping[str, str]
) -> dict[str, Held]:
    found = {
        name: (kind, declared, binary)
        for name, kind, declared, binary in connection.execute(
            "SELECT a.attname::text, coalesce(b.typname, t.typname)::text,"
            " pg_catalog.format_type(a.atttypid, a.atttypmod), coalesce(c.collisdeterministic, true)"
            " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
            " LEFT JOIN pg_catalog.pg_type b ON b.oid = nullif(t.typbasetype, 0) AND t.typtype = 'd'"
            " LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation"
            " WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped",
            (stored.oid,),
        )
    }
    return {
        c.name: Held(name, c.kind, kind, declared, stored.codecs[name], binary and kind != "citext")
        for c in searched.table.columns
        if (name := here[c.name]) in stored.codecs
        for kind, declared, binary in [found[name]]
    }


def vector_indexes(connection: Connection, oid: int) -> list[VectorIndex]:
    """Return the vector indexes of a table, also those that were never finished."""
    rows = connection.execute(
        "SELECT c.relname::text, m.amname::text, o.opcname::text, i.indisvalid AND i.indisready,"
        " i.indpred IS NOT NULL, a.attname::text, pg_catalog.pg_get_indexdef(i.indexrelid),"
        " (SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions) WHERE option_name = 'lists')"
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_am m ON m.oid = c.relam"
        " JOIN pg_catalog.pg_opclass o ON o.oid = (i.indclass::oid[])[0]"
        " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = (i.indkey::int2[])[0]"
        " WHERE i.indrelid = %s::oid AND m.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname",
        (oid,),
    ).fetchall()
    found = []
    for name, method, opclass, valid, partial, column, definition, lists in rows:
        half = opclass.startswith("halfvec_") and column is None
        held = column or _cast_column(definition)
        if held is not None:
            metric = next((m for word, m in _METRICS.items() if f"_{word}_" in opclass), None)
            found.append(VectorIndex(name, held, method, metric, half, valid, partial, lists))
    return found


def _cast_column(definition: str) -> str | None:
    """Return the column of `... USING hnsw (((column)::halfvec(n)) ...)`, None for any other expression."""
    found = re.search(r'\(\(\(?(?:"((?:[^"]|"")+)"|(\w+))\)?::(?:\w+\.|"[^"]+"\.)?halfvec\(', definition)
    if found is None:
        return None
    return found[1].replace('""', '"') if found[1] is not None else found[2]


# --- words ----------------------------------------------------------------------


def _words(
    connection: Connection, searched: Searched, stored: Stored, columns: Mapping[str, Held]
) -> Words | None:
    """Return where words are looked up: a tsvector column, an index over an expression, or no index at all."""
    indexed = connection.execute(
        "SELECT c.relname::text, a.attname::text, pg_catalog.pg_get_expr(i.indexprs, i.indrelid)"
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_am m ON m.oid = c.relam"
        " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = (i.indkey::int2[])[0]"
        " WHERE i.indrelid = %s::oid AND m.amname = 'gin' AND i.indnatts = 1 AND i.indpred IS NULL"
        " AND i.indisvalid ORDER BY c.relname",
        (stored.oid,),
    ).fetchall()
    here = [columns[name].name for name in searched.text if name in columns]
    own = ddl.words_name(searched.table)
    if here and any(name == own for name, _, _ in indexed):
        return Words(ddl.words_expression(here, ALIAS), (ddl.WORDS_CONFIG,), own)
    column = _tsvector_column(connection, stored.oid)
    if column is not None:
        index = next((name for name, attribute, _ in indexed if attribute == column[0]), None)
        return Words(f"{ALIAS}.{ident(column[0])}", (column[1],) if column[1] else _LIKELY, index)
    for name, _, expression in indexed:
        config = _CONFIG.search(expression or "")
        if config is not None and _is_plain(expression, {h.name for h in columns.values()}):
            return Words(expression, (config[1].replace("''", "'"),), name)
    return Words(ddl.words_expression(here, ALIAS), (ddl.WORDS_CONFIG,), None) if here else None


def _tsvector_column(connection: Connection, oid: int) -> tuple[str, str | None] | None:
    """Return the first tsvector column and its configuration, as far as a generated column tells it."""
    row = connection.execute(
        "SELECT a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attribute a"
        " LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated <> ''"
        " WHERE a.attrelid = %s::oid AND a.atttypid = 'tsvector'::regtype AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum LIMIT 1",
        (oid,),
    ).fetchone()
    if row is None:
        return None
    config = _CONFIG.search(row[1] or "")
    return row[0], config[1].replace("''", "'") if config is not None else None


def _is_plain(expression: str, columns: Sequence[str] | set[str]) -> bool:
    """Whether an expression of somebody's index only joins the words of columns, so that it may be run again."""
    at = 0
    while at < len(expression):
        token = _TOKEN.match(expression, at)
        if token is None:
            return False
        word = token[0]
        name = word[1:-1].replace('""', '"') if word.startswith('"') else word
        if (word[0].isalpha() or word[0] in '_"') and name not in columns and name.lower() not in _FUNCTIONS:
            return False
        at = token.end()
    return True
