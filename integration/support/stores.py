"""SQLite files with everything odd that a table can have. All of it is made from literals and seeds."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

BRAIN = Path(__file__).resolve().parents[2] / "migrate" / "samples" / "brain.sqlite"

Make = Callable[[sqlite3.Connection], None]


def brain(path: Path) -> Path:
    """Copy the shipped AgentOS brain."""
    shutil.copyfile(BRAIN, path)
    return path


def made(path: Path, make: Make | str, *more: Make | str) -> Path:
    """Make a file by statements or functions."""
    with closing(sqlite3.connect(path)) as db:
        for step in (make, *more):
            if isinstance(step, str):
                db.executescript(step)
            else:
                step(db)
        db.commit()
    return path


def filled(path: Path, ddl: str, rows: Sequence[Sequence[Any]], table: str = "t") -> Path:
    """Make a file of one table with the given rows."""

    def insert(db: sqlite3.Connection) -> None:
        for row in rows:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    return made(path, ddl, insert)


def vector(*numbers: float) -> bytes:
    """Pack a float32 vector."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _wide(db: sqlite3.Connection) -> None:
    names = [f"c{i}" for i in range(299)]
    kinds = ("INTEGER", "TEXT", "REAL", "BLOB")
    columns = ", ".join(f"{n} {kinds[i % 4]}" for i, n in enumerate(names))
    db.execute(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})")
    cells = [(i, f"text {i}", i / 7, bytes([i % 256])) for i in range(299)]
    row = [cells[i][i % 4] for i in range(299)]
    for n in range(5):
        db.execute(f"INSERT INTO wide VALUES ({', '.join('?' * 300)})", [n, *row])
    db.execute(f"INSERT INTO wide VALUES ({', '.join('?' * 300)})", [9, *[None] * 299])


def _large(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, txt TEXT, data BLOB)")
    blob = random.Random(1).randbytes(20 * 2**20)
    db.execute("INSERT INTO large VALUES (1, ?, NULL)", ("häß 日本 " * 25_000,))
    db.execute("INSERT INTO large VALUES (2, NULL, ?)", (blob,))
    db.execute("INSERT INTO large VALUES (3, '', x'')")


def _vectors(db: sqlite3.Connection) -> None:
    rng = random.Random(2)
    db.execute("CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, embedding BLOB, tags JSON)")
    for i in range(60):
        cells = vector(*(rng.gauss(0, 1) for _ in range(8))) if i % 7 else None
        if i == 1:
            cells = vector(-0.0, 1e-45, 3.4028234663852886e38, -1.0, 0.1, 1 / 3, 0.0, 5.0)
        db.execute(
            "INSERT INTO note VALUES (?, ?, ?, ?)",
            (f"n{i}", f"note {i}", cells, f'{{"i": {i}, "x": [1, 1.0, null, "é"]}}'),
        )


# name -> what makes it. Each fits Postgres as it is: no cell of these is a misfit.
ODD: dict[str, Make | str] = {
    "odd names": """
        CREATE TABLE "we ird ""name"" 😀 Upper" ("Col A" INTEGER PRIMARY KEY, "it's" TEXT, "😀" BLOB,
            "SELECT" REAL, "semi;colon" TEXT, "per%cent" TEXT, "brace{}" TEXT, "back\\slash" TEXT, "?" TEXT);
        INSERT INTO "we ird ""name"" 😀 Upper" VALUES
            (1, 'a''b', x'00ff', 1.5, ';', '%s', '{0}', '\\', '?'), (-5, NULL, NULL, NULL, '', '%', '', '', '');
        CREATE TABLE "Notes" (id INTEGER PRIMARY KEY, "userId" TEXT);
        INSERT INTO "Notes" VALUES (1, 'u');
        CREATE TABLE "user" ("order" TEXT PRIMARY KEY, "group" INTEGER);
        INSERT INTO "user" VALUES ('x', 1);
        CREATE TABLE "%s" (a INTEGER PRIMARY KEY); INSERT INTO "%s" VALUES (3);
        CREATE TABLE "a.b" (a INTEGER PRIMARY KEY); INSERT INTO "a.b" VALUES (4);
    """,
    "empty": "CREATE TABLE empty_one (a INTEGER PRIMARY KEY, b TEXT, c BLOB); CREATE TABLE none_at_all (x);",
    "one column": "CREATE TABLE one (only_one TEXT); INSERT INTO one VALUES ('a'), ('a'), (NULL), (''), (NULL);",
    "300 columns": _wide,
    "large cells": _large,
    "vectors": _vectors,
    "composite key": """
        CREATE TABLE pair (a TEXT NOT NULL, b INTEGER NOT NULL, v REAL, PRIMARY KEY (b, a));
        INSERT INTO pair VALUES ('x', 1, 0.1), ('x', 2, -0.0), ('y', 1, 9e999), ('X', 1, -9e999), ('', 1, 5e-324);
    """,
    "text key": """
        CREATE TABLE named (k TEXT PRIMARY KEY NOT NULL, v INTEGER);
        INSERT INTO named VALUES ('b', 1), ('a', 2), ('B', 3), ('ä', 4), ('', 5), ('a ', 6), ('日', 7), ('z', 8);
    """,
    "integer key": """
        CREATE TABLE numbered (id INTEGER PRIMARY KEY, v TEXT);
        INSERT INTO numbered VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min'), (0, 'zero'), (-1, 'm');
    """,
    "blob key": """
        CREATE TABLE hashed (h BLOB PRIMARY KEY NOT NULL, v TEXT);
        INSERT INTO hashed VALUES (x'', 'empty'), (x'00', 'zero'), (x'0000', 'zeros'), (x'ff', 'ff');
    """,
    "real key": """
        CREATE TABLE measured (r REAL PRIMARY KEY NOT NULL, v TEXT);
        INSERT INTO measured VALUES (0.1, 'a'), (-1.5, 'b'), (1e308, 'c'), (3.0, 'd');
    """,
    "no key": """
        CREATE TABLE loose (x TEXT, y INTEGER, z REAL);
        INSERT INTO loose VALUES ('a', 1, 1.0), ('a', 1, 1.0), ('a', 1, 1.0), (NULL, NULL, NULL), (NULL, NULL, NULL);
    """,
    "without rowid": """
        CREATE TABLE packed (a TEXT, b BLOB, n INTEGER, PRIMARY KEY (a, b DESC)) WITHOUT ROWID;
        INSERT INTO packed VALUES ('k', x'01', 1), ('k', x'02', 2), ('', x'', 3), ('K', x'01', 4);
    """,
    "nocase key": """
        CREATE TABLE tag (name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, n INTEGER);
        INSERT INTO tag VALUES ('Red', 1), ('blue', 2), ('Ä', 3), ('ä', 4);
    """,
    "rowid columns": """
        CREATE TABLE hidden (rowid TEXT, oid TEXT, _rowid_ TEXT);
        INSERT INTO hidden VALUES ('a', 'b', 'c'), ('a', 'b', 'c');
        CREATE TABLE half (rowid TEXT, v INTEGER); INSERT INTO half VALUES ('r', 1);
    """,
    "autoincrement": """
        CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
        INSERT INTO auto (v) VALUES ('a'), ('b'), ('c'), ('d');
        DELETE FROM auto WHERE id > 2;
        CREATE TABLE unused (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
        CREATE TABLE plain (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO plain VALUES (7, 'a');
    """,
    "defaults": """
        CREATE TABLE preset (id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'it''s', b INTEGER DEFAULT 7,
            c REAL DEFAULT -1.5, d TEXT DEFAULT CURRENT_TIMESTAMP, e INTEGER DEFAULT TRUE, f TEXT DEFAULT NULL,
            g BLOB DEFAULT x'00ff', h INTEGER DEFAULT (1 + 1), i TEXT DEFAULT "dq", j TEXT DEFAULT '');
        INSERT INTO preset (id) VALUES (1), (2);
    """,
    "unique": """
        CREATE TABLE member (id INTEGER PRIMARY KEY, email TEXT UNIQUE, a INTEGER, b TEXT, UNIQUE (a, b));
        CREATE UNIQUE INDEX member_b ON member (b) WHERE b IS NOT NULL;
        INSERT INTO member VALUES (1, 'x@y', 1, 'p'), (2, NULL, 1, NULL), (3, NULL, 1, NULL), (4, 'X@y', 2, 'q');
    """,
    "foreign keys": """
        CREATE TABLE zparent (id INTEGER PRIMARY KEY, v TEXT);
        CREATE TABLE achild (id INTEGER PRIMARY KEY, p INTEGER REFERENCES zparent ON DELETE CASCADE,
            boss INTEGER REFERENCES achild (id) ON DELETE SET NULL ON UPDATE CASCADE);
        CREATE TABLE c1 (id INTEGER PRIMARY KEY, other INTEGER REFERENCES c2 (id));
        CREATE TABLE c2 (id INTEGER PRIMARY KEY, other INTEGER REFERENCES c1 (id));
        CREATE TABLE pairs (a TEXT NOT NULL, b INTEGER NOT NULL, PRIMARY KEY (a, b));
        CREATE TABLE uses (id INTEGER PRIMARY KEY, a TEXT, b INTEGER, FOREIGN KEY (a, b) REFERENCES pairs (a, b));
        INSERT INTO zparent VALUES (1, 'a'), (2, 'b');
        INSERT INTO achild VALUES (1, 1, 2), (2, 2, NULL), (3, NULL, 1);
        INSERT INTO c1 VALUES (1, 1); INSERT INTO c2 VALUES (1, 1);
        INSERT INTO pairs VALUES ('x', 1); INSERT INTO uses VALUES (1, 'x', 1), (2, NULL, 1), (3, 'x', NULL);
    """,
    "foreign keys to a unique column": """
        CREATE TABLE person (id INTEGER PRIMARY KEY, email TEXT UNIQUE, a INTEGER, b INTEGER);
        CREATE UNIQUE INDEX person_ab ON person (a, b);
        CREATE TABLE mail (id INTEGER PRIMARY KEY, who TEXT REFERENCES person (email), a INTEGER, b INTEGER,
            FOREIGN KEY (a, b) REFERENCES person (a, b));
        INSERT INTO person VALUES (1, 'x@y', 1, 1), (2, NULL, 1, 2); INSERT INTO mail VALUES (1, 'x@y', 1, 2), (2, NULL, 1, NULL);
    """,
    "indexes": """
        CREATE TABLE event (id INTEGER PRIMARY KEY, kind TEXT, at REAL, gone INTEGER);
        CREATE INDEX event_live ON event (kind, at DESC) WHERE gone IS NULL;
        CREATE INDEX event_kind ON event (kind COLLATE NOCASE);
        CREATE INDEX "Event ""Odd"" one" ON event (at);
        INSERT INTO event VALUES (1, 'a', 1.5, NULL), (2, 'B', 2.5, 1);
    """,
    "strict": """
        CREATE TABLE firm (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB) STRICT;
        INSERT INTO firm VALUES (1, 1, 1.0, '1', x'31'), (2, NULL, NULL, NULL, NULL);
    """,
    "numbers": """
        CREATE TABLE amount (id INTEGER PRIMARY KEY, d DECIMAL(10, 2), n NUMERIC, b BOOLEAN, w DATE, u);
        INSERT INTO amount VALUES (1, 1.5, 2, 1, '2024-01-01', 'x'), (2, 10, 2.25, 0, '2024-01-02', 'y'),
            (3, -3, NULL, NULL, NULL, NULL);
    """,
}

# name -> (DDL of table t, rows): cells that Postgres cannot hold as they are.
MISFITS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "NaN in a vector": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [(i, vector(i, 1.0, 2.0)) for i in range(9)] + [(9, vector(float("nan"), 1.0, 2.0))],
    ),
    "infinity in a vector": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [(i, vector(i, 1.0, 2.0)) for i in range(9)] + [(9, vector(float("-inf"), 1.0, 2.0))],
    ),
    "another dimension": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, embedding BLOB)",
        [(i, vector(i, 1.0, 2.0)) for i in range(30)] + [(30, vector(1.0, 2.0))],
    ),
    "NUL in text": ("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", [(1, "a\0b"), (2, "ok")]),
    "NUL in a NOT NULL text": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL)",
        [(1, "a\0b"), (2, "ok")],
    ),
    "text in an integer column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)",
        [(1, "seven"), (2, 7), (3, b"\x07"), (4, 7.5)],
    ),
    "numbers in a text column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v CLOB, w BLOB)",
        [(1, b"x", 5), (2, "ok", b"b"), (3, "x", 1.5), (4, "x", "text")],
    ),
    "broken JSON": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v JSON)",
        [
            (1, '{"a": 1}'),
            (2, "{broken"),
            (3, '{"a": 1, "a": 2}'),
            (4, '"\\u0000"'),
            (5, '"\\ud800"'),
            (6, "-0"),
            (7, ""),
            (8, b"{}"),
            (9, "1e400"),
            (10, "NaN"),
        ],
    ),
    "NULL in a key": (
        "CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)",
        [(None, 1), (None, 1), (None, 2), ("a", 3)],
    ),
    "NUL in a key": ("CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v INTEGER)", [("a\0", 1), ("a", 2)]),
    "keys of many types": (
        "CREATE TABLE t (k PRIMARY KEY NOT NULL, v INTEGER)",
        [(1, 1), ("1", 2), (b"1", 3), (1.5, 4), ("x", 5), ("y", 6)],
    ),
    "long keys": (
        "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v INTEGER)",
        [("x" * 9000, 1), ("x" * 9001, 2), ("y", 3)],
    ),
    "misfits without a key": (
        "CREATE TABLE t (x TEXT, y INTEGER)",
        [("a\0", 1), ("a\0", 1), ("b", 2), ("b", "two"), (None, None)],
    ),
    "a table name of 80 bytes": ("", []),
    "reserved column names": (
        "CREATE TABLE t (ctid INTEGER PRIMARY KEY, xmin TEXT, tableoid REAL)",
        [(1, "a", 1.5), (2, None, None)],
    ),
}

# Columns that are no vectors by evidence alone.
FORCED = {"another dimension": ["t.embedding"]}


def misfit(name: str, path: Path) -> Path:
    """Make the file of one kind of misfit."""
    if name == "a table name of 80 bytes":
        long = "é" * 39
        return made(
            path,
            "".join(
                f'CREATE TABLE "{long}{tail}" ("{long}x" INTEGER PRIMARY KEY, "{long}y" TEXT);'
                f"INSERT INTO \"{long}{tail}\" VALUES (1, '{tail}');"
                for tail in ("aa", "ab")
            ),
        )
    return filled(path, *MISFITS[name])


def crash_store(path: Path) -> Path:
    """Make a store of some thousand rows with all kinds of keys, vectors, children and misfits."""

    def fill(db: sqlite3.Connection) -> None:
        rng = random.Random(7)
        db.executescript(
            """
            CREATE TABLE part (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT, weight REAL, tags JSON,
                embedding BLOB, code TEXT UNIQUE);
            CREATE TABLE piece (k TEXT NOT NULL, n INTEGER NOT NULL, part INTEGER REFERENCES part (id), v TEXT,
                PRIMARY KEY (k, n)) WITHOUT ROWID;
            CREATE TABLE loose (x TEXT, y INTEGER);
            CREATE TABLE named (k TEXT PRIMARY KEY, v BLOB);
            CREATE INDEX part_weight ON part (weight DESC);
            CREATE INDEX piece_part ON piece (part);
            """
        )
        for i in range(1, 401):
            body = f"body {i} " + "x" * rng.randint(0, 60) + ("\0" if i % 37 == 0 else "")
            embedding = vector(*(rng.gauss(0, 1) for _ in range(4))) if i % 5 else None
            if i % 61 == 0:
                embedding = vector(float("nan"), 0.0, 1.0, 2.0)
            tags = '{"n": 1}' if i % 41 else '{"a": 1, "a": 2}'
            db.execute(
                "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (i, body, i / 3, tags, embedding, f"c{i}")
            )
        for i in range(300):
            v: Any = f"v{i}" if i % 43 else b"blob"
            db.execute("INSERT INTO piece VALUES (?, ?, ?, ?)", (f"k{i % 30}", i, i + 1, v))
        for i in range(300):
            db.execute(
                "INSERT INTO loose VALUES (?, ?)", (f"x{i % 20}" + ("\0" if i % 70 == 1 else ""), i % 15)
            )
        for i in range(120):
            db.execute("INSERT INTO named VALUES (?, ?)", (None if i % 50 == 3 else f"n{i}", bytes([i])))

    return made(path, fill)


def change(path: Path) -> None:
    """Change rows of a `crash_store`: some updated, some removed, some added, in every table."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            UPDATE part SET body = body || '!' WHERE id % 9 = 0;
            UPDATE part SET code = 'c' || (id + 1000) WHERE id % 10 = 1;
            UPDATE part SET body = 'healed' WHERE id % 37 = 0;
            UPDATE part SET body = 'broken' || char(0) WHERE id % 53 = 0;
            DELETE FROM part WHERE id > 390;
            INSERT INTO part (body, code) VALUES ('new', 'n1'), ('new' || char(0), 'n2');
            DELETE FROM piece WHERE n % 17 = 3;
            INSERT INTO piece VALUES ('new', 1, 1, NULL);
            DELETE FROM loose WHERE rowid % 23 = 5;
            INSERT INTO loose VALUES ('x1', 1), ('x1', 1), (NULL, NULL);
            DELETE FROM named WHERE k IS NULL AND rowid > 60;
            UPDATE named SET v = x'ff' WHERE rowid % 11 = 0;
            """
        )
