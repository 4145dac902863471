"""Checks that share no code with what they check: plain sqlite3, plain psycopg, typed cells.

A cell is (type, value), so that 1, 1.0, '1' and x'31' are four, and a real is its 64 bits.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

Cell = tuple[str, Any]
Rows = Counter[tuple[Cell, ...]]
Connection = psycopg.Connection[tuple[Any, ...]]


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


class Text(bytes):
    """A text's bytes, told from a blob's."""


_STORED = {type(None): "null", int: "integer", float: "real", Text: "text", bytes: "blob"}


def _cell(value: Any) -> Cell:
    if isinstance(value, float):
        return "real", struct.pack(">d", value).hex()
    return _STORED[type(value)], bytes(value) if isinstance(value, bytes) else value


def sqlite_tables(path: Path) -> list[str]:
    """Return the ordinary tables of a file that are not memlift's own."""
    with closing(sqlite3.connect(path)) as db:
        return [
            name
            for name, kind in db.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
            if kind == "table" and not name.startswith(("sqlite_", "memlift_"))
        ]


def sqlite_rows(path: Path, *, json_values: bool = False) -> dict[str, Rows]:
    """Return all rows of all ordinary tables, texts as their bytes.

    json_values: a text that is a JSON object or array counts as its value.
    """

    def cell(value: Any) -> Cell:
        if json_values and isinstance(value, Text) and value[:1] in (b"{", b"["):
            with contextlib.suppress(ValueError):
                return "json", _json(value)
        return _cell(value)

    found: dict[str, Rows] = {}
    with closing(sqlite3.connect(path)) as db:
        for name in sqlite_tables(path):
            columns = [quoted(row[1]) for row in db.execute(f"PRAGMA table_info({quoted(name)})")]
            db.text_factory = Text
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {quoted(name)}")
            found[name] = Counter(tuple(map(cell, row)) for row in rows)
            db.text_factory = str
    return found


def sqlite_shape(path: Path) -> dict[str, Any]:
    """Return what a file declares, as SQLite itself tells it."""
    shape: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as db:
        for name in sqlite_tables(path):
            without_rowid, strict = db.execute(
                'SELECT wr, "strict" FROM pragma_table_list WHERE name = ?', (name,)
            ).fetchone()
            indexes = []
            for _, index, unique, origin, partial in db.execute(f"PRAGMA index_list({quoted(name)})"):
                parts = [
                    (column, desc if origin != "pk" else 0, collation)
                    for _, _, column, desc, collation, key in db.execute(
                        f"PRAGMA index_xinfo({quoted(index)})"
                    )
                    if key
                ]
                text = (
                    db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (index,)).fetchone() or [""]
                )[0]
                where = " ".join(text.lower().partition("where")[2].split()) if partial and text else ""
                indexes.append((unique, origin, where, tuple(parts)))
            sequence = None
            if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchone():
                row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (name,)).fetchone()
                sequence = row[0] or None if row else None  # 0: nothing was given out yet
            shape[name] = {
                "columns": [row[1:] for row in db.execute(f"PRAGMA table_xinfo({quoted(name)})")],
                "without_rowid": without_rowid,
                "strict": strict,
                "foreign": _foreign_keys(db, name),
                "indexes": sorted(indexes),
                "sequence": sequence,
            }
    return shape


def _foreign_keys(db: sqlite3.Connection, name: str) -> list[tuple[Any, ...]]:
    """Return foreign keys; where no parent columns are named, the parent's key is meant."""
    found = []
    for _, seq, parent, child, to, *actions in db.execute(f"PRAGMA foreign_key_list({quoted(name)})"):
        key = [r[1] for r in db.execute(f"PRAGMA table_info({quoted(parent)})") if r[5] == seq + 1]
        found.append((seq, parent, child, to or key[0], *actions))
    return sorted(found)


def sqlite_state(path: Path) -> tuple[dict[str, Rows], dict[str, Any]]:
    """Return rows and declarations."""
    return sqlite_rows(path), sqlite_shape(path)


def _json(text: str | bytes) -> str:
    return json.dumps(json.loads(text, parse_float=Decimal), sort_keys=True, default=lambda d: f"decimal {d}")


def _by_type(value: Any, declared: str) -> Cell:
    """Return a SQLite cell as the Postgres column holds it."""
    if declared == "jsonb" and value is not None:
        return "json", _json(value.decode())
    if isinstance(value, int) and declared == "double precision":
        return _cell(float(value))
    return _cell(value)


def _pg_cell(value: Any, declared: str) -> Cell:
    if value is None:
        return "null", None
    if declared == "jsonb":
        return "json", _json(value)
    if declared.startswith("vector"):
        numbers = json.loads(value, parse_int=float)
        return "blob", struct.pack(f"<{len(numbers)}f", *numbers)
    if declared == "bigint":
        return "integer", value
    if declared == "double precision":
        return _cell(value)
    if declared == "bytea":
        return "blob", bytes(value)
    if declared == "text":
        return "text", value.encode()
    raise AssertionError(f"a SQLite column became {declared}")


def pg_tables(db: Connection, schema: str) -> dict[str, list[tuple[str, str]]]:
    """Return {table: [(column, type)]} of a schema, without memlift's own tables."""
    rows = db.execute(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname NOT LIKE 'memlift\\_%%' ORDER BY c.relname, a.attnum",
        (schema,),
    ).fetchall()
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, declared in rows:
        found.setdefault(table, [])
        if column is not None:
            found[table].append((column, declared))
    return found


def sqlite_as_postgres(path: Path, shapes: dict[str, list[tuple[str, str]]]) -> dict[str, Rows]:
    """Return the rows of a SQLite file as Postgres columns of these types should hold them."""
    found: dict[str, Rows] = {}
    with closing(sqlite3.connect(path)) as db:
        db.text_factory = Text
        for name, columns in shapes.items():
            rows = db.execute(f"SELECT {', '.join(quoted(c) for c, _ in columns)} FROM {quoted(name)}")
            kinds = [declared for _, declared in columns]
            found[name] = Counter(tuple(map(_by_type, row, kinds)) for row in rows)
    return found


def pg_rows(db: Connection, schema: str) -> dict[str, Rows]:
    """Return all rows of a schema whose columns came from SQLite."""
    found: dict[str, Rows] = {}
    for name, columns in pg_tables(db, schema).items():
        plain = ("bigint", "double precision", "bytea")
        wanted = ", ".join(quoted(c) if t in plain else f"{quoted(c)}::text" for c, t in columns)
        found[name] = Counter(
            tuple(_pg_cell(v, t) for v, (_, t) in zip(row, columns, strict=True))
            for row in db.execute(f"SELECT {wanted} FROM {quoted(schema)}.{quoted(name)}".encode())
        )
    return found


def pg_texts(db: Connection, schema: str) -> dict[str, Rows]:
    """Return all rows of a schema as Postgres prints them, with each column's name."""
    db.execute("SET TimeZone = 'UTC'")
    found: dict[str, Rows] = {}
    for name, columns in pg_tables(db, schema).items():
        wanted = ", ".join(f"{quoted(c)}::text" for c, _ in columns)
        found[name] = Counter(
            tuple((c, v) for v, (c, _) in zip(row, columns, strict=True))
            for row in db.execute(f"SELECT {wanted} FROM {quoted(schema)}.{quoted(name)}".encode())
        )
    return found


def pg_shape(db: Connection, schema: str) -> dict[str, set[tuple[Any, ...]]]:
    """Return columns, constraints and indexes of each table, as Postgres tells them."""
    prefix = quoted(schema) + "."
    found: dict[str, set[tuple[Any, ...]]] = {}
    for name in pg_tables(db, schema):
        place = prefix + quoted(name)
        columns = db.execute(
            "SELECT a.attname::text, a.attnotnull, a.attidentity::text, a.attgenerated::text"
            " FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped",
            (place,),
        ).fetchall()
        constraints = db.execute(
            "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype IN ('p', 'f')",
            (place,),
        ).fetchall()
        indexes = db.execute(
            "SELECT i.indisunique, m.amname::text, regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '')"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
            " WHERE i.indrelid = %s::regclass AND i.indisvalid AND NOT i.indisprimary",
            (place,),
        ).fetchall()
        rows = [("column", *r) for r in columns]
        rows += [("constraint", k, d.replace(f"{schema}.", "")) for k, d in constraints]
        rows += [("index", *r) for r in indexes]
        found[name] = set(rows)
    return found


def relations(db: Connection, schema: str) -> set[tuple[str, str]]:
    """Return everything that stands in a schema: (name, kind)."""
    rows = db.execute(
        "SELECT c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s",
        (schema,),
    ).fetchall()
    return {(a, b) for a, b in rows}


def same(found: Any, wanted: Any) -> None:
    """Assert that two stores' rows or shapes are equal."""
    __tracebackhide__ = True
    lines = differences(found, wanted)
    if lines:
        raise AssertionError("\n".join(lines[:20]))


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Say in a few short lines where two stores' rows or shapes differ; pytest's own diff takes minutes."""
    if found == wanted:
        return []
    if isinstance(found, Counter) and isinstance(wanted, Counter):
        lines = [f"{place}: missing {n} x {_short(r)}" for r, n in (wanted - found).items()]
        return (lines + [f"{place}: extra {n} x {_short(r)}" for r, n in (found - wanted).items()])[:6]
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted}, key=str)
            for line in differences(found.get(key), wanted.get(key), f"{place}/{key}")
        ]
    if isinstance(found, tuple) and isinstance(wanted, tuple) and len(found) == len(wanted):
        return [
            x
            for i, (a, b) in enumerate(zip(found, wanted, strict=True))
            for x in differences(a, b, f"{place}/{i}")
        ]
    return [f"{place}: {_short(found)} instead of {_short(wanted)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 700 else f"{text[:500]}... ({len(text)} characters)"


def books(run: Any, at: str) -> dict[str, Any]:
    """Return what memlift's own tables say, without times and the names of runs."""
    states = {r[0] for r in run(f"SELECT state FROM {at}memlift_runs")}
    exact = run(f'SELECT "table", key, "column", reason, value FROM {at}memlift_exact')
    return {
        "runs": states,  # a run that was killed after it was done is followed by a second one
        "positions": sorted(run(f'SELECT "table", "rows", done FROM {at}memlift_positions')),
        "tables": sorted(run(f"SELECT name, target FROM {at}memlift_tables")),
        "columns": sorted(
            run(f'SELECT "table", "column", position, kind, declared, target FROM {at}memlift_columns')
        ),
        "exact": Counter(exact),
        "lease": run(f"SELECT owner FROM {at}memlift_lease"),
    }
