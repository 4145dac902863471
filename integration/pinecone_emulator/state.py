"""The state file: indexes and records in SQLite, so that a killed emulator continues where it was.

One transaction per request, committed before the answer leaves. synchronous=OFF survives the death of the
process (what tests do), not that of the machine.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from integration.pinecone_emulator.namespace import Record
from integration.pinecone_emulator.vectors import Sparse

_SCHEMA = """
create table if not exists indexes (name text primary key, document text not null);
create table if not exists namespaces (host text, name text, schema text, primary key (host, name));
create table if not exists records (
    host text, namespace text, id text, dense blob, indices blob, weights blob, metadata text,
    primary key (host, namespace, id));
create table if not exists imports (host text, id text, document text not null, primary key (host, id));
"""


class State:
    """The state file, or nothing at all when path is None. Rows are keyed by the index's unique id."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        if path is not None:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.executescript(f"pragma journal_mode=wal; pragma synchronous=off; {_SCHEMA}")

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _run(self, *steps: tuple[str, Iterable[tuple[Any, ...]]]) -> None:
        """Run statements in one transaction."""
        with self._lock:
            if self._db is None:
                return
            self._db.execute("begin immediate")
            try:
                for sql, rows in steps:
                    self._db.executemany(sql, rows)
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def _rows(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return [] if self._db is None else self._db.execute(sql, values).fetchall()

    def save_index(self, name: str, document: dict[str, Any]) -> None:
        self._run(("insert or replace into indexes values (?, ?)", [(name, json.dumps(document))]))

    def drop_index(self, name: str, host: str) -> None:
        self._run(
            ("delete from indexes where name = ?", [(name,)]),
            ("delete from namespaces where host = ?", [(host,)]),
            ("delete from records where host = ?", [(host,)]),
            ("delete from imports where host = ?", [(host,)]),
        )

    def indexes(self) -> list[dict[str, Any]]:
        return [
            json.loads(document) for (document,) in self._rows("select document from indexes order by name")
        ]

    def put(self, host: str, namespace: str, records: Iterable[Record]) -> None:
        self._run(
            ("insert or ignore into namespaces values (?, ?, null)", [(host, namespace)]),
            (
                "insert or replace into records values (?, ?, ?, ?, ?, ?, ?)",
                [(host, namespace, *_row(record)) for record in records],
            ),
        )

    def drop(self, host: str, namespace: str, ids: Iterable[str]) -> None:
        where = "host = ? and namespace = ? and id = ?"
        self._run((f"delete from records where {where}", [(host, namespace, one) for one in ids]))

    def clear(self, host: str, namespace: str) -> None:
        self._run(("delete from records where host = ? and namespace = ?", [(host, namespace)]))

    def create_namespace(self, host: str, namespace: str, schema: dict[str, Any] | None) -> None:
        self._run(("insert into namespaces values (?, ?, ?)", [(host, namespace, json.dumps(schema))]))

    def drop_namespace(self, host: str, namespace: str) -> None:
        self._run(
            ("delete from namespaces where host = ? and name = ?", [(host, namespace)]),
            ("delete from records where host = ? and namespace = ?", [(host, namespace)]),
        )

    def namespaces(self, host: str) -> Iterator[tuple[str, dict[str, Any] | None, list[Record]]]:
        sql = (
            "select id, dense, indices, weights, metadata from records "
            "where host = ? and namespace = ? order by rowid"
        )
        for name, schema in self._rows("select name, schema from namespaces where host = ?", host):
            records = [_record(*row) for row in self._rows(sql, host, name)]
            yield name, json.loads(schema) if schema else None, records

    def save_import(self, host: str, document: dict[str, Any]) -> None:
        self._run(
            (
                "insert or replace into imports values (?, ?, ?)",
                [(host, document["id"], json.dumps(document))],
            )
        )

    def imports(self, host: str) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self._rows("select document from imports where host = ?", host)]


def _row(record: Record) -> tuple[Any, ...]:
    dense = None if record.values is None else record.values.tobytes()
    indices = weights = None
    if record.sparse is not None:
        indices = np.array(record.sparse.indices, np.uint32).tobytes()
        weights = record.sparse.values.tobytes()
    metadata = None if record.metadata is None else json.dumps(record.metadata)
    return record.id, dense, indices, weights, metadata


def _record(
    one: str, dense: bytes | None, indices: bytes | None, weights: bytes, metadata: str | None
) -> Record:
    values = None if dense is None else np.frombuffer(dense, np.float32)
    sparse = None
    if indices is not None:
        sparse = Sparse(tuple(np.frombuffer(indices, np.uint32).tolist()), np.frombuffer(weights, np.float32))
    return Record(one, values, sparse, None if metadata is None else json.loads(metadata))
