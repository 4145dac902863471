"""What a SQLite file declares: tables, columns, keys, indexes, and what is derived."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from migrate.backends.sqlbooks import NAMES, is_ours
from migrate.backends.sqlite import fulltext
from migrate.backends.sqlite.names import ident, literal, translating
from migrate.schema import Column, ForeignKey, Index, IndexPart, Kind, NotCarried, Table, affinity

_BY_AFFINITY = {"INTEGER": Kind.INTEGER, "TEXT": Kind.TEXT, "BLOB": Kind.BLOB, "REAL": Kind.REAL}
_BY_STORAGE = {"integer": Kind.INTEGER, "real": Kind.REAL, "text": Kind.TEXT, "blob": Kind.BLOB}
# Columns counted at once: each takes four of SQLite's 2,000 result columns, and as it compares each of
# those with all others, many take long where there are few rows to read.
_COUNTED_AT_ONCE, _SAMPLED_AT_ONCE = 400, 64
_SAMPLED = 1000  # rows looked at before a column without a declared type gets a kind


def read_schema(connection: sqlite3.Connection) -> tuple[list[Table], list[NotCarried]]:
    """Return the ordinary tables of a file, and all that is not carried."""
    sql = {
        (kind, name): text
        for kind, name, text in connection.execute("SELECT type, name, sql FROM sqlite_schema")
    }
    tables: list[Table] = []
    left: list[NotCarried] = []
    listed = connection.execute(
        "SELECT name, type, wr, \"strict\" FROM pragma_table_list WHERE schema = 'main' ORDER BY name"
    ).fetchall()
    for name, kind, without_rowid, strict in listed:
        if is_ours(name) and name not in NAMES:
            left.append(
                NotCarried(name, "ITS ROWS ARE LEFT BEHIND: names that begin with memlift_ are reserved")
            )
        if name.startswith("sqlite_") or is_ours(name):
            if name.startswith("sqlite_stat"):
                left.append(NotCarried(name, "statistics; the target makes its own", derived=True))
            continue
        if kind == "table":
            tables.append(_table(connection, name, bool(without_rowid), bool(strict), sql, left))
        elif kind == "view":
            left.append(NotCarried(name, "a view"))
        elif kind == "virtual":
            parts = {n: k for n, k, _, _ in listed if n.lower().startswith(f"{name.lower()}_")}
            table = _virtual(connection, name, sql.get(("table", name)) or "", parts, left)
            tables += [table] if table is not None else []
        else:
            left.append(NotCarried(name, "part of a virtual table", derived=True))
    left += [NotCarried(name, "a trigger") for (kind, name) in sql if kind == "trigger"]
    return tables, left


def _virtual(
    connection: sqlite3.Connection, name: str, text: str, parts: dict[str, str], left: list[NotCarried]
) -> Table | None:
    """Return a full-text table that keeps its own text; say what becomes of any other virtual table.

    parts: kind of each table that may be a part of it, by name; "shadow" where SQLite knows that it is one.
    """
    declared = fulltext.taken_apart(text)
    content = declared.option("content")
    kept = declared.kept()
    if kept and parts.get(f"{name}_content") == "shadow":
        info = connection.execute(f"PRAGMA table_xinfo({literal(f'{name}_content')})").fetchall()
        stored = tuple(row[1] for row in info)
        if stored == kept or (stored[: len(kept)] == kept and declared.option("locale") is not None):
            return _full_text(connection, name, declared, left)
    if content:
        left.append(NotCarried(name, "a full-text index over a table that is carried", derived=True))
    elif content is not None:
        reason = "a full-text index that keeps no text (content=''): fill it again from where its texts are"
        left.append(NotCarried(name, reason))
    elif declared.text is not None:
        what = "a full-text table whose own text cannot be read without its module"
        left.append(NotCarried(name, f"ITS ROWS ARE LEFT BEHIND: {what}"))
    else:
        left.append(_of_module(name, declared.module, parts))
    return None


def _of_module(name: str, module: str, parts: dict[str, str]) -> NotCarried:
    what = f"a virtual table of the module {module}" if module else "a virtual table"
    if not parts:
        return NotCarried(name, what)
    plain = [n for n, kind in sorted(parts.items()) if kind == "table"]
    if plain:  # the module is not here, so that its parts look like any table
        what += f", which is not here; what may be its parts ({', '.join(plain)}) goes as the tables they are"
    return NotCarried(
        name,
        f"ITS ROWS ARE LEFT BEHIND: {what}; to take them along, copy them into an ordinary table first",
    )


def _full_text(
    connection: sqlite3.Connection, name: str, declared: fulltext.Declared, left: list[NotCarried]
) -> Table:
    columns = fulltext.columns_of(declared)
    table = Table(name, columns, (columns[0].name,), dialect="sqlite", full_text=declared.text)
    own = _by_evidence(connection, name, columns[1:], False, fulltext.relation(table))
    if declared.option("locale") is not None:
        left.append(NotCarried(name, "the locales of its texts (fts5_locale)"))
    if declared.text is not None and (strange := fulltext.unknown(declared.text)):
        reason = f"its full-text index: {strange} is not known here, so the target has an ordinary table"
        left.append(NotCarried(name, reason))
    return table.with_columns((columns[0], *own))


def _table(
    connection: sqlite3.Connection,
    name: str,
    without_rowid: bool,
    strict: bool,
    sql: dict[tuple[str, str], str | None],
    left: list[NotCarried],
) -> Table:
    text = sql.get(("table", name)) or ""
    info = connection.execute(f"PRAGMA table_xinfo({literal(name)})").fetchall()
    columns: list[Column] = []
    keys: dict[int, str] = {}
    for _, column, declared, not_null, default, pk, hidden in info:
        if hidden in (2, 3):
            left.append(NotCarried(f"{name}.{column}", "a generated column"))
            continue
        declared = declared or ""
        kind = _declared_kind(declared)
        if pk and kind is Kind.JSON:
            kind = Kind.TEXT  # two spellings of one JSON value are two keys here
        columns.append(Column(column, kind, declared, not not_null, default))
        if pk:
            keys[pk] = column
    key = tuple(keys[i] for i in sorted(keys))
    if re.search(r"\bcheck\s*\(", _without_strings(text), re.I):
        left.append(NotCarried(name, "CHECK constraints"))
    if re.search(r"\bon\s+conflict\b", _without_strings(text), re.I):
        left.append(NotCarried(name, "ON CONFLICT clauses"))
    deferred = re.search(r"\bdeferrable\s+initially\s+deferred\b", _without_strings(text), re.I) is not None
    foreign = _foreign_keys(connection, name)
    if deferred and len(foreign) > 1:
        left.append(
            NotCarried(name, "DEFERRABLE INITIALLY DEFERRED: which of its foreign keys cannot be told")
        )
    collations = _collations(connection, name)
    sequence = None
    # `INTEGER PRIMARY KEY DESC` is no rowid alias (https://www.sqlite.org/lang_createtable.html): it has an index.
    indexed = any(row[3] == "pk" for row in connection.execute(f"PRAGMA index_list({literal(name)})"))
    whole = len(key) == 1 and not without_rowid and _declared(columns, key[0]).upper() == "INTEGER"
    rowid = whole and not indexed
    if rowid and ("table", "sqlite_sequence") in sql:
        found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (name,)).fetchone()
        sequence = found[0] if found and isinstance(found[0], int) else None
    autoincrement = rowid and re.search(r"\bautoincrement\b", _without_strings(text), re.I) is not None
    collates = re.search(r"\bcollate\b", text, re.I) is not None
    columns = [
        replace(
            c,
            collation=collations.get(c.name) or (_declared_collation(text, c.name) if collates else None),
            identity=rowid and c.name == key[0],
            nullable=c.nullable and not (c.name in key and (without_rowid or rowid)),
        )
        for c in columns
    ]
    return Table(
        name,
        tuple(_by_evidence(connection, name, columns, strict)),
        key,
        tuple(replace(k, deferrable=True) for k in foreign) if deferred and len(foreign) == 1 else foreign,
        _indexes(connection, name, sql, left, {c.name for c in columns}),
        "sqlite",
        sequence=(sequence or 0) if autoincrement else None,
        without_rowid=without_rowid,
        strict=strict,
    )


def _declared(columns: Sequence[Column], name: str) -> str:
    return next((c.declared for c in columns if c.name == name), "")


def _declared_kind(declared: str) -> Kind:
    if declared.upper() in ("JSON", "JSONB"):
        return Kind.JSON
    if affinity(declared) == "NUMERIC":  # what such columns hold by custom, where no value tells
        upper = declared.upper()
        return (
            Kind.TEXT
            if "DATE" in upper or "TIME" in upper
            else Kind.INTEGER
            if "BOOL" in upper
            else Kind.REAL
        )
    return _BY_AFFINITY[affinity(declared)]


def _by_evidence(
    connection: sqlite3.Connection,
    name: str,
    columns: Sequence[Column],
    strict: bool,
    source: str | None = None,
) -> list[Column]:
    """Give columns whose declaration binds nothing the kind that their values have.

    NUMERIC affinity (DECIMAL, DATE, BOOLEAN, ...) and columns without a type
    hold whatever was stored; each such column is counted whole, in one pass.
    Any other declaration is believed unless none of its first values is of that type.
    """
    loose = [c for c in columns if c.kind is not Kind.JSON and (not strict or c.declared.upper() == "ANY")]
    whole = [c for c in loose if not c.declared or affinity(c.declared) == "NUMERIC"]
    seen: dict[str, dict[str, int]] = {}
    some = [c for c in loose if c not in whole]
    for group, at_once, limit in ((whole, _COUNTED_AT_ONCE, None), (some, _SAMPLED_AT_ONCE, _SAMPLED)):
        for i in range(0, len(group), at_once):
            seen |= _storages(connection, name, group[i : i + at_once], limit, source or ident(name))
    return [replace(c, kind=_likely(c, seen[c.name])) if seen.get(c.name) else c for c in columns]


def _storages(
    connection: sqlite3.Connection, name: str, columns: Sequence[Column], limit: int | None, source: str
) -> dict[str, dict[str, int]]:
    """Return how many values of each storage class columns have, in the first `limit` rows or in all."""
    counts = ", ".join(f"total(typeof({ident(c.name)}) = '{kind}')" for c in columns for kind in _BY_STORAGE)
    rows = f"(SELECT {', '.join(ident(c.name) for c in columns)} FROM {source}"
    rows += f" LIMIT {limit})" if limit else ")"
    with translating("look at the values", table=name):
        found = iter(connection.execute(f"SELECT {counts} FROM {rows}").fetchone())
    tallies = {c.name: {kind: int(next(found)) for kind in _BY_STORAGE} for c in columns}
    return {name: {k: n for k, n in tally.items() if n} for name, tally in tallies.items()}


def _likely(column: Column, tally: dict[str, int]) -> Kind:
    kinds = {_BY_STORAGE[storage] for storage in tally}
    declared = affinity(column.declared)
    if declared == "NUMERIC" and kinds == {Kind.INTEGER, Kind.REAL}:
        return Kind.REAL  # one value in SQLite's eyes: it stores a whole number as an integer
    if declared != "NUMERIC" and column.declared and column.kind in kinds:
        return column.kind
    return _BY_STORAGE[max(tally, key=lambda k: tally[k])]


def _without_strings(sql: str) -> str:
    return re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", " ", sql, flags=re.S)


def _collations(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    """Return the collations of key columns, which SQLite tells only through the key's index."""
    found: dict[str, str] = {}
    for _, index, _, origin, _ in connection.execute(f"PRAGMA index_list({literal(name)})").fetchall():
        if origin == "pk":
            for _, _, column, _, collation, in_key in connection.execute(
                f"PRAGMA index_xinfo({literal(index)})"
            ).fetchall():
                if in_key and column is not None and collation.upper() != "BINARY":
                    found[column] = collation.upper()
    return found


def _declared_collation(sql: str, column: str) -> str | None:
    """Return the collation written beside a column, where the declaration is plain enough to be read."""
    quoted = re.escape(column)
    pattern = rf"""(?:[(,]\s*)(?:"{quoted}"|\[{quoted}\]|`{quoted}`|{quoted})\s[^,()]*?\bcollate\s+"?(\w+)"""
    found = re.search(pattern, sql, re.I)
    return found[1].upper() if found and found[1].upper() != "BINARY" else None


def _foreign_keys(connection: sqlite3.Connection, name: str) -> tuple[ForeignKey, ...]:
    groups: dict[int, list[tuple[int, str, str, str | None, str, str]]] = {}
    for number, seq, parent, child, to, on_update, on_delete, _ in connection.execute(
        f"PRAGMA foreign_key_list({literal(name)})"
    ).fetchall():
        groups.setdefault(number, []).append((seq, parent, child, to, on_update, on_delete))
    keys = []
    for number in sorted(groups, reverse=True):  # SQLite lists the last declared first
        parts = sorted(groups[number])
        parent, spelled = _as_declared(connection, parts[0][1])
        to = tuple(None if p[3] is None else spelled.get(p[3].lower(), p[3]) for p in parts)
        keys.append(
            ForeignKey(
                tuple(p[2] for p in parts),
                parent,
                tuple(t for t in to if t is not None) if None not in to else _key_of(connection, parent),
                on_delete=parts[0][5],
                on_update=parts[0][4],
            )
        )
    return tuple(keys)


def _as_declared(connection: sqlite3.Connection, name: str) -> tuple[str, dict[str, str]]:
    """Return a table's name and its columns' as they were declared: SQLite takes them in any case."""
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE", (name,)
    ).fetchone()
    declared = found[0] if found else name
    columns = connection.execute(f"PRAGMA table_info({literal(declared)})").fetchall()
    return declared, {row[1].lower(): row[1] for row in columns}


def _key_of(connection: sqlite3.Connection, name: str) -> tuple[str, ...]:
    info = connection.execute(f"PRAGMA table_info({literal(name)})").fetchall()
    return tuple(row[1] for row in sorted((r for r in info if r[5]), key=lambda r: r[5]))


def _indexes(
    connection: sqlite3.Connection,
    name: str,
    sql: dict[tuple[str, str], str | None],
    left: list[NotCarried],
    carried: set[str],
) -> tuple[Index, ...]:
    found = []
    for _, index, unique, origin, partial in connection.execute(
        f"PRAGMA index_list({literal(name)})"
    ).fetchall():
        if origin == "pk":
            continue
        parts = []
        expression = False
        for _, cid, column, descending, collation, in_key in connection.execute(
            f"PRAGMA index_xinfo({literal(index)})"
        ).fetchall():
            if not in_key:
                continue
            if cid < 0 or column not in carried:
                expression = True
                continue
            binary = collation.upper() == "BINARY"
            parts.append(IndexPart(column, bool(descending), None if binary else collation.upper()))
        if expression:
            left.append(NotCarried(index, "an index on an expression"))
            continue
        where = None
        if partial:
            text = sql.get(("index", index)) or ""
            found_where = re.search(r"\)\s*where\s+(.*)\Z", text, re.I | re.S)
            where = found_where[1].strip() if found_where else None
        found.append(Index(index, tuple(parts), bool(unique), where, constraint=origin == "u"))
    return tuple(reversed(found))
