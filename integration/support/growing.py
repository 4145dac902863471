"""A store that grows after its migration into one that keeps vectors apart from a sidecar."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.support import stores
from migrate import api
from migrate.config import PineconeSettings, QdrantSettings
from migrate.errors import VerifyError


def check_it_is_written_as_it_was_made(
    there: QdrantSettings | PineconeSettings, folder: Path, **chosen: Any
) -> None:
    """Migrate a store, let vectors appear where none were and vanish where some were, and migrate again."""
    ddl = "CREATE TABLE {name} (id INTEGER PRIMARY KEY, embedding BLOB)"
    source = stores.filled(
        folder / "a.sqlite", ddl.format(name="v"), [(i, stores.vector(i + 1, 1, 2)) for i in range(9)], "v"
    )
    stores.made(source, ddl.format(name="t"))
    assert api.migrate(source, there, **chosen).verified
    with closing(sqlite3.connect(str(there.sidecar))) as db, db:
        db.execute("INSERT INTO t VALUES (99, x'01')")  # the agent's, in a table that is no vectors yet
    stores.made(
        source,
        lambda db: [db.execute("INSERT INTO t VALUES (?, ?)", (i, stores.vector(1, i))) for i in range(60)],
        "UPDATE v SET embedding = NULL; INSERT INTO v VALUES (9, NULL)",
    )
    dry = api.audit(source, there)
    with pytest.raises(VerifyError) as raised:
        api.migrate(source, there, update=True, **chosen)
    report = raised.value.report
    shown = [d for t in report.tables if t.differences for d in t.differences["shown"]]
    assert shown == [{"table": "t", "what": "extra", "key": [99]}]
    for notes in (dry.notes, report.notes):
        assert any("t.embedding: stays blob, as the earlier migration made it" in note for note in notes)
        assert any("v.embedding: stays vector(3)" in note for note in notes)
    api.migrate(there, folder / "b.sqlite")
    with closing(sqlite3.connect(folder / "b.sqlite")) as db:
        assert db.execute("SELECT count(*), count(embedding) FROM v").fetchall() == [(10, 0)]
        assert db.execute("SELECT embedding FROM t WHERE id = 99 OR id = 59").fetchall() == [
            (stores.vector(1, 59),),
            (b"\x01",),
        ]
