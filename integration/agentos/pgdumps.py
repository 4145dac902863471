"""Loads plain pg_dump files, without psql."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

_COPY = re.compile(r"^(COPY [^\n]* FROM stdin);\n(.*?)^\\\.\n", re.MULTILINE | re.DOTALL)
_PSQL_ONLY = re.compile(r"^\\(?:un)?restrict .*\n", re.MULTILINE)


def load(url: str, dump: Path) -> None:
    """Run a dump's statements and COPY blocks in a database."""
    text = _PSQL_ONLY.sub("", dump.read_text("utf-8"))
    with psycopg.connect(url, autocommit=True) as connection:
        at = 0
        for block in _COPY.finditer(text):
            connection.execute(text[at : block.start()].encode())
            with connection.cursor().copy(block[1].encode()) as copy:
                copy.write(block[2].encode())
            at = block.end()
        connection.execute(text[at:].encode())
